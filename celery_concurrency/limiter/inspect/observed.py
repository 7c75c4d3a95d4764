"""Observed limits: what they would have turned away, and for how long, had they been in force.

``scripts/lib/observe.lua`` counts it; ``usage.py`` shows it beside the limits that are in force.
"""

from itertools import islice
from typing import Any, Final, Literal

from pydantic import BaseModel

from celery_concurrency.limiter.config.observing import observations
from celery_concurrency.limiter.config.schema import Adaptive, Config, Rate
from celery_concurrency.limiter.keyspace import Keyspace

#: Observed entries of the configuration that are listed.
MAX_OBSERVED: Final = 1_000


Kind = Literal["max", "adaptive", "rates"]


class WouldWait(BaseModel):
    """How long those would have waited that would have been turned away, in seconds.

    Attributes:
        total: all of them together.
        mean: one of them.
        longest: the one that would have waited for longest.
    """

    total: float
    mean: float
    longest: float


class Observation(BaseModel):
    """A maximum, an adaptive one, or the rates, of a limit or wildcard that are only observed.

    Each is judged alone: as if runs were let in in the order in which they began, and nothing
    else limited them.

    Attributes:
        limit: its name in the configuration, as ``"platform:douyin"`` or ``"account:*"``, which
            counts all accounts that have none of their own together.
        kind: "max", "adaptive" or "rates".
        max: how many it would let run at once, an adaptive one at most; None of rates.
        rates: its observed rates; empty of a maximum.
        runs: how many were looked at. By a maximum a run is when it is known how long those
            before it hold: as they end.
        would_deny: how many of them would have been turned away at first.
        would_wait: for how long.
        since: since when it is observed as it is now, in Unix seconds of the Redis server: its
            first run; None before that.
    """

    limit: str
    kind: Kind
    max: int | None
    rates: list[Rate]
    runs: int
    would_deny: int
    would_wait: WouldWait
    since: float | None


def read_observed(keyspace: Keyspace, config: Config) -> tuple[list[Observation], int]:
    """Return what is observed, and how many entries there are; ``MAX_OBSERVED`` are read."""
    entries = list(islice(observations(config), MAX_OBSERVED + 1))
    total = len(entries)
    if total > MAX_OBSERVED:
        total = sum(1 for _ in observations(config))
    return [
        _observation(limit, one, counts)
        for (limit, one), counts in keyspace.for_each(
            entries[:MAX_OBSERVED],
            lambda pipe, entry: pipe.hmget(
                keyspace.keys.observed(f"{_kind_of(entry[1])} {entry[0]}"),
                ["runs", "denied", "seconds", "longest", "since"],
            ),
        )
    ], total


def _kind_of(one: int | list[Rate] | Adaptive) -> Kind:
    if isinstance(one, int):
        return "max"
    return "adaptive" if isinstance(one, Adaptive) else "rates"


def _max_of(one: int | list[Rate] | Adaptive) -> int | None:
    if isinstance(one, Adaptive):
        return one.max
    return one if isinstance(one, int) else None


def _observation(limit: str, one: int | list[Rate] | Adaptive, counts: list[Any]) -> Observation:
    runs, denied, seconds, longest = (float(count or 0) for count in counts[:4])
    return Observation(
        limit=limit,
        kind=_kind_of(one),
        max=_max_of(one),
        rates=one if isinstance(one, list) else [],
        runs=int(runs),
        would_deny=int(denied),
        would_wait=WouldWait(
            total=seconds, mean=seconds / denied if denied else 0.0, longest=longest
        ),
        since=float(counts[4]) if counts[4] else None,
    )
