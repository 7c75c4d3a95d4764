"""How long real workers take for tasks that have to wait, beside the ideal and plain retry."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from celery_concurrency.demo.server import Server
from tests.jotting import FILE, makespan, read_jots
from tests.sites import site
from tests.workers import wait_for

MODES = {"handoff": "handoff", "retry": "retry"}
#: Seconds after which a run is given up.
PATIENCE = 600


@dataclass(frozen=True)
class Load:
    """Tasks of one account.

    Attributes:
        tasks: how many.
        seconds: that each takes.
        limit: of them that may run at once.
        processes: of the one worker.
    """

    tasks: int
    seconds: float
    limit: int
    processes: int

    def __str__(self) -> str:
        return (
            f"{self.tasks} x {self.seconds * 1000:.0f} ms, limit {self.limit}, -c {self.processes}"
        )

    @property
    def ideal(self) -> float:
        """Seconds that it takes if nothing takes time but the tasks."""
        return self.tasks * self.seconds / self.limit


def loads(short: bool) -> list[Load]:
    """Return the loads to measure."""
    tasks = 40 if short else 200
    return [Load(tasks, 0.05, 1, 4), Load(tasks, 0.02, 2, 8)]


def measure(server: Server, short: bool, say: Callable[[str], None]) -> dict[str, object]:
    """Run each load by hand-off and by plain retry in turns; return medians of the ratios."""
    found: dict[str, object] = {}
    for load in loads(short):
        ratios: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
        for number in range(1 if short else 3):
            for mode in MODES:
                ratio, deliveries = _run(server, load, mode)
                ratios[mode].append((ratio, deliveries))
                say(f"{load}, {mode}, {number + 1}: {ratio:.2f} of the ideal, {deliveries:.2f} "
                    "deliveries a task")  # fmt: skip
        found[str(load)] = {
            mode: {
                "makespan_vs_ideal": round(median(ratio for ratio, _ in runs), 3),
                "deliveries_per_task": round(median(count for _, count in runs), 2),
            }
            for mode, runs in ratios.items()
        }
    return found


def _run(server: Server, load: Load, mode: str) -> tuple[float, float]:
    """Let a new worker run a load; return its makespan by the ideal, and deliveries a task."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        jots = directory / "jots"
        env = {"WAITING": mode, "COUNTDOWN": "1", FILE: str(jots)}
        with site(server, directory, "room", **env) as one:
            one.limiter.config.update({"account_max": load.limit})
            one.start(concurrency=load.processes)
            for _ in range(load.tasks):
                one.tasks.work.apply_async((load.seconds,), headers={"account": "a"})
            wait_for(lambda: len(read_jots(jots)) >= load.tasks, timeout=PATIENCE)
            deliveries = one.output().count("] received")
        return makespan(read_jots(jots)) / load.ideal, deliveries / load.tasks
