"""Leases: tokens stay with a run while the process that it lives in says so.

A beat names the runs that live in a process. What it learns of them it gives back
when the server has lost its data, so that they hold again what they held.

Whose runs live is for others to say: ``worker/heartbeat.py`` for workers,
``blocking_acquire.py`` for callers.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from redis import Redis

from celery_concurrency import scripts
from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.connection import asking
from celery_concurrency.scripts.constants import SHORTEST_LEASE

if TYPE_CHECKING:
    from celery_concurrency.limiter.outcomes import Granted

#: Seconds between two beats, and tokens named in one call.
BEAT_SECONDS: Final = 1.0
BATCH: Final = 64


class Leases:
    """The leases of the runs in one process.

    Args:
        redis: see ``connection.connect``.
        prefix: that of all keys.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._epoch = ""
        self._facts: dict[str, str] = {}
        self._told: set[str] = set()

    def beat(self, tokens: Collection[str], seconds: float) -> set[str]:
        """Renew the tokens of the runs that live here.

        Args:
            tokens: of all of them; those of a run that holds nothing yet, too.
            seconds: after which they are taken back if nobody renews them.

        Returns:
            those that were taken back all the same, each once.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        lost: set[str] = set()
        epoch = self._epoch
        every = sorted(tokens)
        for start in range(0, len(every), BATCH):
            some = every[start : start + BATCH]
            arguments = [text for token in some for text in (token, self._facts.get(token, ""))]
            reply = scripts.call(
                self._redis,
                "renew",
                self._prefix,
                self._epoch,
                str(max(seconds, SHORTEST_LEASE)),
                *arguments,
            ).reply
            if not reply:
                break  # the next beat comes after the configuration
            epoch = reply[0].decode()
            lost.update(self._note(some, reply[1:]))
        self._epoch = epoch
        self._facts = {token: facts for token, facts in self._facts.items() if token in tokens}
        self._told.intersection_update(tokens)
        return lost

    def _note(self, tokens: Collection[str], verdicts: list[bytes]) -> set[str]:
        """Take note of what was said of tokens; return those that were lost by now."""
        lost = set()
        for token, verdict in zip(tokens, verdicts, strict=True):
            if verdict.startswith(b"{"):
                self._facts[token] = verdict.decode()
            elif verdict == b"lost" and token not in self._told:
                lost.add(token)
                self._told.add(token)
            if verdict in (b"lost", b"gone"):
                self._facts.pop(token, None)
        return lost

    def closed_for(self) -> float:
        """Return for how many seconds nobody is admitted yet, after a loss of data; 0 else.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        with asking():
            opens: Any = self._redis.hget(f"{self._prefix}:config:flat", "opens")
            now: Any = self._redis.time()
        return float(max(0.0, float(opens or 0) - now[0]))

    def knows(self, token: str) -> bool:
        """Return whether this token would be held again after a loss of data."""
        return token in self._facts


@dataclass(slots=True)
class Lease:
    """What a run holds, for the run itself to look at.

    Attributes:
        token: the run.
        limits: those that it holds a token in.
        fence: a number that is higher than that of each acquisition before, on any
            worker: give it to what you write to, and let that refuse lower ones (Martin
            Kleppmann, "How to do distributed locking", 2016).
    """

    token: str
    limits: tuple[str, ...]
    fence: int
    _redis: Redis = field(repr=False)
    _prefix: str = field(repr=False)
    _seconds: float = field(repr=False)
    _seen: float = field(default_factory=time.monotonic, repr=False)

    @classmethod
    def of(cls, granted: Granted, redis: Redis, prefix: str, seconds: float) -> Lease:
        """Return the lease of a run that was granted its tokens.

        Args:
            granted: the limiter's answer.
            redis, prefix: where the tokens are.
            seconds: for which they last without being renewed.
        """
        return cls(granted.token, granted.limits, granted.fence, redis, prefix, seconds)

    @property
    def lost(self) -> bool:
        """Whether the tokens were taken back, as nobody could renew them for too long.

        Asks Redis. Where that can't be asked, or has lost its data and waits for those who
        live to bring it back, it is True once the tokens may have been taken back: after
        the seconds for which they last without being renewed.
        """
        try:
            with asking():
                pipe = self._redis.pipeline(transaction=False)
                pipe.zscore(f"{self._prefix}:leases", self.token)
                pipe.hget(f"{self._prefix}:config:flat", "opens")
                pipe.time()
                held, opens, (seconds, micros) = pipe.execute()
        except LimiterUnavailable:
            return self._is_overdue()
        if held is not None:
            self._seen = time.monotonic()
            return False
        is_open = opens is not None and seconds + micros / 1e6 >= float(opens)
        return is_open or self._is_overdue()

    def _is_overdue(self) -> bool:
        return time.monotonic() - self._seen > self._seconds
