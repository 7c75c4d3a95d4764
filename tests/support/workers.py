"""Real worker processes for tests, and waiting for conditions instead of times."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import psutil
from redis import Redis

from celery_concurrency.testing.lifeline import Child
from tests.support.forks import Forked

T = TypeVar("T")

#: Pools that have to be there before all else is imported.
PATCHING = ("gevent", "eventlet")


def wait_for(condition: Callable[[], T], timeout: float = 60, what: str = "") -> T:
    """Return the first true value of ``condition``; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        time.sleep(0.02)


def settle(redis: Redis, prefix: str = "concurrency") -> None:
    """Let an emptied server be one that has been in use: nobody waits for its first runs.

    A request of the last test's page may have come since it was emptied, and a configuration
    then says when such a server opens.
    """
    with redis.pipeline() as pipe:
        pipe.set(f"{prefix}:epoch", 1)
        pipe.delete(f"{prefix}:config:flat")
        pipe.execute()


def import_project(name: str) -> ModuleType:
    """Import ``tests.projects.<name>`` anew, as the environment is now."""
    module = f"tests.projects.{name}"
    sys.modules.pop(module, None)
    return importlib.import_module(module)


class Worker:
    """A ``celery worker`` process.

    Args:
        app: the module of the app, as for ``celery -A``.
        log: where its output goes.
        pool, concurrency: as for ``celery worker``.
        arguments: more arguments of ``celery worker``.

    Attributes:
        is_forked: from a process that has imported Celery (``forks.py``), where that is possible.
    """

    count = 0
    is_forked = False

    def __init__(
        self,
        app: str,
        log: Path,
        *,
        pool: str = "prefork",
        concurrency: int = 4,
        arguments: tuple[str, ...] = (),
    ) -> None:
        Worker.count += 1
        self.name = f"w{Worker.count}-{os.getpid()}@localhost"
        command = [
            *("-A", app, "worker"),
            *("--pool", pool, "--concurrency", str(concurrency)),
            *("--hostname", self.name, "--loglevel", "INFO"),
            *("--without-gossip", "--without-mingle"),
            *arguments,
        ]
        # A test run that is killed leaves no worker behind.
        spawns = os.environ.get("START_METHOD") == "spawn"
        if self.is_forked and pool not in PATCHING and not spawns:
            self.process: Child | Forked = Forked(command, log)
        else:
            command = [sys.executable, "-m", "celery", *command]
            self.process = Child(command, log, signal.SIGKILL)

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[int]:
        """Return the process ids of its children."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []

    def output(self) -> str:
        """Return what it has printed so far."""
        return self.process.output()

    def wait_until_ready(self) -> None:
        """Wait until it takes tasks."""

        def ready() -> bool:
            assert self.process.poll() is None, self.output()
            return f"{self.name} ready" in self.output()

        wait_for(ready, what=f"{self.name} ready")

    def stop(self) -> int:
        """End it warmly, and the hard way if that takes too long; return its exit status."""
        self.ask_to_end()
        return self.wait_until_ended()

    def ask_to_end(self) -> None:
        """Tell it to end warmly, if it is there."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait_until_ended(self, timeout: float = 60) -> int:
        """Wait for its end, kill it if that takes too long, and return its exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait(timeout)

    def kill(self) -> None:
        """Kill it and its children, which are all in its session."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


def cpu_seconds(worker: Worker) -> float:
    """Return the seconds of CPU that a worker and its present children have had."""
    main = psutil.Process(worker.pid)
    times = [process.cpu_times() for process in (main, *main.children())]
    return float(sum(one.user + one.system for one in times))


def has_ended(pid: int) -> bool:
    """Return whether a process has ended, reaped or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def kill_all(workers: list[Worker]) -> None:
    """End all of these; a warm end takes seconds, and what a test leaves behind is thrown away."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()
