"""What a call costs while many wait for a moment, each for its own, beside while few do.

``growth.py`` has the same of those who wait for room.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from redis import Redis

from benchmarks.crowd import QUEUE, TRIP, Crowd, tags_of
from benchmarks.growth import BATCH, FEW, ROUNDS, release, some, timed
from celery_concurrency import scripts
from celery_concurrency.limiter.waiting_room import COLLECT_SECONDS, STEPS, SWEEP_BATCH

#: Each account may begin once in so many seconds.
DAY = 86_400
RATES = {"account:*": [{"max": 1, "per": DAY}]}
#: Those who wait for room beside them have a dimension of their own.
CONFIG = {"rates": RATES, "dimensions": {"tenant": {"max": 1}}}


def measure(redis: Redis, many: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Release, meet moments and sweep by turns in a small and in a large crowd.

    Args:
        redis: an empty server.
        many: that wait in the large one.

    Returns:
        the worst growth, and the medians, as the server itself measured them.
    """
    sizes = {"few": FEW, "many": many}
    crowds = {}
    for name, waiting in sizes.items():
        say(f"{waiting:,} wait for a moment of their own")
        crowds[name] = _crowd(redis, name, waiting)
    costs: dict[tuple[str, str], list[float]] = {}
    for number in range(ROUNDS):
        for name, waiting in sizes.items():
            for call, cost in _round(crowds[name], number, waiting).items():
                costs.setdefault((call, name), []).append(cost)
    calls = ("release", "moment", "sweep")
    cost = {key: median(all_) for key, all_ in costs.items()}
    growth = {call: round(cost[call, "many"] / cost[call, "few"], 2) for call in calls}
    found = {
        "waiting": many,
        "growth": growth,
        "us": {call: round(cost[call, "many"], 1) for call in calls},
    }
    say(f"  {found}")
    return {"moments_growth": max(growth.values()), "moments": found}


def _crowd(redis: Redis, prefix: str, waiting: int) -> Crowd:
    """Return a crowd of which so many accounts wait for a moment; the others need a tenant."""

    def tags(account: int) -> dict[str, str]:
        own = tags_of(account)
        return own if account < waiting else {"platform": own["platform"], "tenant": str(account)}

    crowd = Crowd(redis, prefix, CONFIG, tags=tags, dimensions=("tenant",))
    for begin in range(0, waiting, TRIP):
        _note_starts(crowd, range(begin, min(begin + TRIP, waiting)), 0)
    crowd.park(iter(range(waiting)))
    assert redis.zcard(f"{prefix}:moments") == waiting
    return crowd


def _note_starts(crowd: Crowd, accounts: Iterable[int], age: float) -> None:
    """As if a run of each of these had begun so many seconds ago."""
    pipe = crowd.redis.pipeline(transaction=False)
    for account in accounts:
        limit = f"account:{tags_of(account)['account']}"
        pipe.zadd(crowd.limiter.keyspace.keys.rate(limit), {"begun:1": time.time() - age})
        if age:
            pipe.zadd(crowd.limiter.keyspace.keys.moments, {limit: 1}, xx=True)
    pipe.execute()


def _round(crowd: Crowd, number: int, waiting: int) -> dict[str, float]:
    """Return the microseconds of each kind of call, in which some who wait go on."""
    redis, others = crowd.redis, range(waiting, waiting + BATCH)
    crowd.hold(iter(others))
    crowd.park(iter(others))
    taken = {"release": timed(redis, lambda: [release(crowd, one) for one in others])}
    due = some(number, waiting)
    _note_starts(crowd, due, DAY)
    taken["moment"] = timed(redis, lambda: _call(crowd, "advance", 0, STEPS))
    taken["sweep"] = timed(
        redis,
        lambda: _call(crowd, "sweep", 0, SWEEP_BATCH, "-1", "-1", str(COLLECT_SECONDS), STEPS),
    )
    assert redis.llen(QUEUE) == 2 * BATCH, "those released for, and those whose moment came"
    redis.delete(QUEUE)
    for account in (*others, *due):
        crowd.take_over(account)
        release(crowd, account)
    crowd.park(iter(due))
    return taken


def _call(crowd: Crowd, verb: str, *args: str | int) -> None:
    scripts.call(crowd.redis, verb, crowd.limiter.prefix, *args)
