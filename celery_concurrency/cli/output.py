"""How commands print: tables for people, JSON for programs.

The live picture is in ``live_view.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from unicodedata import east_asian_width

import click


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Print columns that are as wide as what is in them."""
    lines = [head, *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = (
            cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: Chinese takes two each."""
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def local_time(seconds: float) -> str:
    """Return Unix seconds as a person here reads them."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """Return so many seconds in their two largest units: ``2 h 5 min``; none is less than 0."""
    rest = max(0, round(seconds))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        some, rest = divmod(rest, size)
        if some:
            parts.append(f"{some} {unit}")
        elif parts:
            break  # what comes after it is small beside the first
    return " ".join(parts[:2]) or "0 s"


def allowed(most: int, paused: bool) -> str:
    """Return in words how many a limit allows."""
    return f"{most or 'unlimited'}{' (paused)' if paused else ''}"


def print_problem(problem: str | None) -> None:
    """Say on stderr what is wrong with a configuration written by hand."""
    if problem:
        click.echo(f"the stored configuration is not in force: {problem}", err=True)


def printable(value: Any) -> str:
    """Return a text for a terminal: names come from anywhere, and none may steer it."""
    return "".join(char if char.isprintable() else "?" for char in str(value))
