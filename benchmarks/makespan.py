"""How long tasks take that have to wait for each other, in real workers, beside the ideal.

200 tasks of 20 ms of one account, which may run two at once: handed over; by
countdowns of a second; and without us, in a worker of two processes. And by hand-over
alone, tasks of 50 ms of sixteen accounts in no order, each of which may run one, in eight
processes: by turns, they would hardly ever meet.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import median
from unittest.mock import patch

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.server import Server
from tests.support.jotting import FILE, makespan, read_jots
from tests.support.recording import RunRecord
from tests.support.workers import Worker, settle, wait_for


@dataclass(frozen=True)
class Load:
    """What a worker is given.

    Attributes:
        tasks: how many.
        seconds: that each of them takes.
        accounts: that they belong to, as many to each.
        limit: of each account.
        processes: of the worker.
    """

    tasks: int
    seconds: float
    accounts: int
    limit: int
    processes: int

    @property
    def ideal(self) -> float:
        """Return the seconds that it takes at best."""
        return self.tasks * self.seconds / min(self.accounts * self.limit, self.processes)

    def order(self) -> list[str]:
        """Return the account of each task, mixed, in every run alike."""
        accounts = [f"a{number % self.accounts}" for number in range(self.tasks)]
        Random(self.tasks).shuffle(accounts)  # noqa: S311 - nothing secret about it
        return accounts


ONE, ONE_SHORT = Load(200, 0.02, 1, 2, 8), Load(60, 0.02, 1, 2, 8)
MIXED, MIXED_SHORT = Load(400, 0.05, 16, 1, 8), Load(160, 0.05, 16, 1, 8)
#: The worker's variables, by how its tasks wait.
WAYS = {
    "hand-off": {"GATED": "1", "WAITING": "handoff"},
    "retry": {"GATED": "1", "WAITING": "retry"},
    "no limiter": {},
}
#: Seconds after which a run is given up.
PATIENCE = 600


def measure(server: Server, short: bool, say: Callable[[str], None]) -> dict[str, object]:
    """Let new workers run each load by turns (short: by hand-off alone); return medians.

    Returns:
        the figures of the hand-off, those of all, and when each task of one run ended.
    """
    one, mixed, turns = (ONE_SHORT, MIXED_SHORT, 1) if short else (ONE, MIXED, 5)
    loads = {"hand-off": one, "mixed": mixed}
    if not short:
        loads |= {"retry": one, "no limiter": replace(one, processes=one.limit)}
    ratios: dict[str, list[float]] = {name: [] for name in loads}
    deliveries: dict[str, list[float]] = {name: [] for name in loads}
    ends: dict[str, list[float]] = {}
    for turn in range(1, turns + 1):
        for name, load in loads.items():
            runs, received = _run(server, WAYS.get(name, WAYS["hand-off"]), load)
            ratios[name].append(makespan(runs) / load.ideal)
            deliveries[name].append(received / load.tasks)
            ends[name] = sorted(round(run.end - runs[0].start, 3) for run in runs)
            say(f"{name}, {turn}: {ratios[name][-1]:.2f} of the ideal, "
                f"{deliveries[name][-1]:.2f} deliveries a task")  # fmt: skip
    mixed_ratio = median(ratios.pop("mixed"))
    ends.pop("mixed")
    return {
        "makespan_vs_ideal": round(median(ratios["hand-off"]), 3),
        "mixed_makespan_vs_ideal": round(mixed_ratio, 3),
        "deliveries_per_task": round(median(deliveries["hand-off"]), 2),
        "makespans_vs_ideal": {name: round(median(ratios[name]), 2) for name in ratios},
        "makespan_ideal_s": one.ideal,
        "makespan_ends_s": ends,
    }


def _run(server: Server, variables: dict[str, str], load: Load) -> tuple[list[RunRecord], int]:
    """Let a new worker run the load; return the runs, and how many messages it received."""
    redis = connect(server.url())
    redis.flushall()
    settle(redis)
    Limiter(redis).config.update({"account_max": load.limit})
    with tempfile.TemporaryDirectory() as name:
        jots, log = Path(name) / "jots", Path(name) / "log"
        with patch.dict(os.environ, {"BROKER_URL": server.url(), FILE: str(jots), **variables}):
            from benchmarks.project import work  # noqa: PLC0415 - it asks where the broker is

            worker = Worker("benchmarks.project", log, concurrency=load.processes)
        try:
            worker.wait_until_ready()
            for account in load.order():
                work.apply_async((load.seconds,), headers={"account": account})
            wait_for(lambda: len(read_jots(jots)) >= load.tasks, timeout=PATIENCE)
            return read_jots(jots), worker.output().count("] received")
        finally:
            worker.kill()
            redis.close()
