"""The worker's own thread: hand-written configuration, sweep and history, in a real worker."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from types import ModuleType
from urllib.parse import urlsplit

import pytest
from celery import Celery
from redis import Redis

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter import Limiter, chores
from celery_concurrency.limiter.chores import Chores, look_for_chores
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.workers import WorkerFacts
from celery_concurrency.testing.server import Server
from celery_concurrency.worker.apps import limiter_of
from celery_concurrency.worker.heartbeat import Heartbeat
from celery_concurrency.worker.housekeeping import LOOK, SHORTEST_LOOK, Housekeeping
from celery_concurrency.worker.progress import Stage, note
from celery_concurrency.worker.startup import greet
from tests.support.proxies import Proxy
from tests.support.workers import Worker, wait_for

KEY = "concurrency:config"


def in_force(redis: Redis) -> str | None:
    return redis.hget("concurrency:config:flat", "global")


def test_a_configuration_written_by_hand(
    project: Callable[..., ModuleType],
    worker: Callable[..., Worker],
    redis: Redis,
    limiter: Limiter,
) -> None:
    """In force before a starting worker's first task, and within about a second after."""
    tasks = project("plain")
    redis.set(KEY, json.dumps({"global_max": 7, "account_max": 2}))
    first = tasks.publish.delay(0)
    one = worker("plain", concurrency=1)
    # Nobody but the worker has looked; its first task was under the new limits.
    assert first.get(timeout=60)
    output = one.output()
    assert output.index('in force: {"global_max": 7') < output.index(f"[{first.id}] received")
    assert in_force(redis) == "7"

    redis.set(KEY, json.dumps({"global_max": 3}))
    wait_for(lambda: in_force(redis) == "3", timeout=30, what="taken over")

    redis.set(KEY, "{not json")
    wait_for(lambda: "is not valid" in one.output(), timeout=30, what="a log line")
    assert in_force(redis) == "3"
    assert "not JSON" in (limiter.usage().config_problem or "")

    redis.delete(KEY)
    wait_for(lambda: in_force(redis) == "0", timeout=30, what="the defaults")
    assert Config.parse(redis.get(KEY) or "") == Config()


def test_a_worker_with_nothing_to_do_calls_one_script_a_second(
    limiter: Limiter, redis: Redis
) -> None:
    """A thousand of them must not keep Redis busy with asking what another one does."""
    keeping = Housekeeping(
        limiter, Heartbeat(limiter, 30, worker=WorkerFacts("w1@host", "1", "prefork", 8))
    )
    keeping.tick()
    redis.set("concurrency:sweep:next", redis.time()[0] + 600)
    redis.config_resetstat()
    for _ in range(5):
        keeping.tick()
    stats = redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 5
    trips = redis.info("stats")["total_reads_processed"]
    assert trips <= 5 * 5 + 3  # and those of this test


def test_chores_are_done_by_whoever_sees_that_they_are_due(limiter: Limiter, redis: Redis) -> None:
    def due() -> Chores:
        return look_for_chores(limiter.keyspace)

    keepings = [Housekeeping(limiter, Heartbeat(limiter, 30)) for _ in range(2)]
    redis.delete("concurrency:sweep:next")
    assert due() == (True, False, False)
    keepings[0].tick()
    redis.incrbyfloat("concurrency:sweep:next", 600)
    assert due() == (False, False, False)
    limiter.try_acquire("t:1", {"account": "a"})
    limiter.release("t:1")
    redis.rpush("concurrency:adaptive:unlogged", "{}")
    assert due() == (False, True, True)
    redis.delete("concurrency:adaptive:unlogged")
    keepings[1].tick()
    assert due() == (False, False, False)
    assert redis.hget("concurrency:stats:times", "wait 0 global") == "1"
    redis.set("concurrency:sweep:next", redis.time()[0] - 1)
    assert due().sweep
    before = redis.time()[0]
    keepings[1].tick()
    assert float(redis.get("concurrency:sweep:next") or 0) > before


