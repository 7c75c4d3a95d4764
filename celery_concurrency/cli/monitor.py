"""The command that shows usage, holders and waiters again and again, until Ctrl-C.

It reads a ``snapshot.py``. In a terminal, ``live_view.py`` draws it; into a pipe or a log goes a
line of text or JSON.
"""

import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

import click
from celery import Celery

from celery_concurrency.cli.command import command, json_option
from celery_concurrency.cli.explain import reason_of
from celery_concurrency.cli.output import echo, in_time, print_json, print_notes
from celery_concurrency.cli.snapshot import Snapshot, busiest
from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.inspect.holders import Holder
from celery_concurrency.limiter.inspect.usage import LimitUsage
from celery_concurrency.worker.apps import limiter_of

#: How many holders, waiters and limits a line names: thousands of accounts may be in use.
NAMED: Final = 3
LIMITS_NAMED: Final = 12


class View(Protocol):
    """Shows snapshots."""

    def show(self, snapshot: Snapshot, title: str = "") -> None:
        """Show a snapshot; a title stands in place of its time."""

    def fail(self, problem: str) -> None:
        """Show why there is no new snapshot."""


@command()
@click.option(
    "--interval", type=click.IntRange(1, 86_400), default=2, show_default=True,
    help="Seconds between two updates.",
)  # fmt: skip
@json_option
def monitor(app: Celery, interval: int, as_json: bool) -> None:
    """Show usage, running and waiting tasks, live until Ctrl-C.

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


class LineView:
    """Prints a line of text for each snapshot."""

    def show(self, snapshot: Snapshot, title: str = "") -> None:
        """Print the line; a title stands in place of the time."""
        busy = [limit for limit in snapshot.usage.limits() if _is_busy(*limit)]
        limits = [_amount(*limit) for limit in busiest(busy, LIMITS_NAMED)]
        parts = [_some(limits, len(busy))]
        if snapshot.held:
            holders = [_holder(one) for one in snapshot.holders[:NAMED]]
            parts.append(f"{snapshot.held} hold: {_some(holders, snapshot.held)}")
        waiting = snapshot.usage.global_.waiting
        if snapshot.waiting:
            waiters = [
                f"{one.task_id} as {reason_of(one.blocked_by)}" for one in snapshot.waiting[:NAMED]
            ]
            parts.append(f"{waiting} wait: {_some(waiters, waiting)}")
        start = f"{title} | " if title else f"{snapshot.at:%H:%M:%S}  "
        echo(start + " | ".join(parts))
        print_notes(snapshot.usage.notes())

    def fail(self, problem: str) -> None:
        """Print a problem on stderr."""
        echo(problem, err=True)


class JsonView(LineView):
    """Prints a JSON object for each snapshot."""

    def show(self, snapshot: Snapshot, title: str = "") -> None:
        """Print the object in one line."""
        data: dict[str, Any] = {
            "at": snapshot.at.timestamp(),
            "usage": snapshot.usage.to_dict(),
            "tokens": [one.model_dump() for one in snapshot.holders],
            "waiting": [one.to_dict() for one in snapshot.waiting],
        }
        print_json(data)


def _is_busy(name: str, limit: LimitUsage) -> bool:
    return name == "global" or bool(
        limit.current or limit.waiting or limit.allows or limit.paused or limit.is_used
    )


def _amount(name: str, limit: LimitUsage) -> str:
    waiting = f" +{limit.waiting} waiting" if limit.waiting else ""
    paused = " paused" if limit.paused else ""
    timed = f" ({in_time(limit)})" if limit.is_used else ""
    adaptive = f" ({limit.adaptive})" if limit.adaptive else ""
    most = limit.allows or "unlimited"
    return f"{name} {limit.current}/{most}{adaptive}{paused}{waiting}{timed}"


def _holder(one: Holder) -> str:
    return f"{one.task_id} ({'reserved' if one.reserved else one.worker or '-'})"


def _some(shown: list[str], total: int) -> str:
    more = total - len(shown)
    return ", ".join([*shown, f"{more} more"] if more > 0 else shown)
