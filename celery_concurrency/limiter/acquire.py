"""What ``acquire.lua`` is told of a run, as texts that many runs share and that are made once.

A call's time in the client grows with its arguments; so there are few, and JSON in them.
"""

from __future__ import annotations

import json
from functools import lru_cache

from celery_concurrency.limiter.config.schema import dimensions_key
from celery_concurrency.limiter.limits import split_limit, wildcard_of
from celery_concurrency.limiter.waiting_room import Place, group_of
from celery_concurrency.scripts.constants import SHARED


def arguments(
    limits: tuple[str, ...],
    place: Place | None = None,
    *,
    dimensions: tuple[str, ...] = (),
    task: str = "",
    worker: str = "",
    rank: int = 0,
    copies_seconds: int = 86_400,
    lease: float | None = None,
    begun: bool = False,
) -> tuple[str, str, str]:
    """Return the script's arguments after the token.

    Args:
        limits: that the run counts in.
        place: where its message waited before; None if it did not.
        dimensions: the user's own, as they are known here.
        task, worker: names, for those who look.
        rank: 0 for the highest priority, 1 more for each lower one, 255 at most.
        copies_seconds: for how long it is known on which message it began.
        lease: seconds after which the token is taken back if nobody renews it; None for
            the configured ``timeout``.
        begun: it runs already, and is counted whether there is room or not.
    """
    wildcards, counted = _kind_of(limits)
    facts = _facts_of(
        wildcards, counted, dimensions, task, worker, rank, copies_seconds, lease, begun
    )
    return group_of(limits), facts, _waited(place, limits) if place else ""


@lru_cache(maxsize=4096)
def _kind_of(limits: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the wildcards of limits, and those of them that have counters."""
    counted = tuple(limit for limit in limits if split_limit(limit)[0] in SHARED)
    return tuple(wildcard_of(limit) for limit in limits), counted


@lru_cache(maxsize=1024)
def _facts_of(
    wildcards: tuple[str, ...],
    counted: tuple[str, ...],
    dimensions: tuple[str, ...],
    task: str,
    worker: str,
    rank: int,
    copies_seconds: int,
    lease: float | None,
    begun: bool,
) -> str:
    facts = {
        "wildcards": wildcards,
        "counted": counted,
        "dimensions": dimensions_key(dimensions),
        "task": task,
        "worker": worker,
        "rank": rank,
        "copies": copies_seconds,
    }
    if lease is not None:
        facts["lease"] = lease
    if begun:
        facts["begun"] = True
    return json.dumps(facts, ensure_ascii=False)


def _waited(place: Place, limits: tuple[str, ...]) -> str:
    facts = {"place": str(place.score), "parked_as": place.parked_as}
    if place.limits not in ((), limits):
        facts["group"] = group_of(place.limits)
    return json.dumps(facts, ensure_ascii=False)
