"""The door in workers of each kind: other pools, other prefetching, other places for results."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from celery import Celery
from redis import Redis

from celery_concurrency.testing.server import Server
from tests.support.proxies import Proxy
from tests.support.sites import site
from tests.support.workers import wait_for

BUSY = {"account": "busy"}
#: Where a broker has what is not acknowledged.
BROKERS = ("celery", "unacked", "unacked_index")
AT_THE_DOOR = "and is parked as it arrives"
MANY = 12
APART = "a broker elsewhere"
NO_PREFETCH = "no message without a slot"


def wait_until_known(one):
    """Let tasks wait until the worker's main process parks them itself; return them."""
    results = []

    def is_known():
        results.append(one.tasks.work.apply_async(headers=BUSY))
        one.wait_until_parked(results[-1])
        return one.output().count(AT_THE_DOOR) > before

    before = one.output().count(AT_THE_DOOR)
    wait_for(is_known)
    return results


#: Kind to pool, arguments of the worker, and variables.
KINDS = {
    "gevent, no results": ("gevent", (), {"RESULT_BACKEND": "disabled://"}),
    "threads": ("threads", (), {}),
    "one message at a time": ("prefork", ("--prefetch-multiplier", "1", "--autoscale", "2,1"), {}),
    NO_PREFETCH: ("prefork", ("--disable-prefetch",), {}),
    APART: ("prefork", ("--prefetch-multiplier", "1"), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_those_who_wait_keep_nobody_from_the_worker(server, tmp_path, kind):
    """At once or at their ETA: they take neither a slot nor a place among what it prefetches."""
    if kind == NO_PREFETCH and not hasattr(
        Celery(set_as_current=False).conf, "worker_disable_prefetch"
    ):
        pytest.skip("this Celery has no worker_disable_prefetch")
    pool, arguments, env = KINDS[kind]
    env = {**env, "REDIS_URL": server.url(5)}
    with (
        Server() if kind == APART else nullcontext(server) as broker,
        site(server, tmp_path, "door", db=5, BROKER_URL=broker.url(5), **env) as one,
    ):
        one.start(pool=pool, concurrency=1, arguments=arguments)
        work = one.tasks.work
        with one.held(**BUSY):
            known = wait_until_known(one)
            results = [work.apply_async(headers=BUSY) for _ in range(MANY)]
            later = work.apply_async(headers=BUSY, countdown=0.5)
            one.wait_until_parked(*results, later)
            free = work.apply_async(headers={"account": "free"})
            wait_for(lambda: free.id in one.ran())
            with Redis.from_url(broker.url(5)) as client:
                wait_for(lambda: not client.exists(*BROKERS))
        wait_for(lambda: later.id in one.ran())
        ran = [line for line in one.ran() if not line.startswith("retry ")]
        assert ran == [free.id, *(result.id for result in (*known, *results, later))]
        assert one.output().count(AT_THE_DOOR) >= MANY
        one.wait_until_free()


def test_a_broker_that_was_away_and_a_server_that_asks_anew(server, tmp_path):
    """Its connections are lost while messages come to the door: we lose none, and double none."""
    proxy = Proxy(server.port)
    env = {"BROKER_URL": f"redis://127.0.0.1:{proxy.port}/5", "REDIS_URL": server.url(5)}
    # Where the reply to kombu's note, or its ack, got lost, the message comes back after that time.
    env["VISIBILITY"] = "10"
    with site(server, tmp_path, "door", db=5, **env) as one:
        one.start(concurrency=2, arguments=("-E",))
        with one.held(**BUSY):
            known = wait_until_known(one)
            results = []
            for _ in range(3):
                results += [one.tasks.work.apply_async(headers=BUSY) for _ in range(MANY)]
                proxy.close()
                proxy.open()
                one.redis.ping()
            known += wait_until_known(one)
            wait_for(
                lambda: not one.redis.exists(*BROKERS), what="all that the broker has is parked"
            )
            lost = [result for result in results if result.id not in one.waiting()]
            # kombu takes a message out of its queue before it notes that it has it.
            assert len(lost) <= 3, "more than one for each time"
        results = [result for result in results if result not in lost]
        ids = {result.id for result in (*known, *results)}
        wait_for(lambda: ids <= set(one.ran()))
        one.wait_until_free()
        ran = [line for line in one.ran() if not line.startswith("retry ")]
        assert sorted(ran) == sorted(ids)
        assert {result.state for result in results} == {"SUCCESS"}
