"""How long tasks take that have to wait for each other, in real workers, beside the ideal.

200 tasks of 20 ms of one account, which may run two at once: handed over; by
countdowns of a second; and without us, in a worker of two processes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest.mock import patch

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.server import Server
from tests.support.jotting import FILE, makespan, read_jots
from tests.support.recording import RunRecord
from tests.support.workers import Worker, settle, wait_for

TASKS, TASKS_SHORT = 200, 60
SECONDS, LIMIT, PROCESSES = 0.02, 2, 8
#: Variables and processes of the worker, by how its tasks wait.
WAYS = {
    "hand-off": ({"GATED": "1", "WAITING": "handoff"}, PROCESSES),
    "retry": ({"GATED": "1", "WAITING": "retry"}, PROCESSES),
    "no limiter": ({}, LIMIT),
}
#: Seconds after which a run is given up.
PATIENCE = 600


def measure(server: Server, short: bool, say: Callable[[str], None]) -> dict[str, object]:
    """Let new workers run the load in each way by turns (short: by hand-off alone); return medians.

    Returns:
        the figures of the hand-off, those of all, and when each task of one run ended.
    """
    tasks, turns = (TASKS_SHORT, 3) if short else (TASKS, 5)
    ways = ["hand-off"] if short else list(WAYS)
    ideal = tasks * SECONDS / LIMIT
    ratios: dict[str, list[float]] = {way: [] for way in ways}
    deliveries: dict[str, list[float]] = {way: [] for way in ways}
    ends: dict[str, list[float]] = {}
    for turn in range(1, turns + 1):
        for way in ways:
            runs, received = _run(server, way, tasks)
            ratios[way].append(makespan(runs) / ideal)
            deliveries[way].append(received / tasks)
            ends[way] = sorted(round(run.end - runs[0].start, 3) for run in runs)
            say(f"{way}, {turn}: {ratios[way][-1]:.2f} of the ideal, {deliveries[way][-1]:.2f} "
                "deliveries a task")  # fmt: skip
    return {
        "makespan_vs_ideal": round(median(ratios["hand-off"]), 3),
        "deliveries_per_task": round(median(deliveries["hand-off"]), 2),
        "makespans_vs_ideal": {way: round(median(ratios[way]), 2) for way in ways},
        "makespan_ideal_s": ideal,
        "makespan_ends_s": ends,
    }


def _run(server: Server, way: str, tasks: int) -> tuple[list[RunRecord], int]:
    """Let a new worker run the load; return the runs, and how many messages it received."""
    variables, processes = WAYS[way]
    redis = connect(server.url())
    redis.flushall()
    settle(redis)
    Limiter(redis).config.update({"account_max": LIMIT})
    with tempfile.TemporaryDirectory() as name:
        jots, log = Path(name) / "jots", Path(name) / "log"
        with patch.dict(os.environ, {"BROKER_URL": server.url(), FILE: str(jots), **variables}):
            from benchmarks.project import work  # noqa: PLC0415 - it asks where the broker is

            worker = Worker("benchmarks.project", log, concurrency=processes)
        try:
            worker.wait_until_ready()
            for _ in range(tasks):
                work.apply_async((SECONDS,), headers={"account": "a"})
            wait_for(lambda: len(read_jots(jots)) >= tasks, timeout=PATIENCE)
            return read_jots(jots), worker.output().count("] received")
        finally:
            worker.stop()
            redis.close()
