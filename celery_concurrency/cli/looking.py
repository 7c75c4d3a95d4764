"""Commands that show what goes on: ``usage``, ``stats``."""

from __future__ import annotations

from collections.abc import Iterable

import click
from celery import Celery

from celery_concurrency.apps import limiter_of
from celery_concurrency.cli.command import command, json_option
from celery_concurrency.cli.output import allowed, print_json, print_problem, print_table
from celery_concurrency.stats import DEFAULT_WINDOW, WINDOWS
from celery_concurrency.usage import Usage


@command()
@json_option
def usage(app: Celery, as_json: bool) -> None:
    """Show how many tasks run in each limit and wait for it, beside what it allows."""
    found = limiter_of(app).usage()
    if as_json:
        print_json(found.to_dict())
    else:
        print_table(("limit", "current", "max", "waiting"), _usage_rows(found))
    print_problem(found.config_problem)


@command()
@click.option(
    "--window",
    type=click.Choice(list(WINDOWS)),
    default=DEFAULT_WINDOW,
    show_default=True,
    help="The time that is looked back on.",
)
@json_option
def stats(app: Celery, window: str, as_json: bool) -> None:
    """Show how often tokens were acquired and released."""
    counters = limiter_of(app).stats.window(window)
    if as_json:
        print_json(counters)
    else:
        print_table(("counter", window), sorted(counters.items()))


def _usage_rows(found: Usage) -> Iterable[tuple[str, int, str, int]]:
    for name, limit in found.limits():
        yield name, limit.current, allowed(limit.max, limit.paused), limit.waiting
