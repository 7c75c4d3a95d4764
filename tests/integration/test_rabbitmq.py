"""RabbitMQ as the broker: the tokens are in Redis, those who wait go through the broker."""

from __future__ import annotations

import pytest

from tests.support.rabbit import delete, require_rabbitmq, unique
from tests.support.recording import (
    BEGUN_KEY,
    FULL_KEY,
    by,
    highest_overlap,
    read_records,
    records_client,
)
from tests.support.sites import RAN, site
from tests.support.workers import wait_for


@pytest.fixture(scope="module")
def classic(server, tmp_path_factory):
    """A project with a classic queue and one worker."""
    url, name = require_rabbitmq(), unique("classic")
    env = {"BROKER_URL": url, "QUEUE": name, "QUORUM": "", "COUNTDOWN": "0.3"}
    try:
        with site(server, tmp_path_factory.mktemp("classic"), "rabbit", **env) as one:
            one.start(concurrency=4)
            yield one
    finally:
        delete([name], [name])


def test_two_of_one_account_never_run_at_once(classic):
    """The seed's heart: twenty 0.1 s tasks over two accounts on four processes."""
    publish = classic.tasks.publish_when_full
    accounts = ["account:acc0", "account:acc1"]
    with records_client(classic.url) as seen:
        seen.delete(BEGUN_KEY, FULL_KEY)
        results = [
            publish.apply_async((accounts, 0.1), headers={"account": f"acc{number % 2}"})
            for number in range(20)
        ]
        # Whether short bodies overlap is up to the machine.
        wait_for(lambda: seen.get(BEGUN_KEY) == "2", what="both bodies have begun")
        seen.sadd(FULL_KEY, *accounts)
    assert [result.get(timeout=60) for result in results] == [result.id for result in results]
    ids = {result.id for result in results}
    records = [record for record in read_records(classic.url) if record.task_id in ids]
    assert len(records) == 20
    runs_of = by(records, lambda record: record.headers["account"])
    assert {name: highest_overlap(runs) for name, runs in runs_of.items()} == {
        "acc0": 1,
        "acc1": 1,
    }
    assert highest_overlap(records) == 2


def test_a_message_that_waited_arrives_as_one_that_did_not(classic):
    options = {
        "headers": {"account": "seen", "mine": {"deep": [1, "ü"]}},
        "priority": 7,
        "app_id": "an app",
        "message_id": "m1",
        "type": "a type",
    }
    seen = classic.tasks.seen
    expected = seen.apply_async(**options).get(timeout=30)
    assert expected["priority"] == 7
    assert expected["properties"]["app_id"] == "an app"
    with classic.held(account="seen"):
        waited = seen.apply_async(**options)
        classic.wait_until_waiting(waited, times=2)
    assert waited.get(timeout=30) == expected


def test_quorum_queues_hold_back_those_who_wait(server, tmp_path):
    """By Celery's delay queues: a waiting message is in no worker's memory."""
    url, name = require_rabbitmq(), unique("quorum")
    env = {"BROKER_URL": url, "QUEUE": name, "QUORUM": "1", "COUNTDOWN": "1"}
    try:
        with site(server, tmp_path, "rabbit", db=1, **env) as quorum:
            quorum.start(concurrency=2)
            with quorum.held(account="a"):
                result = quorum.tasks.seen.apply_async(headers={"account": "a"})
                quorum.wait_until_waiting(result, times=3)
                assert quorum.redis.lrange(RAN, 0, -1) == []
            view = result.get(timeout=30)
            assert view["headers"]["account"] == "a"
            assert not any(header.startswith("concurrency") for header in view["headers"])
            assert view["exchange"].startswith("celery_delayed")
            assert view["routing_key"].endswith(f".{name}")
            wait_for(lambda: quorum.output().count(f"[{result.id}] received") >= 3)
            assert quorum.ran() == [f"seen {result.id}"]
            quorum.wait_until_free()
    finally:
        delete([name], [name])
