"""Holding tokens outside of tasks: ``with limiter.acquire(account="acc123"): ...``

A caller waits in the same waiting room as tasks do. What is put back for it goes to
a list of its own, which it reads; a thread renews what callers of this process hold.

How one is asked for room is in ``limiter.py``, which calls this; tasks wait by ``worker/gate.py``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from celery_concurrency.errors import LimiterUnavailable, LimitReached, RunEnded
from celery_concurrency.limiter.connection import asking
from celery_concurrency.limiter.leases import BEAT_SECONDS, Lease, Leases
from celery_concurrency.limiter.outcomes import Denied, Granted, Repeated
from celery_concurrency.limiter.waiting_room import Place, Waiter
from celery_concurrency.log import LIMITER_LOG

if TYPE_CHECKING:
    from celery_concurrency.limiter import Limiter

logger = logging.getLogger(LIMITER_LOG)

#: Seconds after which tokens are taken back from a process that is silent.
LEASE_SECONDS: Final = 30.0
#: For how long tokens stay reserved for a caller, who is there and waits.
HOLD_SECONDS: Final = 5.0
#: A caller that waits says so anew after so many seconds: one that died waits no longer.
STAY_SECONDS: Final = 60.0
#: So much later it asks anew though nobody put it back: its place was lost with the data.
LATE_SECONDS: Final = 5.0
#: Seconds between two looks, in which nobody else may be there to sweep.
LOOK_SECONDS: Final = 1


@contextmanager
def acquired(
    limiter: Limiter, keeper: Keeper, tags: Mapping[str, object], timeout: float | None
) -> Iterator[Lease]:
    """Hold what these tags need while the block runs; see ``Limiter.acquire``."""
    granted = _Caller(limiter, tags, timeout).wait()
    keeper.add(granted.token)
    try:
        yield Lease.of(granted, limiter.redis, limiter.prefix, LEASE_SECONDS)
    finally:
        keeper.discard(granted.token)
        try:
            limiter.release(granted.token)
        except LimiterUnavailable as exc:
            # The block has done its work, or failed with an error of its own.
            logger.warning("tokens are given back later: %s", exc)


class _Caller:
    """One who wants tokens, and waits for them."""

    def __init__(self, limiter: Limiter, tags: Mapping[str, object], timeout: float | None) -> None:
        self._limiter = limiter
        self._tags = tags
        self._ends = None if timeout is None else time.monotonic() + timeout
        self._id = f"call-{uuid.uuid4()}"
        self._queue = f"{limiter.prefix}:call:{self._id}"
        self._worker = f"{os.getpid()}@{socket.gethostname()}"
        # Where it waits while it does.
        self._parked: Place | None = None

    def wait(self) -> Granted:
        """Return what was granted, in the end.

        Raises:
            LimitReached: not in time.
        """
        try:
            return self._wait()
        except BaseException:
            self._leave()
            raise

    def _wait(self) -> Granted:
        place: Place | None = None
        while True:
            token = f"{self._id}:{secrets.token_hex(8)}"
            answer = self._limiter.try_acquire(
                token, self._tags, worker=self._worker, lease=LEASE_SECONDS, place=place
            )
            if isinstance(answer, Granted):
                return answer
            if isinstance(answer, Repeated):
                raise RunEnded()  # nobody else has its id
            place = Place(answer.place.score, answer.place.parked_as or token, answer.limits)
            if self._left() <= 0:
                raise LimitReached(f"not within the timeout: waits for {answer}")
            self._parked = place
            self._limiter.waiting.park(self._waiter(token, answer))
            woken = self._woken()
            self._parked = None
            if not woken:
                raise LimitReached(f"not within the timeout: waits for {answer}")

    def _leave(self) -> None:
        """Wait no more, and leave nothing reserved that was handed over in this moment."""
        waiting, place = self._limiter.waiting, self._parked
        # Where Redis is away, what is left behind lapses by itself.
        with suppress(LimiterUnavailable):
            if place and not waiting.cancel(self._id):
                waiting.forgo(place.parked_as, place.limits)

    def _left(self) -> float:
        """Return the seconds that are left to wait."""
        return math.inf if self._ends is None else self._ends - time.monotonic()

    def _waiter(self, token: str, denied: Denied) -> Waiter:
        return Waiter(
            run=token,
            task_id=self._id,
            retries=0,
            replaced=0,
            limits=denied.limits,
            score=denied.place.score,
            message=json.dumps({"headers": {"id": self._id, "task": self._worker}}).encode(),
            hold=HOLD_SECONDS,
            expires=self._now() + STAY_SECONDS,
            queue=self._queue,
            queue_expires=int(1000 * STAY_SECONDS),
        )

    def _woken(self) -> bool:
        """Wait to be put back, for room or to say anew that one waits; false if it is too late."""
        asks_anew = time.monotonic() + STAY_SECONDS + LATE_SECONDS
        while time.monotonic() < asks_anew:
            with asking():
                # 0 would be without end.
                look = min(LOOK_SECONDS, max(self._left(), 0.01))
                found: Any = self._limiter.redis.blpop([self._queue], timeout=look)
            if found:
                return True
            self._limiter.waiting.sweep()
            if self._left() <= 0:
                # What was handed over in this moment is there, and cancels nothing.
                return not self._limiter.waiting.cancel(self._id)
        return True

    def _now(self) -> int:
        """Return the server's time, in Unix seconds."""
        with asking():
            now: Any = self._limiter.redis.time()
        return int(now[0])


class Keeper:
    """Renews what the callers of this process hold, in a thread that is there while they do.

    Args:
        leases: of these callers alone.
    """

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._tokens: set[str] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._running = False

    def add(self, token: str) -> None:
        """Renew this token from now on."""
        with self._lock:
            self._tokens.add(token)
            # At once: what no beat has seen would not come back after a loss of data.
            self._wake.set()
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="concurrency-keeper", daemon=True).start()

    def discard(self, token: str) -> None:
        """Renew it no more."""
        with self._lock:
            self._tokens.discard(token)

    def _run(self) -> None:
        while True:
            self._wake.wait(BEAT_SECONDS)
            self._wake.clear()
            with self._lock:
                if not self._tokens:
                    self._running = False
                    return
                tokens = set(self._tokens)
            try:
                self._leases.beat(tokens, LEASE_SECONDS)
            except LimiterUnavailable:
                continue  # its lease says so, and the next beat may succeed
            except Exception:
                # A beat lost is better than a thread lost.
                logger.exception("a beat failed; the next one comes in %s s", BEAT_SECONDS)
