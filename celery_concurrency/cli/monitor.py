"""The command that shows usage, holders and waiters again and again, until Ctrl-C.

It reads a ``snapshot.py`` and shows it by ``live_view.py`` in a terminal, else by
``line_views.py``.
"""

import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import click
from celery import Celery

from celery_concurrency.cli.command import command, json_option
from celery_concurrency.cli.line_views import JsonView, LineView
from celery_concurrency.cli.snapshot import Snapshot
from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.worker.apps import limiter_of


class View(Protocol):
    """Shows snapshots."""

    def show(self, snapshot: Snapshot, title: str = "") -> None:
        """Show a snapshot; a title stands in place of its time."""

    def fail(self, problem: str) -> None:
        """Show why there is no new snapshot."""


@command()
@click.option(
    "--interval", type=click.IntRange(1, 86_400), default=2, show_default=True,
    help="Seconds between two looks.",
)  # fmt: skip
@json_option
def monitor(app: Celery, interval: int, as_json: bool) -> None:
    """Show usage, who holds and who waits, live until Ctrl-C.

    Into a pipe it prints a line each time.
    """
    limiter = limiter_of(app)
    # If the first read fails, the command ends.
    snapshot = Snapshot.of(limiter)
    try:
        with open_view(as_json) as view:
            view.show(snapshot)
            while True:
                time.sleep(interval)
                try:
                    view.show(Snapshot.of(limiter))
                except LimiterUnavailable as exc:
                    view.fail(str(exc))
                sys.stdout.flush()
    except KeyboardInterrupt:
        pass


def open_view(as_json: bool = False) -> AbstractContextManager[View]:
    """Return the view that suits standard output."""
    if as_json:
        return nullcontext(JsonView())
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return nullcontext(LineView())
    from celery_concurrency.cli.live_view import open_live_view  # noqa: PLC0415 - rich loads slowly

    return open_live_view()
