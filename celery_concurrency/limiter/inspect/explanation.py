"""Why one task waits: all of its limits, and who holds those that are full.

The list of all waiters is in ``waiting.py``.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Final

from pydantic import BaseModel

from celery_concurrency.limiter.config.history import read_pauses
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.inspect.blocking import Blocked, LimitState
from celery_concurrency.limiter.inspect.giving_up import read_moments_to_give_up
from celery_concurrency.limiter.inspect.holders import Holder, find_token, read_tokens
from celery_concurrency.limiter.inspect.limit_state import read_states
from celery_concurrency.limiter.inspect.short_ids import tokens_of
from celery_concurrency.limiter.inspect.waiter_records import read_records
from celery_concurrency.limiter.inspect.waiting import left_out
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.outcomes import asked_at, rank_of
from celery_concurrency.limiter.weights import places_in

#: Holders of a full limit that are named.
HOLDERS: Final = 20
#: Waiters of one task that are read: cancel takes as many.
WAITERS: Final = 16


class LimitOfWaiter(LimitState):
    """A limit of a task that waits.

    Attributes:
        holders: who holds it where it is full, for longest first, 20 at most.
        probe: who goes first after a refusal; left out of JSON where nobody does.
    """

    LEFT_OUT: ClassVar = LimitState.LEFT_OUT | {"probe"}

    holders: list[Holder]
    probe: Holder | None = None


class Explanation(BaseModel):
    """Why a task waits.

    Attributes:
        task_id: its id.
        task: its name; None where it is not known.
        limits: those it counts in.
        blocked_by: why it does not go on now, the first of ``blockers`` if there are any; None
            where it was handed over.
        blockers: every limit that blocks it, those first that stay shut for longest
            (``blocking.States``); none where all have room.
        position: where it stands among those with the same limits, from 1; None likewise.
        since: when it asked first, in Unix seconds of the Redis server.
        rank: of its priority: 0 is the highest, and each lower one 1 more.
        given_up_at: until when it may wait, in the same seconds; None for ever.
        weight: how many places it takes in each shared limit.
        handed_over: it was given room, and its message is back in its queue: it begins
            as soon as a worker takes it.
        reserved_until: how long that room stays reserved; None where it was given none.
    """

    task_id: str
    task: str | None
    limits: list[LimitOfWaiter]
    blocked_by: Blocked | None
    blockers: list[Blocked]
    position: int | None
    since: float
    rank: int = 0
    given_up_at: float | None = None
    weight: int = 1
    handed_over: bool
    reserved_until: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON's object, without what says nothing (``waiting.left_out``)."""
        return self.model_dump(exclude=left_out(self))


def explain(keyspace: Keyspace, config: Config, task_id: str) -> Explanation | None:
    """Return why a task waits; None where it does not.

    Where several messages of a task wait, the first of them counts. Where none does, all
    tokens are read, in batches.

    Args:
        config: the configuration in force.
        task_id: the task's id.
    """
    found = explain_waiting(keyspace, config, task_id)
    return found or _explain_handed_over(keyspace, config, task_id)


def find_runs(keyspace: Keyspace, task_id: str) -> Iterator[Holder]:
    """Return the tokens of a task's runs, and those reserved for it.

    All tokens are read, in batches.
    """
    for token in tokens_of(keyspace, task_id):
        holder = find_token(keyspace, token)
        if holder:
            yield holder


def explain_waiting(keyspace: Keyspace, config: Config, task_id: str) -> Explanation | None:
    """Return why a task waits, in a bounded number of commands; None where it does not.

    Args:
        config, task_id: as for ``explain``. One that was handed over does not wait.
    """
    retried: Any = keyspace.redis.srandmember(keyspace.keys.retried(task_id), WAITERS)
    names = [task_id, *(name.decode() for name in retried)]
    records = read_records(keyspace, names)
    if not records:
        return None
    first = min(records, key=lambda one: one.ticket)
    states = read_states(keyspace, config, first.limits)
    states.pauses = read_pauses(keyspace, set(config.paused).intersection(first.limits))
    return Explanation(
        task_id=first.task_id,
        task=first.task,
        limits=[
            _with_holders(
                keyspace,
                states.by_limit[limit],
                states.enabled and states.by_limit[limit].lacks(places_in(limit, first.weight)),
            )
            for limit in first.limits
        ],
        blocked_by=states.blocked(first.group, first.limits, first.position),
        blockers=states.blockers(first.group, first.limits),
        position=first.position,
        since=first.since,
        rank=first.rank,
        given_up_at=read_moments_to_give_up(keyspace, config, [first]).get(first.name),
        weight=first.weight,
        handed_over=False,
        reserved_until=None,
    )


def _with_holders(keyspace: Keyspace, state: LimitState, lacks_places: bool) -> LimitOfWaiter:
    holders = []
    if lacks_places:
        page = read_tokens(keyspace, state.limit, HOLDERS)
        # Collected room is kept, not held.
        holders = [one for one in page.tokens if not one.kept]
    probe = find_token(keyspace, state.tried_by) if state.tried_by else None
    return LimitOfWaiter(**state.model_dump(), holders=holders, probe=probe)


def _explain_handed_over(keyspace: Keyspace, config: Config, task_id: str) -> Explanation | None:
    for holder in find_runs(keyspace, task_id):
        asked = keyspace.redis.hget(keyspace.keys.token(holder.token), "asked")
        if holder.reserved and asked is not None:
            states = read_states(keyspace, config, holder.limits)
            return Explanation(
                task_id=task_id,
                task=None,
                limits=[
                    LimitOfWaiter(**states.by_limit[limit].model_dump(), holders=[])
                    for limit in holder.limits
                ],
                blocked_by=None,
                blockers=[],
                position=None,
                since=asked_at(int(asked)),
                rank=rank_of(int(asked)),
                weight=holder.weight,
                handed_over=True,
                reserved_until=holder.expires,
            )
    return None
