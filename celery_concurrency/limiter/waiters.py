"""Waiters: parked messages, and the groups in which they wait.

``waiting_room.py`` parks them; ``scripts/lib/index.lua`` says how Redis stores them.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from celery_concurrency.limiter.keyspace import BATCH, Keyspace
from celery_concurrency.limiter.weights import with_weight


@dataclass(frozen=True, slots=True)
class Waiter:
    """A message to be parked.

    Attributes:
        run: the token of the denied run.
        task_id: its task's id.
        retries, replaced: how often the task was retried, and replaced.
        limits: the limits that it asked for.
        ticket: its place in the order (``outcomes.Ticket.number``); None if it gets its ticket
            when it joins its group.
        message: complete and ready to be put back; begins with ``constants.MESSAGE_START``. Its
            place is put in when it leaves.
        hold: seconds for which tokens stay reserved for it.
        expires: Unix seconds after which it may not run; None for never.
        queue: the key of its queue, if the broker is this Redis server; None if the message
            goes through the outbox.
        queue_expires: milliseconds after which an unused queue expires.
        db: the broker's database, if it is not ours.
        parked_as: the run that first parked the message; "" if this one does.
        replaces: the name of its task, if it replaces older waiters of that task and these limits.
        received: when a worker got its message, in Unix microseconds: says which is older.
        weight: how many places it takes in each limit that is shared (``weights.places_in``).
        has_begun: an earlier run of its task has begun, so it may wait however many do.
    """

    run: str
    task_id: str
    retries: int
    replaced: int
    limits: tuple[str, ...]
    ticket: int | None
    message: bytes
    hold: float
    expires: float | None = None
    queue: str | None = None
    queue_expires: int | None = None
    db: int | None = None
    parked_as: str = ""
    replaces: str | None = None
    received: int = 0
    weight: int = 1
    has_begun: bool = False

    @property
    def group(self) -> str:
        """The group in which it waits."""
        return group_of(self.limits, self.weight)

    @property
    def name(self) -> str:
        """Its name in Redis: copies of a message share a name, retries don't."""
        return waiter_name(self.task_id, self.retries, self.replaced)


def waiter_name(task_id: str, retries: int, replaced: int) -> str:
    """Return the name of a waiter; see ``Waiter``."""
    name = task_id
    if retries or replaced:
        name += f" retry {retries}"
    return f"{name} replaced {replaced}" if replaced else name


@lru_cache(maxsize=4096)
def group_of(limits: tuple[str, ...], weight: int = 1) -> str:
    """Return the name of the group of all waiters with these limits and this weight."""
    return json.dumps(with_weight(limits, weight), ensure_ascii=False)


def groups_in_order(keyspace: Keyspace) -> Iterator[tuple[list[str], float]]:
    """Yield the groups in the order of their first waiters, in batches.

    A group may come twice if its first waiter leaves in between.

    Yields:
        a batch of groups, and the ticket up to which no group is missing.
    """
    after = -1
    while True:
        found: Any = keyspace.redis.zrange(
            keyspace.keys.groups, f"({after}", "+inf",
            byscore=True, offset=0, num=BATCH, withscores=True,
        )  # fmt: skip
        groups = [group.decode() for group, _ in found]
        if len(found) < BATCH:
            yield groups, math.inf
            return
        after = int(found[-1][1])
        yield groups, after
