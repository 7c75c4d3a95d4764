"""A Redis Cluster for an event loop: the client of the one node that has all keys, of asyncio.

``cluster.py`` says how it finds and follows that node, and has all that does not ask.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio.client import Pipeline
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ResponseError

from celery_concurrency.limiter.client import AsyncClient, cancellations
from celery_concurrency.limiter.cluster import (
    PAUSE,
    SERVED_SECONDS,
    Address,
    Cluster,
    Elsewhere,
    ToMaster,
)
from celery_concurrency.limiter.steps import run_async

T = TypeVar("T")


class _Awaited(ToMaster):
    """A connection that looks for the slot's master whenever it connects.

    ``_connect``: redis-py 5.2 to 8.1.
    """

    async def _connect(self) -> None:
        self.turn_to(*await run_async(self.cluster.finding(), self._ask))
        parent: Any = super()
        try:
            await parent._connect()
        except BaseException:
            self.doubt()
            raise

    async def _ask(self, node: Address) -> Any:
        one = self.plain_to(node)
        try:
            await one.connect()
            await one.send_command("CLUSTER", "SLOTS")
            return await one.read_response()
        finally:
            await one.disconnect()

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply; if the node refuses the command, disconnect and say so.

        Raises:
            Elsewhere: the node did nothing.
        """
        parent: Any = super()
        try:
            return await parent.read_response(*args, **options)
        except ResponseError as exc:
            elsewhere = self.elsewhere(exc)
            if not elsewhere:
                raise
            # Not waiting for the end of it, which may fail and would hide the refusal.
            await self.disconnect(nowait=True)
            raise elsewhere from exc

    async def disconnect(self, *args: Any, **options: Any) -> None:
        """Close it."""
        self.doubt()
        parent: Any = super()
        await parent.disconnect(*args, **options)


class AsyncClusterConnection(_Awaited, Connection):
    """A connection to the slot's master."""

    plain = Connection


class AsyncClusterSSLConnection(_Awaited, SSLConnection):
    """A connection to the slot's master, by TLS.

    All connections share one ``ssl_context`` (redis-py 5.2 to 8.1): to make one reads all trusted
    certificates, and holds up the event loop meanwhile.
    """

    plain = SSLConnection

    def __init__(self, *, cluster: Cluster, **options: Any) -> None:
        super().__init__(cluster=cluster, **options)
        cluster.tls = self.ssl_context = cluster.tls or self.ssl_context

    def plain_to(self, node: Address) -> Any:
        """Return one of redis-py's own connections to a node."""
        one = super().plain_to(node)
        one.ssl_context = self.ssl_context
        return one


class AsyncClusterClient(AsyncClient):
    """A client of the one node that has all keys of a prefix, for one event loop of asyncio.

    What a node refused, because it does not serve the slot, is sent again for
    ``SERVED_SECONDS``: nothing was done. It has the ``Cluster`` of a ``ClusterClient``, which
    knows the slot.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, again while no node serves the slot."""
        command: Any = super().execute_command  # redis-py has no types here
        return await when_served(lambda: command(*args, **options))

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Return a pipeline; its commands may be sent twice."""
        return _AsyncClusterPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class _AsyncClusterPipeline(Pipeline):
    """A pipeline of ``AsyncClusterClient``; it is sent again as a whole, as in ``cluster.py``."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = list(self.command_stack)
        once = super().execute

        async def execute() -> list[Any]:
            self.command_stack = list(commands)
            return await once(raise_on_error)

        return await when_served(execute)


async def when_served(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call, again while no node serves the slot; a refused one has done nothing."""
    ends = time.monotonic() + SERVED_SECONDS
    before = cancellations()
    while True:
        try:
            return await call()
        except Elsewhere:
            if time.monotonic() > ends or cancellations() > before:
                raise
        await asyncio.sleep(PAUSE)
