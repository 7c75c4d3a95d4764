"""Durations: how long runs waited and held, per limit, in histograms.

``release.lua`` and ``sweep.lua`` append a record of each run that ends to a list. The
worker's housekeeping has ``tally.lua`` count them: since the beginning, and in hashes of
five minutes each, which expire after a day.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice, product
from typing import Any, Final, Self

from pydantic import BaseModel

from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import GLOBAL, dimension_of, other_of
from celery_concurrency.scripts.constants import SHARED_DIMENSIONS

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
#: Fields of a hash that is read as a whole; of a larger one only what is asked for.
FIELDS_MOST: Final = 2500


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

    def add(self, other: Self) -> None:
        """Count those of another histogram too."""
        self.milliseconds += other.milliseconds
        for bound, count in other.counts.items():
            self.counts[bound] = self.counts.get(bound, 0) + count

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

    def total(self, limits: Iterable[str]) -> Spans:
        """Return the histograms of ``global`` and these limits since the beginning."""
        return Spans.of(*self._read([self._keyspace.keys.durations], limits))

    def series(self, start: int, end: int, step: int, limits: Iterable[str]) -> Iterator[Spans]:
        """Yield the histograms of a time, step by step.

        Args:
            start, end: Unix seconds; multiples of ``step``.
            step: seconds; a multiple of ``INTERVAL``.
            limits: those that are asked for; ``global`` is always there, others may be.
        """
        starts = range(start, end, INTERVAL)
        hashes = self._read([self._keyspace.keys.durations_from(one) for one in starts], limits)
        for _ in range(start, end, step):
            yield Spans.of(*islice(hashes, step // INTERVAL))

    def _read(self, keys: Sequence[str], limits: Iterable[str]) -> Iterator[dict[bytes, bytes]]:
        fields = _fields_of(limits)
        for first in range(0, len(keys), TRIP):
            some = keys[first : first + TRIP]
            pipe = self._keyspace.pipeline()
            for key in some:
                pipe.hlen(key)
            sizes: list[Any] = pipe.execute()
            for key, size in zip(some, sizes, strict=True):
                if size > FIELDS_MOST:
                    pipe.hmget(key, fields)
                else:
                    pipe.hgetall(key)
            for found in pipe.execute():
                yield found if isinstance(found, dict) else _there(fields, found)


def _fields_of(limits: Iterable[str]) -> list[bytes]:
    """Return the fields of limits, of ``global``, and of the others of their dimensions."""
    named = list(limits)
    dimensions = dict.fromkeys((*SHARED_DIMENSIONS, *map(dimension_of, named)))
    counted = (GLOBAL, *map(other_of, dimensions), *named)
    buckets = (*BOUNDS, "inf", "sum")
    return [
        f"{kind} {bucket} {limit}".encode()
        for kind, bucket, limit in product(("wait", "hold"), buckets, counted)
    ]


def _there(fields: Iterable[bytes], found: Iterable[bytes | None]) -> dict[bytes, bytes]:
    pairs = zip(fields, found, strict=True)
    return {field: amount for field, amount in pairs if amount is not None}
