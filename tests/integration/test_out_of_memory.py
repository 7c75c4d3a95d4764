"""Redis at its maxmemory while tasks run and wait: each of them runs, and once."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from tests.support.jotting import FILE, read_jots
from tests.support.memory import PROGRAMS, out_of_memory, server_of
from tests.support.sites import site
from tests.support.workers import settle, wait_for


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda path: Path(path).name)
def small(request):
    """The server that will be out of memory."""
    with server_of(request.param) as server:
        yield server


@pytest.fixture
def limits(small):
    """A client for looking at the limiter's keys."""
    with Redis.from_url(small.url(), decode_responses=True) as client:
        client.flushall()
        settle(client)
        yield client


def said(worker):
    """Return how often a worker said that its limiter is out of memory, and if it is back."""
    text = worker.output()
    away = text.count("the limiter is away: Redis is out of memory")
    # It may have been away before, for another reason.
    return away, text.rfind("limiter is back") > text.rfind("the limiter is away")


def send(room, task, *args, count=1, **tags):
    return [getattr(room.tasks, task).apply_async(args, headers=tags) for _ in range(count)]


def wait_until_ran(room, results):
    """Wait until each of these has run; once, and no other."""
    ids = sorted(result.id for result in results)
    jots = room.directory / "jots"
    wait_for(lambda: len(read_jots(jots)) >= len(ids))
    assert sorted(run.task_id for run in read_jots(jots)) == ids


def test_with_the_broker_out_of_memory_too_who_waits_stays_until_there_is_some(
    small, server, limits, tmp_path
):
    """Kombu would lose what it takes then, and end its worker: nothing is handed to it."""
    env = {
        "RESULT_BACKEND": server.url(7),
        "RECORDS_URL": server.url(7),
        FILE: str(tmp_path / "jots"),
    }
    with site(small, tmp_path, "room", WAITING="auto", **env) as room:
        worker = room.start(concurrency=3)
        go_on = tmp_path / "go on"
        running = [one for name in "ab" for one in send(room, "until", str(go_on), account=name)]
        wait_for(lambda: limits.zcard("concurrency:leases") == 2)
        waiting = [one for name in "ab" for one in send(room, "work", count=5, account=name)]
        room.wait_until_parked(*waiting)
        with out_of_memory(limits):
            wait_for(lambda: said(worker) == (1, False))
            go_on.touch()
            room.wait_until_free()
            swept = float(limits.get("concurrency:sweep:next"))
            wait_for(lambda: float(limits.get("concurrency:sweep:next")) > swept + 1)
            assert room.waiting() == {result.id for result in waiting}
        wait_until_ran(room, [*running, *waiting])
        room.wait_until_free()
        wait_for(lambda: said(worker) == (1, True))


def test_with_a_redis_of_its_own_out_of_memory_those_who_wait_go_on(
    small, server, limits, tmp_path
):
    """By way of the outbox, which frees memory; new ones ask again until there is some."""
    env = {"REDIS_URL": small.url(), "COUNTDOWN": "0.5", FILE: str(tmp_path / "jots")}
    with site(server, tmp_path, "room", WAITING="handoff", **env) as room:
        worker = room.start(concurrency=3)
        go_on = tmp_path / "go on"
        running = send(room, "until", str(go_on), account="a")
        wait_for(lambda: limits.zcard("concurrency:leases") == 1)
        waiting = send(room, "work", count=5, account="a")
        wait_for(lambda: limits.zcard('concurrency:group:["global", "account:a"]') == 5)
        with out_of_memory(limits):
            wait_for(lambda: said(worker) == (1, False))
            new = send(room, "work", account="b")
            wait_for(lambda: "Redis is out of memory" in str(new[0].info))
            go_on.touch()
            wait_until_ran(room, [*running, *waiting])
        wait_until_ran(room, [*running, *waiting, *new])
        wait_for(lambda: not limits.zcard("concurrency:leases"))
        wait_for(lambda: said(worker) == (1, True))
