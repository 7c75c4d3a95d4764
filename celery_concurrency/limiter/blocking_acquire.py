"""Holding tokens outside of tasks: ``with limiter.acquire(account="acc123"): ...``

A thread renews the tokens of this process's callers. ``caller.py`` says how a caller asks and
waits, ``async_acquire.py`` does the same in an event loop.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.background import Background
from celery_concurrency.limiter.caller import LEASE_SECONDS, Caller, look, new_id
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.later import Later
from celery_concurrency.limiter.leases import BEAT_SECONDS, Lease, Leases
from celery_concurrency.limiter.outcomes import Granted, Outcome
from celery_concurrency.limiter.steps import Steps
from celery_concurrency.limiter.waiting_room import WaitingRoom
from celery_concurrency.log import LIMITER_LOG

logger = logging.getLogger(LIMITER_LOG)


class BlockingAcquire:
    """Acquires tokens for callers outside of tasks, and renews what they hold.

    Args:
        room: where callers wait.
        trying, lease_of, release: the limiter's methods.
        later: the limiter's.
    """

    def __init__(
        self,
        keyspace: Keyspace,
        room: WaitingRoom,
        trying: Callable[..., Steps[Outcome]],
        later: Later,
        lease_of: Callable[[Granted, float], Lease],
        release: Callable[..., bool],
    ) -> None:
        self._keyspace, self._room = keyspace, room
        self._trying, self._later = trying, later
        self._lease_of, self._release = lease_of, release
        self._keeper = LeaseKeeper(Leases(keyspace))

    @contextmanager
    def hold(
        self, tags: Mapping[str, object], timeout: float | None, weight: int
    ) -> Iterator[Lease]:
        """Hold tokens for these tags while the block runs; see ``Limiter.acquire``."""
        caller_id = new_id()
        queue = self._keyspace.keys.call(caller_id)
        caller = Caller(
            self._keyspace, self._room, self._trying, self._later, tags=tags, timeout=timeout,
            weight=weight, caller_id=caller_id, queue=queue, look=partial(look, self._room, queue),
        )  # fmt: skip
        granted = self._keyspace.run(caller.waiting())
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
