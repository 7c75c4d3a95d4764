"""A Sentinel failover: the limiter follows to the new master, and workers go on.

What was written and not yet replicated is lost by a failover; so each test waits for it.
"""

from __future__ import annotations

import os
import signal
import time

import pytest
from redis import Redis

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter import Limiter, client
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.outcomes import Denied, Granted
from tests.limiter.test_async_acquire import silent
from tests.support.recording import highest_overlap, read_records
from tests.support.sentinels import Trio
from tests.support.sites import site
from tests.support.workers import settle, wait_for

HEADERS = {"account": "a"}


def test_the_limiter_follows_to_the_new_master(tmp_path):
    with Trio(tmp_path) as trio, connect(trio.url) as redis:
        settle(redis)
        limiter = Limiter(redis)
        first = limiter.try_acquire("task:1", HEADERS, lease=60)
        assert isinstance(first, Granted)
        trio.let_fail_over()
        trio.master.kill()
        killed = time.monotonic()

        def asked():
            try:
                return limiter.try_acquire(f"task:{time.monotonic()}", HEADERS)
            except LimiterUnavailable:
                return None

        assert isinstance(wait_for(asked), Denied)
        print(f"followed after {time.monotonic() - killed:.1f} s")
        with Redis(port=trio.replica.port) as direct:
            assert direct.info("replication")["role"] == "master"
            assert direct.zrange("concurrency:semaphore:account:a", 0, -1) == [b"task:1"]
        limiter.release("task:1")
        second = limiter.try_acquire("task:2", HEADERS)
        assert isinstance(second, Granted)
        assert second.fence > first.fence


def test_a_beat_follows_when_the_master_hangs(tmp_path):
    """It refuses nothing: each call runs into its time-out, and the next comes soon after."""
    with Trio(tmp_path) as trio, connect(trio.url) as redis:
        settle(redis)
        limiter = Limiter(redis)
        token = "task:1"
        assert isinstance(limiter.try_acquire(token, HEADERS, lease=60), Granted)
        limiter.leases.beat({token}, 60)
        trio.let_fail_over()
        os.kill(trio.master.pid, signal.SIGSTOP)
        stopped = time.monotonic()

        def beat():
            try:
                limiter.leases.beat({token}, 60)
            except LimiterUnavailable:
                return False
            return True

        try:
            wait_for(beat)
        finally:
            os.kill(trio.master.pid, signal.SIGCONT)
        print(f"followed after {time.monotonic() - stopped:.1f} s")
        with Redis(port=trio.replica.port) as direct:
            assert direct.info("replication")["role"] == "master"


def test_without_a_master_nobody_else_is_asked(tmp_path, monkeypatch):
    """Least of all the server at redis-py's own default, which may be anybody's."""
    monkeypatch.setattr(client, "IDLE_SECONDS", 0)
    with Trio(tmp_path) as trio, connect(trio.url) as redis:
        settle(redis)
        limiter = Limiter(redis)
        assert isinstance(limiter.try_acquire("task:1", HEADERS), Granted)
        ((one, _),) = redis._idle
        for server in (trio.master, trio.replica, *trio.sentinels):
            server.kill()
        with pytest.raises(LimiterUnavailable):
            limiter.leases.beat({"task:1"}, 60)
        assert one.port == trio.master.port
        assert not redis._idle


def test_a_worker_goes_on_after_a_failover(server, tmp_path):
    """What runs keeps its token, and the next task waits for its end."""
    env = {"WORKER_TIMEOUT": "10"}
    with Trio(tmp_path) as trio, connect(trio.url) as redis:
        settle(redis)
        with site(server, tmp_path, "crashes", db=6, LIMITER_URL=trio.url, **env) as one:
            for _ in range(2):
                one.start(concurrency=1)
            running = one.tasks.stay.apply_async(headers=HEADERS)
            wait_for(one.ran)
            trio.let_fail_over()
            trio.master.kill()
            waiting = one.tasks.work.apply_async(headers=HEADERS)
            with Redis(port=trio.replica.port) as direct:
                [(token, ends)] = direct.zrange("concurrency:leases", 0, -1, withscores=True)
                wait_for(lambda: direct.time()[0] > ends, what="the lease of before is over")
                wait_for(lambda: direct.zscore("concurrency:leases", token) > ends)
            one.wait_until_waiting(waiting)
            one.redis.rpush("go on", "1")
            assert running.get(timeout=60) is False
            assert waiting.get(timeout=60) == "done"
            ids = {running.id, waiting.id}
            runs = [run for run in read_records(one.url) if run.task_id in ids]
            assert len(runs) == 2
            assert highest_overlap(runs) == 1
            assert "keeps running without its tokens" not in one.output()
            with Redis(port=trio.replica.port) as direct:
                wait_for(lambda: not direct.keys("concurrency:semaphore:*"))


def test_an_event_loop_asks_the_same_master(tmp_path):
    with Trio(tmp_path) as trio:
        with connect(trio.url) as redis:
            settle(redis)
        silent(trio.url)
