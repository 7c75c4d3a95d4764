"""The commands of ``config``: show the configuration, and change it.

``pause`` and ``resume`` are in ``cooldowns.py``; ``limiter/config/schema.py`` defines the
configuration.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import click
from celery import Celery

from celery_concurrency.cli.command import command, json_option, operator_option
from celery_concurrency.cli.durations import adaptive_of, adaptive_problem, rates_of
from celery_concurrency.cli.output import (
    echo,
    local_time,
    mistake,
    print_doubts,
    print_json,
    print_notes,
    print_problem,
    print_table,
    refusal,
)
from celery_concurrency.errors import InvalidConfig
from celery_concurrency.limiter.actions import Action, read_actions
from celery_concurrency.limiter.config.history import Author, Change, Version, differences
from celery_concurrency.limiter.config.schema import Config, parse_json
from celery_concurrency.limiter.config.store import Stored
from celery_concurrency.worker.apps import limiter_of

#: How many of a version's changes the history's table shows, and how many characters of each.
SHOWN_CHANGES: Final = 3
#: How many are printed after a change, a line each.
PRINTED_CHANGES: Final = 10
MAX_SHOWN: Final = 80


@click.group()
def config() -> None:
    """Show or change the configuration; changes are in force at once."""


@command("get")
@click.argument("field", required=False)
@json_option
def get_config(app: Celery, field: str | None, as_json: bool) -> None:
    """Show the configuration, or one FIELD (platform_max.douyin)."""
    stored = limiter_of(app).config.sync()
    value = _value_of(field, stored.config) if field else stored.config.to_dict()
    if value is None:
        raise refusal(f"the configuration has no {field}")
    _print_config(value, as_json)
    print_problem(stored.problem)


@command("set")
@click.argument("changes", nargs=-1, required=True, metavar="FIELD=VALUE...")
@operator_option
@json_option
def set_config(app: Celery, changes: tuple[str, ...], operator: str, as_json: bool) -> None:
    """Change fields: global_max=4 platform_max.douyin=2.

    VALUE is JSON, as in 'paused=["global"]'; null removes an entry from a map. Rates may be
    written as 'rates.account:*=1/30s,15/1d': 1 in any 30 s, and 15 in any day. An adaptive limit
    may be written as 'adaptive.platform:*=1-10,every=60s,decrease=0.5'; only the range is
    required.
    """
    values = [parse_change(text) for text in changes]
    store = limiter_of(app).config
    change = _change_of(values, store.sync().config)
    stored = store.update(change, Author("cli", operator))
    _print_changed(stored, as_json, (field for field, _ in values))


@command("reset")
@click.option("--yes", is_flag=True, help="Don't ask.")
@operator_option
@json_option
def reset_config(app: Celery, yes: bool, operator: str, as_json: bool) -> None:
    """Put the default configuration in force.

    It shows what that changes, and asks. Without a terminal, --yes is needed.
    """
    store, by = limiter_of(app).config, Author("reset", operator)
    stored = store.sync()
    changes = list(differences(stored.config.to_dict(), store.defaults().to_dict()))
    expected = None
    if changes and not yes:
        _ask(changes)
        expected = [stored.version]  # change nothing but what was shown
    _print_changed(store.reset(by, expected), as_json)


def _ask(changes: Sequence[Change]) -> None:
    """Show what a change changes, and ask; end the command if the answer is no."""
    if not is_terminal():
        shown = _in_a_line(changes, len(changes))
        raise mistake(f"this changes {shown}; without a terminal, add --yes")
    echo("This changes:", err=True)
    print_notes(f"  {_change(one)}" for one in changes)
    click.confirm("Are you sure?", abort=True, err=True)


def is_terminal() -> bool:
    """Return whether there is a terminal, so that somebody can be asked."""
    return sys.stdin.isatty()


@command("history")
@json_option
def show_history(app: Celery, as_json: bool) -> None:
    """Show the last 100 versions: when, by whom, what changed.

    The table also shows who released a token and who cancelled waiting tasks.
    """
    limiter = limiter_of(app)
    versions = limiter.config.history()
    if as_json:
        print_json([version.model_dump() for version in versions])
    else:
        done = read_actions(limiter.keyspace)
        rows: list[tuple[float, str, Version | Action, str]]
        rows = [(one.at, str(one.version), one, _changed(one)) for one in versions]
        rows += [(one.at, "-", one, _done(one)) for one in done]
        rows.sort(key=lambda row: row[0], reverse=True)
        print_table(
            ("version", "at", "operator", "source", "changed"),
            (
                (version, local_time(at), one.operator or "unknown", one.source, what)
                for at, version, one, what in rows
            ),
        )


@command("rollback")
@click.argument("version", type=click.IntRange(0, 2**63 - 1))
@operator_option
@json_option
def roll_back(app: Celery, version: int, operator: str, as_json: bool) -> None:
    """Put an earlier VERSION (see history) in force again."""
    store = limiter_of(app).config
    _print_changed(store.rollback(version, Author("rollback", operator)), as_json)


for one in (get_config, set_config, reset_config, show_history, roll_back):
    config.add_command(one)


def _path(field: str, config: Config) -> list[str]:
    """Return the keys that a dotted field names; names may have dots too."""
    head, dot, rest = field.partition(".")
    if not dot:
        return [head]
    if head == "fair":
        return [head, *rest.split(".", 2)]
    if head != "dimensions":
        return [head, rest]
    # So may a dimension's name, and the names in its overrides.
    known = [name for name in config.dimensions if rest == name or rest.startswith(f"{name}.")]
    name = max(known, key=len, default=rest.partition(".")[0])
    inner = rest[len(name) + 1 :]
    return [head, name, *(inner.split(".", 1) if inner else [])]


def _value_of(field: str, config: Config) -> Any:
    """Return the value of a dotted field; None if there is none."""
    value: Any = config.model_dump()
    for key in _path(field, config):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def parse_change(text: str) -> tuple[str, Any]:
    """Return the field and the value of a FIELD=VALUE; names in FIELD may have a "="."""
    parts = text.split("=")
    for end in range(1, len(parts)):
        field, value = "=".join(parts[:end]), "=".join(parts[end:])
        written = _in_short(field, value)
        if written is not None:
            return field, written
        try:
            parsed = parse_json(value)
        except InvalidConfig:
            continue
        # The "=" of an option of an adaptive limit, as in 1-10,every=60, ends no FIELD.
        is_entry = parsed is None or isinstance(parsed, dict)
        if field and (is_entry or not field.startswith("adaptive.")):
            return field, parsed
    for end in range(1, len(parts)):
        problem = adaptive_problem("=".join(parts[end:]))
        if problem and text.startswith("adaptive."):
            raise mistake(f"{text!r}: {problem}")
    raise mistake(
        f"{text!r} is not FIELD=VALUE with a VALUE in JSON: use global_max=4, enabled=false, "
        "platform_max.douyin=null, 'paused=[\"global\"]', 'rates.account:*=1/30s,15/1d' or "
        "'adaptive.platform:*=1-10,every=60s,decrease=0.5'"
    )


def _in_short(field: str, value: str) -> Any:
    """Return the meaning of a value in its field's short form; None if it is not in it."""
    if field.startswith("rates."):
        return rates_of(value)
    return adaptive_of(value) if field.startswith("adaptive.") else None


