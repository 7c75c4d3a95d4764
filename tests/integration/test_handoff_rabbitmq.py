"""Hand-over where the broker is RabbitMQ: by way of the outbox, whoever is killed at it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from kombu import Connection
from redis import Redis

from celery_concurrency import TooManyWaiting, WaitedTooLong
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.worker.message import TaskMessage
from celery_concurrency.worker.outbox import Sender
from tests.support.floor import Floor
from tests.support.rabbit import rabbit_site, require_rabbitmq, unique
from tests.support.recording import by, highest_overlap, read_records
from tests.support.workers import settle, wait_for

#: Releases a token as a worker's child does, and is killed in the middle of it.
KILLED_SENDER = """
import os, sys
from celery_concurrency.limiter import waiting_room
from celery_concurrency.worker.apps import limiter_of
from celery_concurrency.worker.message import TaskMessage
from tests.projects.rabbit import app

name, token = sys.argv[1:]
owner, call = {
    "claim": (waiting_room.WaitingRoom, "claim"),
    "publish": (TaskMessage, "publish"),
    "confirm": (waiting_room.WaitingRoom, "confirm"),
}[name]
original = getattr(owner, call)
waiting_room.CLAIM_SECONDS = 1

def killed(*args, **kwargs):
    original(*args, **kwargs)
    os._exit(9)

