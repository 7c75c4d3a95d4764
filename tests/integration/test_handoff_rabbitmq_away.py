"""A RabbitMQ that hangs or is slow: what it has not got yet waits, and nothing else does."""

from __future__ import annotations

import signal

from kombu.utils.url import parse_url

from celery_concurrency.limiter.waiting_room import CLAIM_SECONDS
from tests.support.proxies import Proxy
from tests.support.rabbit import URL, rabbit_site, require_rabbitmq
from tests.support.workers import wait_for

OUTBOX = "concurrency:outbox"
#: A worker that is silent for so long loses its tokens.
TIMEOUT = 5
#: So many messages, one after the other, can't be sent while the broker hangs.
WAITING = 6


def test_a_broker_that_hangs_stops_no_beat_and_what_waits_goes_on(server, tmp_path):
    require_rabbitmq()
    proxy = Proxy(parse_url(URL)["port"])
    through = URL.replace(f":{proxy.target}", f":{proxy.port}")
    env = {"WORKER_TIMEOUT": str(TIMEOUT)}
    try:
        with rabbit_site(server, tmp_path, "handoff", db=2, **env) as one:
            worker = one.start(concurrency=WAITING, env={"BROKER_URL": through})
            long = one.tasks.stay.apply_async(headers={"account": "long"})
            wait_for(lambda: one.ran() == ["stays"])
            one.limiter.config.update({"paused": ["platform:busy"]})
            results = [
                one.tasks.publish.apply_async((0,), headers={"platform": "busy"})
                for _ in range(WAITING)
            ]
            one.wait_until_parked(*results)
            proxy.part()
            one.limiter.config.update({"paused": []})
            wait_for(lambda: one.redis.zcard(OUTBOX) == WAITING)
            one.wait_until_outlived(2 * TIMEOUT, "long")
            wait_for(lambda: "the broker is away, so" in worker.output())
            assert one.redis.zcard(OUTBOX) == WAITING
            proxy.join()
            one.redis.rpush("go on", "1")
            for result in (long, *results):
                assert result.get(timeout=60) == result.id
            assert "keeps running without its tokens" not in worker.output()
            wait_for(lambda: not one.redis.exists(OUTBOX))
    finally:
        proxy.join()
        proxy.close()


def test_a_child_that_ends_has_sent_what_it_began_to(server, tmp_path):
    """Else the message would lie there until its claim is over."""
    with rabbit_site(server, tmp_path, "handoff", db=2, SLOW="2") as one:
        one.start(concurrency=2, arguments=("--max-tasks-per-child", "1"))
        first = one.tasks.stay.apply_async(headers={"account": "a"})
        wait_for(lambda: one.ran() == ["stays"])
        second = one.tasks.publish.apply_async((0,), headers={"account": "a"})
        one.wait_until_parked(second)
        one.redis.rpush("go on", "1")
        assert first.get(timeout=60) == first.id
        assert second.get(timeout=CLAIM_SECONDS - 5) == second.id


def test_a_worker_that_ends_has_sent_what_it_began_to(server, tmp_path):
    with rabbit_site(server, tmp_path, "handoff", db=2, SLOW="2") as one:
        worker = one.start(pool="solo")
        one.limiter.config.update({"paused": ["global"]})
        result = one.tasks.publish.apply_async((0,))
        one.wait_until_parked(result)
        one.limiter.config.update({"paused": []})
        # An entry of the outbox says until when it is claimed.
        wait_for(lambda: any(end for _, end in one.redis.zrange(OUTBOX, 0, -1, withscores=True)))
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(60) == 0
        assert not one.redis.exists(OUTBOX)
