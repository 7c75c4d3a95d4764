"""What tasks themselves record of their runs, and what that says of overlaps."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redis import Redis

#: A database of its own: what tests flush or break in the others is no matter here.
RECORDS_DB = 9
RECORDS_KEY = "recorded-runs"


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
def recorded(task: Any) -> Iterator[None]:
    """Record from when to when the block ran, in a running task."""
    start = time.clock_gettime(time.CLOCK_MONOTONIC)
    try:
        yield
    finally:
        end = time.clock_gettime(time.CLOCK_MONOTONIC)
        request = task.request
        record = [request.id, request.headers or {}, request.retries, start, end]
        url = os.environ.get("RECORDS_URL") or os.environ["RESULT_BACKEND"]
        with records_client(url) as client:
            client.rpush(RECORDS_KEY, json.dumps(record))


def read_records(redis_url: str) -> list[RunRecord]:
    """Return all runs recorded on this server, in the order of their starts."""
    with records_client(redis_url) as client:
        records = [RunRecord(*json.loads(text)) for text in client.lrange(RECORDS_KEY, 0, -1)]
    return sorted(records, key=lambda record: record.start)


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
