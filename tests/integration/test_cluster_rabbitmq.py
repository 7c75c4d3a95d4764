"""Tokens and waiting tasks in a Redis Cluster, messages in RabbitMQ: no failover loses a task.

``test_handoff_rabbitmq.py`` has more of the outbox, ``test_cluster.py`` more of a cluster. The
second test leaves a cluster without one of its nodes.
"""

from __future__ import annotations

import pytest

from tests.support.clusters import Cluster
from tests.support.rabbit import rabbit_site, require_rabbitmq
from tests.support.recording import by, highest_overlap, read_records
from tests.support.workers import settle, wait_for

KEY = "{concurrency}"


@pytest.fixture(scope="module")
def nodes():
    require_rabbitmq()
    with Cluster() as nodes:
        with nodes.master_of(KEY).client() as client:
            settle(client, KEY)
        yield nodes


@pytest.fixture(scope="module")
def room(nodes, server, tmp_path_factory):
    """A worker on RabbitMQ, whose tasks wait in the cluster."""
    directory = tmp_path_factory.mktemp("cluster")
    env = {"LIMITER_URL": nodes.url, "COUNTDOWN": "0.5"}
    with rabbit_site(server, directory, "handoff", db=2, **env) as room:
        room.start(concurrency=4)
        yield room


def found(nodes, name):
    with nodes.master_of(KEY).client() as client:
        return client.keys(f"{KEY}:{name}")


def send(room, count, seconds=0.0, account="a"):
    headers = {"account": account}
    return [room.tasks.publish.apply_async((seconds,), headers=headers) for _ in range(count)]


def runs_of(room, results):
    ids = {result.id for result in results}
    return [run for run in read_records(room.url) if run.task_id in ids]


def assert_all_run_by_turns(nodes, room, results):
    """Each once, and no two of an account at a time; nothing of them is left."""
    assert [result.get(timeout=90) for result in results] == [result.id for result in results]
    for name in ("semaphore:*", "waiter:*", "outbox"):
        wait_for(lambda name=name: not found(nodes, name), what=f"no {name} is left")
    runs = runs_of(room, results)
    assert sorted(run.task_id for run in runs) == sorted(result.id for result in results)
    accounts = by(runs, lambda run: run.headers["account"])
    assert {highest_overlap(runs) for runs in accounts.values()} == {1}


def test_all_run_while_the_master_hands_over(nodes, room):
    results = [one for name in "ab" for one in send(room, 15, 0.05, account=name)]
    wait_for(lambda: len(runs_of(room, results)) >= 4)
    assert found(nodes, "waiter:*")
    nodes.fail_over(KEY)
    assert_all_run_by_turns(nodes, room, results)
    assert found(nodes, "outbox:number"), "they came back by the outbox"


def test_all_run_though_the_master_is_killed(nodes, room):
    """Those who wait by then, and those who arrive while nobody has the tokens."""
    results = [room.tasks.stay.apply_async(headers={"account": "a"})]
    wait_for(lambda: room.ran() == ["stays"])
    results += send(room, 5)
    wait_for(lambda: len(found(nodes, "waiter:*")) == 5)
    nodes.kill(KEY)
    results += send(room, 3) + send(room, 3, account="b")
    nodes.master_of(KEY)
    room.redis.rpush("go on", "1")
    assert_all_run_by_turns(nodes, room, results)
