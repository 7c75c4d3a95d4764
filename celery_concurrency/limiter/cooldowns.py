"""Cool-downs: limits that admit nobody until a given time, whatever runs.

They are not part of the configuration (``config/schema.py``). Redis ends each by itself;
``scripts/cool.lua`` sets and lifts them.
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
from celery_concurrency.limiter.steps import Steps
from celery_concurrency.limiter.waiting_room import WaitingRoom
from celery_concurrency.text import printable, unprintable

#: Seconds: a week.
MAX_SECONDS: Final = 7 * 86_400
MAX_REASON: Final = 200  # characters
#: Cool-downs that are listed, the last to end first.
MAX_LISTED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A limit that cools down.

    Attributes:
        limit: its name.
        until: when it opens, in Unix seconds of the Redis server.
        seconds: how many are left.
        since: when it began; None if somebody deleted its record.
        reason: why; "" if nobody said.
        by: who started it, an operator or a task; "" if nobody said.
        refused: a refusal started it, so a probe runs first at its end. Until the probe has
            succeeded the limit is listed, with no seconds left.
        probe: the run that is the probe now; None if there is none.
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
    """Make sure that each of these texts is one printable line.

    Raises:
        InvalidCooldown: names the first that is not.
    """
    for field, text in texts.items():
        if len(text) > MAX_REASON or unprintable(text):
            raise InvalidCooldown(
                field, f"must be one line of at most {MAX_REASON} printable characters"
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
        """Let a limit admit nobody for a time; of two cool-downs the longer stands.

        Args:
            limit: such as ``"account:acc123"`` or ``"global"``.
            seconds: up to ``MAX_SECONDS``.
            reason: why; ``MAX_REASON`` characters at most.
            by: who does so.

        Returns:
            when it opens, in Unix seconds of the Redis server.

        Raises:
            InvalidCooldown: there is no such limit, or a value is out of bounds.
            LimiterUnavailable: Redis can't be asked; the cool-down may be set all the same.
        """
        return self._keyspace.run(self.setting(limit, seconds, reason, by))

    def setting(self, limit: str, seconds: float, reason: str = "", by: str = "") -> Steps[float]:
        """Return the steps of ``set``."""
        problem = limit_problem(limit)
        if split_limit(limit)[1] == WILDCARD:
            problem = f"{printable(limit)!r} is a wildcard: name one limit"
        if problem:
            raise InvalidCooldown("limit", problem)
        # This refuses NaN too.
        if isinstance(seconds, bool) or not 0 < seconds <= MAX_SECONDS:
            raise InvalidCooldown("seconds", f"must be more than 0 and at most {MAX_SECONDS}")
        check_texts(reason=reason, by=by)
        until: bytes = yield from self._room.calling_and_handing_over(
            "cool", limit, repr(float(seconds)), uuid.uuid4().hex, reason, by
        )
        return float(until)

    def lift(self, limit: str) -> bool:
        """Let a limit admit runs again, and hand its room to its waiters.

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
        """Return the cool-down of a limit; None if it has none and needs no probe."""
        now = self._keyspace.now()
        pipe = self._keyspace.pipeline()
        pipe.zscore(self._keyspace.keys.cooldowns, limit)
        pipe.zscore(self._keyspace.keys.probes, limit)
        until, probation = pipe.execute()
        if until is None or until <= now:
            until = probation
        return None if until is None else read_records(self._keyspace, {limit: until}, now)[0]

    def read(self) -> tuple[list[Cooldown], int]:
        """Return the cool-downs, the last to end first, and how many there are.

        Those that are over but still need a probe's success come after the others.
        ``MAX_LISTED`` at most are returned.
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
    """Return what is known of the cool-downs of these limits; limits without one are left out.

    Args:
        until: when each opens, in Unix seconds of the Redis server.
        now: the time by the same clock.
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
    """Return which of these tokens are held."""
    scores = keyspace.for_each(tokens, lambda pipe, token: pipe.zscore(keyspace.keys.leases, token))
    return [token for token, score in scores if score is not None]
