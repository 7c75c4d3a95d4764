"""Leases: a run keeps its tokens while its process renews them.

A beat names the runs that live in a process, and learns what each holds. A worker's beat also
says that the worker itself is alive (``workers.py``). If the server has lost its data, the next
beat restores what the runs held.

``worker/heartbeat.py`` beats for workers, ``blocking_acquire.py`` for callers.
"""

import logging
import time
from collections.abc import Callable, Collection
from typing import Any, Final

from celery_concurrency.errors import InvalidCooldown, LimiterUnavailable
from celery_concurrency.limiter.cooldowns import MAX_REASON, Cooldowns
from celery_concurrency.limiter.keyspace import Keyspace, unix_seconds
from celery_concurrency.limiter.limits import BUILTIN_TAGS, limit_in, split_limit
from celery_concurrency.limiter.outcomes import Granted
from celery_concurrency.limiter.refusals import DEFAULT_GROW, DEFAULT_MOST
from celery_concurrency.limiter.steps import Commands, Script, Steps
from celery_concurrency.limiter.workers import WorkerFacts
from celery_concurrency.log import LIMITER_LOG, fields
from celery_concurrency.scripts.constants import SHORTEST_LEASE
from celery_concurrency.text import printable

logger = logging.getLogger(LIMITER_LOG)

#: Seconds between two beats, and how many tokens one call names.
BEAT_SECONDS: Final = 1.0
BATCH: Final = 64


