"""``python -m benchmarks.plots``: the pictures of the documentation, from ``build/bench.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.__main__ import RESULT
from benchmarks.pair import FLOOR, OURS

IMAGES = Path("docs/images")
#: Okabe and Ito's colours, which all eyes tell apart.
BLUE, ORANGE, GREY, SKY = "#0072B2", "#D55E00", "#8c8c8c", "#9ecae1"
COLOURS = {"hand-off": BLUE, "retry": ORANGE, "no limiter": GREY}
LABELS = {
    "hand-off": "limit 2, room handed over",
    "retry": "limit 2, asking again every second",
    "no limiter": "a worker of two processes, no limiter",
}


def main() -> None:
    """Draw all of them."""
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    found = json.loads(RESULT.read_text())
    _contended(found)
    _pairs(found["pair_costs_us"])


def _contended(found: dict[str, Any]) -> None:
    """Draw when the tasks of one run ended, by how they waited."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for way, ends in found["makespan_ends_s"].items():
        axes.step([0, *ends], range(len(ends) + 1), color=COLOURS[way], label=LABELS[way])
    tasks, ideal = len(found["makespan_ends_s"]["hand-off"]), found["makespan_ideal_s"]
    axes.axvline(ideal, color=GREY, linestyle=":", linewidth=1)
    axes.annotate(f"the ideal: {ideal:g} s", (ideal, tasks * 0.04), xytext=(4, 0),
                  textcoords="offset points", color=GREY)  # fmt: skip
    axes.set(xlabel="seconds since the first began", ylabel="tasks done", ylim=(0, tasks * 1.05))
    axes.set_xlim(left=0)
    axes.set_title(f"{tasks} tasks of 20 ms of one account, two at once", loc="left")
    axes.legend(frameon=False, loc="lower right")
    _save(figure, "bench-contended.png")


def _pairs(costs: dict[str, dict[str, float]]) -> None:
    """Draw what taking and giving back costs, beside what one may use instead."""
    figure, axes = plt.subplots(figsize=(7, 2.8))
    names = sorted(costs, key=lambda name: -costs[name]["client"])
    colours = {FLOOR: GREY, OURS: BLUE}
    axes.barh(names, [costs[name]["client"] for name in names],
              color=[colours.get(name, SKY) for name in names])  # fmt: skip
    for at, name in enumerate(names):
        axes.annotate(f"{costs[name]['client']:.0f}", (costs[name]["client"], at), xytext=(3, 0),
                      textcoords="offset points", va="center")  # fmt: skip
    axes.set(xlabel="microseconds to take and to give back, median")
    axes.set_title("One connection, nobody else asking", loc="left")
    _save(figure, "bench-pair.png")


def _save(figure: Any, name: str) -> None:
    figure.tight_layout()
    # Without the date and the version, so that the same figures make the same file.
    figure.savefig(IMAGES / name, dpi=150, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
