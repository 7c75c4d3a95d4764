"""A session of the demo: it sends tasks, shows what happens, and waits until all are done.

What is sent is in ``load.py``, the verdict in ``report.py``.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from celery.exceptions import OperationalError
from redis.exceptions import RedisError

from celery_concurrency.cli.line_views import LineView
from celery_concurrency.cli.monitor import View, open_view
from celery_concurrency.cli.snapshot import Snapshot
from celery_concurrency.demo.load import LIMITS, Load
from celery_concurrency.demo.processes import DemoError, Processes
from celery_concurrency.demo.records import Records
from celery_concurrency.demo.report import Report, make_report
from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.worker.apps import limiter_of

TICK: Final = 0.05  # seconds
#: Seconds between two pictures in a terminal, and between two lines elsewhere.
LIVE_SECONDS: Final = 0.2
LINE_SECONDS: Final = 2.0
#: How long the last tasks take to be done, about, and how long they are waited for at most.
LAST_SECONDS: Final = 2.0
DRAIN_SECONDS: Final = 30


class Session:
    """Sends tasks until it is time to stop, and waits until they are done.

    Args:
        project: the demo's project, imported.
        processes: its workers and the admin API.
        seconds: how long to go on; 0 is until an interrupt.
        interrupts: says how many interrupts there were: one ends the sending, two the
            waiting too.
    """

    def __init__(
        self, project: Any, processes: Processes, seconds: float, interrupts: Callable[[], int]
    ) -> None:
        self._processes = processes
        self._seconds = seconds
        self._interrupts = interrupts
        self._limiter = limiter_of(project.app)
        self._load = Load(project.publish)
        self._records = Records(project.redis)
        self._configs = [self._limiter.config.update(LIMITS)]
        self._begin = self._show_next = time.monotonic()

    def run(self) -> Report:
        """Run it; what goes wrong is in the report."""
        problems = []
        try:
            with open_view() as view:
                self._send(view)
                self._drain(view)
        except DemoError as exc:
            problems.append(str(exc))
        except (RedisError, OperationalError, LimiterUnavailable) as exc:
            problems.append(f"the server does not answer any more: {exc}")
        return make_report(self._load.sent, self._records.runs.values(), self._configs, problems)

    def _send(self, view: View) -> None:
        until = self._seconds - min(LAST_SECONDS, self._seconds / 2)
        while not self._interrupts() and (not self._seconds or self._elapsed < until):
            self._load.send()
            self._look(view, "sending")
            time.sleep(TICK)

    def _drain(self, view: View) -> None:
        phase = "waiting for what was sent"
        if self._interrupts():
            phase += ", Ctrl-C again to leave it"
        until = self._elapsed + DRAIN_SECONDS
        while self._load.unfinished and self._interrupts() < 2 and self._elapsed < until:
            self._look(view, phase)
            time.sleep(TICK)
        self._show_next = 0
        self._look(view, "gave up" if self._load.unfinished else "done")

    def _look(self, view: View, phase: str) -> None:
        """Take note of what ran and of the limits in force; show it when it is time to."""
        self._processes.check()
        for run in self._records.read():
            self._load.note_end(run.task_id)
        # Read after the runs, so that the configuration that admitted them is seen or missed.
        stored = self._limiter.config.sync()
        if stored.version != self._configs[-1].version:
            self._configs.append(stored)
        if time.monotonic() < self._show_next:
            return
        snapshot, title, period = Snapshot.of(self._limiter), self._title(phase), LIVE_SECONDS
        if isinstance(view, LineView):
            # Limits alone: task ids say nothing here, and make long lines.
            snapshot, period = replace(snapshot, held=0, waiting=[]), LINE_SECONDS
        else:
            title += f"\nAPI  {self._processes.api}"
        view.show(snapshot, title)
        sys.stdout.flush()
        self._show_next = time.monotonic() + period

    def _title(self, phase: str) -> str:
        sent, running, done = len(self._load.sent), len(self._records.running), self._load.done
        return (
            f"{self._elapsed:5.1f} s  {phase}: sent {sent}, running {running}, "
            f"waiting {max(0, sent - running - done)}, done {done}"
        )

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._begin
