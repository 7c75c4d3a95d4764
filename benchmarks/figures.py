"""The figures: what each of them is, what it should be, and when it has got worse."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RECORDED = Path(__file__).parent / "recorded.json"
#: A figure that is so many times what was recorded has got worse; a machine is noisy.
WORSE = 1.5


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        key: in ``build/bench.json``.
        what: it is.
        goal: no more than that is wanted; no less, where more is better.
        more_is_better: as of a throughput.
        of_the_machine: it depends on more than the processor, so another machine's can't be held
            against it.
    """

    key: str
    what: str
    goal: float
    more_is_better: bool = False
    of_the_machine: bool = False

    def is_met(self, value: float) -> bool:
        """Return whether a value is as good as the goal."""
        return value >= self.goal if self.more_is_better else value <= self.goal

    def is_worse(self, value: float, recorded: float) -> bool:
        """Return whether a value is worse than the recorded one by more than half of it."""
        if self.of_the_machine:
            return False
        return value * WORSE < recorded if self.more_is_better else value > recorded * WORSE


FIGURES = [
    Figure("pair_vs_floor", "take and give back four limits, over two empty calls", 1.15),
    Figure("pair_vs_redis_lock", "the same, over redis-py's Lock on one key", 1.0),
    Figure(
        "pair_cpu_vs_floor",
        "Redis' CPU for it, over two empty calls",
        2.5,
        of_the_machine=True,  # what its disk costs is in it, and the empty calls write nothing
    ),
    Figure("rateless_pair", "a pair that needs no rate, with rates of others over without", 1.03),
    Figure("rateless_cpu", "Redis' CPU for it, the same way", 1.03),
    Figure("config_growth", "take with 300 KB of configuration, over 0.3 KB", 1.1),
    Figure("handover_growth", "give back to one of a million, 100 an account, over 1,000", 1.5),
    Figure(
        "moments_growth", "release, sweep, meet moments: a million wait for them, over 1,000", 1.5
    ),
    Figure("waiter_bytes", "memory of one of these, beyond its message", 400),
    Figure("waiter_bytes_alone", "the same, one an account", 900),
    Figure(
        "longest_call_ms",
        "p99.99 of a call, as a million go on, best of three",
        5,
        of_the_machine=True,
    ),
    Figure("makespan_vs_ideal", "200 x 20 ms at limit 2, over the ideal", 1.25),
    Figure(
        "mixed_makespan_vs_ideal",
        "400 x 50 ms, 16 accounts at limit 1, eight processes, over the ideal",
        1.06,
    ),
    Figure("deliveries_per_task", "deliveries of each of the 200", 2.05),
    Figure("throughput_vs_plain", "tasks a second, all gated, over without us", 0.9, True),
    Figure("cpu_vs_plain", "worker's CPU of one of these tasks, over without us", 1.12),
    Figure("denial_vs_noop", "worker's CPU of one more that waits, over an empty task", 0.5),
    Figure("denial_wall_vs_noop", "its time, all processes busy meanwhile, the same way", 0.6),
    Figure("burst", "wait behind 3,000 that can't run, over 3,000 empty tasks without us", 0.5),
    Figure("brake_refusals", "refusals by a strict platform, over those of a fixed limit", 0.2),
    Figure(
        "brake_throughput", "time that its calls are under way, over what it allows", 0.85, True
    ),
    Figure(
        "brake_other_platform", "calls of a platform beside a strict one, over alone", 0.95, True
    ),
    Figure(
        "simulated_vs_real",
        "a simulated fleet and a real one: the larger over the other",
        1.4,
        of_the_machine=True,  # the real one's clients take processors and caches from the server
    ),
    Figure(
        "pairs_a_second",
        "pairs that one Redis can do while others wait, by its CPU",
        2500,
        more_is_better=True,
        of_the_machine=True,
    ),
    Figure("idle_worker_vs_pair", "Redis' CPU for a second of an idle worker, over a pair", 0.5),
    Figure("run_bytes", "memory of a task that runs", 1500),
]


def table(found: dict[str, Any]) -> Table:
    """Return what was found beside what is wanted."""
    shown = Table("figure", "what", "goal", "measured")
    for figure in FIGURES:
        if figure.key not in found:
            continue
        value = found[figure.key]
        sign = "≥" if figure.more_is_better else "≤"
        style = "green" if figure.is_met(value) else "yellow"
        shown.add_row(
            figure.key, figure.what, f"{sign} {figure.goal:g}", f"[{style}]{value:g}[/{style}]"
        )
    return shown


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    Console(width=110).print(table(found))


def worse(found: dict[str, Any], kind: str) -> dict[str, tuple[float, float]]:
    """Return the figures that have got worse, with what was recorded of them.

    Args:
        found: what was measured.
        kind: "short" or "full".
    """
    recorded = _recorded().get(kind, {})
    return {
        figure.key: (found[figure.key], recorded[figure.key])
        for figure in FIGURES
        if figure.key in found
        and figure.key in recorded
        and figure.is_worse(found[figure.key], recorded[figure.key])
    }


def record(found: dict[str, Any], kind: str) -> None:
    """Write down what later runs are held against."""
    recorded = _recorded()
    new = {figure.key: found[figure.key] for figure in FIGURES if figure.key in found}
    recorded[kind] = recorded.get(kind, {}) | new
    RECORDED.write_text(json.dumps(recorded, indent=2) + "\n")


def _recorded() -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(RECORDED.read_text())
    return found
