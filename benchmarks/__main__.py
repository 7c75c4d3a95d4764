"""``make bench``: measure all, print a table, and write it to ``build/bench.json``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis

from benchmarks import brake, denial, figures, growth, makespan, moments, pair, steps, throughput
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.server import Server

RESULT = Path("build/bench.json")
MANY, MANY_SHORT = 1_000_000, 20_000
Say = Callable[[str], None]


def main() -> None:
    """Read the options, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="three minutes instead of half an hour"
    )
    parser.add_argument(
        "--only", choices=PARTS, help="one part of it; of the others the file keeps what it has"
    )
    parser.add_argument(
        "--record", action="store_true", help="let later runs be held against this one"
    )
    parser.add_argument(
        "--before", type=Path, help="a checkout of another version, for the pair that needs no rate"
    )
    options = parser.parse_args()
    parts = {**PARTS, "rateless": partial(_rateless, before=options.before)}
    kind = "short" if options.short else "full"
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begin:6.0f} s  {line}", flush=True)

    found: dict[str, Any] = {"short": options.short}
    with Server() as server:
        for name, part in parts.items():
            if options.only in (None, name):
                found |= _measured(server, part, options.short, kind, say)
    RESULT.parent.mkdir(exist_ok=True)
    before = json.loads(RESULT.read_text()) if options.only and RESULT.exists() else {}
    RESULT.write_text(json.dumps(before | found, indent=2) + "\n")
    figures.show(found)
    print(f"all of it is in {RESULT}")
    if options.record:
        figures.record(found, kind)
    worse = [
        f"{key} is {value}, and was {recorded} when it was recorded"
        for key, (value, recorded) in figures.worse(found, kind).items()
    ]
    if worse:
        sys.exit("\n".join(worse))


def _measured(
    server: Server, part: Callable[..., dict[str, Any]], short: bool, kind: str, say: Say
) -> dict[str, Any]:
    """Measure a part; once more where it got worse, as something else may have come between."""
    found = part(server, short, say)
    if figures.worse(found, kind):
        say(f"once more, as these got worse: {figures.worse(found, kind)}")
        found = part(server, short, say)
    return found


def _pair(server: Server, short: bool, say: Say) -> dict[str, Any]:
    _emptied(server)
    return pair.measure(server.url(), 8 if short else 60, say)


def _rateless(server: Server, short: bool, say: Say, before: Path | None = None) -> dict[str, Any]:
    _emptied(server)
    return pair.rateless(server.url(), 10 if short else 60, before, say)


def _config(server: Server, short: bool, say: Say) -> dict[str, Any]:
    return {"config_growth": pair.config_growth(_emptied(server), 4 if short else 20)}


def _growth(server: Server, short: bool, say: Say) -> dict[str, Any]:
    many = MANY_SHORT if short else MANY
    alone = growth.measure(_emptied(server), many, 1, say)
    return growth.measure(_emptied(server), many, 100, say) | {"growth_alone": alone}


def _moments(server: Server, short: bool, say: Say) -> dict[str, Any]:
    return moments.measure(_emptied(server), MANY_SHORT if short else MANY, say)


def _steps(server: Server, short: bool, say: Say) -> dict[str, Any]:
    runs = [steps.measure(_emptied(server), MANY_SHORT if short else MANY, say) for _ in range(3)]
    best = min(runs, key=lambda run: run["longest_call_ms"])
    return {"longest_call_ms": best["longest_call_ms"], "steps": runs}


def _makespan(server: Server, short: bool, say: Say) -> dict[str, Any]:
    _emptied(server)
    return makespan.measure(server, short, say)


def _throughput(server: Server, short: bool, say: Say) -> dict[str, Any]:
    _emptied(server)
    return throughput.measure(server, short, say)


def _denial(server: Server, short: bool, say: Say) -> dict[str, Any]:
    """On a server that keeps its data as the documentation recommends."""
    with Server("--appendonly", "yes", "--appendfsync", "everysec") as keeping:
        return denial.measure(keeping, short, say)


def _brake(server: Server, short: bool, say: Say) -> dict[str, Any]:
    _emptied(server)
    return brake.measure(server, short, say)


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "pair": _pair,
    "rateless": _rateless,
    "config": _config,
    "makespan": _makespan,
    "throughput": _throughput,
    "denial": _denial,
    "brake": _brake,
    "growth": _growth,
    "moments": _moments,
    "steps": _steps,
}


def _emptied(server: Server) -> Redis:
    """Return a client of the server, started anew: what was freed would blur what is used."""
    server.kill()
    server.start()
    client = connect(server.url())
    client.connection_pool.connection_kwargs["socket_timeout"] = 60
    return client


if __name__ == "__main__":
    main()
