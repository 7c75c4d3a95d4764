"""Counters: totals since the beginning, and what fell in a window.

The scripts count. Once a minute a worker stores a copy of the counters that changed, the first
of an hour a copy of all; a window is the difference between now and the copies up to its start.

``durations.py`` has how long runs waited and held, ``history.py`` the course of both,
``backlog.py`` how many wait, and ``names.py`` which limits are counted by name.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import other_of
from celery_concurrency.limiter.stats.backlog import sample_backlog
from celery_concurrency.limiter.stats.durations import BOUNDS
from celery_concurrency.limiter.stats.names import read_names
from celery_concurrency.log import LIMITER_LOG, fields
from celery_concurrency.scripts.constants import BY_LIMIT, NAMED_MOST, SHARED_DIMENSIONS, TOTALS

logger = logging.getLogger(LIMITER_LOG)

#: Windows by name, in seconds; None is everything since the beginning.
WINDOWS: Final[dict[str, int | None]] = {
    "1h": 3600,
    "6h": 21_600,
    "24h": 86_400,
    "total": None,
}
DEFAULT_WINDOW: Final = "24h"

SNAPSHOT_SECONDS: Final = 60
#: A day of copies, and two hours more: a day's start is always among them, and the copy of all
#: counters before it.
SNAPSHOTS_KEPT: Final = 1560
#: Copies read at a time on the way back to the last one of all counters.
COPIES_BACK: Final = 10

#: Seconds after which an unused name goes, if the configuration does not have it.
UNUSED_SECONDS: Final = 86_400
#: Fields looked at in one step of a trim, and steps after each copy.
TRIM_FIELDS: Final = 500
TRIM_STEPS: Final = 20


class Stats:
    """Reads the counters, and stores copies of them."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._told = False

    def window(self, name: str = DEFAULT_WINDOW) -> dict[str, int]:
        """Return the counters of a window.

        Args:
            name: one of ``WINDOWS``. A window begins at a copy, so it is up to a minute
                longer than its name says.

        Returns:
            ``{"acquired:total": 1523, "released:total": 1520,
            "acquired:platform:douyin": 856, ...}``, the two totals always there.
        """
        seconds = WINDOWS[name]
        counted = read_counters(self._keyspace)
        if seconds is None:
            return difference(counted, {})
        return difference(counted, self._at(int(self._keyspace.now()) - seconds))

    def snapshot(self) -> bool:
        """Store a copy of the counters, if this minute has none; return whether it did.

        Whoever stores it also takes out, in bounded steps, what is counted without a name, and
        stores how many wait.
        """
        reply = self._keyspace.call(
            "snapshot", SNAPSHOT_SECONDS, SNAPSHOTS_KEPT, UNUSED_SECONDS, *BOUNDS
        ).reply
        stored, full = map(bool, reply)
        if stored:
            self._tell(full)
            for _ in range(TRIM_STEPS):
                if self._keyspace.call("trim", TRIM_FIELDS).reply:
                    break
            sample_backlog(self._keyspace)
        return stored

    def _tell(self, full: bool) -> None:
        """Log once that no name has room any more."""
        if full and not self._told:
            logger.warning(
                "the statistics name %d limits and take no more: further limits are counted "
                "together, as %s, until a name has been unused for a day",
                NAMED_MOST,
                " and ".join(map(other_of, SHARED_DIMENSIONS)),
                extra=fields("statistics full", limit=NAMED_MOST),
            )
        self._told = full

    def _at(self, second: int) -> dict[str, int]:
        counters: dict[str, int] = {}
        for copy in copies_up_to(self._keyspace, f"{second * 1000}-0"):
            copy.apply_to(counters)
        return counters


def read_counters(keyspace: Keyspace) -> dict[str, int]:
    """Return the counters of all runs, of each named limit, and of the others of a dimension."""
    limits = [*map(other_of, SHARED_DIMENSIONS), *read_names(keyspace)]
    names = [f"{what}:total" for what in TOTALS]
    names += [f"{what}:{limit}" for what in BY_LIMIT for limit in limits]
    found: Any = keyspace.redis.hmget(keyspace.keys.counters, names)
    return {name: int(count) for name, count in zip(names, found, strict=True) if count}


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of counters.

    Attributes:
        at: when it was made, in Unix seconds of the Redis server.
        counters: those that changed since the copy before, as they were then.
        is_full: these are all of them.
    """

    at: float
    counters: dict[str, int]
    is_full: bool

    @classmethod
    def of(cls, entry: Any) -> Self:
        """Return what an entry of the stream holds."""
        entry_id, fields_ = entry
        is_full = b"counters" in fields_
        texts = json.loads(fields_[b"counters" if is_full else b"changed"])
        counters = {name: int(count) for name, count in texts.items()}
        return cls(int(entry_id.partition(b"-")[0]) / 1000, counters, is_full)

    def apply_to(self, counters: dict[str, int]) -> None:
        """Make these counters, as they were in the copy before, what they were in this one."""
        if self.is_full:
            counters.clear()
        counters.update(self.counters)


def copies_up_to(keyspace: Keyspace, last: str) -> list[Copy]:
    """Return the copies that tell what the counters were: the last of all, and those after it.

    Args:
        last: the greatest id of the stream's entries, as ``XREVRANGE`` takes it.
    """
    found: list[Copy] = []
    while True:
        some: Any = keyspace.redis.xrevrange(
            keyspace.keys.counters_history, max=last, count=COPIES_BACK
        )
        for entry in some:
            found.append(Copy.of(entry))
            if found[-1].is_full:
                return found[::-1]
        if len(some) < COPIES_BACK:
            return found[::-1]
        last = f"({some[-1][0].decode()}"


def difference(counters: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Return what was counted since: all that is not 0, the two totals always.

    Where a counter is lower than before, it was taken out, and began anew.
    """
    since = {
        field: total - before.get(field, 0) if total >= before.get(field, 0) else total
        for field, total in {**_ALWAYS, **counters}.items()
    }
    return {field: count for field, count in since.items() if count or field in _ALWAYS}


_ALWAYS: Final = {"acquired:total": 0, "released:total": 0}
