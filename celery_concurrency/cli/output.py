"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Print columns that are as wide as what is in them."""
    lines = [head, *(tuple(_cell(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def print_problem(problem: str | None) -> None:
    """Say on stderr what is wrong with a configuration written by hand."""
    if problem:
        click.echo(f"the stored configuration is not in force: {problem}", err=True)


def _cell(value: Any) -> str:
    # Names come from anywhere: none of them breaks a line or steers the terminal.
    return "".join(char if char.isprintable() else "?" for char in str(value))
