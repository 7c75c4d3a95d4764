"""Cool-downs: limits that admit nobody until a moment, whatever runs. No version of the
configuration: ``config/schema.py`` has what stays.

Redis lets each end by itself; ``scripts/cool.lua`` sets and lifts them.
"""

import uuid
from dataclasses import dataclass
from itertools import islice
from typing import Final

from celery_concurrency.errors import InvalidCooldown
from celery_concurrency.limiter.config.store import ConfigStore
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import WILDCARD, limit_problem, split_limit
from celery_concurrency.limiter.mistyped import Doubt, doubts_of_limit
from celery_concurrency.limiter.waiting_room import WaitingRoom
from celery_concurrency.text import printable, unprintable

#: Seconds: a week.
MAX_SECONDS: Final = 7 * 86_400
MAX_REASON: Final = 200  # characters
#: Cool-downs that are listed, those that end last first.
MAX_LISTED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A limit that cools down.

    Attributes:
        limit: its name.
        until: when it opens, in Unix seconds of the Redis server.
        seconds: that are left.
        since: when it was shut; None where somebody deleted its record.
        reason: why; "" where nobody said.
        by: who shut it: an operator, or a task; "" where nobody said.
        refused: a refusal began it, so that one run goes first at its end. Until that has
            succeeded it is listed, with no seconds left.
        probe: the run that goes first now; None while none does.
    """

    limit: str
    until: float
    seconds: float
    since: float | None
    reason: str
    by: str
    refused: bool = False
    probe: str | None = None


def check_texts(**texts: str) -> None:
    """Make sure that these are lines that can be shown to people.

    Raises:
        InvalidCooldown: names the first that is none.
    """
    for field, text in texts.items():
        if len(text) > MAX_REASON or unprintable(text):
            raise InvalidCooldown(
                field, f"has to be one line of at most {MAX_REASON} printable characters"
            )


class Cooldowns:
    """Sets, lifts and lists the cool-downs under one prefix."""

    def __init__(self, keyspace: Keyspace, room: WaitingRoom, config: ConfigStore) -> None:
        self._keyspace = keyspace
        self._room = room
        self._config = config

    def check(self, limit: str) -> list[Doubt]:
        """Make sure that the configuration knows a limit's dimension: people mistype.

        Returns:
            a doubt where nobody has named the limit before.

        Raises:
            InvalidCooldown: it does not.
        """
        config = self._config.sync().config
        problem = config.limit_problem(limit)
        if problem:
            raise InvalidCooldown("limit", problem)
        return doubts_of_limit(self._keyspace, config, "limit", limit)

    def set(self, limit: str, seconds: float, reason: str = "", by: str = "") -> float:
        """Let a limit admit nobody for so many seconds; the longer of two stands.

        Args:
            limit: as ``"account:acc123"``, or ``"global"``.
            seconds: up to ``MAX_SECONDS``.
            reason: why; ``MAX_REASON`` characters at most.
            by: who says so.

        Returns:
            when it opens, in Unix seconds of the Redis server.

        Raises:
            InvalidCooldown: there is no such limit, or a value is out of bounds.
            LimiterUnavailable: Redis can't be asked; it may be set all the same.
        """
        problem = limit_problem(limit)
        if split_limit(limit)[1] == WILDCARD:
            problem = f"{printable(limit)!r} is a wildcard: name one limit"
        if problem:
            raise InvalidCooldown("limit", problem)
        # Also no NaN.
        if isinstance(seconds, bool) or not 0 < seconds <= MAX_SECONDS:
            raise InvalidCooldown("seconds", f"has to be over 0, and {MAX_SECONDS} at most")
        check_texts(reason=reason, by=by)
        until: bytes = self._room.call_and_hand_over(
            "cool", limit, repr(float(seconds)), uuid.uuid4().hex, reason, by
        )
        return float(until)

    def lift(self, limit: str) -> bool:
        """Let a limit admit runs again, and those go on who wait for it.

        Returns:
            whether it was shut.

        Raises:
            InvalidCooldown: no limit has such a name.
            LimiterUnavailable: Redis can't be asked; lift it again, that is safe.
        """
        problem = limit_problem(limit)
        if problem:
            raise InvalidCooldown("limit", problem)
        return bool(self._room.call_and_hand_over("cool", limit, 0, uuid.uuid4().hex, "", ""))

    def find(self, limit: str) -> Cooldown | None:
        """Return the cool-down of a limit; None where it does not, and no run has to go first."""
        now = self._keyspace.now()
        pipe = self._keyspace.pipeline()
        pipe.zscore(self._keyspace.keys.cooldowns, limit)
        pipe.zscore(self._keyspace.keys.probes, limit)
        until, probation = pipe.execute()
        if until is None or until <= now:
            until = probation
        return None if until is None else read_records(self._keyspace, {limit: until}, now)[0]

    def read(self) -> tuple[list[Cooldown], int]:
        """Return those that last, the longest first, and how many there are.

        After them those that are over, and in which one run goes first. ``MAX_LISTED`` at most
        are returned.
        """
        now = self._keyspace.now()
        found: dict[str, float] = {}
        total = 0
        for key, start, end in (
            (self._keyspace.keys.cooldowns, "+inf", f"({now:.6f}"),
            (self._keyspace.keys.probes, f"{now:.6f}", "-inf"),
        ):
            pipe = self._keyspace.pipeline()
            pipe.zrange(
                key, start, end, byscore=True, desc=True, offset=0, num=MAX_LISTED, withscores=True
            )
            pipe.zcount(key, end, start)
            some, count = pipe.execute()
            found |= {limit.decode(): until for limit, until in some}
            total += count
        return read_records(self._keyspace, dict(islice(found.items(), MAX_LISTED)), now), total


def read_records(keyspace: Keyspace, until: dict[str, float], now: float) -> list[Cooldown]:
    """Return what is known of the cool-downs of these limits; of others there is nothing.

    Args:
        until: when each opens, in Unix seconds of the Redis server.
        now: by the same clock.
    """
    records = list(
        keyspace.for_each(
            until,
            lambda pipe, limit: pipe.hmget(
                keyspace.keys.cooldown(limit), "since", "reason", "by", "lasted", "probe"
            ),
        )
    )
    living = _living(keyspace, [probe for _, (*_, probe) in records if probe])
    return [
        Cooldown(
            limit=limit,
            until=until[limit],
            seconds=max(0.0, until[limit] - now),
            since=None if since is None else float(since),
            reason=(reason or b"").decode(),
            by=(by or b"").decode(),
            refused=lasted is not None,
            probe=probe.decode() if probe in living else None,
        )
        for limit, (since, reason, by, lasted, probe) in records
    ]


def _living(keyspace: Keyspace, tokens: list[bytes]) -> list[bytes]:
    """Return those of these tokens that are held."""
    scores = keyspace.for_each(tokens, lambda pipe, token: pipe.zscore(keyspace.keys.leases, token))
    return [token for token, score in scores if score is not None]
