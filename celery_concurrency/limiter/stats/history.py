"""The statistics of the last hours, interval by interval: what the page plots.

Counters are differences between the copies of each full minute (``counters.py``); how long
runs waited and held comes from histograms of five minutes (``durations.py``). Of many limits
only the busiest are in it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import repeat
from typing import Any, Final

from pydantic import BaseModel, Field

from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import dimension_of, other_of
from celery_concurrency.limiter.stats.counters import (
    DEFAULT_WINDOW,
    SNAPSHOT_SECONDS,
    WINDOWS,
    Copy,
    copies_up_to,
    difference,
    read_counters,
)
from celery_concurrency.limiter.stats.durations import (
    INTERVAL,
    Durations,
    Histogram,
    Percentiles,
    Spans,
)
from celery_concurrency.limiter.stats.names import read_names
from celery_concurrency.scripts.constants import SHARED_DIMENSIONS

#: Resolutions by name, in seconds.
RESOLUTIONS: Final[dict[str, int]] = {"1m": 60, "5m": 300, "1h": 3600}
DEFAULT_RESOLUTION: Final = "5m"

#: Copies of the counters read in one trip: Redis serves others in between.
TRIP: Final = 100
#: Limits that are in it by name: those with most runs acquired and denied; and of dimensions of
#: one's own, which have no counters, those that were used last.
LIMITS_MOST: Final = 50
OWN_MOST: Final = 20


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
    since: float | None = Field(
        description="When the oldest copy of the counters was made that is kept, in Unix seconds "
        "of the Redis server: what was before is not known. null where no worker ran yet."
    )
    points: list[Point] = Field(
        description="One for each interval, the oldest first. They begin at whole multiples "
        "of the resolution; the last one is still going on."
    )
    left_out: int = Field(
        description="How many limits that are counted by name are not in it: it has the "
        f"{LIMITS_MOST} that counted most, and the {OWN_MOST} of your own dimensions that were "
        f"used last. Those without a name are in it, together, as "
        f"{other_of(SHARED_DIMENSIONS[0])}."
    )


def read_stats_history(
    keyspace: Keyspace, resolution: str = DEFAULT_RESOLUTION, window: str = DEFAULT_WINDOW
) -> StatsHistory:
    """Return the statistics of a window, interval by interval.

    Args:
        resolution: one of ``RESOLUTIONS``.
        window: "1h", "6h" or "24h". The first interval is the one that it begins in.

    Raises:
        KeyError, ValueError: there is no such resolution or window.
    """
    step, length = RESOLUTIONS[resolution], WINDOWS[window]
    if length is None:
        raise ValueError("a history needs a window that has a beginning")
    starts = _starts(keyspace, step, length)
    counted = list(_counted_between(keyspace, starts))
    names = read_names(keyspace)
    shown = _busiest(names, counted)
    series: Iterable[Spans] = repeat(Spans())
    if step >= INTERVAL:
        series = Durations(keyspace).series(starts[0], starts[-1] + step, step, shown)
    points = [
        Point(
            at=start,
            counters={name: n for name, n in counts.items() if _is_shown(_limit_of(name), shown)},
            wait=_percentiles(spans.wait, shown),
            hold=_percentiles(spans.hold, shown),
        )
        for start, counts, spans in zip(starts, counted, series, strict=False)
    ]
    return StatsHistory(
        resolution=step,
        since=_oldest(keyspace),
        points=points,
        left_out=len(names) - len(shown),
    )


def read_counts(keyspace: Keyspace, counter: str, step: int, length: int) -> list[tuple[int, int]]:
    """Return how often one thing was counted, interval by interval, the oldest first.

    Args:
        counter: its name, as ``"refused:platform:douyin"``.
        step: seconds of an interval, whole minutes.
        length: seconds that are looked back on.

    Returns:
        when each interval begins, in Unix seconds, and how often it was in that.
    """
    starts = _starts(keyspace, step, length)
    counted = _counted_between(keyspace, starts)
    return [(at, counts.get(counter, 0)) for at, counts in zip(starts, counted, strict=True)]


def _starts(keyspace: Keyspace, step: int, length: int) -> range:
    now = int(keyspace.now())
    return range((now - length) // step * step, now + 1, step)


def _oldest(keyspace: Keyspace) -> float | None:
    """Return when the oldest copy of the counters was made."""
    found: Any = keyspace.redis.xrange(keyspace.keys.counters_history, count=1)
    return Copy.of(found[0]).at if found else None


def _limit_of(counter: str) -> str:
    return counter.partition(":")[2]


def _busiest(names: list[str], counted: Iterable[dict[str, int]]) -> list[str]:
    """Return the limits that counted most, and those of dimensions of one's own.

    Args:
        names: those that were used last first.
    """
    sums: Counter[str] = Counter()
    for counts in counted:
        for counter, count in counts.items():
            sums[_limit_of(counter)] += count
    shared = [name for name in names if dimension_of(name) in SHARED_DIMENSIONS]
    own = [name for name in names if dimension_of(name) not in SHARED_DIMENSIONS]
    return [*nlargest(LIMITS_MOST, shared, key=sums.__getitem__), *own[:OWN_MOST]]


def _is_shown(limit: str, shown: list[str]) -> bool:
    # Without a colon are "global", "total", and those that are counted together.
    return ":" not in limit or limit in shown


def _percentiles(histograms: dict[str, Histogram], shown: list[str]) -> dict[str, Percentiles]:
    return {
        limit: histogram.percentiles()
        for limit, histogram in sorted(histograms.items())
        if histogram.count and _is_shown(limit, shown)
    }


def _counted_between(keyspace: Keyspace, moments: Sequence[int]) -> Iterator[dict[str, int]]:
    """Yield what was counted from each of these moments, which ascend, to the next, or to now.

    The copy of a full minute is made a moment after it begins. Where it is missing, no
    worker ran, and the copy before says what was counted by then.
    """
    copies = _copies(keyspace, moments[0])
    following = next(copies, None)
    known: dict[str, int] = {}
    for number, moment in enumerate(moments):
        before = dict(known)
        while following and following.at < moment + SNAPSHOT_SECONDS:
            following.apply_to(known)
            following = next(copies, None)
        if number:
            yield difference(known, before)
    yield difference(read_counters(keyspace), known)


def _copies(keyspace: Keyspace, since: int) -> Iterator[Copy]:
    """Yield the copies since a moment, and those before that tell what the counters were."""
    yield from copies_up_to(keyspace, f"({since * 1000}-0")
    first = f"{since * 1000}-0"
    while True:
        some: Any = keyspace.redis.xrange(keyspace.keys.counters_history, min=first, count=TRIP)
        yield from map(Copy.of, some)
        if len(some) < TRIP:
            return
        first = f"({some[-1][0].decode()}"
