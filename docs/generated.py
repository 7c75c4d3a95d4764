"""Those parts of the reference that the code itself says best, written as Markdown."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

import click

from benchmarks.figures import FIGURES
from celery_concurrency.api.blueprint import ROUTES
from celery_concurrency.cli import concurrency

ROOT = Path(__file__).parent.parent


def write_all(directory: Path) -> None:
    """Write each part to a file that a page includes."""
    directory.mkdir(exist_ok=True)
    for name, lines in (
        ("http", http()),
        ("cli", cli()),
        ("scripts", scripts()),
        ("figures", figures()),
    ):
        text = "\n".join(lines) + "\n"
        path = directory / f"{name}.md"
        # Left alone where nothing has changed, so that Sphinx need not read it again.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def http() -> Iterator[str]:
    """Every route, by what its view's docstring says."""
    for route in ROUTES:
        path = re.sub(r"<\w+:", "<", route.path)
        yield f"## `{route.method} {path}`\n"
        yield from _description(route.view)
        if route.query is not None:
            yield "\n| parameter | default | |\n|---|---|---|"
            for name, field in route.query.model_fields.items():
                default = f"`{field.default}`" if field.default and not field.is_required() else ""
                yield f"| `{name}` | {default} | {field.description or ''} |"
        if route.body is not None:
            fields = ", ".join(f"`{name}`" for name in get_type_hints(route.body))
            yield f"\nThe body is an object of {fields}."
        yield ""


def cli() -> Iterator[str]:
    """Every command, by its own help."""
    yield from _command(concurrency, "concurrency")


def _command(command: click.Command, name: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        if command.invoke_without_command:
            yield from _entry(command, name)
        for child, subcommand in command.commands.items():
            yield from _command(subcommand, f"{name} {child}")
        return
    yield from _entry(command, name)


def _entry(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    usage = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    yield f"## `{' '.join([name, *usage])}`"
    yield f"\n{inspect.cleandoc(command.help or '')}\n"
    records = (parameter.get_help_record(context) for parameter in command.params)
    options = [record for record in records if record and record[1]]
    if options:
        yield "```text"
        width = max(len(option) for option, _ in options)
        yield from (f"{option.ljust(width)}  {text}" for option, text in options)
        yield "```\n"


def scripts() -> Iterator[str]:
    """Every Lua file, verbs first, by the comment at its beginning."""
    home = files("celery_concurrency.scripts")
    for folder in ("", "lib/"):
        for name in sorted(path.name for path in (home / folder).iterdir()):
            if not name.endswith(".lua"):
                continue
            yield f"## `{folder}{name}`\n\n```text"
            for line in (home / folder / name).read_text("utf-8").splitlines():
                if not line.startswith("--"):
                    break
                yield line.removeprefix("--").removeprefix(" ")
            yield "```\n"


def figures() -> Iterator[str]:
    """What was measured when it was recorded, beside what is wanted."""
    recorded = json.loads((ROOT / "benchmarks" / "recorded.json").read_text())["full"]
    yield "| figure | what | goal | measured |\n|---|---|---|---|"
    for figure in FIGURES:
        sign = "≥" if figure.more_is_better else "≤"
        value = recorded[figure.key]
        missed = "" if figure.is_met(value) else " (missed)"
        yield f"| `{figure.key}` | {figure.what} | {sign} {figure.goal:g} | {value:g}{missed} |"


def _description(view: Any) -> Iterator[str]:
    yield inspect.cleandoc(view.__doc__ or "").replace("``", "`")
