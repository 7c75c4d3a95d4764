"""``make bench``: measure all, print it, and write it to ``build/bench.json``."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from redis import Redis

from benchmarks import growth, makespan, steps
from celery_concurrency.connection import connect
from celery_concurrency.demo.server import Server

RESULT = Path("build/bench.json")
MANY, MANY_SHORT = 1_000_000, 20_000


def main() -> None:
    """Read the options, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a minute instead of a quarter hour")
    parser.add_argument("--waiting", type=int, default=0, help="how many wait in a large crowd")
    parser.add_argument("--only", choices=["makespan", "growth", "steps"], help="one part of it")
    options = parser.parse_args()
    many = options.waiting or (MANY_SHORT if options.short else MANY)
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begin:6.0f} s  {line}", flush=True)

    found: dict[str, object] = {"short": options.short}
    with Server() as server:
        redis = connect(server.url())
        if options.only in (None, "makespan"):
            found["makespan"] = makespan.measure(server, options.short, say)
        if options.only in (None, "growth"):
            for each in (100, 1):
                redis = _emptied(server)
                found[f"growth, {each} a group"] = growth.measure(redis, many, each, say)
        if options.only in (None, "steps"):
            found["steps"] = steps.measure(_emptied(server), many, say)
        redis.close()
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def _emptied(server: Server) -> Redis:
    """Return a client of the server, started anew: what was freed would blur what is used."""
    server.kill()
    server.start()
    client = connect(server.url())
    client.connection_pool.connection_kwargs["socket_timeout"] = 60
    return client


if __name__ == "__main__":
    main()
