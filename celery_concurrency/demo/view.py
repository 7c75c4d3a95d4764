"""What is seen while the demo runs: a table in a terminal, plain lines elsewhere.

What is said at the end is in ``report.py``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from celery_concurrency.limiter.inspect.usage import LimitUsage, Usage

LIVE_SECONDS: Final = 0.2  # between two pictures
LINE_SECONDS: Final = 2.0  # between two lines
BAR_WIDTH: Final = 24


@dataclass(frozen=True, slots=True)
class Moment:
    """What there is to see at a moment.

    Attributes:
        elapsed: seconds since the first task was sent.
        phase: what the demo is at.
        sent, running, done: tasks.
        usage: of the limits.
        account_max: the limit of an account that has none of its own.
        slots: how many tasks the workers could run at once without limits.
    """

    elapsed: float
    phase: str
    sent: int
    running: int
    done: int
    usage: Usage
    account_max: int
    slots: int

    @property
    def waiting(self) -> int:
        """Tasks that were sent and have not begun."""
        return max(0, self.sent - self.running - self.done)

    def limits(self) -> Iterator[tuple[str, LimitUsage]]:
        """Return each limit's name and use; the accounts as one."""
        usage = self.usage
        yield "global", usage.global_
        for name, limit in (*sorted(usage.platforms.items()), *sorted(usage.task_types.items())):
            if limit.current or limit.max or name in usage.platforms:
                yield name, limit
        busiest = max(
            usage.accounts.values(),
            key=lambda limit: limit.current,
            default=LimitUsage(current=0, max=self.account_max),
        )
        yield f"each account ({len(usage.accounts)} busy)", busiest


class View(Protocol):
    """Something that shows moments."""

    #: Seconds that it wants between two of them.
    period: float

    def show(self, moment: Moment) -> None:
        """Show a moment."""


class LineView:
    """A line now and then, for a pipe or a log."""

    period = LINE_SECONDS

    def show(self, moment: Moment) -> None:
        """Print a line."""
        limits = ", ".join(
            f"{name} {_amount(limit)}" if limit.max else f"{name} {limit.current}"
            for name, limit in moment.limits()
        )
        print(
            f"{moment.elapsed:5.1f} s  {moment.phase}: sent {moment.sent}, running "
            f"{moment.running}, waiting {moment.waiting}, done {moment.done} | {limits}",
            flush=True,
        )


class LiveView:
    """A table that changes in its place.

    Args:
        live: where.
        api: the URL of the admin API.
    """

    period = LIVE_SECONDS

    def __init__(self, live: Live, api: str) -> None:
        self._live = live
        self._api = api
        self._characters = ("#", ".") if live.console.options.ascii_only else ("█", "░")

    def show(self, moment: Moment) -> None:
        """Draw the table."""
        self._live.update(Group(*self._picture(moment)), refresh=True)

    def _picture(self, moment: Moment) -> Iterator[Text | Table]:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("limit", min_width=24)
        table.add_column("in use", width=BAR_WIDTH)
        table.add_column("current/max", justify="right", min_width=16)
        for name, limit in moment.limits():
            table.add_row(name, _bar(limit, moment.slots, self._characters), _amount(limit))
        yield Text(f"\n{moment.elapsed:5.1f} s  {moment.phase}\n", style="bold")
        yield table
        yield Text.assemble(
            ("\nsent ", "dim"), (f"{moment.sent:<6}", "bold"),
            (" running ", "dim"), (f"{moment.running:<4}", "bold green"),
            (" waiting ", "dim"), (f"{moment.waiting:<4}", "bold yellow"),
            (" done ", "dim"), (f"{moment.done}", "bold"),
        )  # fmt: skip
        if moment.usage.config_problem:
            yield Text(f"configuration not in force: {moment.usage.config_problem}", style="red")
        yield Text(f"API  {self._api}", style="dim")


def open_view(api: str) -> AbstractContextManager[View]:
    """Return a view that suits standard output.

    Args:
        api: the URL of the admin API.
    """
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return nullcontext(LineView())
    return _live_view(api)


@contextmanager
def _live_view(api: str) -> Iterator[View]:
    with Live(console=Console(), auto_refresh=False) as live:
        yield LiveView(live, api)


def _bar(limit: LimitUsage, slots: int, characters: tuple[str, str]) -> Text:
    if not limit.max:
        total, style = slots, "blue"
    elif limit.current > limit.max:
        total, style = limit.max, "red"  # it was lowered, and what runs goes on
    else:
        total, style = limit.max, "yellow" if limit.current == limit.max else "green"
    length = BAR_WIDTH * min(limit.current, total) // total
    used, free = characters
    return Text.assemble((used * length, style), (free * (BAR_WIDTH - length), "dim"))


def _amount(limit: LimitUsage) -> str:
    return f"{limit.current}/{limit.max or 'unlimited'}{' paused' if limit.paused else ''}"
