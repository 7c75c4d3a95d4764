"""``python -m celery_concurrency.demo``: two workers under limits, to look at and play with.

What it starts is in ``processes.py``, the course of it in ``session.py``.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import click

from celery_concurrency.cli.serve import DEFAULT_PORT
from celery_concurrency.demo.processes import PROJECT, SLOTS, WORKERS, Processes
from celery_concurrency.demo.session import Session
from celery_concurrency.errors import ConcurrencyError
from celery_concurrency.testing.server import Server

WELCOME = """\
server   {redis}, embedded
workers  {workers} with {slots} processes each
API      {api}{remark}
page     {page}
Change a limit while it runs:
  curl -X PUT {api}/config -H 'Content-Type: application/json' -d '{{"platform_max": {{"xiaohongshu": 3}}}}'
  DEMO_REDIS_URL={redis} {celery} -A {project} concurrency config set global_max=3
"""  # noqa: E501 - lines to copy


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
    try:
        status = play(seconds, count_interrupts())
    except ConcurrencyError as exc:
        click.echo(f"demo: {exc}", err=True)
        status = 1
    sys.exit(status)


def play(seconds: int, interrupts: Callable[[], int]) -> int:
    """Start all, run a session, print its report; return the exit status."""
    with Server() as server:
        # A broker named in our own environment would win over the project's.
        for name in [name for name in os.environ if name.startswith("CELERY_")]:
            del os.environ[name]
        os.environ["DEMO_REDIS_URL"] = server.url()
        with Processes(interrupted=lambda: bool(interrupts())) as processes:
            click.echo("starting a server, two workers and the admin API ...")
            processes.start()
            taken = f":{DEFAULT_PORT}/" not in processes.api
            welcome = WELCOME.format(
                redis=server.url(), workers=WORKERS, slots=SLOTS, api=processes.api,
                remark=f" (port {DEFAULT_PORT} is taken)" if taken else "",
                page=urljoin(processes.api, "/"),
                celery=os.path.relpath(Path(sys.executable).with_name("celery")), project=PROJECT,
            )  # fmt: skip
            click.echo(welcome)
            project = importlib.import_module(PROJECT)  # reads the environment
            report = Session(project, processes, seconds, interrupts).run()
            click.echo("\n" + "\n".join(report.lines()))
            if report.status:
                processes.keep_logs = True
                click.echo(f"The workers' logs are in {processes.logs}")
    return report.status


def count_interrupts() -> Callable[[], int]:
    """Catch SIGINT and SIGTERM; return a function that says how many came."""
    count = 0

    def on_signal(*_: Any) -> None:
        nonlocal count
        count += 1

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return lambda: count


if __name__ == "__main__":
    main()
