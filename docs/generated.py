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
#: What ``benchmarks/capacity.py`` recorded: read here as it is, as docs need no server.
FLEETS = ROOT / "benchmarks" / "fleets.json"
#: The calls that are shown, by their names there.
CALLS = {
    "acquire": "take the tokens",
    "release": "give them back, while nobody waits for them",
    "deny": "ask and be denied",
    "park": "wait",
    "join": "wait at once, as the worker knows that others do",
    "hand over": "give back and hand over to one that waits",
    "take over": "begin on what was handed over",
    "tick": "a second of an idle worker",
    "token": "and of each task that runs there",
    "beat": "a beat more, for runs that began since the last",
    "sweep": "the sweep, once a second for all workers",
    "message": "a message in the same Redis: sent, received, acknowledged",
}


def write_all(directory: Path) -> None:
    """Write each part to a file that a page includes."""
    directory.mkdir(exist_ok=True)
    for name, lines in (
        ("http", http()),
        ("cli", cli()),
        ("scripts", scripts()),
        ("figures", figures()),
        ("calls", calls()),
        ("fleets", fleets()),
        ("holds", holds()),
        ("habits", habits()),
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
        context = click.Context(command, info_name=name)
        for child in command.list_commands(context):
            subcommand = command.get_command(context, child)
            assert subcommand is not None
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


def calls() -> Iterator[str]:
    """What a fleet's calls take of the server."""
    yield "| what | calls | microseconds of the server |\n|---|---:|---:|"
    for name, (microseconds, trips) in _fleets()["calls_us"].items():
        if name in CALLS:
            yield f"| {CALLS[name]} | {trips or ''} | {microseconds:.0f} |"


def fleets() -> Iterator[str]:
    """The simulated fleets."""
    yield (
        "| workers | tasks that arrive a second | share of a server needed | tasks done a second "
        "| a call, median | p99 | two calls, mean | a tick, longest |"
    )
    yield "|---:" * 8 + "|"
    for row in _fleets()["fleets"]:
        cells = ["falls behind", *["grows"] * 4]
        if "call_ms" in row:
            cells = [
                f"{row['tasks_per_second']:,.0f}", f"{row['call_ms']:,.2f} ms",
                f"{row['call_p99_ms']:,.2f} ms", f"{row['added_ms']:,.2f} ms",
                f"{row['tick_s']:.2f} s",
            ]  # fmt: skip
        yield (
            f"| {row['workers']:,} | {row['arrive_per_second']:,.0f} | {row['demand']:.0%} "
            f"| {' | '.join(cells)} |"
        )


def holds() -> Iterator[str]:
    """How many workers one server holds, by the length of their tasks."""
    yield (
        "| a task takes | workers, half busy | their tasks a second | workers, saturated |\n"
        "|---:|---:|---:|---:|"
    )
    for row in _fleets()["holds"]:
        yield (
            f"| {row['task_seconds']:,.0f} s | {row['workers']:,} "
            f"| {row['tasks_per_second']:,} | {row['saturated']:,} |"
        )


def habits() -> Iterator[str]:
    """What a pair costs the server in other settings."""
    yield "| what | the server's time for a pair |\n|---|---:|"
    for what, ratio in _fleets()["habits"].items():
        yield f"| {what} | ×{ratio:.2f} |"


def _fleets() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FLEETS.read_text())
    return found


def _description(view: Any) -> Iterator[str]:
    yield inspect.cleandoc(view.__doc__ or "").replace("``", "`")
