"""The arguments of ``acquire.lua``: texts that many runs share are made once.

The client's time grows with the number of arguments, so there are few, with JSON in them.
"""

import json
from functools import lru_cache
from typing import TypedDict

from celery_concurrency.limiter.config.flat import dimensions_key
from celery_concurrency.limiter.limits import own_limits, split_limit, wildcard_of
from celery_concurrency.limiter.outcomes import Ticket
from celery_concurrency.limiter.waiters import group_of
from celery_concurrency.scripts.constants import SHARED_DIMENSIONS


class Facts(TypedDict, total=False):
    """What a run says of itself when it asks; ``Limiter.try_acquire`` explains each."""

    task: str
    worker: str
    rank: int
    ticket: Ticket | None
    lease: float | None
    begun: bool
    skips: bool
    replaces: bool
    has_begun: bool
    weight: int


def arguments(
    limits: tuple[str, ...],
    dimensions: tuple[str, ...] = (),
    copies_seconds: int = 86_400,
    *,
    task: str = "",
    worker: str = "",
    rank: int = 0,
    ticket: Ticket | None = None,
    lease: float | None = None,
    begun: bool = False,
    skips: bool = False,
    replaces: bool = False,
    has_begun: bool = False,
    weight: int = 1,
) -> tuple[str, str, str]:
    """Return the script's arguments after the token.

    Args:
        limits: the run's limits.
        dimensions: the user's own dimensions, as this process knows them.
        copies_seconds: how long Redis remembers on which message the run began.
        task, worker, rank, ticket, lease, begun, skips, replaces, has_begun, weight: ``Facts``.
    """
    facts = _facts_of(
        _wildcards_of(limits), counted_of(limits), dimensions, task, worker, rank,
        copies_seconds, lease, begun, _places_of_own(limits) if skips else (), replaces,
        has_begun,
    )  # fmt: skip
    group = group_of(limits, weight)
    return group, facts, _ticket(ticket, group) if ticket else ""


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
    replaces: bool,
    has_begun: bool,
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
    if replaces:
        facts["replaces"] = True
    if has_begun:
        facts["has_begun"] = True
    return json.dumps(facts, ensure_ascii=False)


def _ticket(ticket: Ticket, group: str) -> str:
    facts: dict[str, str | int] = {"place": str(ticket.number), "parked_as": ticket.parked_as}
    before = group_of(ticket.limits, ticket.weight)
    if ticket.limits and before != group:
        facts["group"] = before
    if ticket.received:
        facts["received"] = ticket.received
    return json.dumps(facts, ensure_ascii=False)
