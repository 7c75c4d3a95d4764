"""Counting: the living tokens and the waiters of limits, in batches.

Between two batches Redis serves others; so a count is not of one moment.
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


def count_waiting(redis: Redis, prefix: str) -> Counter[str]:
    """Return how many wait that count in a limit, by limit; ``global`` is all who wait.

    It costs a command for each group of waiters with the same limits, however many
    wait in it: some 10 µs here and 1 µs in Redis. A group that comes and goes
    meanwhile may be missed, or counted twice.

    Raises:
        RedisError: Redis can't be asked.
    """
    counts: Counter[str] = Counter()
    groups: Iterator[Any] = redis.zscan_iter(f"{prefix}:groups", count=BATCH)
    for some in batches(group.decode() for group, _ in groups):
        pipe = redis.pipeline(transaction=False)
        for group in some:
            pipe.zcard(f"{prefix}:group:{group}")
        for group, waiters in zip(some, pipe.execute(), strict=True):
            for limit in json.loads(group):
                counts[limit] += waiters
    return counts
