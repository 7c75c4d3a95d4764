"""Holding tokens outside of tasks: ``with limiter.acquire(account="acc123"): ...``

A caller waits in the same waiting room as tasks do. The hand-over puts its message into the
caller's own list, which the caller reads. A thread renews the tokens of this process's callers.

``limiter.py`` asks for tokens; ``worker/gate.py`` says how a task waits.
"""

import json
import logging
import math
import os
import secrets
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from celery_concurrency.errors import LimiterUnavailable, LimitReached, RunEnded
from celery_concurrency.limiter.background import Background
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.leases import BEAT_SECONDS, Lease, Leases
from celery_concurrency.limiter.outcomes import Denied, Granted, Outcome, Ticket
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.limiter.waiting_room import WaitingRoom
from celery_concurrency.log import LIMITER_LOG

logger = logging.getLogger(LIMITER_LOG)

#: How the ids of callers, and so their tokens, begin.
CALL: Final = "call-"
#: Seconds of silence after which a process's tokens are taken back.
LEASE_SECONDS: Final = 30.0
#: Seconds that tokens stay reserved for a caller, who is there and waits.
HOLD_SECONDS: Final = 5.0
#: Seconds after which a caller parks again, so that a dead caller stops waiting.
STAY_SECONDS: Final = 60.0
#: Seconds after that until it asks again although nothing came: Redis may have lost its data.
LATE_SECONDS: Final = 5.0
#: Seconds between two looks at its list; in between it sweeps, because there may be no worker.
LOOK_SECONDS: Final = 1
#: The shortest pause while somebody waits for a moment, which may be another caller's.
MOMENT_LOOK_SECONDS: Final = 0.1


class BlockingAcquire:
    """Acquires tokens for callers outside of tasks, and renews what they hold.

    Args:
        room: where callers wait.
        lease_of, try_acquire, release: the limiter's methods.
    """

    def __init__(
        self,
        keyspace: Keyspace,
        room: WaitingRoom,
        lease_of: Callable[[Granted, float], Lease],
        try_acquire: Callable[..., Outcome],
        release: Callable[..., bool],
    ) -> None:
        self.keyspace = keyspace
        self.room = room
        self.try_acquire = try_acquire
        self._release = release
        self._lease_of = lease_of
        self._keeper = LeaseKeeper(Leases(keyspace))

    @contextmanager
    def hold(self, tags: Mapping[str, object], timeout: float | None) -> Iterator[Lease]:
        """Hold tokens for these tags while the block runs; see ``Limiter.acquire``."""
        granted = _Caller(self, tags, timeout).wait()
        began = succeeded = False
        try:
            self._keeper.add(granted.token)
            began = True
            lease = self._lease_of(granted, LEASE_SECONDS)
            yield lease
            succeeded = not lease.refused_in
        finally:
            self._keeper.discard(granted.token)
            try:
                self._release(granted.token, began=began, succeeded=succeeded)
            except LimiterUnavailable as exc:
                # Don't raise: the block has done its work, or failed with its own error.
                logger.warning("tokens are released later: %s", exc)


class _Caller:
    """Asks for tokens and waits for them."""

    def __init__(
        self, blocking: BlockingAcquire, tags: Mapping[str, object], timeout: float | None
    ) -> None:
        self._keyspace = blocking.keyspace
        self._room = blocking.room
        self._try_acquire = blocking.try_acquire
        self._tags = tags
        self._ends = math.inf if timeout is None else time.monotonic() + timeout
        self._id = f"{CALL}{uuid.uuid4()}"
        self._queue = self._keyspace.keys.call(self._id)
        self._name = f"{os.getpid()}@{socket.gethostname()}"
        # While it is parked.
        self._parked: Ticket | None = None

    def wait(self) -> Granted:
        """Wait until the tokens are granted; return the grant.

        Raises:
            LimitReached: they were not granted in time.
        """
        try:
            return self._wait()
        except BaseException:
            self._leave()
            raise

    def _wait(self) -> Granted:
        ticket: Ticket | None = None
        while True:
            token = f"{self._id}:{secrets.token_hex(8)}"
            outcome = self._try_acquire(
                token, self._tags, worker=self._name, lease=LEASE_SECONDS, ticket=ticket
            )
            if isinstance(outcome, Granted):
                return outcome
            if not isinstance(outcome, Denied):
                raise RunEnded()  # nobody else has its id, and it is never skipped
            ticket = Ticket(
                outcome.ticket.number, outcome.ticket.parked_as or token, outcome.limits
            )
            if self._left() <= 0 or not self._park(token, outcome, ticket):
                raise LimitReached(f"timed out: it waits for {outcome}")

    def _park(self, token: str, denied: Denied, ticket: Ticket) -> bool:
        """Wait in the waiting room; return True to ask again, False if time is up."""
        self._parked = ticket
        self._room.park(self._waiter(token, denied))
        again = self._is_woken()
        self._parked = None
        return again

    def _leave(self) -> None:
        """Stop waiting, and give up what was handed over just now."""
        parked = self._parked
        # If Redis is away, the waiter and its reservation lapse by themselves.
        with suppress(LimiterUnavailable):
            if parked and not self._room.cancel(self._id):
                self._room.forgo(parked.parked_as, parked.limits)

    def _left(self) -> float:
        """Return the seconds left to wait."""
        return self._ends - time.monotonic()

    def _waiter(self, token: str, denied: Denied) -> Waiter:
        return Waiter(
            run=token,
            task_id=self._id,
            retries=0,
            replaced=0,
            limits=denied.limits,
            ticket=denied.ticket.number,
            message=json.dumps({"headers": {"id": self._id, "task": self._name}}).encode(),
            hold=HOLD_SECONDS,
            expires=int(self._keyspace.now()) + STAY_SECONDS,
            queue=self._queue,
            queue_expires=int(1000 * STAY_SECONDS),
        )

    def _is_woken(self) -> bool:
        """Wait until the message is put back or it is time to park again; False if time is up."""
        asks_anew = time.monotonic() + STAY_SECONDS + LATE_SECONDS
        while time.monotonic() < asks_anew:
            opens = self._room.meet_moments()
            until = LOOK_SECONDS if opens is None else max(opens, MOMENT_LOOK_SECONDS)
            # 0 would wait for ever.
            look = max(min(LOOK_SECONDS, self._left(), until), 0.01)
            found: Any = self._keyspace.redis.blpop([self._queue], timeout=look)
            if found:
                return True
            self._room.sweep()
            if self._left() <= 0:
                # Cancel fails if room was handed over just now; then the caller has it.
                return not self._room.cancel(self._id)
        return True


class LeaseKeeper:
    """Renews the tokens of this process's callers, in a thread that lives while they hold any.

    Args:
        leases: the leases of these callers only.
    """

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._tokens: set[str] = set()
        self._thread = Background("concurrency-keeper", self._beat)

    def add(self, token: str) -> None:
        """Renew this token from now on.

        Raises:
            RuntimeError: no more threads can be started.
        """
        self._tokens.add(token)
        # At once: a token that no beat has named would not come back after a loss of data.
        self._thread.wake()

    def discard(self, token: str) -> None:
        """Stop renewing this token."""
        self._tokens.discard(token)

    def _beat(self) -> float | None:
        tokens = set(self._tokens)
        if not tokens:
            return None
        try:
            self._leases.beat(tokens, LEASE_SECONDS)
        except LimiterUnavailable:
            pass  # the lease says so, and the next beat may succeed
        except Exception:
            # Better to lose a beat than the thread.
            logger.exception("a beat failed; the next one is in %s s", BEAT_SECONDS)
        return BEAT_SECONDS
