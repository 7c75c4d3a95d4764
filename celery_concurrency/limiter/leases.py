"""Leases: a run keeps its tokens while its process renews them.

A beat names the runs that live in a process, and learns what each holds. When the server
has lost its data, the next beat tells it, and the runs hold again what they held.

``worker/heartbeat.py`` beats for workers, ``blocking_acquire.py`` for callers.
"""

import time
from collections.abc import Callable, Collection
from typing import Any, Final

from celery_concurrency.errors import InvalidCooldown, LimiterUnavailable
from celery_concurrency.limiter.cooldowns import MAX_REASON, Cooldowns
from celery_concurrency.limiter.keyspace import Keyspace, unix_seconds
from celery_concurrency.limiter.limits import BUILTIN_TAGS, split_limit
from celery_concurrency.limiter.outcomes import Granted
from celery_concurrency.scripts.constants import SHORTEST_LEASE
from celery_concurrency.text import printable

#: Seconds between two beats, and tokens named in one call.
BEAT_SECONDS: Final = 1.0
BATCH: Final = 64


class Leases:
    """The leases of the runs in one process."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._epoch = ""
        self._facts: dict[str, str] = {}
        self._told: set[str] = set()

    def beat(self, tokens: Collection[str], seconds: float) -> set[str]:
        """Renew the tokens of the runs that live here.

        Args:
            tokens: of all of them, also of runs that hold nothing yet.
            seconds: after which tokens are taken back if nobody renews them.

        Returns:
            tokens that were taken back all the same, each once.
        """
        lost: set[str] = set()
        epoch = self._epoch
        every = sorted(tokens)
        for start in range(0, len(every), BATCH):
            some = every[start : start + BATCH]
            arguments = [text for token in some for text in (token, self._facts.get(token, ""))]
            reply = self._keyspace.call(
                "renew",
                self._epoch,
                str(max(seconds, SHORTEST_LEASE)),
                *arguments,
            ).reply
            if not reply:
                break  # there is no configuration yet; the next beat finds one
            epoch = reply[0].decode()
            lost.update(self._note(some, reply[1:]))
        self._epoch = epoch
        self._facts = {token: facts for token, facts in self._facts.items() if token in tokens}
        self._told.intersection_update(tokens)
        return lost

    def _note(self, tokens: Collection[str], verdicts: list[bytes]) -> set[str]:
        """Remember what a beat learned of tokens; return those lost since the last one."""
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
        """Return for how many seconds more nobody is admitted, after a loss of data; 0 else."""
        opens: Any = self._keyspace.redis.hget(self._keyspace.keys.config_flat, "opens")
        # Whole seconds: never too early.
        return max(0.0, float(opens or 0) - int(self._keyspace.now()))

    def knows(self, token: str) -> bool:
        """Return whether this run would hold its tokens again after a loss of data."""
        return token in self._facts


class Lease:
    """What a run holds, shown to the run itself.

    Attributes:
        token: the run.
        limits: those it holds a token in.
        fence: a number higher than that of each acquisition before, on any worker: give it
            to what you write to, and let that refuse lower ones (Martin Kleppmann, "How to
            do distributed locking", 2016).
    """

    def __init__(
        self,
        granted: Granted,
        keyspace: Keyspace,
        seconds: float,
        cooldowns: Cooldowns,
        refuse: Callable[..., float],
    ) -> None:
        self.token, self.limits, self.fence = granted.token, granted.limits, granted.fence
        self._keyspace = keyspace
        self._cooldowns = cooldowns
        self._refuse = refuse
        # How long the tokens last without being renewed.
        self._seconds = seconds
        self._seen = time.monotonic()

    def __repr__(self) -> str:
        return f"Lease(token={self.token!r}, limits={self.limits!r}, fence={self.fence!r})"

    def cool_down(self, seconds: float, dimension: str, *, reason: str = "") -> float:
        """Let one of its limits admit nobody for a while, as where a platform refused it.

        >>> current_lease().cool_down(600, "account", reason="429")

        Args:
            seconds: up to a week; where the limit cools down already, the longer of two stands.
            dimension: which limit: ``"account"``, ``"platform"``, ``"type"``, one of your own,
                or ``"global"``.
            reason: one line, which people are shown.

        Returns:
            when the limit opens, in Unix seconds of the Redis server.

        Raises:
            InvalidCooldown: the run has no such limit, or a value is out of bounds.
            LimiterUnavailable: Redis can't be asked; it may be set all the same.
        """
        named = BUILTIN_TAGS.get(dimension, dimension)
        for limit in self.limits:
            if split_limit(limit)[0] == named:
                task_id = self.token.rpartition(":")[0]
                return self._cooldowns.set(
                    limit, seconds, reason, f"task {printable(task_id)}"[:MAX_REASON]
                )
        raise InvalidCooldown("dimension", f"{dimension!r} is none of {', '.join(self.limits)}")

    @property
    def lost(self) -> bool:
        """Whether the tokens were taken back, as nobody could renew them for too long.

        Asks Redis. Where that is away, or has lost its data and waits for the next beats,
        it is True once the tokens may have been taken back: when they would have run out
        without being renewed.
        """
        try:
            pipe = self._keyspace.pipeline()
            pipe.zscore(self._keyspace.keys.leases, self.token)
            pipe.hget(self._keyspace.keys.config_flat, "opens")
            pipe.time()
            held, opens, time_ = pipe.execute()
        except LimiterUnavailable:
            return self._is_overdue()
        if held is not None:
            self._seen = time.monotonic()
            return False
        admits = opens is not None and unix_seconds(time_) >= float(opens)
        return admits or self._is_overdue()

    def _is_overdue(self) -> bool:
        return time.monotonic() - self._seen > self._seconds