class Leases:
    """The leases of the runs in one process."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._epoch = ""
        self._facts: dict[str, str] = {}
        self._told: set[str] = set()

    def beat(
        self, tokens: Collection[str], seconds: float, worker: WorkerFacts | None = None
    ) -> set[str]:
        """Renew the tokens of the runs that live here.

        Args:
            tokens: the tokens of all runs, even of those that hold nothing yet.
            seconds: seconds after which the tokens are taken back unless they are renewed.
            worker: what this process says of itself, if it is a worker; a worker beats even
                without tokens.

        Returns:
            tokens of living runs that were taken back, each reported once.
        """
        return self._keyspace.run(self.beating(tokens, seconds, worker))

    def beating(
        self, tokens: Collection[str], seconds: float, worker: WorkerFacts | None = None
    ) -> Steps[set[str]]:
        """Return the steps of ``beat``."""
        lost: set[str] = set()
        epoch = self._epoch
        every = sorted(tokens)
        who = (worker.name, worker.to_json()) if worker else ("", "")
        for start in range(0, max(len(every), 1 if worker else 0), BATCH):
            some = every[start : start + BATCH]
            arguments = [text for token in some for text in (token, self._facts.get(token, ""))]
            lease = str(max(seconds, SHORTEST_LEASE))
            facts = ("", "") if start else who
            reply, _ = yield Script("renew", (self._epoch, lease, *facts, *arguments))
            if not reply:
                break  # there is no configuration yet; the next beat finds one
            epoch = reply[0].decode()
            lost.update(self._note(some, reply[1:]))
        self._epoch = epoch
        self._facts = {token: facts for token, facts in self._facts.items() if token in tokens}
        self._told.intersection_update(tokens)
        return lost

    def _note(self, tokens: Collection[str], verdicts: list[bytes]) -> set[str]:
        """Record what a beat learned of tokens; return those lost since the last beat."""
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
        """Return how many seconds nobody is admitted after a loss of data; 0 if there was none."""
        opens: Any = self._keyspace.redis.hget(self._keyspace.keys.config_flat, "opens")
        # Whole seconds: never too early.
        return max(0.0, float(opens or 0) - int(self._keyspace.now()))

    def knows(self, token: str) -> bool:
        """Return whether this run would hold its tokens again after a loss of data."""
        return token in self._facts


def author_of(token: str) -> str:
    """Return the name that people see for a run that shut a limit."""
    return f"task {printable(token.rpartition(':')[0])}"[:MAX_REASON]


class Lease:
    """What a run holds, shown to the run itself.

    Attributes:
        token: the run's token.
        limits: the limits in which it holds a token.
        fence: a number higher than that of every earlier acquisition, on any worker. Send it
            with what you write, and refuse lower numbers there (Martin Kleppmann, "How to
            do distributed locking", 2016).
        refused_in: the limits for which it has reported a refusal.
    """

    def __init__(
        self,
        granted: Granted,
        keyspace: Keyspace,
        seconds: float,
        cooldowns: Cooldowns,
        refusing: Callable[..., Steps[float]],
    ) -> None:
        self.token, self.limits, self.fence = granted.token, granted.limits, granted.fence
        self._keyspace = keyspace
        self._cooldowns = cooldowns
        self._refusing = refusing
        self.refused_in: set[str] = set()
        # How long the tokens last without being renewed.
        self._seconds = seconds
        self._seen = time.monotonic()

    def __repr__(self) -> str:
        return f"Lease(token={self.token!r}, limits={self.limits!r}, fence={self.fence!r})"

    def cool_down(self, seconds: float, dimension: str, *, reason: str = "") -> float:
        """Let one of the run's limits admit no task for a while.

        If a platform refused the run, use ``refused`` instead.

        >>> current_lease().cool_down(600, "account", reason="maintenance")

        Args:
            seconds: up to a week; if the limit already cools down, the longer of the two stands.
            dimension: which limit: ``"account"``, ``"platform"``, ``"type"``, one of your own,
                or ``"global"``.
            reason: one line, which is shown to people.

        Returns:
            when the limit opens, in Unix seconds of the Redis server.

        Raises:
            InvalidCooldown: the run has no such limit, or a value is out of bounds.
            LimiterUnavailable: Redis can't be reached; the cool-down may be set all the same.
        """
        return self._keyspace.run(self.cooling_down(seconds, dimension, reason=reason))

    def cooling_down(self, seconds: float, dimension: str, *, reason: str = "") -> Steps[float]:
        """Return the steps of ``cool_down``."""
        return self._cooldowns.setting(
            self._limit(dimension), seconds, reason, author_of(self.token)
        )

    def refused(
        self,
        dimension: str,
        seconds: float,
        *,
        grow: float = DEFAULT_GROW,
        most: float = DEFAULT_MOST,
        reason: str = "",
    ) -> float:
        """Report that a platform refused this run.

        One of its limits cools down, and a probe runs first afterwards. Call this in code that
        handles the refusal itself; exceptions in ``concurrency_refusals`` are reported by
        themselves. The run does not count as a success. A run reports one refusal per limit:
        repeats change nothing.

        >>> current_lease().refused("account", seconds=600, reason="429")

        Args:
            dimension: which limit: ``"account"``, ``"platform"``, ``"type"``, one of your own,
                or ``"global"``.
            seconds: up to a week; of two cool-downs the longer stands. With 0 nothing cools
                down; the refusal counts, and adaptive limits fall.
            grow: if this run was the probe, the next cool-down is this many times as long as the
                last; 1 to 100.
            most: seconds up to which it grows.
            reason: one line, which is shown to people.

        Returns:
            when the limit opens, in Unix seconds of the Redis server; 0 if it does not cool
            down, or if Redis is away and the refusal is reported later.

        Raises:
            InvalidCooldown: the run has no such limit, or a value is out of bounds.
        """
        return self._keyspace.run(
            self.telling(dimension, seconds, grow=grow, most=most, reason=reason)
        )

    def telling(
        self, dimension: str, seconds: float, *, grow: float, most: float, reason: str
    ) -> Steps[float]:
        """Return the steps of ``refused``."""
        limit = self._limit(dimension)
        by = author_of(self.token)
        detail = ""
        try:
            until = yield from self._refusing(
                self.token, self.limits, limit, seconds, grow=grow, most=most, reason=reason, by=by
            )
        except LimiterUnavailable as exc:
            # The caller could do nothing about it.
            until, detail = 0.0, f"; reported to the limiter later: {exc}"
        if limit not in self.refused_in:
            self._log_refusal(limit, seconds, until, reason, detail)
        self.refused_in.add(limit)
        return until

    def _log_refusal(
        self, limit: str, seconds: float, until: float, reason: str, detail: str
    ) -> None:
        """Log a refusal that the run reported, as a worker logs those of exceptions."""
        named = {dimension: tag for tag, dimension in BUILTIN_TAGS.items()}
        split = (split_limit(one) for one in self.limits)
        tags = {named.get(dimension, dimension): name for dimension, name in split if name}
        logger.warning(
            "run %s refused for %s%s%s", self.token, limit, reason and f": {reason}", detail,
            extra=fields(
                "refused", task_id=self.token.rpartition(":")[0], task_name=None, token=self.token,
                tags=tags, limit=limit, seconds=seconds, until=until or None, reason=reason,
            ),
        )  # fmt: skip

    def _limit(self, dimension: str) -> str:
        limit = limit_in(self.limits, dimension)
        if limit is None:
            problem = f"{dimension!r} is not one of {', '.join(self.limits)}"
            raise InvalidCooldown("dimension", problem)
        return limit

    @property
    def lost(self) -> bool:
        """Whether the tokens were taken back because they were not renewed in time.

        This asks Redis. If Redis is away, or has lost its data and waits for the next beats,
        it is True once the tokens may have been taken back: when they would have expired
        without renewal.
        """
        return self._keyspace.run(self.looking_if_lost())

    def looking_if_lost(self) -> Steps[bool]:
        """Return the steps of ``lost``."""
        keys = self._keyspace.keys
        held_until = ("ZSCORE", keys.leases, self.token)
        opening = ("HGET", keys.config_flat, "opens")
        try:
            held, opens, time_ = yield Commands((held_until, opening, ("TIME",)))
        except LimiterUnavailable:
            return self._is_overdue()
        if held is not None:
            self._seen = time.monotonic()
            return False
        admits = opens is not None and unix_seconds(time_) >= float(opens)
        return admits or self._is_overdue()

    def _is_overdue(self) -> bool:
        return time.monotonic() - self._seen > self._seconds
