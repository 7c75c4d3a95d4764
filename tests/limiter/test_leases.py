"""Promises 4 and 7 on the limiter's floor: leases, beats, sweeps, and a loss of data."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from weakref import WeakSet

import pytest
from celery.worker import state as worker_state

from celery_concurrency.errors import ConfigConflict, LimiterUnavailable
from celery_concurrency.limiter import Limiter, caller
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.outcomes import Granted, Repeated, Ticket
from celery_concurrency.testing.server import Server
from celery_concurrency.worker.heartbeat import Heartbeat
from celery_concurrency.worker.housekeeping import Housekeeping
from celery_concurrency.worker.run import token_of
from tests.support.tracing import request_of
from tests.support.workers import settle, wait_for

LEASES = "concurrency:leases"
ACCOUNT = "concurrency:semaphore:account:a"
#: Above all ids that Linux gives.
NO_PROCESS = 2**22 + 1


def granted(limiter, token="task:1", lease=30.0):
    answer = limiter.try_acquire(token, {"account": "a"}, lease=lease)
    assert isinstance(answer, Granted)
    return answer


def now(redis):
    """Return the server's time."""
    seconds, micros = redis.time()
    return seconds + micros / 1e6


def test_a_timeout_shorter_than_the_beats_ends_no_living_run(limiter, redis):
    limiter.config.update({"timeout": 1})
    begun = now(redis)
    granted(limiter)
    assert redis.zscore(LEASES, "task:1") > begun + 4
    for _ in range(2):
        begun = now(redis)
        limiter.leases.beat({"task:1"}, 30)
        assert redis.zscore(LEASES, "task:1") > begun + 4


def test_each_beat_renews_a_short_lease(limiter, redis):
    """Else one that misses a beat or two has nothing left."""
    granted(limiter, lease=5)
    first_end = redis.zscore(LEASES, "task:1")
    wait_for(lambda: now(redis) > first_end - 4.8)
    begun = now(redis)
    limiter.leases.beat({"task:1"}, 5)
    assert redis.zscore(LEASES, "task:1") > begun + 4.9


def test_after_some_seconds_without_a_sweep_nothing_is_taken_back(limiter, redis):
    """In that time nobody could renew anything; those who live come first."""
    granted(limiter)
    seconds, _ = redis.time()
    redis.zadd(LEASES, {"task:1": 1})
    redis.set("concurrency:sweep:next", seconds - 3)
    assert limiter.waiting_room.sweep() == 0
    assert limiter.leases.beat({"task:1"}, 30) == set()
    assert redis.zrange(ACCOUNT, 0, -1) == ["task:1"]


def test_a_silent_workers_token_is_in_usage_until_it_is_taken_back(limiter, redis):
    """It keeps its account full, and who asks why has to see it there."""
    granted(limiter)
    redis.zadd(LEASES, {"task:1": 1})
    assert limiter.usage().accounts["a"].current == 1
    limiter.waiting_room.sweep(now=True)
    assert limiter.usage().accounts == {}


def test_a_lease_is_not_lost_with_the_data_but_when_nobody_brings_it_back(limiter, redis):
    lease = limiter.lease_of(granted(limiter), 30)
    limiter.leases.beat({"task:1"}, 30)
    assert lease.lost is False
    redis.flushall()
    assert lease.lost is False
    limiter.config.sync()
    redis.hset("concurrency:config:flat", "opens", now(redis) + 600)
    assert lease.lost is False
    limiter.leases.beat({"task:1"}, 30)
    assert redis.zrange(ACCOUNT, 0, -1) == ["task:1"]
    redis.flushall()
    limiter.config.sync()
    settle(redis)
    redis.hset("concurrency:config:flat", "opens", 1)
    assert lease.lost is True


def test_one_who_waits_outside_of_tasks_asks_anew_after_a_loss_of_data(limiter, redis, monkeypatch):
    monkeypatch.setattr(caller, "STAY_SECONDS", 1)
    done = threading.Event()

    def call():
        with limiter.acquire(account="a"):
            done.set()

    with limiter.acquire(account="a"):
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        wait_for(lambda: redis.exists("concurrency:groups"))
        redis.flushall()
        settle(redis)
    assert done.wait(60)
    thread.join(60)


