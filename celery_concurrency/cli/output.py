"""How commands print: tables for people, JSON for programs.

The view of ``monitor`` in a terminal is in ``live_view.py``.
"""

import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from celery_concurrency.limiter.inspect.adaptive import Limited
from celery_concurrency.limiter.inspect.holders import task_of
from celery_concurrency.limiter.inspect.moments import Moments
from celery_concurrency.limiter.inspect.usage import LimitUsage
from celery_concurrency.limiter.mistyped import Doubt
from celery_concurrency.text import json_line, printable


def echo(text: str, *, err: bool = False) -> None:
    """Print one printable line, on stderr if ``err``."""
    click.echo(printable(text), err=err)


def refusal(text: str) -> click.ClickException:
    """Return the error that ends a command with this line and exit status 1."""
    return click.ClickException(printable(text))


def mistake(text: str) -> click.UsageError:
    """Return the error that ends a command with this line, how it is called, and exit status 2."""
    return click.UsageError(printable(text))


def print_json(value: Any, indent: int | None = None) -> None:
    """Print JSON, in one line if it is not indented."""
    click.echo(json_line(value, indent))


def print_limits(head: tuple[str, ...], rows: Iterable[tuple[tuple[Any, ...], Moments]]) -> None:
    """Print a table of limits, with a column for rates and cool-downs if there are any."""
    lines = [(*cells, in_time(limit)) for cells, limit in rows]
    if any(line[-1] for line in lines):
        print_table((*head, IN_TIME), lines)
    else:
        print_table(head, (line[:-1] for line in lines))


def print_table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Print columns as wide as their widest cell."""
    lines = [head, *(tuple(printable(cell) for cell in row) for row in rows)]
    # A Chinese character takes two columns of a terminal.
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = map(set_cell_size, line, widths)
        click.echo("  ".join(cells).rstrip())


def print_folded(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Print columns no wider than the terminal, or 80; where they are, the first is folded."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    for name in head:
        table.add_column(name, overflow="fold", no_wrap=name != head[0])
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # rich reads no markup in a Text
    console = Console()
    with console.capture() as text:
        console.print(table)
    for line in text.get().splitlines():
        click.echo(line.rstrip())


def local_time(seconds: float | None) -> str:
    """Return Unix seconds as a local date and time; "-" for none."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S") if seconds else "-"


def duration(seconds: float) -> str:
    """Return seconds in their two largest units, as ``2 h 5 min``; at least ``0 s``."""
    rest = max(0, round(seconds))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        some, rest = divmod(rest, size)
        if some:
            parts.append(f"{some} {unit}")
        elif parts:
            break  # 2 h 5 s is 2 h
    return " ".join(parts[:2]) or "0 s"


def allowed(limit: Limited) -> str:
    """Return in words how many a limit allows."""
    notes = [f" ({limit.adaptive})"] if limit.adaptive else []
    notes += [" (paused)"] if limit.paused else []
    return f"{limit.allows or 'unlimited'}{''.join(notes)}"


def waiters(limit: LimitUsage) -> str:
    """Return in words how many wait for a limit, how many may, and with which weight."""
    most = limit.bounds.most
    text = f"{limit.waiting} of {most}" if most else str(limit.waiting)
    return f"{text} (weight {limit.weight})" if limit.weight else text


def oldest(limit: LimitUsage) -> str:
    """Return how long the one has waited that has for longest; "" where none waits."""
    since = limit.waiting_since
    return "" if since is None else duration(time.time() - since)


#: The head of a column of ``in_time``, which is there where a limit has something in it.
IN_TIME: Final = "rates and cool-down"


def then(refused: bool, probe: str | None) -> str:
    """Return in words what comes after a cool-down; "" where all go on at once.

    Args:
        refused: a platform's refusal began it.
        probe: the token of the run that goes first now.
    """
    if probe:
        return f"trying: {task_of(probe)}"
    return "then one run first" if refused else ""


def in_time(limit: Moments) -> str:
    """Return in words how far a limit's rates are used, and until when it cools down."""
    now = time.time()
    parts = []
    for rate in limit.rates:
        opens = f", opens in {duration(rate.opens_at - now)}" if rate.opens_at else ""
        parts.append(f"{rate.used} of {rate.max} per {duration(rate.per)}{opens}")
    if limit.cooldown:
        why = f": {limit.cooldown.reason}" if limit.cooldown.reason else ""
        after = then(limit.cooldown.refused, limit.cooldown.probe)
        parts.append(_cooling(limit.cooldown.until - now, why, after))
    return "; ".join(parts)


def _cooling(seconds: float, why: str, after: str) -> str:
    if seconds <= 0:
        return f"after a refusal{why}, {after.removeprefix('then ')}"
    return f"cools down for {duration(seconds)}{why}{', ' if after else ''}{after}"


def print_notes(notes: Iterable[str]) -> None:
    """Print on stderr what a table does not show, a line each."""
    for note in notes:
        echo(note, err=True)


def print_doubts(doubts: Iterable[Doubt]) -> None:
    """Print on stderr which limits may be mistyped, a line each."""
    print_notes(f"warning: {doubt}" for doubt in doubts)


def print_problem(problem: str | None) -> None:
    """Print on stderr what is wrong with a configuration written by hand, if anything."""
    if problem:
        echo(f"the stored configuration is not in force: {problem}", err=True)
