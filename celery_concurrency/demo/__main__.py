"""``python -m celery_concurrency.demo``: two workers under limits, to look at and play with.

What it starts is in ``processes.py``, what it sends in ``load.py``, what a platform does to that in
``strict_phase.py``, the verdict in ``report.py``.
"""

import importlib
import os
import signal
import sys
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import click
from celery.exceptions import OperationalError
from redis.exceptions import RedisError

from celery_concurrency.cli.monitor import LineView, View, open_view
from celery_concurrency.cli.serve import DEFAULT_PORT
from celery_concurrency.cli.snapshot import Snapshot
from celery_concurrency.demo.load import LIMITS, Load
from celery_concurrency.demo.processes import PROJECT, SLOTS, WORKERS, DemoError, Processes
from celery_concurrency.demo.report import Report, make_report
from celery_concurrency.demo.strict_phase import StrictPhase
from celery_concurrency.errors import ConcurrencyError, LimiterUnavailable
from celery_concurrency.testing.server import Server
from celery_concurrency.worker.apps import limiter_of

WELCOME = """\
server   {redis}, embedded
workers  {workers} with {slots} processes each
API      {api}{remark}
page     {page}
Change a limit while it runs:
  curl -X PUT {api}/config -H 'Content-Type: application/json' -d '{{"platform_max": {{"bilibili": 3}}}}'
  DEMO_REDIS_URL={redis} {celery} -A {project} concurrency config set global_max=3
"""  # noqa: E501 - lines to copy

TICK: Final = 0.05  # seconds
SENDS: Final = 3  # tasks in each of them, at most
#: Seconds between two pictures in a terminal, and between two lines elsewhere.
LIVE_SECONDS: Final = 0.2
LINE_SECONDS: Final = 2.0
#: How long the last tasks take to be done, about, and how long they are waited for at most.
LAST_SECONDS: Final = 2.0
DRAIN_SECONDS: Final = 30


@click.command()
@click.option(
    "--seconds", type=click.IntRange(0, 86_400), default=0, show_default=True,
    help="How long to go on; 0 is until Ctrl-C.",
)  # fmt: skip
def main(seconds: int) -> None:
    """Run tasks under limits on two workers, and show how much of each limit is in use.

    In the end it prints what the tasks recorded of their runs. Exit status 0 if
    all tasks that were sent ran and no limit was exceeded, else 1.
    """
    interrupts: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: interrupts.append(number))
    try:
        sys.exit(play(seconds, interrupts))
    except ConcurrencyError as exc:
        sys.exit(f"demo: {exc}")


def play(seconds: int, interrupts: Collection[int]) -> int:
    """Start all, run a session, print its report; return the exit status."""
    with Server() as server:
        # A broker named in our own environment would win over the project's.
        for name in [name for name in os.environ if name.startswith("CELERY_")]:
            del os.environ[name]
        os.environ["DEMO_REDIS_URL"] = server.url()
        with Processes(interrupts) as processes:
            click.echo("starting a server, two workers and the admin API ...")
            processes.start()
            taken = f":{DEFAULT_PORT}/" not in processes.api
            welcome = WELCOME.format(
                redis=server.url(), workers=len(WORKERS), slots=SLOTS, api=processes.api,
                remark=f" (port {DEFAULT_PORT} is taken)" if taken else "",
                page=urljoin(processes.api, "/"),
                celery=os.path.relpath(Path(sys.executable).with_name("celery")), project=PROJECT,
            )  # fmt: skip
            click.echo(welcome)
            project = importlib.import_module(PROJECT)  # reads the environment
            report = Session(project, processes, seconds, interrupts).run()
            click.echo()
            report.print()
            processes.keep_logs = bool(report.status)
            if report.status:
                click.echo(f"The workers' logs are in {processes.logs}")
    return report.status


class Session:
    """Sends tasks until it is time to stop, shows what happens, waits until all are done.

    Args:
        project: the demo's project, imported.
        processes: its workers and the admin API.
        seconds: how long to go on; 0 is until an interrupt.
        interrupts: those until now: one ends the sending, two the waiting too.
    """

    def __init__(
        self, project: Any, processes: Processes, seconds: float, interrupts: Collection[int]
    ) -> None:
        self._processes = processes
        self._seconds = seconds
        self._interrupts = interrupts
        self._limiter = limiter_of(project.app)
        self._load = Load(project.publish, project.redis)
        self._strict = StrictPhase(project.redis, self._limiter, seconds)
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
        return make_report(self._load.tasks, self._configs, problems, [self._strict.verdict()])

    def _send(self, view: View) -> None:
        until = self._seconds - min(LAST_SECONDS, self._seconds / 2)
        while not self._interrupts and (not self._seconds or self._elapsed < until):
            for _ in range(SENDS):
                self._load.send()
            self._strict.turn(self._elapsed)
            self._look(view, "sending")
            time.sleep(TICK)

    def _drain(self, view: View) -> None:
        phase = "waiting for what was sent"
        if self._interrupts:
            phase += ", Ctrl-C again to leave it"
        until = self._elapsed + DRAIN_SECONDS
        self._strict.end()
        while self._load.unfinished and len(self._interrupts) < 2 and self._elapsed < until:
            self._look(view, phase)
            time.sleep(TICK)
        self._show_next = 0
        self._look(view, "gave up" if self._load.unfinished else "done")

    def _look(self, view: View, phase: str) -> None:
        """Take note of what ran and of the limits in force; show it when it is time to."""
        self._processes.check()
        self._load.read()
        self._strict.read()
        # Read after the runs, so that the configuration that admitted them is seen or missed.
        stored = self._limiter.config.sync()
        if stored.version != self._configs[-1].version:
            self._configs.append(stored)
        if time.monotonic() < self._show_next:
            return
        snapshot, title, period = Snapshot.of(self._limiter), self._title(phase), LIVE_SECONDS
        if isinstance(view, LineView):
            # Platforms and task types alone: ids and accounts say little here, in long lines.
            title += f", {len(snapshot.usage.accounts)} accounts busy | {self._strict.state()}"
            for line in self._strict.news():
                click.echo(line)
            usage = snapshot.usage.model_copy(update={"accounts": {}})
            snapshot = replace(snapshot, usage=usage, held=0, waiting=[])
            period = LINE_SECONDS
        else:
            title += f"\n{self._strict.state()}\nAPI  {self._processes.api}"
        view.show(snapshot, title)
        sys.stdout.flush()
        self._show_next = time.monotonic() + period

    def _title(self, phase: str) -> str:
        sent, unfinished = len(self._load.tasks), len(self._load.unfinished)
        running = self._load.running
        return (
            f"{self._elapsed:5.1f} s  {phase}: sent {sent}, running {running}, "
            f"waiting {unfinished - running}, done {sent - unfinished}"
        )

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._begin


if __name__ == "__main__":
    main()
