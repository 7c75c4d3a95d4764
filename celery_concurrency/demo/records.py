"""What was sent and what ran, recorded by those who sent and ran it, not by the limiter.

What they amount to is said in ``report.py``.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from redis import Redis

KEY: Final = "demo:runs"
#: Records read in one command.
BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Sent:
    """A task that was sent.

    Attributes:
        task_id: Celery's.
        tags: those of its headers that say what limits it counts in.
        at: when, in seconds of ``now``.
    """

    task_id: str
    tags: Mapping[str, str]
    at: float


@dataclass(frozen=True, slots=True)
class Run:
    """An execution of a task's body.

    Attributes:
        id: the run's own; a task that runs twice has two runs.
        task_id: Celery's.
        tags: those of the headers that it came with.
        start: when it began, in seconds of ``now``.
        end: when it ended; None while it has not.
    """

    id: str
    task_id: str
    tags: Mapping[str, str]
    start: float
    end: float | None


def now() -> float:
    """Return seconds of a clock that all processes of a machine share."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@contextmanager
def recorded(redis: Redis, task_id: str, tags: Mapping[str, str]) -> Iterator[None]:
    """Record from when to when the block runs; its start already when it starts."""
    run, start = uuid.uuid4().hex, now()
    redis.rpush(KEY, json.dumps([run, task_id, tags, start, None]))
    try:
        yield
    finally:
        redis.rpush(KEY, json.dumps([run, task_id, tags, start, now()]))


class Records:
    """Reads what ``recorded`` wrote, and takes it from the server, which is not to fill up.

    Args:
        redis: a client of the server that was written to.

    Attributes:
        runs: what was read so far, by the id of the run.
        running: the ids of those that have not ended.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.runs: dict[str, Run] = {}
        self.running: set[str] = set()

    def read(self) -> list[Run]:
        """Read what came since the last time; return the runs that ended."""
        texts = self._redis.lpop(KEY, BATCH) or []
        assert isinstance(texts, list)
        runs = [Run(*json.loads(text)) for text in texts]
        ended = [run for run in runs if run.end is not None]
        self.runs.update({run.id: run for run in runs})
        self.running.update(run.id for run in runs)
        self.running.difference_update(run.id for run in ended)
        return ended
