"""Counters: totals since the beginning, and what fell in a window.

The scripts count. Once a minute a worker stores a copy of the counters; a window is the
difference between now and the copy at its start.

``durations.py`` has how long runs waited and held, ``history.py`` the course of both.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from celery_concurrency.limiter.keyspace import Keyspace

#: Windows by name, in seconds; None is everything since the beginning.
WINDOWS: Final[dict[str, int | None]] = {"1h": 3600, "24h": 86_400, "total": None}
DEFAULT_WINDOW: Final = "24h"

SNAPSHOT_SECONDS: Final = 60
#: A day of copies, and one hour more so that a day's start is always among them.
SNAPSHOTS_KEPT: Final = 1500


class Stats:
    """Reads the counters, and stores copies of them."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace

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
        pipe = self._keyspace.pipeline()
        pipe.hgetall(self._keyspace.keys.counters)
        pipe.time()
        counted, (now, _) = pipe.execute()
        before = {} if seconds is None else self._at(now - seconds)
        return difference({field.decode(): int(count) for field, count in counted.items()}, before)

    def snapshot(self) -> bool:
        """Store a copy of the counters, if this minute has none; return whether it did."""
        return bool(self._keyspace.call("snapshot", SNAPSHOT_SECONDS, SNAPSHOTS_KEPT).reply)

    def _at(self, second: int) -> dict[str, int]:
        copies: Any = self._keyspace.redis.xrevrange(
            self._keyspace.keys.counters_history, max=f"{second * 1000}-0", count=1
        )
        return counters_of(copies[0]) if copies else {}


def counters_of(copy: Any) -> dict[str, int]:
    """Return the counters in a copy, an entry of the stream."""
    return {name: int(count) for name, count in json.loads(copy[1][b"counters"]).items()}


def difference(counters: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Return what was counted since: all that is not 0, the two totals always.

    Where a counter is lower than before, an operator deleted it, and it began anew.
    """
    since = {
        field: total - before.get(field, 0) if total >= before.get(field, 0) else total
        for field, total in {**_ALWAYS, **counters}.items()
    }
    return {field: count for field, count in since.items() if count or field in _ALWAYS}


_ALWAYS: Final = {"acquired:total": 0, "released:total": 0}
