"""How long a task of a free account waits behind a burst of tasks that can't run.

A worker of ours gets thousands of empty tasks of an account whose only token is held, and then
one of a free account; another one, without us, gets as many empty tasks before that one. Both
keep results and log as a worker does by default.
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
from celery_concurrency.limiter.keyspace import batches
from celery_concurrency.testing.server import Server
from tests.support.jotting import FILE, read_jots
from tests.support.workers import Worker, settle, wait_for

TASKS, TASKS_SHORT = 3_000, 400
PROCESSES = 2
PATIENCE = 300
#: The workers' variables, by their queues.
WORKERS = {"plain": {}, "gated": {"GATED": "1"}}


def measure(server: Server, short: bool, say: Callable[[str], None]) -> dict[str, object]:
    """Return how long it waits, over the time without us; the median of all turns."""
    tasks, turns = (TASKS_SHORT, 3) if short else (TASKS, 7)
    redis = connect(server.url())
    redis.flushall()
    settle(redis)
    limiter = Limiter(redis)
    limiter.config.update({"account_max": 1})
    waits: dict[str, list[float]] = {queue: [] for queue in WORKERS}
    with tempfile.TemporaryDirectory() as name:
        jots = Path(name) / "jots"
        environment = {"BROKER_URL": server.url(), "KEEPS_RESULTS": "1", FILE: str(jots)}
        with patch.dict(os.environ, environment):
            workers = {queue: _worker(queue, Path(name)) for queue in WORKERS}
            try:
                for worker in workers.values():
                    worker.wait_until_ready()
                for turn in range(turns + 1):
                    for queue in WORKERS:
                        # A new account in each turn: the worker does not know that it is busy.
                        found = _wait(limiter, queue, f"{queue}{turn}", tasks, jots)
                        if turn:  # in the first all is new to them
                            waits[queue].append(found)
                            say(f"burst, {queue}, {turn}: {found:.2f} s")
            finally:
                for worker in workers.values():
                    worker.kill()
                redis.close()
    ratios = [ours / plain for ours, plain in zip(waits["gated"], waits["plain"], strict=True)]
    return {
        "burst": round(median(ratios), 3),
        "burst_waits_s": {queue: round(median(some), 3) for queue, some in waits.items()},
    }


def _worker(queue: str, directory: Path) -> Worker:
    with patch.dict(os.environ, WORKERS[queue]):
        return Worker(
            "benchmarks.project", directory / f"{queue}.log", concurrency=PROCESSES,
            arguments=("--queues", queue),
        )  # fmt: skip


def _wait(limiter: Limiter, queue: str, name: str, tasks: int, jots: Path) -> float:
    """Send a burst and one more; return the seconds until that one begins."""
    from benchmarks.project import nothing, work  # noqa: PLC0415 - it asks where the broker is

    redis: Redis = limiter.redis
    holder = f"holder:{name}"
    limiter.try_acquire(holder, {"account": name})
    with nothing.app.producer_pool.acquire(block=True) as producer:
        for _ in range(tasks):
            nothing.apply_async(queue="filled", headers={"account": name}, producer=producer)
        free = work.apply_async(
            (0,), queue="filled", headers={"account": f"free {name}"}, producer=producer
        )
    address, ours = b'"routing_key": "filled"', f'"routing_key": "{queue}"'.encode()
    for batch in batches(redis.lrange("filled", 0, -1)):
        redis.rpush("filled", *[text.replace(address, ours) for text in batch])
        redis.ltrim("filled", len(batch), -1)
    sent = time.clock_gettime(time.CLOCK_MONOTONIC)
    redis.rename("filled", queue)

    def start() -> float | None:
        return next((run.start for run in read_jots(jots) if run.task_id == free.id), None)

    began = wait_for(start, PATIENCE)
    wait_for(lambda: not redis.llen(queue) and not redis.hlen("unacked"), PATIENCE)
    for _ in limiter.waiting_room.purge():
        pass
    limiter.release(holder)
    return began - sent