def test_a_sweep_is_called_if_it_is_due_when_the_call_arrives(
    limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one worker alone, which looks a second after it swept, would sweep each other second."""
    redis.set("concurrency:sweep:next", redis.time()[0] + 300)
    assert not look_for_chores(limiter.keyspace).sweep
    assert 0 < chores.SOON < 0.1  # in a large fleet, so many of a second's looks are calls
    monkeypatch.setattr(chores, "SOON", 600)
    assert look_for_chores(limiter.keyspace).sweep


def test_the_sweep_and_the_history(
    project: Callable[..., ModuleType],
    worker: Callable[..., Worker],
    redis: Redis,
    limiter: Limiter,
) -> None:
    """A dead holder's token is gone from ZCARD too, and the counters are kept."""
    limiter.try_acquire("dead:run", {"account": "a"})
    for key in ("leases", "semaphore:global", "semaphore:account:a"):
        redis.zadd(f"concurrency:{key}", {"dead:run": 1}, xx=True)
    worker("plain", concurrency=1)
    wait_for(lambda: redis.zcard("concurrency:semaphore:account:a") == 0)
    wait_for(lambda: redis.xlen("concurrency:stats:history") == 1)
    # How long it held is counted, and its record gone.
    wait_for(lambda: redis.hget("concurrency:stats:times", "wait 0 global") == "1")
    assert not redis.exists("concurrency:stats:ended")


def test_a_worker_without_redis_starts_and_says_so(
    project: Callable[..., ModuleType], worker: Callable[..., Worker]
) -> None:
    """The limiter being away is no reason not to start: tasks wait until it is back."""
    project("plain", REDIS_URL="redis://127.0.0.1:1/0")
    one = worker("plain", concurrency=1)
    assert "the limiter is away" in one.output()


def test_a_declared_tag_that_no_limit_goes_by_is_told(
    redis_url: str, limiter: Limiter, caplog: pytest.LogCaptureFixture
) -> None:
    limiter.config.update({"dimensions": {"tenant": {"max": 1}}})
    app = Celery("tagged", broker=redis_url, backend=redis_url, set_as_current=False)

    def publish() -> None:
        """Its tags are declared below."""

    app.task(name="right", concurrency={"tenant": "acme", "type": "publish"})(publish)
    app.task(name="wrong", concurrency={"acount": "a", "typo": "publish"})(publish)
    greet(app)
    told = [one.getMessage() for one in caplog.records if "no limit uses" in one.getMessage()]
    # Every app of this process has the tasks of the projects that other tests imported.
    warned = [text for text in told if text.startswith(("task right", "task wrong"))]
    assert [text.partition(", which no limit")[0] for text in warned] == [
        "task wrong declares the tag 'acount'",
        "task wrong declares the tag 'typo'",
    ]
    assert "use platform, account, type, tenant" in warned[0]


def test_an_outage_is_told_when_it_begins_and_when_it_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line each, also where an early beat notices it first."""
    with Server() as server:
        limiter = Limiter(connect(server.url()))
        heartbeat = Heartbeat(limiter, 30)
        monkeypatch.setattr(heartbeat, "_active", lambda: {"new:run": None})
        looks: list[bool] = []
        is_unknown = heartbeat.is_unknown
        monkeypatch.setattr(heartbeat, "is_unknown", lambda: looks.append(True) or is_unknown())
        housekeeping = Housekeeping(limiter, heartbeat)
        housekeeping.start()
        try:
            server.kill()
            wait_for(lambda: "limiter away" in decisions(caplog))
            seen = len(looks)
            server.start()
            # Early beats come only while the limiter is not away.
            wait_for(lambda: "limiter back" in decisions(caplog) and len(looks) > seen)
        finally:
            housekeeping.stop()
    assert decisions(caplog) == ["limiter away", "limiter back"]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("stage", "starts"), [(Stage.ASKING, 0), (Stage.TAKEN, 0), (Stage.BEGUN, 1), (None, 1)]
)
def test_a_dead_run_is_charged_its_start_unless_its_body_never_began(
    limiter: Limiter, redis: Redis, stage: Stage | None, starts: int
) -> None:
    limiter.config.update({"rates": {"account:*": [{"max": 9, "per": 1000}]}})
    token = f"task:{secrets.token_hex(8)}"
    limiter.try_acquire(token, {"account": "a"})
    if stage:
        note(token, stage)
    Heartbeat(limiter, 30)._release(token)
    assert redis.zcard("concurrency:rate:account:a") == starts


def test_while_redis_is_away_nobody_looks_for_moments(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was near one, it would look at its processes 200 times a second."""
    limiter = Limiter(connect(server.url()))
    housekeeping = Housekeeping(limiter, Heartbeat(limiter, 30))
    housekeeping._next_look = SHORTEST_LOOK
    housekeeping._outage.begin(LimiterUnavailable("away"))
    looks: list[float] = []
    monkeypatch.setattr(housekeeping, "tick", lambda: None)
    monkeypatch.setattr(housekeeping._heartbeat, "release_dead", lambda: looks.append(1))
    housekeeping._thread.start()
    try:
        wait_for(lambda: len(looks) >= 2)
        assert housekeeping._next_look == LOOK
    finally:
        housekeeping.stop()


def decisions(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the records of level WARNING and above say, by their decisions."""
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return [getattr(record, "concurrency", {}).get("decision", record.msg) for record in told]


def test_a_worker_that_starts_without_its_broker_says_later_how_tasks_wait(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Celery itself says that the broker is away, and when it is there."""
    caplog.set_level("INFO", logger="celery_concurrency.worker")
    proxy = Proxy(urlsplit(redis_url).port or 0)
    app = Celery("away", broker=f"redis://127.0.0.1:{proxy.port}", set_as_current=False)
    app.conf.concurrency_redis_url = redis_url
    limiter = limiter_of(app)
    housekeeping = Housekeeping(limiter, Heartbeat(limiter, 30), lambda: greet(app))
    try:
        proxy.close()
        housekeeping.tick()
        housekeeping.tick()
        assert not caplog.records
        proxy.open()
        housekeeping.on_ready()
        housekeeping.tick()
        assert "denied tasks start as soon as there is room" in caplog.text
    finally:
        proxy.close()
        app.close()


def test_a_refusal_that_cools_down_what_no_limit_goes_by_is_told(
    redis_url: str, limiter: Limiter, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no error: the dimension may be configured later."""
    limiter.config.update({"dimensions": {"tenant": {"max": 1}}})
    app = Celery("refused", broker=redis_url, backend=redis_url, set_as_current=False)
    dimensions = ("account", "type", "task_type", "global", "tenant", "acount", "seller")
    app.conf.concurrency_refusals = {
        f"proj.{name}": {"dimension": name, "seconds": 1} for name in dimensions
    }
    greet(app)
    # Other tests' tasks are shared with each app.
    warned = [text for text in caplog.messages if "the dimension" in text and "refusals" in text]
    assert [text.partition(":")[0] for text in warned] == [
        "concurrency_refusals['proj.acount']",
        "concurrency_refusals['proj.seller']",
    ]
    assert "use account, or" in warned[0]
    assert "use global, platform, account, type, tenant, or" in warned[1]
