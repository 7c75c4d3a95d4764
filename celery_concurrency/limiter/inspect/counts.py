"""Counting: the living tokens and the waiters of limits, in batches.

Between two batches Redis serves others; so a count is not of one moment.

What is made of the numbers is in ``usage.py`` and ``waiting.py``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

from redis import Redis

T = TypeVar("T")

#: Commands sent in one trip.
BATCH: Final = 500
#: Groups of waiters that are counted where somebody asks again and again.
MAX_GROUPS: Final = 10_000


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Return the items in lists of ``BATCH``."""
    left = iter(items)
    while batch := list(islice(left, BATCH)):
        yield batch


def living_from(redis: Redis) -> str:
    """Return the score above which an expiry is in the future, by the server's clock.

    Raises:
        RedisError: Redis can't be asked.
    """
    seconds, micros = redis.time()
    return f"({seconds}.{micros:06d}"


def count_living(redis: Redis, prefix: str, limits: Iterable[str]) -> dict[str, int]:
    """Return how many living tokens each of these limits holds.

    Raises:
        RedisError: Redis can't be asked.
    """
    now = living_from(redis)
    counts: dict[str, int] = {}
    for some in batches(limits):
        pipe = redis.pipeline(transaction=False)
        for limit in some:
            pipe.zcount(f"{prefix}:semaphore:{limit}", now, "+inf")
        counts.update(zip(some, pipe.execute(), strict=True))
    return counts


def count_waiting(redis: Redis, prefix: str, groups: int | None = None) -> Counter[str]:
    """Return how many wait that count in a limit, by limit; ``global`` is all who wait.

    It costs a command for each group of waiters with the same limits, however many
    wait in it: some 10 µs here and 1 µs in Redis. A group that comes and goes
    meanwhile may be missed.

    Args:
        redis: see ``connection.connect``.
        prefix: that of all keys.
        groups: look at no more of them, those first that wait the longest; where each
            account has its own, there may be a million. None looks at all.

    Raises:
        RedisError: Redis can't be asked.
    """
    counts: Counter[str] = Counter()
    counted: set[bytes] = set()
    total: Any = redis.zcard(f"{prefix}:groups")
    most = total if groups is None else min(total, groups)
    for first in range(0, most, BATCH):
        found: Any = redis.zrange(f"{prefix}:groups", first, min(first + BATCH, most) - 1)
        # One that moved back meanwhile comes again.
        new = [group for group in found if group not in counted]
        counted.update(new)
        pipe = redis.pipeline(transaction=False)
        for group in new:
            pipe.zcard(f"{prefix}:group:{group.decode()}")
        for group, waiters in zip(new, pipe.execute(), strict=True):
            for limit in json.loads(group):
                counts[limit] += waiters
    return counts


def count_more_groups(redis: Redis, prefix: str) -> int:
    """Return how many groups of waiters there are beyond ``MAX_GROUPS``.

    Raises:
        RedisError: Redis can't be asked.
    """
    total: Any = redis.zcard(f"{prefix}:groups")
    return int(max(0, total - MAX_GROUPS))
