"""Why one task waits: all of its limits, and who holds those that are full.

The list of all who wait is in ``waiting.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel
from redis import Redis

from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.connection import asking
from celery_concurrency.limiter.inspect.counts import BATCH
from celery_concurrency.limiter.inspect.holders import Holder, find_token, read_tokens
from celery_concurrency.limiter.inspect.limit_state import Blocked, LimitState, read_states
from celery_concurrency.limiter.inspect.waiter_records import asked_of, rank_of, read_records

#: Of the holders of a full limit, how many are named.
HOLDERS: Final = 20
#: Of the waiters of one task, how many are looked at: cancel looks at as many.
WAITERS: Final = 16


class LimitOfWaiter(LimitState):
    """A limit of a task that waits.

    Attributes:
        holders: who holds it where it is full, the soonest to expire first, 20 at most.
    """

    holders: list[Holder]


class Explanation(BaseModel):
    """Why a task waits.

    Attributes:
        task_id: its id.
        task: its name; None where it is not known.
        limits: those that it counts in.
        blocked_by: why it does not go on now; None where it was handed over.
        position: its place among those with the same limits, from 1; None likewise.
        since: when it asked first, in Unix seconds of the Redis server.
        rank: of its priority: 0 is the highest, and each lower one 1 more.
        handed_over: it was given room, and its message is back in its queue: it begins
            as soon as a worker takes it.
        reserved_until: how long that room stays reserved; None where it was not given any.
    """

    task_id: str
    task: str | None
    limits: list[LimitOfWaiter]
    blocked_by: Blocked | None
    position: int | None
    since: float
    rank: int = 0
    handed_over: bool
    reserved_until: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON's object: a rank of 0 is left out."""
        return self.model_dump(exclude=None if self.rank else {"rank"})


def explain(redis: Redis, prefix: str, config: Config, task_id: str) -> Explanation | None:
    """Return why a task waits; None where it does not.

    Of a task of which several messages wait, that which comes first. For one that is
    not in the waiting room all tokens are looked at, in batches.

    Args:
        redis: see ``connection.connect``.
        prefix: that of all keys.
        config: the configuration in force.
        task_id: the task's id.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    with asking():
        found = _explain_waiting(redis, prefix, config, task_id)
        return found or _explain_handed_over(redis, prefix, config, task_id)


def find_runs(redis: Redis, prefix: str, task_id: str) -> Iterator[Holder]:
    """Return what tokens a task holds: of its runs, or reserved for it.

    All tokens are looked at, in batches.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", task_id) + ":*"
    with asking():
        tokens: Any = redis.zscan_iter(f"{prefix}:leases", match=pattern, count=BATCH)
        for token, _ in tokens:
            holder = find_token(redis, prefix, token.decode())
            if holder and holder.task_id == task_id:
                yield holder


def _explain_waiting(redis: Redis, prefix: str, config: Config, task_id: str) -> Explanation | None:
    retried: Any = redis.srandmember(f"{prefix}:retried:{task_id}", WAITERS)
    names = [task_id, *(name.decode() for name in retried)]
    records = read_records(redis, prefix, names)
    if not records:
        return None
    first = min(records, key=lambda one: one.place)
    states = read_states(redis, prefix, config, first.limits)
    return Explanation(
        task_id=first.task_id,
        task=first.task,
        limits=[_with_holders(redis, prefix, states.by_limit[limit]) for limit in first.limits],
        blocked_by=states.blocked(first.group, first.limits, first.position),
        position=first.position,
        since=first.since,
        rank=first.rank,
        handed_over=False,
        reserved_until=None,
    )


def _with_holders(redis: Redis, prefix: str, state: LimitState) -> LimitOfWaiter:
    holders = []
    if state.full:
        page = read_tokens(redis, prefix, state.limit, HOLDERS)
        # What keeps room is no holder, and says so by ``kept``.
        holders = [one for one in page.tokens if not one.kept]
    return LimitOfWaiter(**state.model_dump(), holders=holders)


def _explain_handed_over(
    redis: Redis, prefix: str, config: Config, task_id: str
) -> Explanation | None:
    for holder in find_runs(redis, prefix, task_id):
        asked = redis.hget(f"{prefix}:token:{holder.token}", "asked")
        if holder.reserved and asked is not None:
            states = read_states(redis, prefix, config, holder.limits)
            return Explanation(
                task_id=task_id,
                task=None,
                limits=[
                    LimitOfWaiter(**states.by_limit[limit].model_dump(), holders=[])
                    for limit in holder.limits
                ],
                blocked_by=None,
                position=None,
                since=asked_of(int(asked)),
                rank=rank_of(int(asked)),
                handed_over=True,
                reserved_until=holder.expires,
            )
    return None
