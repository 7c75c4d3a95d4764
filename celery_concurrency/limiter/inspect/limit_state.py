"""The state of limits, and which of them blocks a waiter.

Shown in listings (``waiting.py``, ``explanation.py``); the scripts decide by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.inspect.counts import count_living
from celery_concurrency.limiter.keyspace import Keyspace


class LimitState(BaseModel):
    """A limit as it is now.

    Attributes:
        limit: its name.
        current: living tokens, those by which room is kept included.
        max: how many it allows, 0 for unlimited.
        paused: it admits nobody for now.
        full: it admits nobody now, for whatever reason.
        kept: some of its room is kept for a waiter that was passed over for long.
    """

    limit: str
    current: int
    max: int
    paused: bool
    full: bool
    kept: bool


class Blocked(BaseModel):
    """Why a waiter does not go on now.

    Attributes:
        reason: ``full``, ``paused``, or ``kept`` (for a waiter that was passed over for
            long) say what the limit is; ``behind``: all limits have room, and others with
            the same limits came before; ``next``: all have room, and it comes next.
        limit: the first of its limits without room for it; None where all have room.
        current, max: living tokens in that limit, and how many it allows.
    """

    reason: Literal["full", "paused", "kept", "behind", "next"]
    limit: str | None = None
    current: int | None = None
    max: int | None = None


class States:
    """The state of limits at about one moment.

    Attributes:
        by_limit: name to state.
        collected_for: the group that room is kept for; None if there is none.
    """

    def __init__(self, by_limit: Mapping[str, LimitState], collected_for: str | None) -> None:
        self.by_limit = by_limit
        self.collected_for = collected_for

    def blocked(self, group: str, limits: Sequence[str], position: int) -> Blocked:
        """Return why a waiter does not go on.

        Args:
            group: the group of its limits.
            limits: its limits.
            position: where it stands in the group, from 1.
        """
        for limit in limits:
            state = self.by_limit[limit]
            if state.full and not (state.kept and group == self.collected_for):
                return Blocked(
                    reason=_reason(state), limit=limit, current=state.current, max=state.max
                )
        return Blocked(reason="next" if position == 1 else "behind")


def _reason(state: LimitState) -> Literal["full", "paused", "kept"]:
    if state.paused:
        return "paused"
    return "kept" if state.kept and state.current == state.max else "full"


def read_states(keyspace: Keyspace, config: Config, limits: Iterable[str]) -> States:
    """Return the state of these limits.

    Args:
        config: the configuration in force.
        limits: their names.
    """
    counts = count_living(keyspace, dict.fromkeys(limits))
    collecting: Any = keyspace.redis.hmget(keyspace.keys.collecting, "group", "token")
    group, token = collecting
    scores = keyspace.for_each(
        counts if token else (),
        lambda pipe, limit: pipe.zscore(keyspace.keys.semaphore(limit), token),
    )
    collected = {limit for limit, score in scores if score}

    def state(limit: str, current: int) -> LimitState:
        most, paused = config.max_of(limit), limit in config.paused
        full = config.enabled and (paused or 0 < most <= current)
        return LimitState(
            limit=limit, current=current, max=most, paused=paused, full=full,
            kept=limit in collected,
        )  # fmt: skip

    return States(
        {limit: state(limit, current) for limit, current in counts.items()},
        group.decode() if group else None,
    )
