"""A real ``concurrency serve`` process for tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType


class Serving:
    """``celery -A ... concurrency serve``, from when it listens; a context manager.

    Args:
        redis_url: broker and result backend of its project.
        arguments: those of ``serve``.
        env: more of its environment.
        files: how many files it may have open, by its soft and its hard limit or both.

    Attributes:
        said: the line that says where it listens.
        port: where that is.
        page: the address of its page.
    """

    def __init__(
        self,
        redis_url: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        files: int | tuple[int, int] | None = None,
    ) -> None:
        own = {"BROKER_URL": redis_url, "RESULT_BACKEND": redis_url, **(env or {})}
        command = [
            *(sys.executable, "-m", "celery", "-A", "tests.projects.plain"),
            *("concurrency", "serve", *(arguments or ("--port", "0"))),
        ]
        if files:
            soft, hard = (files, files) if isinstance(files, int) else files
            limited = f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"'
            command = ["sh", "-c", limited, "sh", *command]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        found = re.search(r":(\d+)/api/v1/concurrency", self.said)
        assert found, self.said + self.process.communicate(timeout=60)[1]
        self.port = int(found[1])
        self.page = f"http://127.0.0.1:{self.port}/"

    def stop(self, how: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        """End it; return its exit status, and the rest of its output and errors."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            self.process.kill()
