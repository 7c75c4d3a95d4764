"""Serves the admin app by Tornado, which waits for its clients without threads.

A thread is taken once a request has come as a whole: a client that is silent or slow costs a
connection, and keeps nobody waiting. The command is in ``serve.py``.
"""

import asyncio
import logging
import re
import resource
import socket
import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from typing import Any, Final

from flask import Flask
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.wsgi import WSGIContainer
from werkzeug.test import run_wsgi_app

from celery_concurrency.log import API_LOG

logger = logging.getLogger(API_LOG)

#: Requests that are answered at once; more wait for a thread.
THREADS: Final = 8
#: Connections that are open at once; with more, the one goes that is silent for longest.
CONNECTIONS: Final = 2_048
#: Open files for all else: Redis, and the connections that are accepted in one go.
OTHER_FILES: Final = 256
#: Seconds from a connection's start, or its last answer, until a request's headers are here.
HEADER_SECONDS: Final = 10
#: Seconds that a client takes at most to send a body, and to read an answer.
BODY_SECONDS: Final = 30
ANSWER_SECONDS: Final = 60
#: Seconds in which requests that have come are answered after Ctrl-C.
GRACE_SECONDS: Final = 5
#: Bytes of a request's headers, its address among them.
MAX_HEADERS: Final = 128 * 1024
#: Bytes of the longest body that is kept, before a token is asked for. Of a longer one the app is
#: told the length, and refuses it in its own form: once all has come, as most clients read no
#: answer before, but at once if it is longer than ``MAX_READ``.
MAX_BODY: Final = 2**20
MAX_READ: Final = 16 * MAX_BODY
#: Bytes of all bodies on their way; with more, the one goes that began first.
MAX_BODIES: Final = 64 * MAX_BODY
#: Seconds until it is said again that there are too many connections.
SAY_AGAIN: Final = 60

#: The end of a Host of which Tornado can't make a port.
_BAD_PORT: Final = re.compile(r":(?![0-9]{1,5}$)[^:\]]*$")


