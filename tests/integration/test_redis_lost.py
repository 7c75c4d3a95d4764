"""Promise 7: Redis emptied, restarted or away, and a worker that is cut off; in real processes.

The limiter has a server of its own here, which is reached through a proxy.
"""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest
from redis import Redis

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.outcomes import Granted
from celery_concurrency.testing.server import Server
from tests.support.proxies import Proxy
from tests.support.recording import highest_overlap, read_records
from tests.support.sites import RAN, site
from tests.support.workers import settle, wait_for

ACCOUNT = "concurrency:semaphore:account:a"
HEADERS = {"account": "a"}
KEEPS = ("--appendonly", "yes", "--appendfsync", "always")
#: Longer than every lease here, and than the configured timeout.
OUTAGE = 10


class Lost:
    """A site, the limiter's server behind a proxy, and a client that goes past that."""

    def __init__(self, site, server, proxy):
        self.site, self.server, self.proxy = site, server, proxy
        self.redis = Redis.from_url(server.url(), decode_responses=True)

    def holders(self):
        return self.redis.zrange(ACCOUNT, 0, -1)

    def begin(self):
        """Let a task run that a beat has renewed; return its result and its token.

        It stays until it is told to ``go_on``.
        """
        self.site.redis.delete(RAN)
        result = self.site.tasks.stay.apply_async(headers=HEADERS)
        wait_for(self.site.ran)
        [token] = self.holders()
        self.wait_for_a_beat(token)
        return result, token

    def go_on(self):
        self.site.redis.rpush("go on", "1")

    def wait_for_a_beat(self, token):
        before = self.redis.zscore("concurrency:leases", token)
        wait_for(lambda: self.redis.zscore("concurrency:leases", token) > before)


@pytest.fixture(scope="module")
def lost(server, tmp_path_factory):
    with Server(*KEEPS) as limiters:
        proxy = Proxy(limiters.port)
        with Redis.from_url(limiters.url()) as client:
            settle(client)
        env = {"LIMITER_URL": f"redis://127.0.0.1:{proxy.port}/0", "WORKER_TIMEOUT": "8"}
        with site(server, tmp_path_factory.mktemp("lost"), "crashes", db=3, **env) as one:
            for _ in range(2):
                one.start(concurrency=2)
            yield Lost(one, limiters, proxy)
        proxy.close()


def emptied(lost):
    lost.redis.flushall()


def restarted_empty(lost):
    lost.server.kill()
    shutil.rmtree(lost.server._dir / "appendonlydir")
    lost.server.start()


def restarted_with_its_data(lost):
    lost.server.kill()
    time.sleep(OUTAGE)
    lost.server.start()


def stopped(lost):
    os.kill(lost.server.pid, signal.SIGSTOP)
    time.sleep(OUTAGE)
    os.kill(lost.server.pid, signal.SIGCONT)


def out_of_reach(lost):
    lost.proxy.close()
    time.sleep(OUTAGE)
    lost.proxy.open()


@pytest.mark.parametrize(
    "how", [emptied, restarted_empty, restarted_with_its_data, stopped, out_of_reach]
)
def test_living_runs_keep_their_tokens_and_nobody_is_admitted_before(lost, how):
    running, token = lost.begin()
    how(lost)
    waiting = lost.site.tasks.work.apply_async(headers=HEADERS)
    wait_for(lambda: lost.holders() == [token], what="its token is there, and no other")
    lost.wait_for_a_beat(token)
    asked = lost.site.waits(waiting)
    wait_for(lambda: lost.site.waits(waiting) >= asked + 2, what="another one is refused")
    lost.go_on()
    assert running.get(timeout=60) is False
    assert waiting.get(timeout=60) == "done"
    runs = [run for run in read_records(lost.site.url) if run.task_id in (running.id, waiting.id)]
    assert len(runs) == 2
    assert highest_overlap(runs) == 1
    wait_for(lambda: not lost.redis.keys("concurrency:semaphore:*"))


def test_what_an_operator_deletes_no_beat_brings_back(lost):
    running, token = lost.begin()
    lost.redis.delete(ACCOUNT)
    lost.wait_for_a_beat(token)
    lost.wait_for_a_beat(token)
    assert lost.holders() == []
    assert lost.site.tasks.work.apply_async(headers=HEADERS).get(timeout=30) == "done"
    assert running.state != "SUCCESS"
    lost.go_on()
    assert running.get(timeout=30) is False


