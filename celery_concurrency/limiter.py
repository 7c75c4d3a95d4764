"""The limiter: runs hold tokens in all of their limits at once, or in none.

A *run* is one execution of a task, named by a token that begins with the task's
id; a redelivered or retried task is another run. This floor knows Redis alone:
what a run is in Celery is ``gate.py``'s matter.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis

from celery_concurrency import scripts
from celery_concurrency.config import PAUSED, dimensions_key
from celery_concurrency.configstore import ConfigStore
from celery_concurrency.errors import ConfigConflict, LimiterUnavailable, RunEnded
from celery_concurrency.limits import limits_of
from celery_concurrency.stats import Stats
from celery_concurrency.usage import Usage, read_usage

logger = logging.getLogger(__name__)

DEFAULT_PREFIX: Final = "concurrency"

#: How long a given-up token stays refused: far beyond every try of a client.
MARK_SECONDS: Final = 600
#: How often a call is made again whose answer asks for that (a new dimension,
#: no flat configuration): each of these happens once, then nothing has changed.
ROUNDS: Final = 5
#: Tokens taken back in one call, and calls in one sweep.
EXPIRE_BATCH: Final = 64
EXPIRE_STEPS: Final = 16


@dataclass(frozen=True, slots=True)
class Granted:
    """A run holds its tokens.

    Attributes:
        token: the run.
        limits: those that it holds a token in.
        expiry: when they expire, in Unix seconds of the Redis server.
    """

    token: str
    limits: tuple[str, ...]
    expiry: int


@dataclass(frozen=True, slots=True)
class Denied:
    """A run holds nothing, as a limit has no room.

    Attributes:
        token: the run.
        limits: those that it asked for.
        limit: the first of them without room.
        held: living tokens in that limit.
        max: how many it allows; ``PAUSED`` where it admits nobody for now.
    """

    token: str
    limits: tuple[str, ...]
    limit: str
    held: int
    max: int

    def __str__(self) -> str:
        allowed = f"{self.held} of {self.max}" if self.max != PAUSED else f"paused, {self.held} run"
        return f"{self.limit} ({allowed})"


class Limiter:
    """Gives and takes tokens; safe to share between threads, not across a fork.

    Args:
        redis: see ``connection.connect``.
        prefix: that of all keys; ``{concurrency}`` puts them in one cluster slot.
        default_config: changes to the built-in default configuration.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str = DEFAULT_PREFIX,
        default_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.redis = redis
        self.prefix = prefix
        self.config = ConfigStore(redis, prefix, default_config)
        self.stats = Stats(redis, prefix)
        # What the scripts hold against us when it is out of date; never trusted.
        self._dimensions: list[str] = []
        # Runs of which an acquire may still be under way somewhere.
        self._doubtful: set[str] = set()
        self._later = _ReleaseLater(self)

    def try_acquire(
        self, token: str, tags: Mapping[str, object], *, task: str = "", worker: str = ""
    ) -> Granted | Denied:
        """Take a token in each limit of a run, or in none.

        Args:
            token: the run; asking again for one that holds its tokens changes nothing.
            tags: what the limits follow from (``limits.limits_of``).
            task: the task's name, and
            worker: the worker's name, for those who look at the tokens.

        Raises:
            InvalidTag: a tag names no limit.
            RunEnded: it was given up before, or its tokens have expired.
            ConfigConflict: the configuration changed with every try.
            LimiterUnavailable: Redis can't be asked; the run holds nothing then,
                or nothing for long.
        """
        for _ in range(ROUNDS):
            limits = limits_of(tags, self._dimensions)
            reply = self._ask(token, limits, task, worker)
            match reply:
                case [b"granted", expiry]:
                    return Granted(token, limits, int(expiry))
                case [b"denied", limit, held, most]:
                    return Denied(token, limits, limit.decode(), int(held), int(most))
                case [b"dimensions", names]:
                    self._dimensions = json.loads(names)
                case [b"unconfigured"]:
                    self.config.sync()
                case _:
                    raise RunEnded(f"run {token} has ended, it gets no tokens any more")
        raise ConfigConflict()

    def _ask(self, token: str, limits: tuple[str, ...], task: str, worker: str) -> Any:
        """Call acquire once; what no reply can vouch for is given up."""
        try:
            reply, lost = scripts.call(
                self.redis,
                "acquire",
                self.prefix,
                token,
                dimensions_key(self._dimensions),
                json.dumps(limits, ensure_ascii=False),
                task,
                worker,
            )
        except LimiterUnavailable:
            self._doubtful.add(token)
            self._later.add(token)
            raise
        if lost:
            self._doubtful.add(token)
            if reply[0] == b"denied":
                self._later.add(token)
        return reply

    def release(self, token: str) -> bool:
        """Give a run's tokens back; again, or late, changes nothing.

        Returns:
            True if it held them, False if they had expired or were never given.

        Raises:
            LimiterUnavailable: Redis can't be asked; a thread tries on.
        """
        try:
            return self._release(token)
        except LimiterUnavailable:
            self._later.add(token)
            raise

    def _release(self, token: str) -> bool:
        mark = MARK_SECONDS if token in self._doubtful else 0
        held = scripts.call(self.redis, "release", self.prefix, token, mark).reply
        self._doubtful.discard(token)
        return bool(held)

    def expire(self) -> int:
        """Take back tokens whose time is over, in bounded steps.

        Returns:
            how many; at most ``EXPIRE_BATCH * EXPIRE_STEPS``.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        total = 0
        for _ in range(EXPIRE_STEPS):
            count = scripts.call(
                self.redis, "expire", self.prefix, EXPIRE_BATCH, MARK_SECONDS
            ).reply
            total += count
            if count < EXPIRE_BATCH:
                break
        return total

    def usage(self) -> Usage:
        """Return who uses how much of which limit; living tokens only.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        return read_usage(self.redis, self.prefix, self.config.sync())


class _ReleaseLater:
    """Gives back what could not be given back while Redis was away.

    A thread that is there only while there is something to do. What it has not
    managed after ``PATIENCE`` seconds has expired by then.
    """

    PATIENCE: Final = 86_400
    PAUSE: Final = 1.0

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._tokens: dict[str, float] = {}
        self._lock = threading.Lock()
        self._running = False

    def add(self, token: str) -> None:
        with self._lock:
            self._tokens.setdefault(token, time.monotonic() + self.PATIENCE)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="concurrency-release", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._tokens:
                    self._running = False
                    return
                waiting = list(self._tokens.items())
            for token, deadline in waiting:
                try:
                    self._limiter._release(token)
                except LimiterUnavailable:
                    if time.monotonic() < deadline:
                        break
                with self._lock:
                    self._tokens.pop(token, None)
            else:
                continue
            time.sleep(self.PAUSE)
