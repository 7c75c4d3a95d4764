"""The processes of the demo beside its server: two workers and the admin API.

The server is in ``testing/server.py``.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from celery_concurrency.cli.serve import DEFAULT_PORT
from celery_concurrency.demo import worker
from celery_concurrency.errors import ConcurrencyError
from celery_concurrency.testing.lifeline import die_with_parent

PROJECT: Final = "celery_concurrency.demo.project"
WORKERS: Final = 2
SLOTS: Final = 4  # of each worker

START_SECONDS: Final = 60
STOP_SECONDS: Final = 10
PAUSE: Final = 0.05  # seconds between two looks
LOG_LINES: Final = 15  # of a log's end that are shown


class DemoError(ConcurrencyError):
    """The demo can't go on."""


class Interrupted(DemoError):
    """Interrupted before anything was sent."""


class Process:
    """A process of its own session, whose output goes to a file.

    Args:
        name: what to call it.
        arguments: those of ``celery -A <the demo's project>``.
        log: the file.
    """

    def __init__(self, name: str, arguments: tuple[str, ...], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "celery", "--quiet", "-A", PROJECT, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal is for the demo, which stops this in its turn.
                start_new_session=True,
                # No warm shutdown when the demo was killed: the server is gone as well.
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - does next to nothing
            )

    def output(self) -> str:
        """Return what it printed."""
        return self._log.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        """It ended, and nobody asked it to."""
        return self._process.poll() is not None

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            DemoError: it ended; with the end of its log.
        """
        if self.ended:
            raise DemoError(f"{self.name} ended by itself ({self._how()}){self.log_end()}")

    def log_end(self) -> str:
        """Return the end of its log, as text to add to a message."""
        lines = self.output().strip().splitlines()[-LOG_LINES:] or ["(nothing)"]
        return f"; the end of its log, {self._log}:" + "".join(f"\n  | {line}" for line in lines)

    def terminate(self) -> None:
        """Ask it to end; a worker ends its tasks first."""
        if not self.ended:
            self._process.terminate()

    def wait(self) -> None:
        """Wait for its end, and end it the hard way if that takes too long."""
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_SECONDS)

    def _how(self) -> str:
        status = self._process.returncode
        return f"by signal {-status}" if status < 0 else f"exit status {status}"


class Processes:
    """Two workers and the admin API; a context manager that ends what it started.

    Args:
        interrupted: true when somebody wants the start to stop.

    Attributes:
        logs: the directory of their logs; gone in the end if ``keep_logs`` is false.
        keep_logs: whether it stays.
        api: the URL of the admin API, known after ``start``.
        port_taken: it is not on its usual port, where somebody else listens.
    """

    def __init__(self, interrupted: Callable[[], bool]) -> None:
        self._interrupted = interrupted
        self._started: list[Process] = []
        self.logs = Path(tempfile.mkdtemp(prefix="concurrency-demo-"))
        self.keep_logs = False
        self.api = ""
        self.port_taken = False

    def start(self) -> None:
        """Start all, and wait until they are ready.

        Raises:
            DemoError: one of them does not start.
            Interrupted: somebody wants this to stop.
        """
        workers = [self._start_worker(f"w{number + 1}@demo") for number in range(WORKERS)]
        self.api = self._start_api()
        for one in workers:
            self._wait_for(one, worker.READY)

    def check(self) -> None:
        """Do nothing while all of them run. Raises DemoError if one has ended."""
        for one in self._started:
            one.check()

    def stop(self) -> None:
        """End them, all at once, and wait for it."""
        for one in self._started:
            one.terminate()
        for one in self._started:
            one.wait()
        if not self.keep_logs:
            shutil.rmtree(self.logs, ignore_errors=True)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self.keep_logs |= kind is not None and not issubclass(kind, Interrupted)
        self.stop()

    def _start(self, name: str, *arguments: str) -> Process:
        one = Process(name, arguments, self.logs / f"{len(self._started)}-{name}.log")
        self._started.append(one)
        return one

    def _start_worker(self, name: str) -> Process:
        return self._start(
            name, "worker", "--hostname", name, "--concurrency", str(SLOTS),
            "--include", worker.__name__,
            # A demo may run for days: no line for each task, which would fill the disk.
            "--loglevel", "WARNING", "--without-gossip", "--without-mingle",
        )  # fmt: skip

    def _start_api(self) -> str:
        """Start the API on its port, or on a free one where that is taken; return its URL."""
        for port in (DEFAULT_PORT, 0):
            api = self._start("api", "concurrency", "serve", "--port", str(port))
            found = self._wait_for(api, r"serving (\S+),|can't listen (on)")
            if found.startswith("http"):
                return found
            self.port_taken = True
            self._started.remove(api)
            api.wait()
        raise DemoError(f"the admin API finds no port to listen on{api.log_end()}")

    def _wait_for(self, one: Process, pattern: str) -> str:
        """Wait until a process printed what a pattern matches; return the group that matched."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ended = one.ended  # before its output: what it said last is read
            found = re.search(pattern, one.output())
            if found:
                return str(found[found.lastindex or 0])
            if self._interrupted():
                raise Interrupted()
            if ended:
                one.check()
            time.sleep(PAUSE)
        raise DemoError(f"{one.name} is not ready after {START_SECONDS} s{one.log_end()}")
