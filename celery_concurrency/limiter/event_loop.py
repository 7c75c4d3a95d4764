"""What one event loop of asyncio has of a limiter: its connections, and two tasks.

One task renews what callers hold here and, when nobody has called for a while or the loop ends,
closes the connections. The other reads the list into which the messages of all these callers are
put: a thousand that wait need one connection, and ask Redis no more than one does.

``async_acquire.py`` has one for each event loop; ``steps.py`` says what it answers.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError

from celery_concurrency import scripts
from celery_concurrency.errors import ImproperlyConfigured, LimiterUnavailable
from celery_concurrency.limiter.caller import LEASE_SECONDS, LOOK_SECONDS, look, new_id
from celery_concurrency.limiter.client import AsyncClient, cancellations, our_errors
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.leases import BEAT_SECONDS, Leases
from celery_concurrency.limiter.steps import (
    Arrival,
    Blocking,
    Commands,
    Pop,
    Script,
    Steps,
    run_async,
)
from celery_concurrency.limiter.waiting_room import WaitingRoom
from celery_concurrency.log import LIMITER_LOG

T = TypeVar("T")

logger = logging.getLogger(LIMITER_LOG)

#: Calls of callers that are made at the same time, each on a connection of its own; more take
#: turns. The two tasks wait for nobody: what is held is renewed also where many ask at once.
CALLS: Final = 16
#: Seconds between two beats at least, however many callers come and go.
PAUSE_SECONDS: Final = 0.1
#: Seconds after the last caller until the connections are closed.
IDLE_SECONDS: Final = 10.0


class EventLoop:
    """Serves the callers of the running event loop.

    Args:
        room: where callers wait.
        closed: called when this one is of no more use: the next caller needs another.

    Attributes:
        queue: the list into which the messages of the callers here are put.
    """

    def __init__(self, keyspace: Keyspace, room: WaitingRoom, closed: Callable[[], object]) -> None:
        self._keyspace, self._room, self._closed = keyspace, room, closed
        self._redis = _client(keyspace)
        self._turns = asyncio.Semaphore(CALLS)
        self._leases = Leases(keyspace)
        self._tokens: set[str] = set()
        self._callers = 0
        self._changed = asyncio.Event()
        self.queue = keyspace.keys.call(new_id())
        #: What has arrived for those who ask and wait: a message, or why none will come.
        self._boxes: dict[str, asyncio.Queue[bytes | LimiterUnavailable]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._keeper = asyncio.create_task(self._keep(), name="concurrency-keeper")

    # -- what callers use

    async def run(self, steps: Steps[T]) -> T:
        """Take a caller's steps (``steps.py``)."""
        return await run_async(steps, self._answer_in_turn)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Stay while somebody calls."""
        self._callers += 1
        try:
            yield
        finally:
            self._callers -= 1
            if not self._callers:
                self._changed.set()

    @contextmanager
    def expecting(self, caller_id: str) -> Iterator[None]:
        """Keep what arrives for a caller while it asks and waits."""
        self._boxes[caller_id] = asyncio.Queue()
        try:
            yield
        finally:
            del self._boxes[caller_id]

    @contextmanager
    def renewing(self, token: str) -> Iterator[None]:
        """Renew a token while its block runs."""
        self._tokens.add(token)
        # At once: a token that no beat has named would not come back after a loss of data.
        self._changed.set()
        try:
            yield
        finally:
            self._tokens.discard(token)

    # -- answers to requests

    async def _answer_in_turn(self, request: object) -> Any:
        if not isinstance(request, Script | Commands):
            return await self._answer(request)
        async with self._turns:
            return await self._answer(request)

    async def _answer(self, request: object) -> Any:
        before = cancellations()
        try:
            return await self._ask(request)
        finally:
            # One may be lost.
            if cancellations() > before:
                raise asyncio.CancelledError

    async def _ask(self, request: object) -> Any:
        match request:
            case Script(verb, args):
                return await scripts.call_async(self._redis, verb, self._keyspace.prefix, *args)
            case Commands(commands):
                pipe = self._redis.pipeline(transaction=False)
                for command in commands:
                    pipe.execute_command(*command)
                with our_errors():
                    return await pipe.execute()
            case Arrival(caller_id, seconds):
                return await self._arrival(caller_id, seconds)
            case Pop(key, seconds):
                with our_errors():
                    return await self._redis.blpop([key], timeout=seconds)
            case Blocking(work):
                return await asyncio.to_thread(work)
        raise TypeError(f"{request!r} is no request")

    async def _arrival(self, caller_id: str, seconds: float) -> bytes | None:
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read(), name="concurrency-reader")
        try:
            async with asyncio.timeout(seconds):
                arrived = await self._boxes[caller_id].get()
        except TimeoutError:
            return None
        if isinstance(arrived, LimiterUnavailable):
            raise arrived
        return arrived

    # -- the task that reads

    async def _read(self) -> None:
        """Take out of the list what arrives, while somebody here may wait for it."""
        problem = "the task that reads was cancelled"
        try:
            await self._look()
        except LimiterUnavailable as exc:
            problem = str(exc)  # a message may be lost, so everybody has to know
        except Exception as exc:
            problem = f"what arrives for callers can't be read: {exc!r}"
            logger.exception("what arrives for callers can't be read")
        finally:
            for box in self._boxes.values():
                box.put_nowait(LimiterUnavailable(problem))

    async def _look(self) -> None:
        swept = time.monotonic()
        while self._boxes:
            message = await run_async(look(self._room, self.queue), self._answer)
            if message:
                # One who has left gave up what this hands over.
                box = self._boxes.get(json.loads(message)["headers"]["id"])
                if box:
                    box.put_nowait(message)
                if time.monotonic() - swept < LOOK_SECONDS:
                    continue
                await run_async(self._room.sweeping(), self._answer)
            swept = time.monotonic()

    # -- the task that renews

    async def _keep(self) -> None:
        """Renew what is held here until nobody calls any more; then close the connections."""
        ends = False
        while self._callers or not ends:
            try:
                ends = await self._beat() or ends
            except asyncio.CancelledError:
                ends = True  # the loop ends, and those who hold tokens give them back first
        # From here on nobody calls: the next one who does makes another event loop's object.
        self._closed()
        if self._reader:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
        with suppress(RedisError):
            await self._redis.aclose()

    async def _beat(self) -> bool:
        """Renew once, and wait for a change; return True if nobody has called for a while."""
        self._changed.clear()
        if self._tokens:
            try:
                beating = self._leases.beating(set(self._tokens), LEASE_SECONDS)
                await run_async(beating, self._answer)
            except LimiterUnavailable:
                pass  # the lease says so, and the next beat may succeed
            except Exception:
                # Better to lose a beat than the task.
                logger.exception("a beat failed; the next one is in %s s", BEAT_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)
        try:
            async with asyncio.timeout(BEAT_SECONDS if self._callers else IDLE_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            return not self._callers
        return False


def _client(keyspace: Keyspace) -> AsyncClient:
    connect_async = getattr(keyspace.redis, "connect_async", None)
    if connect_async is None:
        raise ImproperlyConfigured(
            "`async with limiter.acquire(...)` needs a client made with "
            "celery_concurrency.limiter.connect(url)"
        )
    client: AsyncClient = connect_async()
    return client
