"""The backlog: how many tasks waited for each limit, minute by minute, in the last hour.

The worker that stores a minute's copy of the counters (``counters.py``) counts once, in batches;
no task's own call costs more for it. How many wait now is in ``limiter/inspect/usage.py``.
"""

import json
from contextlib import suppress
from itertools import chain
from typing import Any, Final

from pydantic import BaseModel, Field

from celery_concurrency.errors import OutOfMemory
from celery_concurrency.limiter.inspect.counts import MAX_GROUPS, count_waiting
from celery_concurrency.limiter.keyspace import Keyspace

#: How far back it goes, and how many samples that is: one a minute.
WINDOW: Final = 3600
SAMPLES_KEPT: Final = WINDOW // 60
#: Limits of a sample, and of an answer: those that most wait for. Each account is one.
LIMITS_MOST: Final = 500


class Backlog(BaseModel):
    """How many tasks waited for each limit in the last hour."""

    at: list[float] = Field(
        description="When each sample was made, in Unix seconds of the Redis server, the oldest "
        "first: about one a minute while a worker is alive."
    )
    limits: dict[str, list[int | None]] = Field(
        description="By limit, how many tasks in the waiting room counted in it at each of these "
        f"times; null where {LIMITS_MOST} others had more. A limit that nobody waited for is not "
        f"in it, nor is one beyond the {LIMITS_MOST} with most."
    )


def sample_backlog(keyspace: Keyspace) -> None:
    """Store how many wait for each limit now; where Redis has no memory, leave it."""
    waiting = dict(count_waiting(keyspace, MAX_GROUPS).most_common(LIMITS_MOST))
    with suppress(OutOfMemory):
        keyspace.redis.xadd(
            keyspace.keys.backlog,
            {"waiting": json.dumps(waiting)},
            maxlen=SAMPLES_KEPT,
            approximate=False,
        )


def read_backlog(keyspace: Keyspace) -> Backlog:
    """Return the samples of the last hour."""
    since = int((keyspace.now() - WINDOW) * 1000)
    entries: Any = keyspace.redis.xrange(keyspace.keys.backlog, min=f"{since}-0")
    samples: list[dict[str, int]] = [json.loads(fields[b"waiting"]) for _, fields in entries]
    most: dict[str, int] = {}
    for limit, waiting in chain.from_iterable(sample.items() for sample in samples):
        most[limit] = max(waiting, most.get(limit, 0))
    shown = sorted(most, key=most.__getitem__, reverse=True)[:LIMITS_MOST]
    return Backlog(
        at=[int(entry_id.partition(b"-")[0]) / 1000 for entry_id, _ in entries],
        limits={limit: [_in(sample, limit) for sample in samples] for limit in shown},
    )


def _in(sample: dict[str, int], limit: str) -> int | None:
    unknown = None if len(sample) >= LIMITS_MOST else 0
    return sample.get(limit, unknown)
