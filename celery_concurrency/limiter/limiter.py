"""The limiter: runs hold tokens in all of their limits at once, or in none.

A *run* is one execution of a task, named by a token that begins with the task's
id; a redelivered or retried task is another run. This floor knows Redis alone:
what a run is in Celery is ``worker/run.py``'s matter. Those who find no room wait in
``waiting_room.py``.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from redis import Redis

from celery_concurrency import scripts
from celery_concurrency.errors import (
    ConfigConflict,
    LimiterUnavailable,
    RunEnded,
)
from celery_concurrency.limiter.acquire import arguments
from celery_concurrency.limiter.blocking_acquire import Keeper, acquired
from celery_concurrency.limiter.config.store import ConfigStore
from celery_concurrency.limiter.inspect.usage import Usage, read_usage
from celery_concurrency.limiter.leases import Lease, Leases
from celery_concurrency.limiter.limits import limits_of
from celery_concurrency.limiter.outcomes import Denied, Granted, Repeated
from celery_concurrency.limiter.stats.counters import Stats
from celery_concurrency.limiter.stats.durations import Times
from celery_concurrency.limiter.waiting_room import Place, WaitingRoom
from celery_concurrency.log import LIMITER_LOG
from celery_concurrency.scripts.constants import SHORTEST_LEASE

logger = logging.getLogger(LIMITER_LOG)

DEFAULT_PREFIX: Final = "concurrency"

#: How often a call is made again whose answer asks for that (a new dimension,
#: no flat configuration): each of these happens once, then nothing has changed.
ROUNDS: Final = 5
#: How long it is known on which parked messages a run has begun: while it runs, and
#: no less than a day; a run that takes longer holds its tokens all the same.
BEGUN_SECONDS: Final = 86_400


class Limiter:
    """Gives and takes tokens; safe to share between threads, not across a fork.

    Args:
        redis: see ``connection.connect``.
        prefix: that of all keys; ``{concurrency}`` puts them in one cluster slot.
        default_config: changes to the built-in default configuration.
        deliver: is called when messages are in the outbox that have to be sent to the
            broker (``WaitingRoom.claim``).
        copies_seconds: how long after its end a second copy of a parked message is known.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str = DEFAULT_PREFIX,
        default_config: Mapping[str, Any] | None = None,
        *,
        deliver: Callable[[], None] | None = None,
        copies_seconds: int = 7200,
    ) -> None:
        self.redis = redis
        self.prefix = prefix
        self.waiting = WaitingRoom(redis, prefix, deliver, copies_seconds)
        self.config = ConfigStore(redis, prefix, default_config, self.waiting.recheck)
        self.stats = Stats(redis, prefix)
        self.times = Times(redis, prefix)
        self.leases = Leases(redis, prefix)
        self._keeper = Keeper(Leases(redis, prefix))
        self._copies_seconds = copies_seconds
        # What the scripts hold against us when it is out of date; never trusted.
        self._dimensions: tuple[str, ...] = ()
        # Runs of which an acquire may still be under way somewhere.
        self._doubtful: set[str] = set()
        self._later = _Later(self._release)

    def acquire(
        self, *, timeout: float | None = None, **tags: object
    ) -> AbstractContextManager[Lease]:
        """Hold tokens outside of tasks, while a block runs; wait for room as tasks do.

        >>> with limiter.acquire(account="acc123", platform="douyin", timeout=60) as lease:
        ...     publish()

        Args:
            timeout: seconds to wait at most; None waits without end.
            tags: ``platform``, ``account``, ``type``, and the user's own dimensions.

        Raises:
            LimitReached: there was no room in time.
            InvalidTag: a tag names no limit.
            LimiterUnavailable: Redis can't be asked for them. Where it is the end of the
                block that it is away at, a thread gives them back later.
            RunEnded: its time was over before the answer came, as where the process stood
                still; call again.
        """
        return acquired(self, self._keeper, tags, timeout)

    def try_acquire(
        self,
        token: str,
        tags: Mapping[str, object],
        *,
        task: str = "",
        worker: str = "",
        rank: int = 0,
        place: Place | None = None,
        lease: float | None = None,
        begun: bool = False,
    ) -> Granted | Denied | Repeated:
        """Take a token in each limit of a run, or in none.

        Args:
            token: the run; asking again for one that holds its tokens changes nothing.
            tags: what the limits follow from (``limits.limits_of``).
            task: the task's name, and
            worker: the worker's name, for those who look at the tokens.
            rank: 0 for the highest priority, 1 more for each lower one, 255 at most.
            place: where its message waited before; None if it did not.
            lease: seconds after which the tokens are taken back if nobody renews them
                (``leases.beat``); None for the configured ``timeout``.
            begun: it runs already, and is counted whether there is room or not.

        Raises:
            InvalidTag: a tag names no limit.
            RunEnded: it was given up before, or its tokens have expired.
            ConfigConflict: the configuration changed with every try.
            LimiterUnavailable: Redis can't be asked; the run holds nothing then,
                or nothing for long.
        """
        parked_as = place.parked_as if place else ""
        copies_seconds = max(BEGUN_SECONDS, self._copies_seconds)
        if lease is not None:
            lease = max(lease, SHORTEST_LEASE)
        for _ in range(ROUNDS):
            limits = limits_of(tags, self._dimensions)
            args = arguments(
                limits, place, dimensions=self._dimensions, task=task, worker=worker, rank=rank,
                copies_seconds=copies_seconds, lease=lease, begun=begun,
            )  # fmt: skip
            reply = self._ask(token, *args, begun=begun)
            match reply:
                case [b"granted", expiry, fence]:
                    return Granted(token, limits, int(expiry), int(fence))
                case [b"denied", limit, held, most, score]:
                    place = Place(int(score), parked_as)
                    return Denied(token, limits, limit.decode(), int(held), int(most), place)
                case [b"behind", limit, score]:
                    place = Place(int(score), parked_as)
                    return Denied(token, limits, limit.decode(), None, None, place)
                case [b"running", other]:
                    return Repeated(other.decode())
                case [b"done"]:
                    return Repeated(None)
                case [b"dimensions", names]:
                    self._dimensions = tuple(json.loads(names))
                case [b"unconfigured"]:
                    self.config.sync()
                case _:
                    self._doubtful.discard(token)
                    raise RunEnded(f"run {token} has ended, it gets no tokens any more")
        raise ConfigConflict()

    def _ask(self, token: str, *args: str, begun: bool) -> Any:
        """Call acquire once; what no reply can vouch for is given up, unless it runs."""
        try:
            reply, lost = scripts.call(self.redis, "acquire", self.prefix, token, *args)
        except BaseException:
            # Also a soft time limit, which may strike between the call and its reply.
            if begun:
                self._doubtful.add(token)
            else:
                self.give_up(token)
            raise
        if lost:
            self._doubtful.add(token)
        # Also where it was an earlier call that was lost, which asked for something else.
        if token in self._doubtful and reply[0] in (b"denied", b"behind", b"running", b"done"):
            self._later.add(token)
        return reply

    def give_up(self, token: str) -> None:
        """Give back, soon and for good, whatever a run may hold or may be given yet."""
        self._doubtful.add(token)
        self._later.add(token)

    def release(self, token: str, *, done: bool = False) -> bool:
        """Give a run's tokens back, to those who wait for them; again, or late, changes nothing.

        Args:
            token: the run.
            done: it came to its end, so that a second copy of its message is one too many.
                Where nobody can say so (its process died), a copy runs.

        Returns:
            True if it held them, False if they had expired or were never given.

        Raises:
            LimiterUnavailable: Redis can't be asked; a thread tries on.
        """
        self._later.discard(token)
        try:
            return self._release(token, done)
        except LimiterUnavailable:
            self._later.add(token, lambda token: self._release(token, done))
            raise

    def count_later(self, token: str, tags: Mapping[str, object], **facts: Any) -> None:
        """Count a run that began while Redis was away, as soon as that is back.

        Args:
            token: the run; ``release`` ends it, counted by then or not.
            tags, facts: as of ``try_acquire``.
        """

        def count(token: str) -> None:
            self.try_acquire(token, tags, begun=True, **facts)

        self._later.add(token, count)

    def _release(self, token: str, done: bool = False) -> bool:
        mark = int(token in self._doubtful)
        copies_seconds = self._copies_seconds if done else ""
        held = self.waiting.handing("release", token, mark, copies_seconds)
        self._doubtful.discard(token)
        return bool(held)

    def usage(self) -> Usage:
        """Return who uses how much of which limit; living tokens only.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        return read_usage(self.redis, self.prefix, self.config.sync())


class _Later:
    """Does what could not be done while Redis was away: give tokens back, or count a run.

    A thread that is there only while there is something to do. What it has not
    managed after ``PATIENCE`` seconds has expired by then.
    """

    PATIENCE: Final = 86_400
    PAUSE: Final = 1.0

    def __init__(self, release: Callable[[str], object]) -> None:
        self._release = release
        self._tokens: dict[str, tuple[float, Callable[[str], object]]] = {}
        self._lock = threading.Lock()
        self._running = False

    def add(self, token: str, action: Callable[[str], object] | None = None) -> None:
        """Do this for a token, instead of what was to be done for it; release it by default."""
        with self._lock:
            self._tokens[token] = (time.monotonic() + self.PATIENCE, action or self._release)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="concurrency-later", daemon=True).start()

    def discard(self, token: str) -> None:
        """Do nothing for a token any more."""
        with self._lock:
            self._tokens.pop(token, None)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._tokens:
                    self._running = False
                    return
                waiting = list(self._tokens.items())
            done = [token for token, (deadline, act) in waiting if self._try(token, deadline, act)]
            with self._lock:
                for token, entry in waiting:
                    if token in done and self._tokens.get(token) == entry:
                        del self._tokens[token]
            if len(done) == len(waiting):
                continue
            time.sleep(self.PAUSE)

    def _try(self, token: str, deadline: float, action: Callable[[str], object]) -> bool:
        """Do it; return whether that is all for this token. One that fails holds up no other."""
        try:
            action(token)
        except LimiterUnavailable:
            return time.monotonic() >= deadline
        except Exception as exc:  # noqa: BLE001 - the thread is there for the others too
            logger.warning("%s", exc)
        return True