def test_a_run_that_began_without_redis_is_counted_however_long_that_is_away():
    """Also where the first tries to count it find Redis away still."""
    with Server() as server:
        client = connect(server.url())
        settle(client)
        limiter = Limiter(client)
        limiter.config.sync()
        server.kill()
        with pytest.raises(LimiterUnavailable):
            limiter.try_acquire("task:1", {"account": "a"})
        limiter.count_later("task:1", {"account": "a"}, lease=30)
        tried = time.monotonic()
        wait_for(lambda: time.monotonic() - tried > 2.5)
        server.start()
        wait_for(lambda: client.zrange(ACCOUNT, 0, -1) == [b"task:1"])
        limiter.release("task:1")
        assert not client.exists(ACCOUNT)
        client.close()


def test_a_run_that_began_without_redis_is_counted_at_the_place_where_it_waited(limiter, redis):
    """So that a second copy of its message is known."""
    place = Ticket(1, "task:1", ("global", "account:a"))
    limiter.count_later("task:2", {"account": "a"}, lease=30, ticket=place)
    wait_for(lambda: redis.zrange(ACCOUNT, 0, -1) == ["task:2"])
    assert limiter.try_acquire("task:3", {"account": "b"}, ticket=place) == Repeated("task:2")


def test_what_can_not_be_counted_holds_up_no_other(limiter, redis):
    limiter.count_later("task:1", {"account": ""})
    limiter.count_later("task:2", {"account": "a"}, lease=30)
    wait_for(lambda: redis.zrange(ACCOUNT, 0, -1) == ["task:2"])
    wait_for(lambda: not limiter._later._tokens, what="nothing left to do")


class Beats:
    """A limiter that notes what it is asked to release."""

    def __init__(self):
        self.released = []

    def release(self, token, *, began):
        self.released.append(token)
        return True


@pytest.fixture
def beats(monkeypatch):
    limiter = Beats()
    monkeypatch.setattr(worker_state, "requests", {})
    monkeypatch.setattr(worker_state, "scheduled_requests", set())
    beats = Heartbeat(limiter, 30)
    beats.limiter = limiter
    return beats


def test_a_redelivered_task_is_not_taken_for_its_run_that_died(beats):
    """It has the same id, is another run, and stands in front of its child just now."""
    for request in (request_of("task:died", NO_PROCESS), request_of("task:lives")):
        beats.on_received(request)
    beats.release_dead()
    assert beats.limiter.released == ["task:died"]


def test_a_run_that_died_between_two_looks_gives_its_tokens_back(beats):
    """Celery itself has forgotten it by then, and sent no signal, as it comes again."""
    beats.on_received(request_of("task:1", NO_PROCESS))
    beats.release_dead()
    assert beats.limiter.released == ["task:1"]
    beats.release_dead()
    assert beats.limiter.released == ["task:1"]


def test_of_several_runs_that_are_lost_at_once_each_is_told(limiter, redis, monkeypatch, caplog):
    """All are logged before anything is done about one, and one that fails stops no other."""
    requests = [request_of(f"task{number}:1") for number in range(3)]
    monkeypatch.setattr(worker_state, "active_requests", WeakSet(requests))
    limiter.config.update({"account_max": 0})
    told = []

    def on_lost(request):
        assert caplog.text.count("keeps running without its tokens") == 3
        told.append(request.id)
        raise OSError(f"no way to {request.id}")

    beats = Heartbeat(limiter, 30, on_lost)
    for request in requests:
        granted(limiter, token_of(request))
    beats.beat()
    assert told == []
    for key in (LEASES, ACCOUNT, "concurrency:semaphore:global"):
        redis.zadd(key, dict.fromkeys(redis.zrange(key, 0, -1), 1))
    assert limiter.waiting_room.sweep(now=True) == 3
    beats.beat()
    assert sorted(told) == ["task0", "task1", "task2"]
    assert caplog.text.count("OSError: no way to") == 3


def test_what_fails_in_a_tick_stops_no_beat(limiter, monkeypatch):
    beats = []
    monkeypatch.setattr(limiter.config, "sync", lambda: (_ for _ in ()).throw(ConfigConflict()))
    one = SimpleNamespace(beat=lambda: beats.append(1))
    ticker = Housekeeping(limiter, one, greet=lambda: {}["no such thing"])
    ticker.tick()
    ticker.tick()
    assert beats == [1, 1]
