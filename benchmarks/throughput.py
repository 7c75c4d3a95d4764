"""How many tasks a second real workers run with every task gated, beside without us.

Workers wait at queues of their own, and get the same messages by turns: thousands at
once, by a rename of a list that was filled before. One of them makes two empty calls
for each task: what it loses, any limiter in Redis loses.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest.mock import patch

from redis import Redis

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.server import Server
from tests.support.workers import Worker, cpu_seconds, settle

#: Seconds after which a turn is given up.
PATIENCE = 300
WORKERS = {"plain": {}, "gated": {"GATED": "1"}, "two calls": {"TWO_CALLS": "1"}}
HEADERS = {"platform": "douyin", "account": "acc123", "type": "publish"}


def measure(server: Server, short: bool, say: Callable[[str], None]) -> dict[str, object]:
    """Return tasks a second with us by those without, and all of them; medians of all turns."""
    tasks, turns = (1_000, 3) if short else (4_000, 11)
    redis = connect(server.url())
    redis.flushall()
    settle(redis)
    # All of it counts in four limits, and none of them is ever full.
    Limiter(redis).config.update({"global_max": 1_000, "account_max": 1_000,
        "platform_max": {"douyin": 1_000}, "task_type_max": {"publish": 1_000}})  # fmt: skip
    queues = ["plain", "gated"] if short else list(WORKERS)
    rates: dict[str, list[float]] = {queue: [] for queue in queues}
    costs: dict[str, list[float]] = {queue: [] for queue in queues}
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ, BROKER_URL=server.url()):
        workers = {}
        try:
            for queue in queues:
                with patch.dict(os.environ, WORKERS[queue]):
                    workers[queue] = _worker(queue, Path(name))
            for turn in range(turns + 1):
                # Who comes first differs from turn to turn.
                for queue in sorted(rates, reverse=turn % 2 == 1):
                    before = cpu_seconds(workers[queue])
                    found = _rate(redis, queue, tasks)
                    if turn:  # in the first the workers start
                        rates[queue].append(found)
                        costs[queue].append(cpu_seconds(workers[queue]) - before)
                        say(f"throughput, {queue}, {turn}: {found:.0f} tasks a second")
        finally:
            for worker in workers.values():
                worker.kill()
    return {
        "throughput_vs_plain": _ratio(rates["gated"], rates["plain"]),
        "cpu_vs_plain": _ratio(costs["gated"], costs["plain"]),
        "tasks_per_second": {queue: round(median(rate)) for queue, rate in rates.items()},
    }


def _ratio(some: list[float], others: list[float]) -> float:
    return round(median(one / other for one, other in zip(some, others, strict=True)), 3)


def _worker(queue: str, directory: Path) -> Worker:
    return Worker(
        "benchmarks.project", directory / queue, concurrency=2,
        arguments=("--queues", queue),
    )  # fmt: skip


def _rate(redis: Redis, queue: str, tasks: int) -> float:
    """Let a worker run so many tasks; return how many it did a second, in the midst of them."""
    from benchmarks.project import nothing  # noqa: PLC0415 - it asks where the broker is

    filled = f"{queue}.filled"
    with nothing.app.producer_pool.acquire(block=True) as producer:
        for _ in range(tasks):
            nothing.apply_async(queue=filled, headers=HEADERS, producer=producer)
    redis.rename(filled, queue)
    first = _when_left(redis, queue, tasks * 9 // 10)
    last = _when_left(redis, queue, tasks // 10)
    _when_left(redis, queue, 0)
    return tasks * 8 / 10 / (last - first)


def _when_left(redis: Redis, queue: str, left: int) -> float:
    """Return when no more than so many were left in a queue."""
    ends = time.monotonic() + PATIENCE
    while redis.llen(queue) > left:
        assert time.monotonic() < ends, f"{queue} is not done after {PATIENCE} s"
        time.sleep(0.005)
    return time.monotonic()
