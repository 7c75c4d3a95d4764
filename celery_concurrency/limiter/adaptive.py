"""Adaptive limits: their own maximum now, its moves, and the reset to the highest.

``scripts/lib/adaptive.lua`` moves them; ``config/schema.py`` has their ranges.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from celery_concurrency.errors import ConfigConflict
from celery_concurrency.limiter.config.schema import Adaptive, Config
from celery_concurrency.limiter.config.store import ConfigStore
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import WILDCARD, split_limit, wildcard_of
from celery_concurrency.limiter.waiting_room import WaitingRoom
from celery_concurrency.scripts.constants import PAUSED
from celery_concurrency.text import printable

#: Limits that are listed, the latest to move first.
MAX_LISTED: Final = 1_000
#: Moves that are read, and attempts at a reset while the limit moves.
MAX_MOVES: Final = 1_500
TRIES: Final = 5
#: Seconds after which a move is no longer logged.
MAX_AGE: Final = 600


@dataclass(frozen=True, slots=True)
class AdaptiveLimit:
    """A limit whose maximum moves by itself.

    Attributes:
        limit: its name.
        entry: its range, and how fast it moves.
        current: its own maximum now.
        in_force: the maximum in force: its own, or a lower configured maximum, or ``PAUSED`` if
            it is paused. In mode ``observe`` only the configured maximum counts. 0 is unlimited.
        moved: when it last moved, in Unix seconds of the Redis server; None if that was more
            than a week ago.
    """

    limit: str
    entry: Adaptive
    current: int
    in_force: int
    moved: float | None


@dataclass(frozen=True, slots=True)
class Move:
    """A move of an adaptive limit.

    Attributes:
        limit: its name.
        at: when, in Unix seconds of the Redis server.
        before, after: its own maximum before and after.
        reason: why, for people.
    """

    limit: str
    at: float
    before: int
    after: int
    reason: str

    @property
    def falls(self) -> bool:
        """Whether it fell."""
        return self.after < self.before

    @property
    def why(self) -> str:
        """Why it moved, in words: only a refusal makes it fall."""
        if not self.falls:
            return self.reason
        return f"refused: {self.reason}" if self.reason else "refused"


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of an adaptive limit at a full minute.

    Attributes:
        at: when, in Unix seconds of the Redis server.
        current: the maximum in force, 0 while it was paused; if it is only observed, its own
            maximum.
        running: how many runs held it.
    """

    at: float
    current: int
    running: int


class AdaptiveLimits:
    """Reads and resets the adaptive limits under one prefix."""

    def __init__(self, keyspace: Keyspace, room: WaitingRoom, config: ConfigStore) -> None:
        self._keyspace = keyspace
        self._room = room
        self._config = config

    def read(self) -> tuple[list[AdaptiveLimit], int]:
        """Return the limits that the configuration names or that moved in a week, and their number.

        The latest to move come first; ``MAX_LISTED`` at most are returned.
        """
        config = self._config.sync().config
        moved: Any = self._keyspace.redis.zrevrange(
            self._keyspace.keys.adaptive, 0, MAX_LISTED - 1, withscores=True
        )
        names = [limit.decode() for limit, _ in moved]
        named = [limit for limit in config.adaptive if split_limit(limit)[1] != WILDCARD]
        limits = list(dict.fromkeys([*names, *sorted(named)]))
        found = [limit for limit in limits if config.adaptive_of(limit)]
        more = 0
        if len(moved) == MAX_LISTED:
            total: Any = self._keyspace.redis.zcard(self._keyspace.keys.adaptive)
            more = total - MAX_LISTED
        return self.of(config, found[:MAX_LISTED]), len(found) + more

    def find(self, limit: str) -> AdaptiveLimit | None:
        """Return a limit; None if it is not adaptive."""
        config = self._config.sync().config
        if config.limit_problem(limit):
            return None
        return next(iter(self.of(config, [limit])), None)

    def of(self, config: Config, limits: Iterable[str]) -> list[AdaptiveLimit]:
        """Return which of these limits are adaptive."""
        return read_limits(self._keyspace, config, limits)

    def moves(self, limit: str) -> list[Move]:
        """Return the moves of a limit in the last 24 h, the oldest first."""
        entries: Any = self._keyspace.redis.xrange(
            self._keyspace.keys.moves(limit), self._day_ago(), count=MAX_MOVES
        )
        return [_move_of(limit, *entry) for entry in entries]

    def last_moves(self, limits: Iterable[str]) -> dict[str, Move]:
        """Return the last move of each of these limits that moved in the last 24 h."""
        since = self._day_ago()
        found = self._keyspace.for_each(
            limits,
            lambda pipe, limit: pipe.xrevrange(
                self._keyspace.keys.moves(limit), "+", since, count=1
            ),
        )
        return {limit: _move_of(limit, *entries[0]) for limit, entries in found if entries}

    def samples(self, limit: str) -> list[Sample]:
        """Return a limit's known states at the full minutes of the last 24 h."""
        entries: Any = self._keyspace.redis.xrange(
            self._keyspace.keys.adaptive_history, self._day_ago()
        )
        found = ((_moment_of(entry_id), json.loads(one[b"states"])) for entry_id, one in entries)
        return [Sample(at, *states[limit]) for at, states in found if limit in states]

    def _day_ago(self) -> str:
        return str(int((self._keyspace.now() - 86_400) * 1000))

    def reset(self, limit: str, by: str = "") -> bool:
        """Put a limit back to its highest maximum; return whether it was lower.

        Args:
            limit: its name.
            by: who does so; the move's reason names them.

        Raises:
            ConfigConflict: it moved during every attempt.
            LimiterUnavailable: Redis can't be asked; reset it again, that is safe.
        """
        reason = f"reset by {printable(by)}" if by else "reset"
        for _ in range(TRIES):
            found = self.find(limit)
            if found is None or found.current == found.entry.max:
                return False
            since: Any = self._keyspace.redis.hget(self._keyspace.keys.adaptive_of(limit), "since")
            if self._room.call_and_hand_over("reset", limit, since or "", reason):
                return True
        raise ConfigConflict()

    def take_unlogged(self, most: int = 100) -> list[Move]:
        """Take the moves that nobody has logged, the oldest first; each goes to one caller only.

        Moves of more than ``MAX_AGE`` seconds ago are dropped.
        """
        texts: Any = self._keyspace.redis.lpop(self._keyspace.keys.adaptive_unlogged, most)
        found = (json.loads(text) for text in texts or ())
        moves = [
            Move(one["limit"], float(one["at"]), int(one["from"]), int(one["to"]), one["reason"])
            for one in found
        ]
        # If no worker was there to log them in time, they are no longer news.
        begin = self._keyspace.now() - MAX_AGE if moves else 0
        return [move for move in moves if move.at >= begin]


