"""Hand-over between workers of many kinds, and what is left of one that is killed."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import kombu
import pytest
from redis import Redis

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from tests.support.jotting import FILE, read_jots
from tests.support.recording import by, highest_overlap
from tests.support.sites import site
from tests.support.workers import settle, wait_for


@pytest.fixture
def room(server, tmp_path):
    """A project whose workers each test starts itself."""
    with site(server, tmp_path, "room", WAITING="auto", **{FILE: str(tmp_path / "jots")}) as one:
        yield one
        one.wait_until_free()
        assert one.waiting() == set()


def jots(room):
    return read_jots(room.directory / "jots")


def send(room, count, seconds=0.0, **tags):
    return [room.tasks.work.apply_async((seconds,), headers=tags) for _ in range(count)]


def counted(room, name):
    return room.limiter.stats.window("total").get(f"{name}:total", 0)


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_every_pool_hands_over(room, pool):
    room.start(pool=pool, concurrency=4)
    with room.held(account="0"), room.held(account="1"):
        results = [send(room, 1, 0.02, account=str(number % 2))[0] for number in range(12)]
        room.wait_until_parked(*results)
    assert [result.get(timeout=30) for result in results] == [result.id for result in results]
    accounts = by(jots(room), lambda run: run.headers["account"])
    assert {name: highest_overlap(runs) for name, runs in accounts.items()} == {"0": 1, "1": 1}
    assert sorted(run.task_id for run in jots(room)) == sorted(result.id for result in results)
    assert counted(room, "parked") == counted(room, "handed_over") == 12


def test_a_broker_in_another_database_with_prefixed_keys(server, tmp_path):
    """The script that hands over finds the queue all the same, and keeps it from expiring."""
    env = {"WAITING": "auto", "REDIS_URL": server.url(5), "KEYPREFIX": "mine:"}
    env[FILE] = str(tmp_path / "jots")
    with site(server, tmp_path, "room", db=1, **env) as one:
        with Redis.from_url(server.url(5)) as client:
            client.flushdb()
            settle(client)
        limiter = Limiter(connect(server.url(5)))
        holder = limiter.try_acquire("holder:1", {"account": "a"})
        worker = one.start(concurrency=1)
        results = send(one, 2, account="a")
        wait_for(lambda: all(one.waits(result) == 1 for result in results))
        wait_for(lambda: all(result.state == "RETRY" for result in results))
        # With nobody to read it, what is put back stays to be looked at.
        assert worker.stop() == 0
        assert not one.redis.exists("mine:celery")
        limiter.release(holder.token)
        assert one.redis.llen("mine:celery") == 1
        # Before kombu 5.7 no Redis queue expires.
        expires = one.redis.pttl("mine:celery")
        assert 0 < expires <= 600_000 or (expires == -1 and kombu.VERSION < (5, 7))
        one.start(concurrency=1)
        wait_for(lambda: [result.state for result in results] == ["SUCCESS"] * 2)
        wait_for(lambda: not limiter.redis.exists("concurrency:leases"))


def test_nobody_asks_again_while_it_waits(room):
    """Fifty who wait cost what five cost: the sweep of the fleet, and no call of their own."""
    room.start(pool="threads", concurrency=4)

    def calls_between_sweeps():
        """Count commands from one sweep to the next; the median, as the machine may stand still."""
        names = ("evalsha", "zadd", "zcard", "zrange", "set", "hmget")
        swept = room.redis.get("concurrency:sweep:next")
        counts = []
        for _ in range(6):
            swept = wait_for(
                lambda swept=swept: (
                    (now := room.redis.get("concurrency:sweep:next")) != swept and now
                )
            )
            stats = room.redis.info("commandstats")
            counts.append([stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in names])
        steps = [[b - a for a, b in zip(*two, strict=True)] for two in pairwise(counts)]
        return dict(zip(names, map(median, zip(*steps, strict=True)), strict=True))

    with room.held(account="quiet"):
        few = send(room, 5, account="quiet")
        room.wait_until_parked(*few)
        of_five = calls_between_sweeps()
        many = send(room, 45, account="quiet")
        room.wait_until_parked(*many)
        of_fifty = calls_between_sweeps()
        # A tick beside the sweep may be counted or not.
        assert all(count <= of_five[name] + 5 for name, count in of_fifty.items()), (
            of_five,
            of_fifty,
        )
        assert all(room.waits(result) == 1 for result in few + many)
    wait_for(lambda: len(jots(room)) == 50)


def test_a_worker_that_waits_by_countdown_beside_one_that_hands_over(room):
    room.start(concurrency=2)
    room.start(concurrency=2, env={"WAITING": "retry", "COUNTDOWN": "0.3"})
    results = send(room, 30, 0.03, account="mixed")
    ids = sorted(result.id for result in results)
    wait_for(lambda: sorted(run.task_id for run in jots(room)) == ids)
    assert highest_overlap(jots(room)) == 1
    wait_for(lambda: {result.state for result in results} == {"SUCCESS"})


def test_after_a_restart_in_retry_mode_those_who_wait_run_and_are_not_passed(room):
    """The new worker sweeps, and what is put back to it keeps its place."""
    first = room.start(concurrency=2)
    with room.held(account="restarted"):
        older = []
        for _ in range(4):
            older += send(room, 1, account="restarted")
            room.wait_until_parked(older[-1])
        assert first.stop() == 0
        room.start(concurrency=2, env={"WAITING": "retry", "COUNTDOWN": "0.2"})
        newer = send(room, 1, account="restarted")
        room.wait_until_waiting(*newer)
    results = [*older, *newer]
    wait_for(lambda: len(jots(room)) == 5)
    assert [run.task_id for run in jots(room)] == [result.id for result in results]
    wait_for(lambda: {result.state for result in results} == {"SUCCESS"})


def test_a_worker_killed_between_park_and_acknowledgement_loses_and_doubles_nothing(room):
    """Its message is parked and still in the broker too: the second copy merges."""
    with room.held(account="late"):
        killed = room.start(concurrency=1, env={"KILLED": "parked"})
        result = room.tasks.late.apply_async(headers={"account": "late"})
        wait_for(lambda: killed.process.poll() is not None, what="the worker was killed")
        assert room.waiting() == {result.id}
        assert room.redis.hlen("unacked") == 1
        # What is put back when its time is over, a worker looks for when it starts.
        room.redis.zadd("unacked_index", dict.fromkeys(room.redis.hkeys("unacked"), 1))
        room.start(concurrency=2)
        wait_for(lambda: room.waits(result) == 2 and not room.redis.exists("unacked", "celery"))
        assert room.waiting() == {result.id}
        assert counted(room, "parked") == 1
    wait_for(lambda: result.state == "SUCCESS")
    wait_for(lambda: not room.redis.exists("unacked", "celery"))
    assert [run.task_id for run in jots(room)] == [result.id]


def test_a_message_that_waited_is_what_it_was(room):
    """All that the sender said of it, and its body to the byte."""
    room.start(concurrency=2)
    headers = {"mine": {"deep": [1, "ü", [], {}]}, "big": 2**60, "account": "kept"}
    for options in (
        {"serializer": "reversed"},
        {"compression": "zlib"},
        {"priority": 5},
        {"serializer": "reversed", "compression": "bzip2", "priority": 9},
    ):
        everything = {"headers": headers, "expires": 600, "time_limit": 77, **options}
        with room.held(account="kept"):
            waits = room.tasks.seen.apply_async(("ü", [], {}, 2**60), **everything)
            room.wait_until_parked(waits)
        waited = waits.get(timeout=30)
        free = room.tasks.seen.apply_async(("ü", [], {}, 2**60), **everything).get(timeout=30)
        for view in (waited, free):
            for new in ("expires", "root_id", "correlation_id", "reply_to", "delivery_tag"):
                view.pop(new)
            view["properties"].pop("delivery_tag", None)
        assert waited == free
        assert waited["headers"] == headers
