"""The view that ``monitor.py`` draws in a terminal, each time in the same place."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from celery_concurrency.cli.explain import reason_of
from celery_concurrency.cli.output import IN_TIME, allowed, duration, in_time, oldest, waiters
from celery_concurrency.cli.snapshot import Snapshot, busiest
from celery_concurrency.cli.tokens import held_as, limits_and_places
from celery_concurrency.limiter.inspect.usage import LimitUsage
from celery_concurrency.limiter.limits import GLOBAL
from celery_concurrency.text import printable

BAR_WIDTH: Final = 20
#: Lines that are no rows of the three tables, and rows that each has at least.
FRAME: Final = 13
LEAST: Final = 3
#: In fewer columns the reason why a task waits leaves no room for its name and its whole id:
#: so many characters do, for ``waiting ID`` too.
WIDE: Final = 100
SHORT: Final = 8


class LiveView:
    """Draws three tables: limits, holders, waiters.

    Args:
        live: where.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._last: tuple[Snapshot, str] | None = None
        self._characters = ("#", ".") if live.console.options.ascii_only else ("█", "░")

    def show(self, snapshot: Snapshot, title: str = "") -> None:
        """Draw a snapshot; a title stands in place of its time."""
        self._last = snapshot, title
        self._draw(snapshot, title, *snapshot.usage.notes())

    def fail(self, problem: str) -> None:
        """Draw the last snapshot again, with the reason why there is no newer one."""
        if self._last:
            self._draw(*self._last, problem)

    def _draw(self, snapshot: Snapshot, title: str, *problems: str) -> None:
        rows = max(4 * LEAST, self._live.console.height - FRAME)
        waiting = snapshot.usage.global_.waiting
        title = title or f"{snapshot.at:%Y-%m-%d %H:%M:%S}   end with Ctrl-C"
        parts: list[RenderableType] = [
            Text(f"{title}\n", style="dim"),
            self._limits(snapshot, rows // 2),
            _heading(f"{snapshot.held} hold", snapshot.held, rows // 4),
            _holders(snapshot, rows // 4, self._live.console.width),
            _heading(f"{waiting} wait", waiting, rows // 4),
            _waiters(snapshot, rows // 4, self._live.console.width),
        ]
        parts += [Text(printable(problem), style="red") for problem in problems]
        self._live.update(Group(*parts), refresh=True)

    def _limits(self, snapshot: Snapshot, rows: int) -> Table:
        shown = busiest(list(snapshot.usage.limits()), rows)
        timed = any(limit.is_used for _, limit in shown)
        table = _table(
            "limit", "in use", "current", "max", "waiting", "oldest", *([IN_TIME] * timed)
        )
        for name, limit in shown:
            _add(
                table, name, _bar(limit, self._characters), limit.current,
                allowed(limit), waiters(limit) if limit.waiting else "", oldest(limit),
                *([in_time(limit)] * timed),
            )  # fmt: skip
        return table


@contextmanager
def open_live_view() -> Iterator[LiveView]:
    """Draw on standard output; what was drawn last stays."""
    with Live(console=Console(), auto_refresh=False) as live:
        yield LiveView(live)


def _heading(text: str, total: int, rows: int) -> Text:
    more = f", {rows} of them shown" if total > rows else ""
    return Text(f"\n{text}{more}", style="bold")


def _holders(snapshot: Snapshot, rows: int, width: int) -> Table:
    table = _table("task id", "task", "worker", "holds", "limits")
    for one in snapshot.holders[:rows]:
        # Every run counts in global: it is named only where it is the only limit.
        limits = [limit for limit in one.limits if limit != GLOBAL] or [GLOBAL]
        held = duration(time.time() - one.since) if one.since else "-"
        task_id = _id_in(width, one.task_id)
        places = limits_and_places(limits, one.weight)
        _add(table, task_id, held_as(one), one.worker or "-", held, places)
    return table


def _waiters(snapshot: Snapshot, rows: int, width: int) -> Table:
    wide = width >= WIDE
    table = _table("task id", *(["task"] * wide), "waits", "as")
    for one in snapshot.waiting[:rows]:
        task_id = _id_in(width, one.task_id)
        task = [one.task or "-"] * wide
        waits = duration(time.time() - one.since)
        _add(table, task_id, *task, waits, reason_of(one.blocked_by))
    return table


def _id_in(width: int, task_id: str) -> str:
    """Return a task's id, or in a narrow terminal its beginning, which commands take too."""
    return task_id if width >= WIDE else task_id[:SHORT]


def _table(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    for head in heads:
        # In a narrow terminal the last column is the one that is cut.
        last = 1 if head == heads[-1] else None
        table.add_column(head, no_wrap=True, overflow="ellipsis", ratio=last)
    return table


def _add(table: Table, *cells: object) -> None:
    # As Text, so that rich reads no markup in a name.
    table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in cells))


def _bar(limit: LimitUsage, characters: tuple[str, str]) -> Text:
    most = limit.allows
    if not most:
        return Text("")
    over, full = limit.current > most, limit.current == most
    used = BAR_WIDTH * min(limit.current, most) // most
    style = "red" if over else "yellow" if full else "green"
    return Text.assemble((used * characters[0], style), ((BAR_WIDTH - used) * characters[1], "dim"))
