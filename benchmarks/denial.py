"""What a denial costs a worker, beside a whole empty task without us.

A worker of ours gets messages of an account of which one waits already; another one, without us,
gets empty tasks. Both keep results and log as a worker does by default. Of ours, all processes
are free in one lot and busy with long tasks in the next.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from unittest.mock import patch

from redis import Redis

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.waiters import group_of
from celery_concurrency.testing.server import Server
from tests.support.workers import Worker, cpu_seconds, settle, wait_for

PROCESSES = 2
PATIENCE = 300
HEADERS = {"platform": "douyin", "account": "busy"}
GROUP = f"concurrency:group:{group_of(('global', 'platform:douyin', 'account:busy'))}"
KINDS = ("plain", "free", "busy")


@dataclass
class Costs:
    """Seconds a task, of each turn."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


def measure(server: Server, short: bool, say: Callable[[str], None]) -> dict[str, object]:
    """Return what a denial costs, over an empty task; medians of all turns."""
    tasks, turns = (300, 3) if short else (2_000, 11)
    redis = connect(server.url())
    redis.flushall()
    settle(redis)
    Limiter(redis).config.update({"global_max": 0, "platform_max": {"douyin": 0}})
    costs = {kind: Costs() for kind in KINDS}
    environment = {"BROKER_URL": server.url(), "KEEPS_RESULTS": "1"}
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ, environment):
        workers = {"plain": _worker("plain", Path(name))}
        with patch.dict(os.environ, GATED="1"):
            workers["gated"] = _worker("gated", Path(name))
        try:
            for worker in workers.values():
                worker.wait_until_ready()
            _let_one_wait(redis)
            for turn in range(turns + 1):
                for kind in KINDS:
                    cpu, wall = _lot(redis, workers, kind, tasks)
                    if turn:  # in the first all is new to them
                        costs[kind].cpu.append(cpu / tasks)
                        costs[kind].wall.append(wall / tasks)
                        say(f"{kind}, {turn}: {cpu / tasks * 1e3:.2f} ms of CPU a task")
        finally:
            for worker in workers.values():
                worker.kill()
            redis.close()
    return {
        "denial_vs_noop": _ratio(costs["free"].cpu, costs["plain"].cpu),
        "denial_wall_vs_noop": _ratio(costs["busy"].wall, costs["plain"].wall),
        "denial_cpu_of_busy_vs_noop": _ratio(costs["busy"].cpu, costs["plain"].cpu),
        "noop_ms": round(median(costs["plain"].cpu) * 1e3, 2),
    }


def _ratio(some: list[float], others: list[float]) -> float:
    return round(median(one / other for one, other in zip(some, others, strict=True)), 3)


def _worker(queue: str, directory: Path) -> Worker:
    return Worker(
        "benchmarks.project", directory / queue, concurrency=PROCESSES,
        arguments=("--queues", queue),
    )  # fmt: skip


def _let_one_wait(redis: Redis) -> None:
    """Let one of the account hold it, and another one wait."""
    from benchmarks.project import nothing  # noqa: PLC0415 - it asks where the broker is

    Limiter(redis).try_acquire("holder:1", HEADERS)
    nothing.apply_async(queue="gated", headers=HEADERS)
    wait_for(lambda: redis.zcard(GROUP) == 1)


def _lot(redis: Redis, workers: dict[str, Worker], kind: str, tasks: int) -> tuple[float, float]:
    """Let a worker have so many messages at once; return its seconds of CPU, and of time."""
    from benchmarks.project import nothing, work  # noqa: PLC0415 - it asks where the broker is

    queue = "plain" if kind == "plain" else "gated"
    worker, waiting = workers[queue], redis.zcard(GROUP)
    with nothing.app.producer_pool.acquire(block=True) as producer:
        for _ in range(tasks):
            nothing.apply_async(queue="filled", headers=HEADERS, producer=producer)
    long = [work.apply_async((PATIENCE,), queue=queue) for _ in range(PROCESSES * (kind == "busy"))]
    held = 1 + len(long)
    wait_for(lambda: redis.zcard("concurrency:leases") == held)

    def done() -> bool:
        if kind == "plain":
            return not redis.llen(queue) and not redis.hlen("unacked")
        return redis.zcard(GROUP) == waiting + tasks

    spent, begun = cpu_seconds(worker), time.monotonic()
    redis.rename("filled", queue)
    wait_for(done, PATIENCE)
    wall, spent = time.monotonic() - begun, cpu_seconds(worker) - spent
    for one in long:
        one.revoke(terminate=True, signal="KILL")
    wait_for(lambda: redis.zcard("concurrency:leases") == 1)
    return spent, wall
