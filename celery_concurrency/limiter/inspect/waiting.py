"""The list of all waiters, a page at a time: in which order, and for what.

``explanation.py`` tells all about one of them; ``limiter/waiting_room.py`` parks them.
"""

import heapq
import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.inspect.blocking import Blocked
from celery_concurrency.limiter.inspect.counts import count_waiting
from celery_concurrency.limiter.inspect.giving_up import read_moments_to_give_up
from celery_concurrency.limiter.inspect.holders import DEFAULT_COUNT
from celery_concurrency.limiter.inspect.limit_state import read_states
from celery_concurrency.limiter.inspect.waiter_records import read_records
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import GLOBAL
from celery_concurrency.limiter.waiters import groups_in_order
from celery_concurrency.limiter.weights import read_group

#: The ticket of the last waiter of a page.
CURSOR: Final = "[0-9]{1,17}"

#: Waiters of a group that are read at a time.
CHUNK: Final = 20


class Waiting(BaseModel):
    """A task that waits.

    Attributes:
        task_id: its id.
        task: its name; None where the message does not say.
        limits: those that it counts in.
        blocked_by: why it does not go on now: of the limits that block it the one that stays
            shut for longest (``blocking.States``).
        position: where it stands among those with the same limits, from 1.
        since: when it asked first, in Unix seconds of the Redis server.
        rank: of its priority: 0 is the highest, and each lower one 1 more.
        given_up_at: until when it may wait, in the same seconds; None for ever.
        weight: how many places it takes in each shared limit.
    """

    task_id: str
    task: str | None
    limits: list[str]
    blocked_by: Blocked
    position: int
    since: float
    rank: int = 0
    given_up_at: float | None = None
    weight: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON's object, without what says nothing (``left_out``)."""
        return self.model_dump(exclude=left_out(self))


def left_out(one: BaseModel) -> set[str]:
    """Return the fields that JSON has only while they say something."""
    usual = {"rank": 0, "given_up_at": None, "weight": 1}
    return {name for name, value in usual.items() if getattr(one, name) == value}


class WaitingPage(BaseModel):
    """A page of waiters, in their order.

    Attributes:
        waiting: the waiters.
        total: how many there are on all pages; None on others than the first.
        next: the cursor of the next page; None where this is the last.
    """

    waiting: list[Waiting]
    total: int | None
    next: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON's object."""
        return {
            "waiting": [one.to_dict() for one in self.waiting],
            "total": self.total,
            "next": self.next,
        }


def read_waiting(
    keyspace: Keyspace,
    config: Config,
    limit: str = "",
    count: int = DEFAULT_COUNT,
    cursor: str = "",
) -> WaitingPage:
    """Return a page of waiters: by priority, then by when they asked.

    It reads each group that has a waiter before the page's end, and the first page counts
    all groups (``counts.count_waiting``). A waiter that goes back to a ticket before the
    cursor meanwhile is on none of the later pages.

    Args:
        config: the configuration in force.
        limit: list only those that count in this limit; "" is all.
        count: waiters on a page.
        cursor: the ``next`` of the page before; "" is the first page.

    Raises:
        ValueError: the cursor is that of no page.
    """
    if cursor and not re.fullmatch(CURSOR, cursor):
        raise ValueError("this is not a cursor: use the one from the previous page")
    total = None if cursor else count_waiting(keyspace)[limit or GLOBAL]
    entries = list(islice(_in_order(keyspace, int(cursor or -1), limit), count))
    records = read_records(keyspace, [one.name for one in entries])
    states = read_states(keyspace, config, chain(*(one.limits for one in records)))
    ends = read_moments_to_give_up(keyspace, config, records)
    waiting = [
        Waiting(
            task_id=one.task_id,
            task=one.task,
            limits=one.limits,
            blocked_by=states.blocked(one.group, one.limits, one.position),
            position=one.position,
            since=one.since,
            rank=one.rank,
            given_up_at=ends.get(one.name),
            weight=one.weight,
        )
        for one in records
    ]
    last = str(entries[-1].ticket) if len(entries) == count else None
    return WaitingPage(waiting=waiting, total=total, next=last)


class _Entry(NamedTuple):
    """A waiter in the order; ``ends_chunk``: there may be more of its group to read."""

    ticket: int
    name: str
    group: str
    ends_chunk: bool


def _in_order(keyspace: Keyspace, after: int, limit: str) -> Iterator[_Entry]:
    """Merge the groups' orders, behind a ticket. No two tickets are equal."""
    heap: list[_Entry] = []
    seen: set[str] = set()  # a group whose first waiter leaves meanwhile comes again
    for groups, until in groups_in_order(keyspace):
        new = [one for one in groups if one not in seen and limit in ("", *read_group(one)[0])]
        seen.update(new)
        _push(heap, keyspace, new, after)
        while heap and heap[0].ticket <= until:
            first = heapq.heappop(heap)
            yield first
            if first.ends_chunk:
                _push(heap, keyspace, [first.group], first.ticket)


def _push(heap: list[_Entry], keyspace: Keyspace, groups: list[str], after: int) -> None:
    """Read the next waiters of these groups, behind a ticket."""
    for group, found in keyspace.for_each(
        groups,
        lambda pipe, group: pipe.zrange(
            keyspace.keys.group(group), f"({after}", "+inf",
            byscore=True, offset=0, num=CHUNK, withscores=True,
        ),
    ):  # fmt: skip
        for number, (name, score) in enumerate(found, 1):
            heapq.heappush(heap, _Entry(int(score), name.decode(), group, number == CHUNK))
