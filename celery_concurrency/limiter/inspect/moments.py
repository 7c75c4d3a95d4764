"""Moments: how far the rates of limits are used up, what cools down, and when each opens.

``usage.py`` and ``limit_state.py`` show them; the scripts decide by ``scripts/lib/moments.lua``.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, NamedTuple

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.cooldowns import read_records
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.outcomes import Shut


class RateUsage(BaseModel):
    """A rate of a limit.

    Attributes:
        max: how many runs may begin in any window of ``per`` seconds.
        per: seconds.
        used: how many did in the last of these windows, and reservations made meanwhile.
        opens_at: when the next may by this rate, in Unix seconds of the Redis server; None
            while it may now.
    """

    max: int
    per: int
    used: int
    opens_at: float | None


class CooldownUsage(BaseModel):
    """Until when a limit admits nobody, why, and who said so.

    Attributes:
        until: in Unix seconds of the Redis server. Where one run goes first after a refusal
            this may be over, and the limit waits for the success of that.
        reason, by: "" where nobody said.
        since: when it was shut, in the same seconds; None where that is not known.
        refused: a platform's refusal began it, and at its end one run goes first.
        probe: the token of the run that goes first now. It and ``refused`` are left out of
            JSON where they have their default value.
    """

    until: float
    reason: str
    by: str
    since: float | None = None
    refused: bool = False
    probe: str | None = None

    @model_serializer(mode="wrap")
    def _without_probe(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        empty = {name for name in ("refused", "probe") if not data.get(name)}
        return {name: value for name, value in data.items() if name not in empty}


class Moments(BaseModel):
    """When a limit opens, whoever leaves it; in JSON only what it has.

    Attributes:
        rates: its rates.
        cooldown: None where it does not cool down.
    """

    #: Fields that JSON has only while they say something.
    LEFT_OUT: ClassVar = frozenset({"rates", "cooldown"})

    rates: list[RateUsage] = []
    cooldown: CooldownUsage | None = None

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        empty = {name for name in self.LEFT_OUT if not data.get(name)}
        return {name: value for name, value in data.items() if name not in empty}

    def shut(self, now: float) -> Shut | None:
        """Return until when nobody is admitted, and why; None where no moment is waited for.

        Args:
            now: in Unix seconds of the Redis server.
        """
        found: Shut | None = None
        if self.cooldown and self.cooldown.until > now:
            until = self.cooldown.until
            found = Shut(until, until - now, reason=self.cooldown.reason)
        for rate in self.rates:
            if rate.opens_at and rate.opens_at > (found.until if found else now):
                found = Shut(rate.opens_at, rate.opens_at - now, (rate.max, rate.per))
        return found

    @property
    def tried_by(self) -> str | None:
        """The token of the run that goes first after a refusal, while there is one."""
        return self.cooldown.probe if self.cooldown else None

    @property
    def is_used(self) -> bool:
        """Whether runs began lately that count in a rate, or it cools down."""
        return self.cooldown is not None or any(rate.used for rate in self.rates)


#: Of a limit that has none: most are, and thousands are asked for.
_NONE: Final = Moments()


class Moment(NamedTuple):
    """The moments of limits, as they were at one.

    Attributes:
        now: by the Redis server's clock, in Unix seconds.
        by_limit: of those that have a rate or cool down.
    """

    now: float
    by_limit: Mapping[str, Moments]

    def of(self, limit: str) -> Moments:
        """Return those of a limit; empty where it has none."""
        return self.by_limit.get(limit, _NONE)


def read_moments(keyspace: Keyspace, config: Config, limits: Iterable[str]) -> Moment:
    """Return until when these limits are shut, and by what.

    It costs a command a rate that is used, one a limit that has rates, two a limit while any
    cools down or was refused, and two for each that is shut.
    """
    names = list(limits)
    now = keyspace.now()
    rates: dict[str, list[RateUsage]] = {}
    for limit, rate in _read_rates(keyspace, config, names, now):
        rates.setdefault(limit, []).append(rate)
    cooldowns = _read_cooldowns(keyspace, names, now)
    return Moment(
        now,
        {
            limit: Moments(rates=rates.get(limit, []), cooldown=cooldowns.get(limit))
            for limit in {**rates, **cooldowns}
        },
    )


def read_shut(keyspace: Keyspace, most: int) -> tuple[list[str], int]:
    """Return limits that are shut until a moment: that somebody waits for, that cool, or are tried.

    Args:
        most: of either, the first to open and the last.

    Returns:
        the limits, and how many there are beyond those.
    """
    now = f"({keyspace.now():.6f}"
    found: set[str] = set()
    more = 0
    for key, after, last in (
        (keyspace.keys.moments, now, False),
        (keyspace.keys.cooldowns, now, True),
        # Also those whose time is over, and that wait for their probe's success.
        (keyspace.keys.probes, "-inf", True),
    ):
        start, end = ("+inf", after) if last else (after, "+inf")
        limits: Any = keyspace.redis.zrange(
            key, start, end, byscore=True, desc=last, offset=0, num=most
        )
        found.update(limit.decode() for limit in limits)
        if len(limits) == most:
            total: Any = keyspace.redis.zcount(key, after, "+inf")
            more += max(0, total - most)
    return sorted(found), more


def _read_rates(
    keyspace: Keyspace, config: Config, limits: Iterable[str], now: float
) -> list[tuple[str, RateUsage]]:
    by_limit = {limit: rates for limit in limits if (rates := config.rates_of(limit))}

    def count(asked: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return how many began in the last so many seconds."""
        counts = keyspace.for_each(
            asked,
            lambda pipe, one: pipe.zcount(
                keyspace.keys.rate(one[0]), f"({now - one[1]:.6f}", "+inf"
            ),
        )
        return dict(counts)

    # Most limits are unused: where none began in the longest window, none did in the others.
    longest = {limit: max(rate.per for rate in rates) for limit, rates in by_limit.items()}
    used = count(longest.items())
    used |= count(
        {(limit, rate.per) for limit, per in longest.items() if used[limit, per]
         for rate in by_limit[limit] if rate.per != per}
    )  # fmt: skip
    found = [
        (limit, RateUsage(max=rate.max, per=rate.per, used=used.get((limit, rate.per), 0),
                          opens_at=None))
        for limit, rates in by_limit.items()
        for rate in rates
    ]  # fmt: skip
    for (_, rate), starts in keyspace.for_each(
        [one for one in found if one[1].used >= one[1].max],
        # It opens when the first of its last `max` starts leaves the window.
        lambda pipe, one: pipe.zrevrange(
            keyspace.keys.rate(one[0]), one[1].max - 1, one[1].max - 1, withscores=True
        ),
    ):
        rate.opens_at = starts[0][1] + rate.per if starts else None
    return found


def _read_cooldowns(
    keyspace: Keyspace, limits: Iterable[str], now: float
) -> dict[str, CooldownUsage]:
    cooldowns, probes = keyspace.keys.cooldowns, keyspace.keys.probes
    if not keyspace.redis.exists(cooldowns, probes):
        return {}
    names = list(limits)
    # A limit is in both while a refusal's cool-down lasts, and in the second until its probe's
    # success.
    moments = keyspace.for_each(names, lambda pipe, limit: pipe.zscore(cooldowns, limit))
    until = {limit: moment for limit, moment in moments if moment and moment > now}
    probed = keyspace.for_each(
        (limit for limit in names if limit not in until),
        lambda pipe, limit: pipe.zscore(probes, limit),
    )
    until |= {limit: moment for limit, moment in probed if moment}
    return {
        one.limit: CooldownUsage(
            until=one.until,
            reason=one.reason,
            by=one.by,
            since=one.since,
            refused=one.refused,
            probe=one.probe,
        )
        for one in read_records(keyspace, until, now)
    }
