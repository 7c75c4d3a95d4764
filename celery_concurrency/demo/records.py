"""What ran: recorded by the tasks themselves, not by the limiter.

``report.py`` judges by it.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from redis import Redis

KEY: Final = "demo:runs"
#: Records read in one command.
BATCH: Final = 1000


class Run(NamedTuple):
    """An execution of a task's body; a task that runs twice has two."""

    id: str
    task_id: str
    tags: Mapping[str, str]  # and other headers
    start: float  # by time.monotonic, which is one clock for all processes of a machine
    end: float | None  # None while it runs


@contextmanager
def recorded(redis: Redis, task_id: str, tags: Mapping[str, str]) -> Iterator[None]:
    """Record a run: when the block starts, and again, with its end, when it ends."""
    run = [uuid.uuid4().hex, task_id, tags, time.monotonic()]
    redis.rpush(KEY, json.dumps([*run, None]))
    try:
        yield
    finally:
        redis.rpush(KEY, json.dumps([*run, time.monotonic()]))


class Records:
    """Reads what ``recorded`` wrote, and removes it from the server."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.runs: dict[str, Run] = {}  # by id
        self.running: set[str] = set()  # the ids of those without an end

    def read(self) -> list[Run]:
        """Read what is new; return the runs that ended."""
        texts = self._redis.lpop(KEY, BATCH) or []
        assert isinstance(texts, list)
        runs = [Run(*json.loads(text)) for text in texts]
        ended = [run for run in runs if run.end is not None]
        self.runs.update({run.id: run for run in runs})
        self.running.update(run.id for run in runs)
        self.running.difference_update(run.id for run in ended)
        return ended
