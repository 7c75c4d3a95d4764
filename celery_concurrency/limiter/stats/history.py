"""The statistics of the last hours, interval by interval: what the page plots.

Counters are differences between the copies of each full minute (``counters.py``); how long
runs waited and held comes from histograms of five minutes (``durations.py``).
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise, repeat
from typing import Any, Final

from pydantic import BaseModel, Field

from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.stats.counters import (
    DEFAULT_WINDOW,
    SNAPSHOT_SECONDS,
    WINDOWS,
    counters_of,
    difference,
)
from celery_concurrency.limiter.stats.durations import (
    INTERVAL,
    Durations,
    Histogram,
    Percentiles,
    Spans,
)

#: Resolutions by name, in seconds.
RESOLUTIONS: Final[dict[str, int]] = {"1m": 60, "5m": 300, "1h": 3600}
DEFAULT_RESOLUTION: Final = "5m"

#: Copies of the counters read in one trip: Redis serves others in between.
TRIP: Final = 100


class Point(BaseModel):
    """One interval."""

    at: int = Field(description="When it begins, in Unix seconds of the Redis server.")
    counters: dict[str, int] = Field(
        description="What was counted in it, by the names of /stats: what is not 0, and "
        "the totals of acquired and released."
    )
    wait: dict[str, Percentiles] = Field(
        description="By limit, how long those runs had waited that ended in it. Kept for "
        "each five minutes: empty at a resolution of 1m."
    )
    hold: dict[str, Percentiles] = Field(
        description="By limit, how long those runs had held their tokens that ended in it. "
        "Empty at a resolution of 1m. Neither has accounts, and of your own dimensions "
        "only limits that the configuration names."
    )


class StatsHistory(BaseModel):
    """The last hours."""

    resolution: int = Field(description="Seconds of an interval.")
    points: list[Point] = Field(
        description="One for each interval, the oldest first. They begin at whole multiples "
        "of the resolution; the last one is still going on."
    )


def read_stats_history(
    keyspace: Keyspace, resolution: str = DEFAULT_RESOLUTION, window: str = DEFAULT_WINDOW
) -> StatsHistory:
    """Return the statistics of a window, interval by interval.

    Args:
        resolution: one of ``RESOLUTIONS``.
        window: "1h" or "24h". The first interval is the one that it begins in.

    Raises:
        KeyError, ValueError: there is no such resolution or window.
    """
    step, length = RESOLUTIONS[resolution], WINDOWS[window]
    if length is None:
        raise ValueError("a history needs a window that has a beginning")
    now = int(keyspace.now())
    starts = range((now - length) // step * step, now + 1, step)
    counters = _counters_at(keyspace, starts)
    series: Iterable[Spans] = repeat(Spans())
    if step >= INTERVAL:
        series = Durations(keyspace).series(starts[0], starts[-1] + step, step)
    points = [
        Point(
            at=start,
            counters=difference(after, before),
            wait=_percentiles(spans.wait),
            hold=_percentiles(spans.hold),
        )
        for start, (before, after), spans in zip(starts, pairwise(counters), series, strict=False)
    ]
    return StatsHistory(resolution=step, points=points)


def _percentiles(histograms: dict[str, Histogram]) -> dict[str, Percentiles]:
    return {
        limit: histogram.percentiles()
        for limit, histogram in sorted(histograms.items())
        if histogram.count
    }


def _counters_at(keyspace: Keyspace, moments: Sequence[int]) -> list[dict[str, int]]:
    """Return the counters at each of these moments, which ascend, and those of now.

    The copy of a full minute is made a moment after it begins. Where it is missing, no
    worker ran, and the copy before says what was counted by then.
    """
    copies = _copies(keyspace, moments[0])
    found: list[dict[str, int]] = []
    known: dict[str, int] = {}
    for moment in moments:
        while copies and copies[0][0] < moment + SNAPSHOT_SECONDS:
            known = copies.pop(0)[1]
        found.append(known)
    counters: Any = keyspace.redis.hgetall(keyspace.keys.counters)
    return [*found, {name.decode(): int(count) for name, count in counters.items()}]


def _copies(keyspace: Keyspace, since: int) -> list[tuple[float, dict[str, int]]]:
    """Return the copies since a moment and the one before: when they were made, their counters."""
    key = keyspace.keys.counters_history
    entries: Any = keyspace.redis.xrevrange(key, max=f"({since * 1000}-0", count=1)
    first = f"{since * 1000}-0"
    while True:
        some: Any = keyspace.redis.xrange(key, min=first, count=TRIP)
        entries += some
        if len(some) < TRIP:
            break
        first = f"({some[-1][0].decode()}"
    return [(int(copy[0].partition(b"-")[0]) / 1000, counters_of(copy)) for copy in entries]
