"""What is kept of those who wait: their groups, and of each its place, its facts, its task.

It is only read here: ``park.lua`` and ``lib/handover.lua`` write it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from redis import Redis

from celery_concurrency.limiter.inspect.counts import BATCH, batches
from celery_concurrency.scripts.constants import RANK

#: Bytes of a waiter that are read: its facts and its message's headers, nearly always.
HEAD: Final = 16_384

_HEADERS: Final = '{"headers": '
_decoder: Final = json.JSONDecoder()


def asked_of(place: int) -> float:
    """Return when one at a place asked first, in Unix seconds of the Redis server."""
    return place % RANK / 1000


def rank_of(place: int) -> int:
    """Return the rank of one at a place: 0 for the highest priority."""
    return place // RANK


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of a waiter.

    Attributes:
        place: orders all of them (``waitingroom.Place.score``).
        group: that of its limits.
        position: its place in the group, from 1.
        task_id, task: its task's id and name.
    """

    place: int
    group: str
    position: int
    task_id: str
    task: str | None

    @property
    def limits(self) -> list[str]:
        """Those of its group."""
        limits: list[str] = json.loads(self.group)
        return limits

    @property
    def since(self) -> float:
        """When it asked, in Unix seconds."""
        return asked_of(self.place)

    @property
    def rank(self) -> int:
        """Of its priority, 0 for the highest."""
        return rank_of(self.place)


def read_records(redis: Redis, prefix: str, names: Iterable[str]) -> list[Record]:
    """Return what is kept of waiters by these names, of those that wait.

    Raises:
        RedisError: Redis can't be asked.
    """
    records = []
    for some in batches(names):
        kept = _read_kept(redis, prefix, some)
        pipe = redis.pipeline(transaction=False)
        for name, facts, _ in kept:
            pipe.zscore(f"{prefix}:group:{facts['group']}", name)
            pipe.zrank(f"{prefix}:group:{facts['group']}", name)
        replies = iter(pipe.execute())
        for name, facts, headers in kept:
            place, before = next(replies), next(replies)
            if place is not None and before is not None:
                records.append(
                    Record(
                        place=int(place),
                        group=facts["group"],
                        position=before + 1,
                        task_id=facts.get("task", name),
                        task=headers.get("task"),
                    )
                )
    return records


_Kept = tuple[str, dict[str, Any], dict[str, Any]]


def _read_kept(redis: Redis, prefix: str, names: list[str]) -> list[_Kept]:
    """Return name, facts and message's headers of those that there are."""
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.getrange(f"{prefix}:waiter:{name}", 0, HEAD - 1)
    found = []
    for name, head in zip(names, pipe.execute(), strict=True):
        facts, headers = _parse(head)
        if headers is None:
            # They are longer than what was read.
            facts, headers = _parse(redis.get(f"{prefix}:waiter:{name}"))
        if facts and headers:
            found.append((name, facts, headers))
    return found


def _parse(kept: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return a waiter's facts and its message's headers; None where these are cut off."""
    if not kept:
        return {}, {}
    line, _, message = kept.partition(b"\n")
    try:
        headers, _ = _decoder.raw_decode(message.decode("utf-8", "replace"), len(_HEADERS))
    except ValueError:
        headers = None
    return json.loads(line), headers


def groups_in_order(redis: Redis, prefix: str) -> Iterator[tuple[list[str], float]]:
    """Return the groups in the order of their first ones, and up to which place these are all.

    A group of which the first one leaves meanwhile may come again.

    Raises:
        RedisError: Redis can't be asked.
    """
    after = -1
    while True:
        found: Any = redis.zrange(
            f"{prefix}:groups", f"({after}", "+inf",
            byscore=True, offset=0, num=BATCH, withscores=True,
        )  # fmt: skip
        groups = [group.decode() for group, _ in found]
        if len(found) < BATCH:
            yield groups, inf
            return
        after = int(found[-1][1])
        yield groups, after