def _change_of(values: Iterable[tuple[str, Any]], config: Config) -> dict[str, Any]:
    """Return these fields and values as one change."""
    change: dict[str, Any] = {}
    for field, value in values:
        *path, last = _path(field, config)
        inner: Any = change
        for key in path:
            inner = inner.setdefault(key, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or last in inner:
            raise mistake(f"{field} is given twice")
        inner[last] = value
    return change


def _done(action: Action) -> str:
    """Return in words what an operator did."""
    what = "token" if action.action == "released" else "task"
    several = "" if action.count == 1 else f" ({action.count} tasks)"
    return f"{action.action} {what} {action.subject}{several}"


def _changed(version: Version) -> str:
    """Return the first changes of a version, in a line."""
    if version.problem:
        return f"not in force: {version.problem[:MAX_SHOWN]}"
    return _in_a_line(version.changed or [], version.changed_total or 0)


def _in_a_line(changes: Sequence[Change], total: int) -> str:
    shown = [_change(one) for one in changes[:SHOWN_CHANGES]]
    more = total - len(shown)
    return ", ".join([*shown, f"and {more} more"] if more else shown)


def _change(one: Change) -> str:
    if one.field == "paused":
        return _pauses(one.before or [], one.after or [])[:MAX_SHOWN]
    before, after = (json.dumps(value, ensure_ascii=False) for value in (one.before, one.after))
    return f"{one.field} {before} -> {after}"[:MAX_SHOWN]


def _pauses(before: Sequence[str], after: Sequence[str]) -> str:
    """Return which limits were paused, and which resumed."""
    paused = [limit for limit in after if limit not in before]
    resumed = [limit for limit in before if limit not in after]
    said = {"paused": paused, "resumed": resumed}
    return "; ".join(f"{done} {', '.join(limits)}" for done, limits in said.items() if limits)


def _print_changed(stored: Stored, as_json: bool, fields: Iterable[str] = ()) -> None:
    """Print a configuration that was just stored, and whether these fields are in force."""
    _print_config(stored.config.to_dict(), as_json)
    found = {one for field in fields for one in _observed(_value_of(field, stored.config))}
    only = {True: "observed now", False: "in force now, except for what has mode observe"}
    said = only[found == {True}] if True in found else "in force now"
    if stored.before is None:
        echo("nothing changed: this was in force before", err=True)
    else:
        echo(f"{said}:", err=True)
        _print_changes(stored.before, stored.config)
    print_doubts(stored.doubts)


def _print_changes(before: Config, after: Config) -> None:
    """Print on stderr what changed, from what to what, a line each; no more than a few."""
    changes = list(differences(before.to_dict(), after.to_dict()))
    print_notes(f"  {_change(one)}" for one in changes[:PRINTED_CHANGES])
    if len(changes) > PRINTED_CHANGES:
        echo(f"  and {len(changes) - PRINTED_CHANGES} more", err=True)


def _observed(value: Any) -> Iterator[bool]:
    """Yield for each part of a value whether it is only observed."""
    if isinstance(value, dict) and "mode" in value:
        yield value["mode"] == "observe"
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _observed(one)
    else:
        yield False


def _print_config(value: Any, as_json: bool) -> None:
    # JSON in either form: what is shown can be sent back.
    print_json(value, indent=None if as_json else 2)
