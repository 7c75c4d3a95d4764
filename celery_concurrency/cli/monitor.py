"""The command that shows what goes on, again and again, until Ctrl-C.

What it draws in a terminal is in ``picture.py``.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from heapq import nlargest
from typing import Any, Final, Protocol

import click
from celery import Celery

from celery_concurrency.apps import limiter_of
from celery_concurrency.cli.command import command, json_option
from celery_concurrency.cli.output import print_json, print_problem, printable
from celery_concurrency.cli.why import in_words
from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter import Limiter
from celery_concurrency.tokens import Holder, read_tokens
from celery_concurrency.usage import LimitUsage, Usage
from celery_concurrency.waiters import Waiting, read_waiting

#: Of those who hold and of those who wait, how many are read; a line names fewer.
SHOWN: Final = 20
NAMED: Final = 3
#: Limits that a line names: of accounts in use there may be thousands.
LIMITS_NAMED: Final = 12


@dataclass(frozen=True, slots=True)
class Moment:
    """What there is to see at a moment.

    Attributes:
        at: when, by the clock here.
        usage: of the limits.
        holders: some of those who hold tokens, the soonest to expire first.
        held: how many hold any.
        waiting: the first of those who wait.
    """

    at: datetime
    usage: Usage
    holders: list[Holder]
    held: int
    waiting: list[Waiting]

    @classmethod
    def of(cls, limiter: Limiter) -> Moment:
        """Look at a limiter.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        usage = limiter.usage()
        tokens = read_tokens(limiter.redis, limiter.prefix, count=SHOWN)
        # Behind place 0 are all, and they are counted already.
        page = read_waiting(
            limiter.redis, limiter.prefix, limiter.config.sync().config, count=SHOWN, cursor="0"
        )
        return cls(datetime.now(), usage, tokens.tokens, tokens.total, page.waiting)


class View(Protocol):
    """Something that shows moments."""

    def show(self, moment: Moment) -> None:
        """Show a moment."""

    def fail(self, problem: str) -> None:
        """Show why there is nothing new."""


class LineView:
    """A line a moment, for a pipe or a log."""

    def show(self, moment: Moment) -> None:
        """Print a line."""
        busy = [limit for limit in moment.usage.limits() if _is_busy(*limit)]
        limits = [_amount(*limit) for limit in busiest(busy, LIMITS_NAMED)]
        parts = [_some(limits, len(busy))]
        if moment.held:
            holders = [_holder(one) for one in moment.holders[:NAMED]]
            parts.append(f"{moment.held} hold: {_some(holders, moment.held)}")
        waiting = moment.usage.global_.waiting
        if moment.waiting:
            waiters = [
                f"{one.task_id} as {in_words(one.blocked_by)}" for one in moment.waiting[:NAMED]
            ]
            parts.append(f"{waiting} wait: {_some(waiters, waiting)}")
        click.echo(printable(f"{moment.at:%H:%M:%S}  {' | '.join(parts)}"))
        print_problem(moment.usage.config_problem)

    def fail(self, problem: str) -> None:
        """Print it, among the errors."""
        click.echo(printable(problem), err=True)


class JsonView(LineView):
    """A JSON object a line, for programs."""

    def show(self, moment: Moment) -> None:
        """Print a line."""
        data: dict[str, Any] = {
            "at": moment.at.timestamp(),
            "usage": moment.usage.to_dict(),
            "tokens": [one.model_dump() for one in moment.holders],
            "waiting": [one.to_dict() for one in moment.waiting],
        }
        print_json(data)


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
    # Where the first look fails there is nothing to go on with.
    moment = Moment.of(limiter)
    try:
        with _open_view(as_json) as view:
            view.show(moment)
            while True:
                time.sleep(interval)
                try:
                    view.show(Moment.of(limiter))
                except LimiterUnavailable as exc:
                    view.fail(str(exc))
                sys.stdout.flush()
    except KeyboardInterrupt:
        pass


def _open_view(as_json: bool) -> AbstractContextManager[View]:
    if as_json:
        return nullcontext(JsonView())
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return nullcontext(LineView())
    from celery_concurrency.cli.picture import open_picture  # noqa: PLC0415 - rich is slow to load

    return open_picture()


def busiest(limits: list[tuple[str, LimitUsage]], count: int) -> list[tuple[str, LimitUsage]]:
    """Return those that most wait for and run in, this many, in the order they come in."""
    places = range(len(limits))
    most = nlargest(count, places, lambda one: (limits[one][1].waiting, limits[one][1].current))
    return [limits[one] for one in sorted(most)]


def _is_busy(name: str, limit: LimitUsage) -> bool:
    return name == "global" or bool(limit.current or limit.waiting or limit.max or limit.paused)


def _amount(name: str, limit: LimitUsage) -> str:
    waiting = f" +{limit.waiting} waiting" if limit.waiting else ""
    paused = " paused" if limit.paused else ""
    return f"{name} {limit.current}/{limit.max or 'unlimited'}{paused}{waiting}"


def _holder(one: Holder) -> str:
    return f"{one.task_id} ({'reserved' if one.reserved else one.worker or '-'})"


def _some(shown: list[str], total: int) -> str:
    more = total - len(shown)
    return ", ".join([*shown, f"{more} more"] if more > 0 else shown)