setattr(owner, call, killed)
limiter_of(app).release(token)
"""


@pytest.fixture(scope="module")
def room(server, tmp_path_factory):
    with rabbit_site(server, tmp_path_factory.mktemp("outbox"), "handoff") as one:
        one.start(concurrency=3)
        yield one


@pytest.fixture(autouse=True)
def nothing_left(request):
    yield
    if "room" in request.fixturenames:
        room = request.getfixturevalue("room")
        room.wait_until_free()
        assert room.waiting() == set()
        wait_for(lambda: outbox(room) == [], what="the outbox is empty")


def outbox(room):
    return [key for key in room.redis.keys("concurrency:outbox*") if not key.endswith(":number")]


def send(room, count, seconds=0.0, **tags):
    return [room.tasks.publish.apply_async((seconds,), headers=tags) for _ in range(count)]


def runs_of(room, results):
    """Wait until all of these have ended; return their records, of which each has one."""
    assert [result.get(timeout=60) for result in results] == [result.id for result in results]
    ids = {result.id for result in results}
    runs = [run for run in read_records(room.url) if run.task_id in ids]
    assert sorted(run.task_id for run in runs) == sorted(ids)
    return runs


def test_two_of_one_account_never_run_at_once_and_nobody_waits_for_a_countdown(room):
    results = [send(room, 1, 0.05, account=str(number % 2))[0] for number in range(20)]
    accounts = by(runs_of(room, results), lambda run: run.headers["account"])
    assert {name: highest_overlap(runs) for name, runs in accounts.items()} == {"0": 1, "1": 1}
    assert all(room.waits(result) <= 1 for result in results)


def test_tasks_of_one_account_run_in_the_order_in_which_they_asked(room):
    results = []
    with room.held(account="order"):
        for _ in range(15):
            results += send(room, 1, account="order")
            room.wait_until_parked(results[-1])
    assert [run.task_id for run in runs_of(room, results)] == [result.id for result in results]
    assert "is parked as it arrives" in room.output()


def test_one_too_many_is_refused_and_one_that_waited_too_long_is_given_up(room):
    """What is given up goes back to its queue by the outbox, and fails on a worker."""

    def bound(bounds):
        room.limiter.config.update({"waiting": {"account:bound": bounds}})

    bound({"most": 1})
    try:
        with room.held(account="bound"):
            late = send(room, 1, account="bound")
            room.wait_until_parked(*late)
            crowded = send(room, 1, account="bound")
            with pytest.raises(TooManyWaiting, match="account:bound"):
                crowded[0].get(timeout=60)
            bound({"most": None, "seconds": 1})
            with pytest.raises(WaitedTooLong, match="account:bound"):
                late[0].get(timeout=60)
        runs_of(room, send(room, 1, account="bound"))
    finally:
        bound(None)


def test_higher_priority_goes_first(room):
    """A larger number is a higher priority here, the other way round than with Redis."""
    results = {}
    with room.held(account="priority"):
        for priority in (1, 9, 5):
            results[priority] = room.tasks.publish.apply_async(
                (0,), headers={"account": "priority"}, priority=priority
            )
            room.wait_until_parked(results[priority])
    runs = runs_of(room, list(results.values()))
    assert [run.task_id for run in runs] == [results[priority].id for priority in (9, 5, 1)]


def test_a_message_that_waited_arrives_as_one_that_did_not(room):
    options = {
        "headers": {"account": "seen", "mine": {"deep": [1, "ü", [], {}]}},
        "priority": 7,
        "app_id": "an app",
        "message_id": "m1",
        "type": "a type",
        "compression": "zlib",
    }
    expected = room.tasks.seen.apply_async(**options).get(timeout=30)
    with room.held(account="seen"):
        waited = room.tasks.seen.apply_async(**options)
        room.wait_until_parked(waited)
    assert waited.get(timeout=30) == expected


@pytest.mark.parametrize("after", ["claim", "publish", "confirm"])
def test_a_sender_that_is_killed_loses_nothing_and_lets_nobody_run_twice(room, after):
    """Whatever it had done last. Somebody else sends what it had claimed, after a while."""
    with room.held(account=after) as token:
        [result] = send(room, 1, account=after)
        room.wait_until_parked(result)
        # The worker's own thread would be a sender too.
        [worker] = room.workers
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            sender = subprocess.run(
                [sys.executable, "-c", KILLED_SENDER, after, token], check=False, timeout=60
            )
            assert sender.returncode == 9
            assert room.waiting() == set()
            assert len(outbox(room)) == (0 if after == "confirm" else 2)
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        runs_of(room, [result])
    wait_for(lambda: outbox(room) == [], what="it was sent again")
    if after == "publish":
        wait_for(lambda: f"[{result.id}] dropped" in room.output(), what="the copy is dropped")
    runs_of(room, [result])


@pytest.fixture
def full_queue():
    """A queue that takes no message more, and says so."""
    name = unique("full")
    with Connection(require_rabbitmq()) as connection:
        channel = connection.channel()
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)
        connection.Producer().publish({}, exchange="", routing_key=name)
        yield channel, name
        channel.queue_delete(name)


def test_what_the_broker_does_not_confirm_stays_in_the_outbox(room, server, full_queue):
    """Without confirms, a message that a full queue refuses would be taken for sent."""
    channel, name = full_queue
    message = TaskMessage(
        body="{}", content_type="application/json", content_encoding="utf-8", compression=None,
        headers={"eta": None}, properties={}, expiration=None, exchange="", routing_key=name,
    )  # fmt: skip
    client = Redis.from_url(server.url(5), decode_responses=True)
    client.flushdb()
    settle(client)
    sender = Sender(lambda: room.tasks.app, lambda: limiter.waiting_room)
    limiter = Limiter(connect(server.url(5)), deliver=sender.send)
    floor = Floor(limiter, client, queue=None)
    limiter.config.sync()
    holder = floor.hold(account="a")
    denied = floor.ask("task", account="a")
    waiter = replace(floor.waiter(denied, {}), message=message.to_json())
    assert limiter.waiting_room.park(waiter) == "parked"
    limiter.release(holder)
    sender.finish(5)
    assert client.zcard("concurrency:outbox") == 1
    channel.queue_purge(name)
    client.zadd("concurrency:outbox", {"1": 1}, xx=True)
    floor.sweep()
    wait_for(lambda: client.zcard("concurrency:outbox") == 0)
    assert channel.queue_declare(name, passive=True).message_count == 1
    client.close()


def test_by_auto_those_who_wait_ask_again_and_the_log_says_so_once(server, tmp_path):
    with rabbit_site(server, tmp_path, "auto", db=1) as room:
        room.start(concurrency=2)
        with room.held(account="a"):
            [result] = send(room, 1, account="a")
            wait_for(lambda: room.waits(result) == 1 and result.state == "RETRY")
            assert room.waiting() == set()
        said = (
            "denied tasks ask again by countdown "
            "(the broker is not the Redis server that holds the tokens)"
        )
        assert room.output().count("denied tasks ask again") == 1
        assert said in room.output()
