"""A session of the demo: tasks are sent, watched, and waited for.

What is sent is in ``load.py``, what is seen in ``view.py``, what came of it in ``report.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from celery.exceptions import OperationalError
from redis.exceptions import RedisError

from celery_concurrency.demo.load import LIMITS, Load
from celery_concurrency.demo.processes import SLOTS, WORKERS, DemoError
from celery_concurrency.demo.records import Records, now
from celery_concurrency.demo.report import LimitsSeen, Report, make_report
from celery_concurrency.demo.view import Moment, View
from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.worker.apps import limiter_of

TICK: Final = 0.05  # seconds
#: How long what was sent is waited for when no more is sent.
DRAIN_SECONDS: Final = 30


class Session:
    """Sends tasks until it is time to stop, and waits until they are done.

    Args:
        project: the demo's project, imported.
        seconds: how long it is to take; 0 is until it is interrupted.
        interrupts: how often somebody asked for its end: once ends the sending,
            twice the waiting too.
        check: raises DemoError when it can't go on.
    """

    def __init__(
        self,
        project: Any,
        seconds: float,
        interrupts: Callable[[], int],
        check: Callable[[], None],
    ) -> None:
        self._seconds = seconds
        self._interrupts = interrupts
        self._check = check
        self._limiter = limiter_of(project.app)
        self._load = Load(project.publish)
        self._records = Records(project.redis)
        self._seen = LimitsSeen()
        self._seen.look(self._limiter.config.update(LIMITS))
        self._problems: list[str] = []
        self._begin = now()
        self._show_next = self._begin

    def run(self, view: View) -> None:
        """Run it; what goes wrong is in the report."""
        self._begin = now()
        try:
            self._send(view)
            self._drain(view)
        except DemoError as exc:
            self._problems.append(str(exc))
        except (RedisError, OperationalError, LimiterUnavailable) as exc:
            self._problems.append(f"the server does not answer any more: {exc}")

    def report(self) -> Report:
        """Return what came of it."""
        return make_report(
            self._load.sent.values(), self._records.runs.values(), self._seen, self._problems
        )

    def _send(self, view: View) -> None:
        while not self._interrupts() and not self._time_is_up():
            self._load.send()
            self._look(view, "sending")
            time.sleep(TICK)

    def _time_is_up(self) -> bool:
        """Return whether what is sent from now on would not be done in time."""
        if not self._seconds:
            return False
        reserve = min(self._load.time_needed, self._seconds / 2)
        return now() - self._begin > self._seconds - reserve

    def _drain(self, view: View) -> None:
        phase = "waiting for what was sent"
        if self._interrupts():
            phase += ", Ctrl-C again to leave it"
        deadline = now() + DRAIN_SECONDS
        while self._load.open and self._interrupts() < 2 and now() < deadline:
            self._look(view, phase)
            time.sleep(TICK)
        self._show_next = now()
        self._look(view, "done" if not self._load.open else "gave up")

    def _look(self, view: View, phase: str) -> None:
        """Take note of what ran, and of the limits; show it when it is time to."""
        self._check()
        for run in self._records.read():
            self._load.note(run)
        # After the runs: the configuration that let them run is seen by now, or missed.
        stored = self._limiter.config.sync()
        self._seen.look(stored)
        if now() < self._show_next:
            return
        self._show_next = now() + view.period
        view.show(
            Moment(
                elapsed=now() - self._begin,
                phase=phase,
                sent=len(self._load.sent),
                running=len(self._records.running),
                done=self._load.done,
                usage=self._limiter.usage(),
                account_max=stored.config.account_max,
                slots=WORKERS * SLOTS,
            )
        )