def test_a_run_that_began_without_redis_is_counted_when_that_is_back(server, tmp_path):
    with Server() as limiters:
        proxy = Proxy(limiters.port)
        env = {"LIMITER_URL": f"redis://127.0.0.1:{proxy.port}/0", "UNAVAILABLE": "run"}
        with (
            Redis.from_url(limiters.url(), decode_responses=True) as redis,
            site(server, tmp_path, "crashes", db=4, **env) as one,
        ):
            settle(redis)
            one.start(concurrency=1)
            proxy.close()
            result = one.tasks.stay.apply_async(headers=HEADERS)
            wait_for(one.ran)
            wait_for(lambda: "the limiter is away" in one.output())
            proxy.open()
            wait_for(lambda: redis.zcard(ACCOUNT) == 1)
            one.redis.rpush("go on", "1")
            assert result.get(timeout=30) is False
            wait_for(lambda: not redis.keys("concurrency:semaphore:*"))
        proxy.close()


def test_a_worker_cut_off_for_too_long_loses_its_tokens_and_is_told(server, tmp_path):
    """Also the run itself, where it is not terminated."""
    with Server() as limiters, Redis.from_url(limiters.url()) as redis:
        settle(redis)
        proxy = Proxy(limiters.port)
        through = f"redis://127.0.0.1:{proxy.port}/0"
        env = {"LIMITER_URL": limiters.url(), "WORKER_TIMEOUT": "5"}
        with site(server, tmp_path, "crashes", db=5, **env) as one:
            cut_off, running = {}, {}
            for name in ("log", "terminate"):
                cut_off[name] = one.start(
                    {"LIMITER_URL": through, "ON_LOST": name},
                    concurrency=1,
                    arguments=("-Q", name),
                )
                task = one.tasks.look_at_lease if name == "log" else one.tasks.work
                running[name] = task.apply_async((120,), queue=name, headers={"account": name})
            wait_for(lambda: len(one.ran()) == len(running))
            one.start(concurrency=1)
            proxy.close()
            # While nobody can tell, its lease is lost when the time of that is over.
            for name in running:
                waiting = one.tasks.work.apply_async(headers={"account": name})
                assert waiting.get(timeout=60) == "done"
            proxy.open()
            assert running["log"].get(timeout=30)[1] is True
            wait_for(lambda: running["terminate"].state == "REVOKED")
            assert "keeps running without its tokens" in cut_off["terminate"].output()
            wait_for(lambda: not redis.keys("concurrency:semaphore:*"))
        proxy.close()


def everything_on(server, directory):
    """A site whose limiter is on the broker's server, whatever the other site's is."""
    return site(server, directory, "crashes", LIMITER_URL=server.url(), WAITING="auto")


def test_those_who_wait_on_a_server_that_keeps_its_data_go_on(tmp_path):
    with Server(*KEEPS) as everything, everything_on(everything, tmp_path) as one:
        one.start(concurrency=2)
        with one.held(**HEADERS):
            results = [one.tasks.work.apply_async(headers=HEADERS) for _ in range(3)]
            one.wait_until_parked(*results)
            everything.kill()
            everything.start()
        wait_for(
            lambda: [one.tasks.app.AsyncResult(r.id).state for r in results] == ["SUCCESS"] * 3
        )
        one.wait_until_free()
        assert len(one.ran()) == 3


def test_the_fencing_number_grows_over_restarts_and_lost_data():
    """Promise 8."""
    fences = []
    with Server(*KEEPS) as server, connect(server.url()) as redis:
        limiter = Limiter(redis)

        def acquire():
            settle(redis)
            limiter.config.sync()
            redis.hset("concurrency:config:flat", "opens", 1)
            granted = limiter.try_acquire(f"task:{len(fences)}", {})
            assert isinstance(granted, Granted)
            fences.append(granted.fence)

        for change in (lambda: None, redis.flushall, server.kill):
            change()
            server.start()
            acquire()
            acquire()
        # A clock that went back: what was given last counts.
        redis.set("concurrency:fence", fences[-1] + 10**12)
        acquire()
        assert fences[-1] == fences[-2] + 10**12 + 1
    assert fences == sorted(set(fences))
    assert fences[0] > 1_700_000_000_000_000
