"""The command line: ``celery -A proj concurrency …``.

Exit status 0; 1 for a refusal, said in one line; 2 for a mistake in the call.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Final

import click
from celery.bin.base import CeleryCommand

from celery_concurrency.apps import limiter_of
from celery_concurrency.config import Config, parse_json
from celery_concurrency.configstore import Stored
from celery_concurrency.errors import ConcurrencyError, InvalidConfig
from celery_concurrency.stats import DEFAULT_WINDOW, WINDOWS
from celery_concurrency.usage import LimitUsage, Usage

DEFAULT_PORT: Final = 7000

F = Callable[..., Any]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def _refusing(command: F) -> F:
    """Say our own errors in a line on stderr, and exit with 1."""

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ConcurrencyError as exc:
            details = exc.details if isinstance(exc, InvalidConfig) else []
            problems = [f"{d['field']}: {d['problem']}".lstrip(": ") for d in details]
            # A name may have a line break in it.
            line = " ".join(("; ".join(problems) or str(exc)).split())
            raise click.ClickException(line) from exc

    return wrapper


@click.group(name="concurrency")
def concurrency() -> None:
    """Look at the limits on concurrent tasks, and change them at run time."""
    # What a command has to say it says itself; where logging is set up, it logs too.
    logging.getLogger("celery_concurrency").addHandler(logging.NullHandler())


@concurrency.command(cls=CeleryCommand)
@json_option
@click.pass_context
@_refusing
def usage(ctx: click.Context, as_json: bool) -> None:
    """Show how many tasks run in each limit, beside what it allows."""
    found = limiter_of(ctx.obj.app).usage()
    if as_json:
        _print_json(found.to_dict())
    else:
        _print_table(("limit", "current", "max"), _usage_rows(found))
    _print_problem(found.config_problem)


@concurrency.command(cls=CeleryCommand)
@click.option(
    "--window",
    type=click.Choice(list(WINDOWS)),
    default=DEFAULT_WINDOW,
    show_default=True,
    help="The time that is looked back on.",
)
@json_option
@click.pass_context
@_refusing
def stats(ctx: click.Context, window: str, as_json: bool) -> None:
    """Show how often tokens were acquired and released."""
    counters = limiter_of(ctx.obj.app).stats.window(window)
    if as_json:
        _print_json(counters)
    else:
        _print_table(("counter", window), sorted(counters.items()))


@concurrency.group()
def config() -> None:
    """Show the configuration, or change it; a change is in force at once."""


@config.command(name="get", cls=CeleryCommand)
@click.argument("field", required=False)
@json_option
@click.pass_context
@_refusing
def config_get(ctx: click.Context, field: str | None, as_json: bool) -> None:
    """Show the configuration, or one FIELD of it (as platform_max.douyin)."""
    stored = limiter_of(ctx.obj.app).config.sync()
    value: Any = stored.config.model_dump() if field else stored.config.to_dict()
    for key in _path(field, stored.config) if field else []:
        if not isinstance(value, dict) or key not in value:
            raise click.ClickException(f"there is no {field} in the configuration")
        value = value[key]
    _print_config(value, as_json)
    _print_problem(stored.problem)


@config.command(name="set", cls=CeleryCommand)
@click.argument("changes", nargs=-1, required=True, metavar="FIELD=VALUE...")
@json_option
@click.pass_context
@_refusing
def config_set(ctx: click.Context, changes: tuple[str, ...], as_json: bool) -> None:
    """Change fields: global_max=4 platform_max.douyin=2 'paused=["global"]'.

    VALUE is JSON; null takes an entry out of a map.
    """
    values = [_parse_change(text) for text in changes]
    store = limiter_of(ctx.obj.app).config
    _print_changed(store.update(_change_of(values, store.sync().config)), as_json)


@config.command(name="reset", cls=CeleryCommand)
@json_option
@click.pass_context
@_refusing
def config_reset(ctx: click.Context, as_json: bool) -> None:
    """Put the default configuration in force."""
    _print_changed(limiter_of(ctx.obj.app).config.reset(), as_json)


@concurrency.command(cls=CeleryCommand)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True,
    help="The port to listen on; 0 takes a free one.",
)  # fmt: skip
@click.pass_context
@_refusing
def serve(ctx: click.Context, host: str, port: int) -> None:
    """Serve the HTTP API until interrupted. It asks for no password: keep it on loopback."""
    from waitress import create_server  # noqa: PLC0415 - the other commands need no server

    from celery_concurrency.api.blueprint import URL_PREFIX, create_app  # noqa: PLC0415 - nor Flask

    app = create_app(ctx.obj.app)
    # An OSError is a port that is taken, a ValueError a host that is none.
    try:
        server = create_server(app, host=host, port=port, ident=None)
    except (OSError, ValueError) as exc:
        problem = exc.strerror if isinstance(exc, OSError) else "there is no such host"
        raise click.ClickException(
            f"can't listen on {host}:{port} ({problem}); choose another with --host and --port"
        ) from exc
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for address in _addresses(server):
        click.echo(f"serving http://{address}{URL_PREFIX}, end with Ctrl-C")
    sys.stdout.flush()
    server.run()


def _addresses(server: Any) -> list[str]:
    """Return where a waitress server listens: a name may stand for several addresses."""
    several = getattr(server, "effective_listen", None)
    return [
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for host, port in several or [(server.effective_host, server.effective_port)]
    ]


def _usage_rows(found: Usage) -> Iterable[tuple[str, str, str]]:
    def row(name: str, limit: LimitUsage) -> tuple[str, str, str]:
        most = str(limit.max) if limit.max else "unlimited"
        return name, str(limit.current), f"{most} (paused)" if limit.paused else most

    yield row("global", found.global_)
    for dimension, limits in (
        ("platform", found.platforms),
        ("task_type", found.task_types),
        ("account", found.accounts),
        *found.dimensions.items(),
    ):
        for name, limit in sorted(limits.items()):
            yield row(f"{dimension}:{name}", limit)


def _path(field: str, config: Config) -> list[str]:
    """Return the keys that a dotted field names; a name may have dots of its own."""
    head, dot, rest = field.partition(".")
    if not dot:
        return [head]
    if head != "dimensions":
        return [head, rest]
    # An own dimension may have dots in its name too, and its overrides as well.
    known = [name for name in config.dimensions if rest == name or rest.startswith(f"{name}.")]
    name = max(known, key=len, default=rest.partition(".")[0])
    inner = rest[len(name) + 1 :]
    return [head, name, *(inner.split(".", 1) if inner else [])]


def _parse_change(text: str) -> tuple[str, Any]:
    """Return the field and the value of a FIELD=VALUE; a name in FIELD may have a "="."""
    parts = text.split("=")
    for end in range(1, len(parts)):
        field, value = "=".join(parts[:end]), "=".join(parts[end:])
        try:
            if field:
                return field, parse_json(value)
        except InvalidConfig:
            continue
    raise click.UsageError(
        f"{text!r} is no FIELD=VALUE with a VALUE in JSON: write global_max=4, enabled=false, "
        "platform_max.douyin=null or 'paused=[\"global\"]'"
    )


def _change_of(values: Iterable[tuple[str, Any]], config: Config) -> dict[str, Any]:
    """Return the change that these fields and values say together."""
    change: dict[str, Any] = {}
    for field, value in values:
        *path, last = _path(field, config)
        place: Any = change
        for key in path:
            place = place.setdefault(key, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last in place:
            raise click.UsageError(f"{field} is given twice")
        place[last] = value
    return change


def _print_changed(stored: Stored, as_json: bool) -> None:
    _print_config(stored.config.to_dict(), as_json)
    click.echo("in force now", err=True)


def _print_config(value: Any, as_json: bool) -> None:
    # The configuration is JSON for people too: what is shown can be sent back.
    click.echo(json.dumps(value, ensure_ascii=False, indent=None if as_json else 2))


def _print_problem(problem: str | None) -> None:
    if problem:
        click.echo(f"the stored configuration is not in force: {problem}", err=True)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def _print_table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    table = [head, *((str(cell) for cell in row) for row in rows)]
    lines = [tuple(row) for row in table]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
