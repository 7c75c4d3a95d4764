"""Counts: the living tokens and the waiters of limits, read in batches.

Between two batches Redis serves others; so a count is not of one moment. ``usage.py`` and
``waiting.py`` show the numbers.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from celery_concurrency.limiter.keyspace import BATCH, Keyspace
from celery_concurrency.limiter.outcomes import asked_at
from celery_concurrency.limiter.weights import read_group

#: Groups of waiters that are counted where somebody asks again and again.
MAX_GROUPS: Final = 10_000


def count_living(keyspace: Keyspace, limits: Iterable[str]) -> dict[str, int]:
    """Return how many places living tokens take in each of these limits."""
    living = f"({keyspace.now():.6f}"
    return dict(
        keyspace.for_each(
            limits, lambda pipe, limit: pipe.zcount(keyspace.keys.semaphore(limit), living, "+inf")
        )
    )


def limits_held(keyspace: Keyspace, tokens: Iterable[bytes]) -> set[str]:
    """Return all limits that these tokens hold."""
    limits: set[str] = set()
    for _, held in keyspace.for_each(
        tokens, lambda pipe, token: pipe.hget(keyspace.keys.token(token.decode()), "limits")
    ):
        limits.update(read_group(held)[0])
    return limits


def count_waiting(keyspace: Keyspace, groups: int | None = None) -> Counter[str]:
    """Return how many waiters count in each limit; ``global`` is all of them.

    Args:
        groups: as for ``waiting_groups``.
    """
    counts: Counter[str] = Counter()
    for group in waiting_groups(keyspace, groups):
        for limit in group.limits:
            counts[limit] += group.waiters
    return counts


class Group(NamedTuple):
    """A group of waiters.

    Attributes:
        limits: theirs.
        waiters: how many there are.
        since: when the first of them asked, in Unix seconds of the Redis server; one of a lower
            priority may have asked before.
    """

    limits: list[str]
    waiters: int
    since: float


def waiting_groups(keyspace: Keyspace, groups: int | None = None) -> Iterator[Group]:
    """Yield each group of waiters.

    It costs a command a group, however many wait in it: some 10 µs here and 1 µs in Redis.
    A group that comes and goes meanwhile may be missed.

    Args:
        groups: read no more than so many, those first that wait the longest: where each
            account has its own, there may be a million. None reads all.
    """
    counted: set[bytes] = set()
    total: Any = keyspace.redis.zcard(keyspace.keys.groups)
    most = total if groups is None else min(total, groups)
    for first in range(0, most, BATCH):
        last = min(first + BATCH, most) - 1
        found: Any = keyspace.redis.zrange(keyspace.keys.groups, first, last, withscores=True)
        # A group that moved back meanwhile comes again.
        new = {group: ticket for group, ticket in found if group not in counted}
        counted.update(new)
        for group, waiters in keyspace.for_each(
            new, lambda pipe, group: pipe.zcard(keyspace.keys.group(group.decode()))
        ):
            yield Group(read_group(group)[0], waiters, asked_at(int(new[group])))
