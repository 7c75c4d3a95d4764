"""Containers for pytest-celery's node classes that are local processes: no Docker needed.

Its nodes ask of a container what is below, and not whether it is one.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

from celery_concurrency.testing.server import Server
from tests.support.workers import Worker


class ServerContainer:
    """A Redis-compatible server: broker or result backend."""

    def __init__(self, name: str) -> None:
        self.name = self.id = name
        self._server = Server()

    @property
    def status(self) -> str:
        return "running"

    @property
    def celeryconfig(self) -> dict[str, Any]:
        url = self._server.url()
        return {
            "url": url,
            "host_url": url,
            "hostname": "127.0.0.1",
            "port": self._server.port,
            "vhost": "0",
        }

    def ready(self) -> bool:
        return True  # a Server answers as soon as it is made

    def teardown(self) -> None:
        self._server.stop()


class WorkerContainer:
    """A worker process.

    Args:
        app: the module of the app.
        directory: for its logs.
        env: variables of its environment.
        options: more, as for ``Worker``.
    """

    def __init__(self, app: str, directory: Path, env: dict[str, str], **options: Any) -> None:
        self._app = app
        self._directory = directory
        self._env = env
        self._options = options
        self._logs: list[Path] = []
        self._start()
        self.name = self.id = self._worker.name

    def _start(self) -> None:
        log = self._directory / f"node-{id(self)}-{len(self._logs)}.log"
        with patch.dict(os.environ, self._env):
            self._worker = Worker(self._app, log, **self._options)
        self._logs.append(log)

    @property
    def status(self) -> str:
        return "running" if self._worker.process.poll() is None else "exited"

    def ready(self) -> bool:
        self._worker.wait_until_ready()
        return True

    def logs(self) -> str:
        return "".join(log.read_text(errors="replace") for log in self._logs)

    def kill(self, signal: str = "SIGKILL") -> None:
        self._worker.process.send_signal(_SIGNALS[signal])
        self._worker.process.wait(30)

    def reload(self) -> None:
        """Nothing is cached here that could be out of date."""

    def restart(self, timeout: float) -> None:
        self._worker.ask_to_end()
        self._worker.wait_until_ended(timeout)
        self._start()
        self.ready()

    def teardown(self) -> None:
        self._worker.stop()


_SIGNALS = signal.Signals