def listen(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen there; a host's name may have several addresses.

    Raises:
        OSError: the port is taken, or there is no such host.
        UnicodeError: no host can have this name.
    """
    return bind_sockets(port, host, backlog=1024)


def serve(app: Flask, sockets: Sequence[socket.socket]) -> None:
    """Serve an app on sockets that listen, until Ctrl-C."""
    # Whatever is not HTTP would be an INFO.
    logging.getLogger("tornado").setLevel(logging.WARNING)
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(app, sockets))


async def _serve(app: Flask, sockets: Sequence[socket.socket]) -> None:
    threads = ThreadPoolExecutor(THREADS)
    server = Server(app, threads, _room_for_connections())
    server.add_sockets(sockets)
    try:
        await asyncio.Event().wait()
    finally:
        server.stop()
        if server.answers:
            await asyncio.wait(server.answers, timeout=GRACE_SECONDS)
        threads.shutdown(wait=False, cancel_futures=True)


def _room_for_connections() -> int:
    """Return how many connections may be open; raises the limit of open files, if it is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    few = soft != resource.RLIM_INFINITY and soft < wanted
    return max(soft - OTHER_FILES, soft // 4) if few else CONNECTIONS


class Server(HTTPServer):
    """Keeps connections within bounds, and answers requests by a WSGI app.

    Args:
        app: answers them.
        threads: in which it does.
        most: connections that may be open.

    Attributes:
        answers: those under way.
    """

    def initialize(self, app: Flask, threads: Executor, most: int) -> None:  # type: ignore[override]
        """Tornado's own constructor: its classes can be exchanged."""
        super().initialize(
            lambda request: None,
            idle_connection_timeout=HEADER_SECONDS,
            body_timeout=BODY_SECONDS,
            max_header_size=MAX_HEADERS,
            max_body_size=2**62,  # an Exchange sees to it
        )
        self.answers: set[asyncio.Task[None]] = set()
        self._app, self._threads, self._most = app, threads, most
        self._container = WSGIContainer(app, threads)
        self._open: set[IOStream] = set()
        # Whose request is not complete, the longest silent first, and the bytes of its body.
        self._expected: dict[IOStream, int] = {}
        self._clocks: dict[IOStream, asyncio.TimerHandle] = {}
        self._said = -float(SAY_AGAIN)

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Take a new connection; if it is one too many, another one goes."""
        self._open.add(stream)
        self._expected[stream] = 0
        if len(self._open) > self._most:
            self._say_that_there_are_many()
            self._drop(next(iter(self._expected)))
        super().handle_stream(stream, address)

    def start_request(self, client: Any, connection: HTTPConnection) -> HTTPMessageDelegate:
        """Expect a request: the first of a connection, or one after an answer."""
        stream: IOStream = client.stream
        self._stop_clock(stream)
        if stream in self._open:
            self._expected[stream] = 0
        return Exchange(self, stream, connection)

    def on_close(self, client: Any) -> None:
        """Forget a connection."""
        super().on_close(client)
        self._forget(client.stream)

    def count(self, stream: IOStream, size: int) -> None:
        """Count bytes of a body that are kept."""
        if stream in self._expected:
            self._expected[stream] += size
        if sum(self._expected.values()) > MAX_BODIES:
            self._drop(next(one for one, size in self._expected.items() if size))

    async def answer(self, stream: IOStream, request: HTTPServerRequest, length: int) -> None:
        """Let the app answer.

        Args:
            stream: the connection that it came by.
            request: complete, but for a body that is longer than ``MAX_BODY``.
            length: of its body, in bytes.
        """
        self._expected.pop(stream, None)
        loop = asyncio.get_running_loop()
        try:
            environ = {**self._container.environ(request), "CONTENT_LENGTH": str(length)}
            environ.pop("HTTP_TRANSFER_ENCODING", None)  # the chunks are one body now
            pieces, status, fields = await loop.run_in_executor(
                self._threads, lambda: run_wsgi_app(self._app, environ, buffered=True)
            )
        except Exception:
            # The client would wait, and its connection be neither expected nor timed.
            logger.exception("%s %s was not answered", request.method, request.path)
            self._drop(stream)
            return
        if stream in self._open:
            self._clocks[stream] = loop.call_later(ANSWER_SECONDS, self._drop, stream)
        headers = HTTPHeaders()
        for name, value in [*fields, ("Date", formatdate(usegmt=True))]:
            headers.add(name, value)
        code, _, reason = status.partition(" ")
        assert request.connection is not None
        start = ResponseStartLine("HTTP/1.1", int(code), reason)
        request.connection.write_headers(start, headers, chunk=b"".join(pieces))
        request.connection.finish()

    def answer_soon(
        self, stream: IOStream, request: HTTPServerRequest, length: int
    ) -> Awaitable[None]:
        """Begin with an answer."""
        task = asyncio.ensure_future(self.answer(stream, request, length))
        self.answers.add(task)
        task.add_done_callback(self.answers.discard)
        return task

    def _drop(self, stream: IOStream) -> None:
        self._forget(stream)
        stream.close()

    def _forget(self, stream: IOStream) -> None:
        self._open.discard(stream)
        self._expected.pop(stream, None)
        self._stop_clock(stream)

    def _stop_clock(self, stream: IOStream) -> None:
        clock = self._clocks.pop(stream, None)
        if clock:
            clock.cancel()

    def _say_that_there_are_many(self) -> None:
        if time.monotonic() - self._said >= SAY_AGAIN:
            self._said = time.monotonic()
            logger.warning(
                "%d connections are open; closing those that have been silent longest", self._most
            )


class Exchange(HTTPMessageDelegate):
    """A request, from its first byte to its answer."""

    def __init__(self, server: Server, stream: IOStream, connection: HTTPConnection) -> None:
        self._server, self._stream, self._connection = server, stream, connection
        self._request: HTTPServerRequest | None = None
        self._body = bytearray()
        self._length = 0

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Read what it is about."""
        assert isinstance(start_line, RequestStartLine)
        self._request = HTTPServerRequest(
            connection=self._connection, start_line=start_line, headers=headers
        )
        if _BAD_PORT.search(self._request.host):
            raise HTTPInputError("Host has a colon, and no number of a port after it")
        length = headers.get("Content-Length", "")
        # Tornado refuses what is no number, or an absurd one.
        if re.fullmatch("[0-9]{1,18}", length) and int(length) > MAX_READ:
            self._length = int(length)
            return self._answer()
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Read a part of its body; one that comes in chunks does not say how long it will be."""
        self._length += len(chunk)
        if self._length <= MAX_BODY:
            self._body += chunk
            self._server.count(self._stream, len(chunk))
        elif self._body:
            self._server.count(self._stream, -len(self._body))
            self._body.clear()
        return self._answer() if self._length > MAX_READ else None

    def finish(self) -> None:
        """Answer it: it is complete."""
        self._answer()

    def _answer(self) -> Awaitable[None]:
        assert self._request is not None
        self._request.body = bytes(self._body)
        return self._server.answer_soon(self._stream, self._request, self._length)
