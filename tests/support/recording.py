"""What tasks themselves record of their runs, and what that says of overlaps."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redis import Redis

#: A database of its own: what tests flush or break in the others is no matter here.
RECORDS_DB = 9
RECORDS_KEY = "recorded-runs"
#: The limits that a test has seen in full, and how many bodies have begun to wait for that.
FULL_KEY = "seen-full"
BEGUN_KEY = "begun"


@dataclass(frozen=True)
class RunRecord:
    """One run, by a clock that all processes of a machine share."""

    task_id: str
    headers: dict[str, Any]
    retries: int
    start: float
    end: float


def records_client(url: str) -> Redis:
    """Return a client for the records on this server, whatever database ``url`` names."""
    return Redis.from_url(
        urlsplit(url)._replace(path=f"/{RECORDS_DB}").geturl(), decode_responses=True
    )


@contextmanager
def timed(task: Any, write: Callable[[str], object]) -> Iterator[None]:
    """Write down from when to when the block ran, in a running task, however it ends."""
    start = time.clock_gettime(time.CLOCK_MONOTONIC)
    try:
        yield
    finally:
        end = time.clock_gettime(time.CLOCK_MONOTONIC)
        request = task.request
        write(json.dumps([request.id, request.headers or {}, request.retries, start, end]))


def recorded(task: Any) -> AbstractContextManager[None]:
    """Record from when to when the block runs, in a running task."""
    return timed(task, _push)


def _push(record: str) -> None:
    with _own_records() as client:
        client.rpush(RECORDS_KEY, record)


def wait_until_seen_full(limits: list[str], seconds: float = 60) -> None:
    """Return as soon as a test has written down each of these limits in ``FULL_KEY``."""
    end = time.monotonic() + seconds
    with _own_records() as client:
        client.incr(BEGUN_KEY)
        while limits and not all(client.smismember(FULL_KEY, limits)):
            if time.monotonic() > end:
                raise TimeoutError(f"not seen in full within {seconds} s: {limits}")
            time.sleep(0.02)


def _own_records() -> Redis:
    return records_client(os.environ.get("RECORDS_URL") or os.environ["RESULT_BACKEND"])


def parse_records(records: Iterable[str]) -> list[RunRecord]:
    """Return the runs that were written down, in the order of their starts."""
    runs = (RunRecord(*json.loads(record)) for record in records)
    return sorted(runs, key=lambda run: run.start)


def read_records(redis_url: str) -> list[RunRecord]:
    """Return all runs recorded on this server, in the order of their starts."""
    with records_client(redis_url) as client:
        return parse_records(client.lrange(RECORDS_KEY, 0, -1))


def highest_overlap(records: Iterable[RunRecord]) -> int:
    """Return how many of these ran at once at most."""
    events = sorted(
        (time, step)
        for record in records
        # Ends sort before starts of the same moment: (t, -1) < (t, 1).
        for time, step in ((record.start, 1), (record.end, -1))
    )
    running = highest = 0
    for _, step in events:
        running += step
        highest = max(highest, running)
    return highest


def by(records: Iterable[RunRecord], key: Callable[[RunRecord], str]) -> dict[str, list[RunRecord]]:
    """Group records."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups
