"""Reads the records of waiters: of each its group, its ticket and position, its task.

``park.lua`` writes a record, ``lib/messages.lua`` reads and deletes it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.outcomes import asked_at, rank_of
from celery_concurrency.limiter.weights import read_group

#: Bytes of a record that are read: its facts and, nearly always, its message's headers.
HEAD: Final = 16_384

_HEADERS: Final = '{"headers": '
_decoder: Final = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Record:
    """A waiter.

    Attributes:
        name: its own.
        ticket: orders all waiters (``outcomes.Ticket.number``).
        group: the group of its limits.
        position: where it stands in the group, from 1.
        task_id, task: its task's id and name.
    """

    name: str
    ticket: int
    group: str
    position: int
    task_id: str
    task: str | None

    @property
    def limits(self) -> list[str]:
        """The limits of its group."""
        return read_group(self.group)[0]

    @property
    def weight(self) -> int:
        """How many places it takes in each shared limit."""
        return read_group(self.group)[1]

    @property
    def since(self) -> float:
        """When it asked, in Unix seconds."""
        return asked_at(self.ticket)

    @property
    def rank(self) -> int:
        """The rank of its priority, 0 is the highest."""
        return rank_of(self.ticket)


def read_records(keyspace: Keyspace, names: Iterable[str]) -> list[Record]:
    """Return the records of the waiters of these names; those that don't wait are left out."""
    keys = keyspace.keys
    heads = keyspace.for_each(
        names, lambda pipe, name: pipe.getrange(keys.waiter(name), 0, HEAD - 1)
    )
    parsed = ((name, _parse(keyspace, name, head)) for name, head in heads)
    found = [(name, *parts) for name, parts in parsed if parts]
    tickets = keyspace.for_each(
        found, lambda pipe, one: pipe.zscore(keys.group(one[1]["group"]), one[0])
    )
    befores = keyspace.for_each(
        found, lambda pipe, one: pipe.zrank(keys.group(one[1]["group"]), one[0])
    )
    return [
        Record(
            name=name,
            ticket=int(ticket),
            group=facts["group"],
            position=before + 1,
            task_id=facts.get("task", name),
            task=headers.get("task"),
        )
        for ((name, facts, headers), ticket), (_, before) in zip(tickets, befores, strict=True)
        if ticket is not None and before is not None
    ]


_Parts = tuple[dict[str, Any], dict[str, Any]]


def _parse(keyspace: Keyspace, name: str, head: bytes) -> _Parts | None:
    """Return a record's facts and its message's headers; None where it has gone."""
    try:
        return _split(head) if head else None
    except ValueError:
        # The headers are longer than what was read.
        whole: Any = keyspace.redis.get(keyspace.keys.waiter(name))
        return _split(whole) if whole else None


def _split(record: bytes) -> _Parts:
    line, _, message = record.partition(b"\n")
    headers, _ = _decoder.raw_decode(message.decode("utf-8", "replace"), len(_HEADERS))
    return json.loads(line), headers