def read_limits(keyspace: Keyspace, config: Config, limits: Iterable[str]) -> list[AdaptiveLimit]:
    """Return which of these limits are adaptive; it costs three commands for each."""
    entries = {limit: entry for limit in limits if (entry := config.adaptive_of(limit))}
    states = dict(
        keyspace.for_each(
            entries,
            lambda pipe, limit: pipe.hmget(keyspace.keys.adaptive_of(limit), "max", "entry"),
        )
    )
    texts = dict(
        keyspace.for_each(
            entries,
            lambda pipe, limit: pipe.hmget(
                keyspace.keys.config_adaptive, limit, wildcard_of(limit)
            ),
        )
    )
    moved = dict(
        keyspace.for_each(entries, lambda pipe, limit: pipe.zscore(keyspace.keys.adaptive, limit))
    )
    return [
        _limit_of(config, limit, entry, _own_max(*states[limit], *texts[limit]), moved[limit])
        for limit, entry in entries.items()
    ]


def _own_max(
    stored: bytes | None, entry: bytes | None, own: bytes | None, all_names: bytes | None
) -> int | None:
    """Return a limit's own maximum; None if it is the highest, or belongs to an earlier entry.

    Args:
        stored: the maximum.
        entry: the name of the entry by which it moved.
        own, all_names: the texts of the limit's entry and of its wildcard's entry.
    """
    text = own or all_names or b""
    its = text.rpartition(b" ")[2] + (b" own" if own else b" all")
    is_its = stored is not None and stored.isdigit() and entry == its
    return int(stored or 0) if is_its else None


def _move_of(limit: str, entry_id: bytes, fields: dict[bytes, bytes]) -> Move:
    return Move(
        limit=limit,
        at=_moment_of(entry_id),
        before=int(fields[b"from"]),
        after=int(fields[b"to"]),
        reason=fields[b"reason"].decode(),
    )


def _moment_of(entry_id: bytes) -> float:
    return int(entry_id.partition(b"-")[0]) / 1000


def _limit_of(
    config: Config, limit: str, entry: Adaptive, own: int | None, moved: float | None
) -> AdaptiveLimit:
    current = max(entry.min, min(entry.max, entry.max if own is None else own))
    configured = PAUSED if limit in config.paused else config.max_of(limit)
    in_force = configured
    if entry.mode == "enforce" and configured != PAUSED:
        in_force = min(configured or current, current)
    return AdaptiveLimit(limit, entry, current, in_force, moved)
