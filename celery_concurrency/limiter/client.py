"""The Redis client: it raises our errors, and scripts have their own connections.

redis-py does not document raw connections. The parts that are used here exist in redis-py 5.2
to 8.1, and a test names whatever a version lacks.

``connection.py`` makes a client for a URL; ``scripts/__init__.py`` calls and repeats scripts.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.client import Pipeline
from redis.exceptions import RedisError, ResponseError, WatchError

from celery_concurrency.errors import LimiterUnavailable, OutOfMemory
from celery_concurrency.scripts import is_out_of_memory
from celery_concurrency.scripts.remedies import CHECK, remedy_of

#: Seconds after which an idle connection is checked before it is used.
IDLE_SECONDS: Final = 1.0


class Client(Redis):
    """A client that raises our errors, and whose scripts have their own connections.

    redis-py does much around each command (checks of the pool's connection, retries,
    observability). The scripts need none of that, and it took half of a call's time.

    Raises:
        RedisUnavailable: from each command and each pipeline's ``execute``. Only ``evalsha``
            and ``eval`` raise redis-py's own errors.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Idle connections of the scripts, and since when. A list's push and pop are atomic.
        self._idle: list[tuple[Any, float]] = []
        self._pid = os.getpid()
        #: Makes a client of the same server for an event loop; None if this one was not made by
        #: ``connection.connect``.
        self.connect_async: Callable[[], AsyncClient] | None = None

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command; see the class for what it raises."""
        with our_errors():
            # redis-py has no types here.
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Return a pipeline; see the class for what it raises."""
        return OurPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Call a script by its name; another thread's call takes another connection."""
        return self._call_script("EVALSHA", sha, numkeys, *keys_and_args)

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Call a script by its text."""
        return self._call_script("EVAL", script, numkeys, *keys_and_args)

    def _call_script(self, *command: Any) -> Any:
        if self._pid != os.getpid():
            # After a fork, the parent's connections would give us the parent's replies.
            self._idle, self._pid = [], os.getpid()
        connection = self._connection()
        try:
            connection.send_packed_command([packed(command)], check_health=False)
            reply = connection.read_response()
        except ResponseError:
            self._idle.append((connection, time.monotonic()))
            raise
        except BaseException:
            # Also after a time limit, which can come anywhere: no other call may read this reply.
            connection.disconnect()
            raise
        self._idle.append((connection, time.monotonic()))
        return reply

    def _connection(self) -> Any:
        """Return a connection to the current master that nobody else uses."""
        try:
            connection, since = self._idle.pop()
        except IndexError:
            connection = new_connection(self)
        else:
            if time.monotonic() - since > IDLE_SECONDS:
                _drop_if_closed(connection)
        # Sending alone would connect to the former master.
        connection.connect()
        return connection

    def close(self) -> None:
        """Close the connections of the scripts, too."""
        super().close()
        while self._idle:
            self._idle.pop()[0].disconnect()


class AsyncClient(AsyncRedis):
    """A client for one event loop of asyncio; it raises redis-py's own errors."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all of its connections, also those to sentinels."""
        await super().aclose(close_connection_pool)
        await self.connection_pool.disconnect()
        manager = getattr(self.connection_pool, "sentinel_manager", None)
        for sentinel in manager.sentinels if manager else ():
            await sentinel.connection_pool.disconnect()


def cancellations() -> int:
    """Return how often the running task of asyncio was cancelled.

    Before Python 3.12, asyncio.wait_for may lose a cancellation, and redis-py sends with it.
    """
    task = asyncio.current_task()
    return task.cancelling() if task else 0


class OurPipeline(Pipeline):
    """A pipeline of ``Client`` that raises our errors."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        with our_errors():
            return super().execute(raise_on_error)


class RedisUnavailable(LimiterUnavailable, RedisError):
    """Redis can't be asked: also a redis-py error, for users of the client itself."""


class RedisOutOfMemory(OutOfMemory, RedisUnavailable):
    """Redis is out of memory: let tasks run, cancel some that wait, or raise its maxmemory."""


@contextmanager
def our_errors() -> Iterator[None]:
    """Raise ``RedisUnavailable`` for redis-py's errors."""
    try:
        yield
    except (WatchError, RedisUnavailable):
        raise  # a transaction must be repeated; or it is ours already
    except RedisError as exc:
        if is_out_of_memory(exc):
            raise RedisOutOfMemory() from exc
        raise RedisUnavailable(f"Redis can't be asked ({exc}){remedy_of(exc) or CHECK}") from exc


def packed(command: Iterable[str | int | bytes]) -> bytes:
    """Return a command as it is sent; redis-py's own packing takes more than twice as long."""
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    lines = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"*%d\r\n%b" % (len(parts), lines)


def new_connection(client: Redis) -> Any:
    """Return a connection like those in the client's pool, but outside of the pool."""
    pool = client.connection_pool
    return pool.connection_class(**pool.connection_kwargs)


def _drop_if_closed(connection: Any) -> None:
    """Close a connection that the server has closed: a command sent on it would be lost."""
    try:
        stale = connection.can_read(timeout=0)
    except (RedisError, OSError):
        stale = True
    if stale:
        connection.disconnect()
