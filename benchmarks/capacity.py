"""How far one server goes: what it holds by its measured times, and simulated fleets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import habits, rehearsal
from benchmarks.calls import Gauge
from benchmarks.fleet import Costs, Fleet, Found, Simulation
from celery_concurrency.testing.server import Server

RECORDED: Final = Path(__file__).parent / "fleets.json"
#: What the documentation shows of it.
SHOWN: Final = ("calls_us", "trip_us", "rehearsals", "fleets", "holds", "habits")
#: Workers of the fleets, and the seconds for which each is simulated.
FLEETS: Final = {10: 60.0, 100: 30.0, 300: 20.0, 1_000: 10.0, 10_000: 5.0}
FLEETS_SHORT: Final = {10: 10.0, 100: 5.0}
#: Seconds that the network between worker and server adds to a call: within a data centre.
TRIP: Final = 0.0005
#: Seconds of a task for which it is worked out how many workers one server holds.
LENGTHS: Final = (1.0, 10.0, 60.0, 600.0)
#: Seconds of a real run that count, and of a simulated one.
REAL_SECONDS: Final = 3.0
SIMULATED_SECONDS: Final = 30.0
HABIT_TURNS: Final = 15
#: How busy a server may be: a call waits about half as long as it takes, and bursts have room.
MOST_BUSY: Final = 0.5


def measure(
    server: Server, scratch: Server, short: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure calls and real processes by turns, then simulate.

    Args:
        server: one that keeps its data; it is emptied.
        scratch: one that keeps nothing.
        short: without the habits and the large fleets.
        say: is told how far it is.

    Returns:
        the figures, what the calls take, and what was simulated.
    """
    gauge = Gauge(server)
    pairs = _rehearse(gauge, server, runs=1 if short else 7, turns=1 if short else 2)
    every = [rehearsal.ratios(simulated, real) for simulated, real in pairs]
    ratios = {name: median(one[name] for one in every) for name in every[0]}
    for name, ratio in ratios.items():
        say(f"  {name}: {ratio:.2f} simulated, over real")
    costs = gauge.costs(undisturbed=True)
    pair = costs.verbs["acquire"].seconds + costs.verbs["release"].seconds
    return {
        "simulated_vs_real": round(rehearsal.off(ratios), 3),
        "pairs_a_second": round(1 / pair),
        "idle_worker_vs_pair": round(costs.worker(0) / pair, 2),
        "run_bytes": gauge.run_bytes,
        "simulated_over_real": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "rehearsals": [[_row(one) for one in pair] for pair in pairs],
        "calls_us": {
            name: [round(verb.seconds * 1e6, 1), verb.trips] for name, verb in costs.verbs.items()
        },
        "trip_us": round(costs.trip * 1e6),
        "fleets": fleets(costs, FLEETS_SHORT if short else FLEETS, say),
        "holds": holds(costs),
        "habits": {} if short else habits.measure(server, scratch, HABIT_TURNS, say),
    }


def _rehearse(gauge: Gauge, server: Server, runs: int, turns: int) -> list[tuple[Found, Found]]:
    """Return a simulated and a real run of a fleet, so many times.

    Each is simulated by what was measured in so many turns right before and after: other load on
    the machine changes, and makes every call of the server take longer.
    """
    gauge.measure(turns)
    fleet = rehearsal.fleet_for(rehearsal.of_a_list(gauge.costs()))
    pairs = []
    for number in range(runs):
        real = rehearsal.run(server, fleet, REAL_SECONDS, f"rehearsal{number}")
        gauge.measure(turns)
        costs = rehearsal.of_a_list(gauge.costs(2 * turns))
        pairs.append((Simulation(fleet, costs).run(SIMULATED_SECONDS), real))
    return pairs


def fleets(
    costs: Costs, sizes: dict[int, float], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return a row for each simulated fleet.

    Args:
        costs: the measured times.
        sizes: workers, and seconds to simulate.
    """
    away = replace(costs, trip=TRIP)
    rows = []
    for workers, seconds in sizes.items():
        fleet = Fleet(workers)
        row: dict[str, Any] = {"workers": workers, "arrive_per_second": round(fleet.rate, 1)}
        row["demand"] = round(fleet.demand(away), 3)
        # Above that calls take the longer, the longer it lasts: no figure says how long.
        if row["demand"] < 1:
            row |= _row(Simulation(fleet, away).run(seconds))
        rows.append(row)
        say(f"  {row}")
    return rows


def holds(costs: Costs) -> list[dict[str, float]]:
    """Return how many workers a server holds, by the length of their tasks.

    Returns:
        of each length: ``workers`` and their ``tasks_per_second`` when the server is as busy as
        it should be at most, and the workers that it is ``saturated`` by.
    """
    rows = []
    for length in LENGTHS:
        one = Fleet(1, task_seconds=length)
        sweep = costs.verbs["sweep"].seconds
        each = one.demand(costs) - sweep
        workers, most = (int((busy - sweep) / each) for busy in (MOST_BUSY, 1.0))
        rate = round(workers * one.rate)
        rows.append(
            {
                "task_seconds": length,
                "workers": workers,
                "tasks_per_second": rate,
                "saturated": most,
            }
        )
    return rows


def record(found: dict[str, Any]) -> None:
    """Write down what the documentation shows, if it was measured."""
    if "fleets" in found:
        RECORDED.write_text(json.dumps({name: found[name] for name in SHOWN}, indent=2) + "\n")


def _row(found: Found) -> dict[str, float]:
    return {
        "tasks_per_second": round(found.tasks_per_second, 1),
        "utilisation": round(found.utilisation, 4),
        "waited": round(found.waited, 3),
        "call_ms": round(found.quantile(0.5) * 1e3, 2),
        "call_p99_ms": round(found.quantile(0.99) * 1e3, 2),
        "added_ms": round(found.added_seconds * 1e3, 2),
        "tick_s": round(found.tick_seconds, 3),
    }
