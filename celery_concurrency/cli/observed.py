"""The commands ``observed`` and ``enforce``: limits that only count, and putting them in force.

``config.py`` makes a limit observed: ``config set 'platform_max.douyin={"mode": "observe"}'``.
"""

from collections.abc import Iterable

import click
from celery import Celery

from celery_concurrency.cli.command import command, json_option, operator_option
from celery_concurrency.cli.output import duration, echo, local_time, print_json, print_table
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.inspect.observed import Observation, read_observed
from celery_concurrency.worker.apps import limiter_of


@command()
@json_option
def observed(app: Celery, as_json: bool) -> None:
    """Show what observed limits would have done.

    For each: how many runs it would have turned away if it had been in force, and for how long.
    """
    limiter = limiter_of(app)
    found, total = read_observed(limiter.keyspace, limiter.config.sync().config)
    if as_json:
        print_json([one.model_dump() for one in found])
    else:
        print_observed(found)
    if total > len(found):
        echo(f"{total - len(found)} more are observed but not listed", err=True)


@command()
@click.argument("limit")
@operator_option
@json_option
def enforce(app: Celery, limit: str, operator: str, as_json: bool) -> None:
    """Put the observed LIMIT in force.

    Write LIMIT as the command observed shows it: platform:douyin, or account:* for all accounts.
    """
    stored = limiter_of(app).config.enforce(limit, Author("cli", operator))
    if as_json:
        print_json(stored.config.to_dict())
    else:
        echo(f"{limit} is in force now")


def print_observed(found: Iterable[Observation]) -> None:
    """Print a table of what is observed."""
    print_table(
        ("observed", "would allow", "runs", "turned away", "mean wait", "longest", "since"),
        map(_row, found),
    )


def _row(one: Observation) -> tuple[str, ...]:
    maximum = f"up to {one.max} (adaptive)" if one.kind == "adaptive" else f"{one.max}"
    allowed = [f"{rate.max} per {duration(rate.per)}" for rate in one.rates] or [maximum]
    share = f" ({one.would_deny / one.runs:.0%})" if one.would_deny else ""
    waits = (one.would_wait.mean, one.would_wait.longest)
    return (
        *(one.limit, ", ".join(allowed), str(one.runs), f"{one.would_deny}{share}"),
        *(f"{wait:.1f} s" if wait < 60 else duration(wait) for wait in waits),
        local_time(one.since),
    )
