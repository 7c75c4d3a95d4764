"""``celery``, forked from a process that has imported what all of them import.

To import it takes longer than most workers of tests then live. What is forked is as alone as what
is executed: an environment, a session and files of its own.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from celery_concurrency.testing.lifeline import die_with_parent

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "pytest",
        "celery.apps.worker",
        "celery.backends.redis",
        "celery.bin.celery",
        "celery.concurrency.prefork",
        "celery_concurrency.api",
        "celery_concurrency.cli.usage",
        "celery_concurrency.worker.bootstep",
        "celery_concurrency.worker.hooks",
        "click.testing",
        "kombu.transport.redis",
        "tests.support.blockrunner",
        "tests.support.forks",
    ]
)
#: More files than a process of the tests has open.
FILES = 1024


class Forked:
    """A ``celery`` process, which ends with this one; used like ``subprocess.Popen``.

    Args:
        arguments: of ``celery``.
        log: its output is added to this file.
        errors: what it prints on its standard error, if apart.
    """

    def __init__(self, arguments: Sequence[str], log: Path, errors: Path | None = None) -> None:
        self.log = log
        log.touch()
        apart, theirs = CONTEXT.Pipe(duplex=False)
        self._process = CONTEXT.Process(
            target=_main,
            args=(theirs, arguments, dict(os.environ), Path.cwd(), log, errors or log),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        with apart:
            apart.recv()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("celery", timeout)
        return self._process.exitcode

    def send_signal(self, sent: int) -> None:
        os.kill(self.pid, sent)

    def output(self) -> str:
        """Return what it printed."""
        return self.log.read_text(errors="replace")


def _main(
    apart: Connection,
    arguments: Sequence[str],
    env: Mapping[str, str],
    directory: Path,
    log: Path,
    errors: Path,
) -> None:
    die_with_parent(signal.SIGKILL, os.getppid())()
    os.setsid()
    apart.send(None)
    for standard, file in ((1, log), (2, errors)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), standard)
    # Among them that by which the server of the forks sees that the tests are over.
    os.closerange(3, FILES)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    sys.path[:0] = [str(directory), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["celery", *arguments]
    from celery.__main__ import main

    from celery_concurrency.worker import outbox

    # A fork of multiprocessing forgets, since Python 3.13, what modules do at the end.
    atexit.register(outbox.finish)
    try:
        main()
    finally:
        atexit._run_exitfuncs()
