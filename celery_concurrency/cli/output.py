"""How commands print: tables for people, JSON for programs.

The view of ``monitor`` in a terminal is in ``live_view.py``.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from unicodedata import east_asian_width

import click


def printable(value: Any) -> str:
    """Return a text for a terminal: control characters in names become "?"."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


def echo(text: str, *, err: bool = False) -> None:
    """Print one printable line, on stderr if ``err``."""
    click.echo(printable(text), err=err)


def refusal(text: str) -> click.ClickException:
    """Return the error that ends a command with this line and exit status 1."""
    return click.ClickException(printable(text))


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Print columns as wide as their widest cell."""
    lines = [head, *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = (
            cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for a Chinese character."""
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


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


def allowed(most: int, paused: bool) -> str:
    """Return in words how many a limit allows."""
    return f"{most or 'unlimited'}{' (paused)' if paused else ''}"


def print_problem(problem: str | None) -> None:
    """Print on stderr what is wrong with a configuration written by hand, if anything."""
    if problem:
        click.echo(f"the stored configuration is not in force: {problem}", err=True)
