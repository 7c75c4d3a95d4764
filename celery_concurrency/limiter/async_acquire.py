"""Holding tokens in an event loop: ``async with limiter.acquire(account="acc123"): ...``

``caller.py`` says how a caller asks and waits, ``event_loop.py`` asks Redis for it, and
``blocking_acquire.py`` does the same for callers that block.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.caller import LEASE_SECONDS, Caller, new_id
from celery_concurrency.limiter.event_loop import EventLoop
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.later import Later
from celery_concurrency.limiter.leases import Lease
from celery_concurrency.limiter.outcomes import Granted, Outcome
from celery_concurrency.limiter.refusals import DEFAULT_GROW, DEFAULT_MOST
from celery_concurrency.limiter.steps import Arrival, Steps
from celery_concurrency.limiter.waiting_room import WaitingRoom
from celery_concurrency.log import LIMITER_LOG

T = TypeVar("T")

logger = logging.getLogger(LIMITER_LOG)


class AsyncAcquire:
    """Acquires tokens for callers in event loops, each of which has an ``EventLoop``.

    Args:
        room: where callers wait.
        trying, lease_of, releasing: the limiter's methods.
        later: the limiter's.
    """

    def __init__(
        self,
        keyspace: Keyspace,
        room: WaitingRoom,
        trying: Callable[..., Steps[Outcome]],
        later: Later,
        lease_of: Callable[[Granted, float], Lease],
        releasing: Callable[..., Steps[bool]],
    ) -> None:
        self._keyspace, self._room = keyspace, room
        self._trying, self._later = trying, later
        self._lease_of, self._releasing = lease_of, releasing
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, EventLoop] = WeakKeyDictionary()

    @asynccontextmanager
    async def hold(
        self, tags: Mapping[str, object], timeout: float | None, weight: int
    ) -> AsyncIterator["AsyncLease"]:
        """Hold tokens for these tags while the block runs; see ``Limiter.acquire``."""
        here = self._here()
        with here.calling():
            granted = await self._granted(here, tags, timeout, weight)
            succeeded = False
            try:
                with here.renewing(granted.token):
                    lease = self._lease_of(granted, LEASE_SECONDS)
                    yield AsyncLease(lease, self._run)
                succeeded = not lease.refused_in
            finally:
                try:
                    await here.run(self._releasing(granted.token, succeeded=succeeded))
                except LimiterUnavailable as exc:
                    # Don't raise: the block has done its work, or failed with its own error.
                    logger.warning("tokens are released later: %s", exc)

    async def _granted(
        self, here: EventLoop, tags: Mapping[str, object], timeout: float | None, weight: int
    ) -> Granted:
        caller_id = new_id()

        def look(seconds: float) -> Steps[bytes | None]:
            message: bytes | None = yield Arrival(caller_id, seconds)
            return message

        caller = Caller(
            self._keyspace, self._room, self._trying, self._later, tags=tags, timeout=timeout,
            weight=weight, caller_id=caller_id, queue=here.queue, look=look,
        )  # fmt: skip
        with here.expecting(caller_id):
            return await here.run(caller.waiting())

    async def _run(self, steps: Steps[T]) -> T:
        """Take steps for a lease, also after its block."""
        here = self._here()
        with here.calling():
            return await here.run(steps)

    def _here(self) -> EventLoop:
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            here = EventLoop(self._keyspace, self._room, lambda: self._loops.pop(loop, None))
            self._loops[loop] = here
        return here


class AsyncLease:
    """What a caller in an event loop holds: a ``Lease`` whose questions to Redis are awaited.

    Attributes:
        token, limits, fence, refused_in: as in ``Lease``.
    """

    def __init__(self, lease: Lease, run: Callable[[Steps[Any]], Awaitable[Any]]) -> None:
        self._lease, self._run = lease, run
        self.token, self.limits, self.fence = lease.token, lease.limits, lease.fence
        self.refused_in = lease.refused_in

    def __repr__(self) -> str:
        return f"Async{self._lease!r}"

    @property
    def lost(self) -> Awaitable[bool]:
        """``await lease.lost``: see ``Lease.lost``."""
        return self._run(self._lease.looking_if_lost())

    async def cool_down(self, seconds: float, dimension: str, *, reason: str = "") -> float:
        """Let one of the limits admit nobody for a while; see ``Lease.cool_down``."""
        until: float = await self._run(self._lease.cooling_down(seconds, dimension, reason=reason))
        return until

    async def refused(
        self,
        dimension: str,
        seconds: float,
        *,
        grow: float = DEFAULT_GROW,
        most: float = DEFAULT_MOST,
        reason: str = "",
    ) -> float:
        """Report that a platform refused what the block did; see ``Lease.refused``."""
        until: float = await self._run(
            self._lease.telling(dimension, seconds, grow=grow, most=most, reason=reason)
        )
        return until


class Hold(AbstractContextManager[Lease], AbstractAsyncContextManager[AsyncLease]):
    """Holds tokens while a block of ``with`` or ``async with`` runs; made by ``Limiter.acquire``.

    Args:
        blocking, awaiting: make what holds them for one block.
    """

    def __init__(
        self,
        blocking: Callable[[], AbstractContextManager[Lease]],
        awaiting: Callable[[], AbstractAsyncContextManager[AsyncLease]],
    ) -> None:
        self._blocking, self._awaiting = blocking, awaiting

    def __enter__(self) -> Lease:
        self._entered = self._blocking()
        return self._entered.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self._entered.__exit__(kind, error, traceback)

    async def __aenter__(self) -> AsyncLease:
        self._async_entered = self._awaiting()
        return await self._async_entered.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._async_entered.__aexit__(kind, error, traceback)
