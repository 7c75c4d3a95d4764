"""The picture that ``monitor`` draws in a terminal, in its place.

When it is drawn says ``monitor.py``; the lines that a pipe gets instead are in ``line_views.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from celery_concurrency.cli.explain import reason_of
from celery_concurrency.cli.output import allowed, duration, printable
from celery_concurrency.cli.snapshot import Snapshot, busiest
from celery_concurrency.cli.tokens import held_as
from celery_concurrency.limiter.inspect.usage import LimitUsage
from celery_concurrency.limiter.limits import GLOBAL

BAR_WIDTH: Final = 20
#: Lines that are no rows of the three tables, and rows that each has at least.
FRAME: Final = 13
LEAST: Final = 3


class LiveView:
    """Three tables: limits, who holds, who waits.

    Args:
        live: where they are drawn.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._last: Snapshot | None = None
        self._characters = ("#", ".") if live.console.options.ascii_only else ("█", "░")

    def show(self, moment: Snapshot) -> None:
        """Draw a moment."""
        self._last = moment
        self._draw(moment, moment.usage.config_problem)

    def fail(self, problem: str) -> None:
        """Draw the last moment again, and why it is not newer."""
        if self._last:
            self._draw(self._last, problem)

    def _draw(self, moment: Snapshot, problem: str | None) -> None:
        rows = max(4 * LEAST, self._live.console.height - FRAME)
        waiting = moment.usage.global_.waiting
        parts: list[RenderableType] = [
            Text(f"{moment.at:%Y-%m-%d %H:%M:%S}   end with Ctrl-C\n", style="dim"),
            self._limits(moment, rows // 2),
            _title(f"{moment.held} hold", moment.held, rows // 4),
            _holders(moment, rows // 4),
            _title(f"{waiting} wait", waiting, rows // 4),
            _waiters(moment, rows // 4),
        ]
        if problem:
            parts.append(Text(printable(problem), style="red"))
        self._live.update(Group(*parts), refresh=True)

    def _limits(self, moment: Snapshot, rows: int) -> Table:
        table = _table("limit", "in use", "current", "max", "waiting")
        for name, limit in busiest(list(moment.usage.limits()), rows):
            _add(
                table, name, _bar(limit, self._characters), limit.current,
                allowed(limit.max, limit.paused), limit.waiting or "",
            )  # fmt: skip
        return table


@contextmanager
def open_live_view() -> Iterator[LiveView]:
    """Return a picture on standard output; the last one stays."""
    with Live(console=Console(), auto_refresh=False) as live:
        yield LiveView(live)


def _title(text: str, total: int, rows: int) -> Text:
    more = f", {rows} of them shown" if total > rows else ""
    return Text(f"\n{text}{more}", style="bold")


def _holders(moment: Snapshot, rows: int) -> Table:
    table = _table("task id", "task", "worker", "holds", "limits")
    for one in moment.holders[:rows]:
        # All count in global, and there is no room to say so.
        limits = [limit for limit in one.limits if limit != GLOBAL] or [GLOBAL]
        held = duration(time.time() - one.since) if one.since else "-"
        _add(table, one.task_id, held_as(one), one.worker or "-", held, " ".join(limits))
    return table


def _waiters(moment: Snapshot, rows: int) -> Table:
    table = _table("task id", "task", "waits", "as")
    for one in moment.waiting[:rows]:
        waits = duration(time.time() - one.since)
        _add(table, one.task_id, one.task or "-", waits, reason_of(one.blocked_by))
    return table


def _table(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    for head in heads:
        # Where there is no room for all, it is the last column that gives way.
        last = 1 if head == heads[-1] else None
        table.add_column(head, no_wrap=True, overflow="ellipsis", ratio=last)
    return table


def _add(table: Table, *cells: object) -> None:
    # Texts of ours or anyone's, without rich's markup.
    table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in cells))


def _bar(limit: LimitUsage, characters: tuple[str, str]) -> Text:
    if not limit.max:
        return Text("")
    over, full = limit.current > limit.max, limit.current == limit.max
    used = BAR_WIDTH * min(limit.current, limit.max) // limit.max
    style = "red" if over else "yellow" if full else "green"
    return Text.assemble((used * characters[0], style), ((BAR_WIDTH - used) * characters[1], "dim"))
