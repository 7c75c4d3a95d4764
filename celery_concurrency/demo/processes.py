"""The demo's processes beside its server: two workers and the admin API.

The server is in ``testing/server.py``.
"""

import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final, Self

from celery_concurrency.cli.serve import DEFAULT_PORT
from celery_concurrency.errors import ConcurrencyError
from celery_concurrency.testing.lifeline import Child

PROJECT: Final = "celery_concurrency.demo.project"
WORKERS: Final = ("w1@demo", "w2@demo")
SLOTS: Final = 6  # of each worker
#: What a worker prints when it takes tasks.
READY: Final = "the worker is ready"

START_SECONDS: Final = 60
PAUSE: Final = 0.05  # seconds between two looks at a log
LOG_LINES: Final = 15  # of a log's end that are shown


class DemoError(ConcurrencyError):
    """The demo can't go on."""


class Processes:
    """Two workers and the admin API; a context manager that ends what it started.

    Args:
        interrupts: the interrupts until now; any ends the start.

    Attributes:
        logs: the directory of their logs, removed in the end unless ``keep_logs``.
        api: the URL of the admin API, after ``start``; on another port where its own is taken.
    """

    def __init__(self, interrupts: Collection[int]) -> None:
        self._interrupts = interrupts
        self._children: dict[str, Child] = {}
        self.logs = Path(tempfile.mkdtemp(prefix="concurrency-demo-"))
        self.keep_logs = True
        self.api = ""

    def start(self) -> None:
        """Start all, and wait until they are ready; raise a DemoError if one does not start."""
        for name in WORKERS:
            self._start(
                name, "worker", "--hostname", name, "--concurrency", str(SLOTS),
                # A demo may run for days: a line for each task would fill the disk.
                "--loglevel", "WARNING", "--without-gossip", "--without-mingle",
            )  # fmt: skip
        self._start("api", "concurrency", "serve", "--port", str(DEFAULT_PORT))
        if self._wait_for("api", "serving|can't listen") != "serving":
            self._children["api"].wait_or_kill()
            self._start("api", "concurrency", "serve", "--port", "0")
        self.api = self._wait_for("api", r"serving (\S+),")
        for name in WORKERS:
            self._wait_for(name, READY)

    def check(self) -> None:
        """Raise a DemoError if one of them has ended."""
        for name, child in self._children.items():
            status = child.poll()
            if status is not None:
                how = f"by signal {-status}" if status < 0 else f"exit status {status}"
                raise self._error(name, f"ended by itself ({how})")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for child in self._children.values():
            child.terminate()  # a worker ends its tasks first
        for child in self._children.values():
            child.wait_or_kill()
        if not self.keep_logs:
            shutil.rmtree(self.logs, ignore_errors=True)

    def _start(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "celery", "--quiet", "-A", PROJECT, *arguments]
        # Not SIGTERM: a warm shutdown would wait for the server, which ends with us too.
        self._children[name] = Child(command, self.logs / f"{name}.log", signal.SIGKILL)

    def _wait_for(self, name: str, pattern: str) -> str:
        """Wait until a process has printed a pattern; return the last group that matched."""
        child = self._children[name]
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ended = child.poll() is not None  # asked first, so that its last output is read
            found = re.search(pattern, child.output())
            if found:
                return str(found[found.lastindex or 0])
            if self._interrupts:
                self.keep_logs = False
                raise DemoError("Interrupted before anything was sent.")
            if ended:
                self.check()
            time.sleep(PAUSE)
        raise self._error(name, f"is not ready after {START_SECONDS} s")

    def _error(self, name: str, problem: str) -> DemoError:
        """Return an error that shows the end of a process's log."""
        child = self._children[name]
        lines = child.output().strip().splitlines()[-LOG_LINES:] or ["(nothing)"]
        log_end = "".join(f"\n  | {line}" for line in lines)
        return DemoError(f"{name} {problem}; the end of its log, {child.log}:{log_end}")
