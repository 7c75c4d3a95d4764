"""``make bench``: measure all, print a table, and write it to ``build/bench.json``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis

from benchmarks import (
    brake,
    burst,
    capacity,
    denial,
    figures,
    growth,
    makespan,
    moments,
    pair,
    steps,
    throughput,
)  # fmt: skip
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.server import Server

RESULT = Path("build/bench.json")
MANY, MANY_SHORT = 1_000_000, 5_000
#: A server that keeps its data as the documentation recommends. The others keep nothing: a
#: million waiters are looked at there, and it would be busy with its file.
KEEPING = ("--appendonly", "yes", "--appendfsync", "everysec")
Say = Callable[[str], None]


class Servers(NamedTuple):
    """One that keeps nothing, and one that keeps its data."""

    scratch: Server
    keeping: Server


def main() -> None:
    """Read the options, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="some minutes instead of half an hour")
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
    with Server() as scratch, Server(*KEEPING) as keeping:
        servers = Servers(scratch, keeping)
        for name, part in parts.items():
            if options.only in (None, name):
                found |= _measured(servers, part, options.short, kind, say)
    RESULT.parent.mkdir(exist_ok=True)
    before = json.loads(RESULT.read_text()) if options.only and RESULT.exists() else {}
    RESULT.write_text(json.dumps(before | found, indent=2) + "\n")
    figures.show(found)
    print(f"all of it is in {RESULT}")
    if options.record:
        figures.record(found, kind)
        if not options.short:
            capacity.record(found)
    worse = [
        f"{key} is {value}, and was {recorded} when it was recorded"
        for key, (value, recorded) in figures.worse(found, kind).items()
    ]
    if worse:
        sys.exit("\n".join(worse))


def _measured(
    servers: Servers, part: Callable[..., dict[str, Any]], short: bool, kind: str, say: Say
) -> dict[str, Any]:
    """Measure a part; once more where it got worse, as something else may have come between."""
    found = part(servers, short, say)
    if figures.worse(found, kind):
        say(f"once more, as these got worse: {figures.worse(found, kind)}")
        found = part(servers, short, say)
    return found


def _pair(servers: Servers, short: bool, say: Say) -> dict[str, Any]:
    return pair.measure(servers.keeping.url(), 8 if short else 60, say)


def _rateless(
    servers: Servers, short: bool, say: Say, before: Path | None = None
) -> dict[str, Any]:
    _emptied(servers.scratch)
    return pair.rateless(servers.scratch.url(), 10 if short else 60, before, say)


def _config(servers: Servers, short: bool, say: Say) -> dict[str, Any]:
    return {"config_growth": pair.config_growth(_emptied(servers.scratch), 4 if short else 20)}


def _growth(servers: Servers, short: bool, say: Say) -> dict[str, Any]:
    many = MANY_SHORT if short else MANY
    alone = growth.measure(_emptied(servers.scratch), many, 1, say)
    return growth.measure(_emptied(servers.scratch), many, 100, say) | {
        "growth_alone": alone,
        "waiter_bytes_alone": alone["waiter_bytes"],
    }


def _moments(servers: Servers, short: bool, say: Say) -> dict[str, Any]:
    return moments.measure(_emptied(servers.scratch), MANY_SHORT if short else MANY, say)


def _steps(servers: Servers, short: bool, say: Say) -> dict[str, Any]:
    runs = [
        steps.measure(_emptied(servers.scratch), MANY_SHORT if short else MANY, say)
        for _ in range(1 if short else 3)
    ]
    best = min(runs, key=lambda run: run["longest_call_ms"])
    return {"longest_call_ms": best["longest_call_ms"], "steps": runs}


def _makespan(servers: Servers, short: bool, say: Say) -> dict[str, Any]:
    return makespan.measure(servers.keeping, short, say)


def _throughput(servers: Servers, short: bool, say: Say) -> dict[str, Any]:
    return throughput.measure(servers.keeping, short, say)


def _denial(servers: Servers, short: bool, say: Say) -> dict[str, Any]:
    return denial.measure(servers.keeping, short, say)


def _burst(servers: Servers, short: bool, say: Say) -> dict[str, Any]:
    return burst.measure(servers.keeping, short, say)


def _brake(servers: Servers, short: bool, say: Say) -> dict[str, Any]:
    _emptied(servers.scratch)
    return brake.measure(servers.scratch, short, say)


def _capacity(servers: Servers, short: bool, say: Say) -> dict[str, Any]:
    return capacity.measure(servers.keeping, servers.scratch, short, say)


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "pair": _pair,
    "rateless": _rateless,
    "config": _config,
    "makespan": _makespan,
    "throughput": _throughput,
    "denial": _denial,
    "burst": _burst,
    "brake": _brake,
    "growth": _growth,
    "moments": _moments,
    "steps": _steps,
    "capacity": _capacity,
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
