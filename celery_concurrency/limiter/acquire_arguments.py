"""The arguments of ``acquire.lua``: texts that many runs share are made once.

The client's time grows with the number of arguments, so there are few, with JSON in them.
"""

import json
from functools import lru_cache

from celery_concurrency.limiter.config.flat import dimensions_key
from celery_concurrency.limiter.limits import own_limits, split_limit, wildcard_of
from celery_concurrency.limiter.outcomes import Ticket
from celery_concurrency.limiter.waiters import group_of
from celery_concurrency.scripts.constants import SHARED_DIMENSIONS


def arguments(
    limits: tuple[str, ...],
    ticket: Ticket | None = None,
    *,
    dimensions: tuple[str, ...] = (),
    task: str = "",
    worker: str = "",
    rank: int = 0,
    copies_seconds: int = 86_400,
    lease: float | None = None,
    begun: bool = False,
    skips: bool = False,
) -> tuple[str, str, str]:
    """Return the script's arguments after the token.

    Args:
        limits: the run's limits.
        dimensions: the user's own dimensions, as this process knows them.
        copies_seconds: how long Redis remembers on which message the run began.
        ticket, task, worker, rank, lease, begun, skips: see ``Limiter.try_acquire``.
    """
    facts = _facts_of(
        _wildcards_of(limits), counted_of(limits), dimensions, task, worker, rank,
        copies_seconds, lease, begun, _places_of_own(limits) if skips else (),
    )  # fmt: skip
    return group_of(limits), facts, _ticket(ticket, limits) if ticket else ""


@lru_cache(maxsize=4096)
def _wildcards_of(limits: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(wildcard_of(limit) for limit in limits)


@lru_cache(maxsize=4096)
def counted_of(limits: tuple[str, ...]) -> tuple[str, ...]:
    """Return which of these limits have counters."""
    return tuple(limit for limit in limits if split_limit(limit)[0] in SHARED_DIMENSIONS)


@lru_cache(maxsize=4096)
def _places_of_own(limits: tuple[str, ...]) -> tuple[int, ...]:
    """Return the places of a run's own limits among its limits, as Lua counts."""
    own = own_limits(limits)
    return tuple(place for place, limit in enumerate(limits, start=1) if limit in own)


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
    skips: tuple[int, ...],
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
    if skips:
        facts["skips"] = skips
    return json.dumps(facts, ensure_ascii=False)


def _ticket(ticket: Ticket, limits: tuple[str, ...]) -> str:
    facts = {"place": str(ticket.number), "parked_as": ticket.parked_as}
    if ticket.limits not in ((), limits):
        facts["group"] = group_of(ticket.limits)
    return json.dumps(facts, ensure_ascii=False)
