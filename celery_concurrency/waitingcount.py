"""How many tasks wait for each limit, counted from the groups of the waiting room."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis

from celery_concurrency.connection import asking

#: Groups counted at most: where each account has its own, there may be a million. They
#: are those whose first waiter came first.
MAX_GROUPS: Final = 10_000
#: Groups in one trip: Redis serves others in between.
TRIP: Final = 500


@dataclass(frozen=True, slots=True)
class WaitingCount:
    """Who waits.

    Attributes:
        by_limit: how many tasks wait with each limit, whether that is what they wait
            for or not; accounts too. Limits with which nobody waits are not in it.
        uncounted: groups beyond ``MAX_GROUPS``, whose tasks are not in it either.
    """

    by_limit: Counter[str]
    uncounted: int


def count_waiting(redis: Redis, prefix: str) -> WaitingCount:
    """Count the waiting tasks, group by group.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    by_limit: Counter[str] = Counter()
    counted: set[bytes] = set()
    with asking():
        total: Any = redis.zcard(f"{prefix}:groups")
        for first in range(0, min(total, MAX_GROUPS), TRIP):
            groups: Any = redis.zrange(f"{prefix}:groups", first, first + TRIP - 1)
            # One that moved back meanwhile comes again.
            new = [group for group in groups if group not in counted]
            counted.update(new)
            pipe = redis.pipeline(transaction=False)
            for group in new:
                pipe.zcard(f"{prefix}:group:{group.decode()}")
            for group, waiters in zip(new, pipe.execute(), strict=True):
                by_limit.update(dict.fromkeys(json.loads(group), waiters))
    return WaitingCount(by_limit, max(0, total - MAX_GROUPS))
