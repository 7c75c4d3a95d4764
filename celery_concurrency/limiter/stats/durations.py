"""Durations: how long runs waited and held, per limit, in histograms.

``release.lua`` and ``sweep.lua`` append a record of each run that ends to a list. The
worker's housekeeping has ``tally.lua`` count them: since the beginning, and in hashes of
five minutes each, which expire after a day.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice
from typing import Any, Final, Self

from pydantic import BaseModel

from celery_concurrency.limiter.keyspace import Keyspace

#: Upper bounds of the buckets in milliseconds; one more bucket has what is above. The first
#: is for runs that did not wait. Redis names a bucket by its bound, so that a change of
#: these leaves former counts as they are.
BOUNDS: Final = (
    *(0, 10, 25, 50, 100, 250, 500),
    *(1_000, 2_500, 5_000, 10_000, 30_000),
    *(60_000, 120_000, 300_000, 600_000, 1_800_000),
    *(3_600_000, 7_200_000, 21_600_000, 86_400_000),
)
#: Seconds of an interval with a histogram of its own, and how long that is stored: a day,
#: and an hour more so that a day's start is always there.
INTERVAL: Final = 300
KEPT_SECONDS: Final = 25 * 3600

#: Records counted in one call, and calls of one tick at most.
BATCH: Final = 200
CALLS: Final = 32
#: Hashes read in one trip: Redis serves others in between.
TRIP: Final = 24


class Percentiles(BaseModel):
    """How long it took, of the runs that ended in an interval.

    Attributes:
        count: how many there were.
        p50, p95, p99: seconds within which so many percent of them were done, interpolated
            within a bucket and no more than the last bucket's bound.
    """

    count: int
    p50: float
    p95: float
    p99: float


@dataclass(slots=True)
class Histogram:
    """How many took how long.

    Attributes:
        counts: bucket to how many are in it alone. A bucket is named by its upper bound in
            milliseconds, the one above all by None.
        milliseconds: the sum of all.
    """

    counts: dict[int | None, int] = field(default_factory=dict)
    milliseconds: int = 0

    @property
    def count(self) -> int:
        """How many there are in all."""
        return sum(self.counts.values())

    def cumulative(self) -> list[tuple[float | None, int]]:
        """Return the buckets as Prometheus has them, all of ``BOUNDS`` among them.

        Each is its upper bound in seconds, None for the last, and how many are up to it.
        """
        bounds = sorted({*BOUNDS, *(bound for bound in self.counts if bound is not None)})
        sums = accumulate(self.counts.get(bound, 0) for bound in bounds)
        return [
            *((bound / 1000, up_to) for bound, up_to in zip(bounds, sums, strict=True)),
            (None, self.count),
        ]

    def percentiles(self) -> Percentiles:
        """Return the percentiles that are shown."""
        return Percentiles(
            count=self.count,
            p50=self.quantile(0.5),
            p95=self.quantile(0.95),
            p99=self.quantile(0.99),
        )

    def quantile(self, share: float) -> float:
        """Return the seconds within which this share was done; 0 where nothing was.

        As in Prometheus: linear within a bucket, the last bound for what is above it.
        """
        if not self.count:
            return 0.0
        rank, lower, below = share * self.count, 0.0, 0
        for upper, up_to in self.cumulative():
            if upper is None:
                return lower
            if up_to >= rank and up_to > below:
                return round(lower + (upper - lower) * (rank - below) / (up_to - below), 6)
            lower, below = upper, up_to
        return lower


@dataclass(slots=True)
class Spans:
    """The histograms of all limits, of one interval or of all time.

    Attributes:
        wait: by limit, the time from asking first to the grant.
        hold: by limit, the time from the grant until the tokens came back.
    """

    wait: dict[str, Histogram] = field(default_factory=dict)
    hold: dict[str, Histogram] = field(default_factory=dict)

    @classmethod
    def of(cls, *hashes: Mapping[bytes, bytes]) -> Self:
        """Return what these hashes hold together; fields not of ``tally.lua`` are ignored."""
        spans = cls()
        for name, amount in chain.from_iterable(hash_.items() for hash_ in hashes):
            found = re.fullmatch(r"(wait|hold) (\d+|inf|sum) (.+)", name.decode(), re.DOTALL)
            if not found:
                continue
            kind, what, limit = found.groups()
            by_limit = spans.wait if kind == "wait" else spans.hold
            histogram = by_limit.setdefault(limit, Histogram())
            if what == "sum":
                histogram.milliseconds += int(amount)
            else:
                bound = None if what == "inf" else int(what)
                histogram.counts[bound] = histogram.counts.get(bound, 0) + int(amount)
        return spans


class Durations:
    """Counts and reads the histograms."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace

    def tally(self) -> int:
        """Count the runs that ended since the last call, in bounded steps; return how many.

        Many workers may do so at once: each record is counted once.
        """
        total = 0
        for _ in range(CALLS):
            answer = self._keyspace.call("tally", BATCH, INTERVAL, KEPT_SECONDS, *BOUNDS)
            counted: int = answer.reply
            total += counted
            if counted < BATCH:
                break
        return total

    def total(self) -> Spans:
        """Return the histograms since the beginning."""
        return Spans.of(*self._read([self._keyspace.keys.durations]))

    def series(self, start: int, end: int, step: int) -> Iterator[Spans]:
        """Yield the histograms of a time, step by step.

        Args:
            start, end: Unix seconds; multiples of ``step``.
            step: seconds; a multiple of ``INTERVAL``.
        """
        starts = range(start, end, INTERVAL)
        hashes = self._read([self._keyspace.keys.durations_from(one) for one in starts])
        for _ in range(start, end, step):
            yield Spans.of(*islice(hashes, step // INTERVAL))

    def _read(self, keys: Sequence[str]) -> Iterator[dict[bytes, bytes]]:
        for first in range(0, len(keys), TRIP):
            pipe = self._keyspace.pipeline()
            for key in keys[first : first + TRIP]:
                pipe.hgetall(key)
            found: list[Any] = pipe.execute()
            yield from found
