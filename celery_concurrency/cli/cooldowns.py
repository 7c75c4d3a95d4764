"""The commands ``cool`` and ``cooldowns``, and the related ``pause`` and ``resume``.

``config.py`` has the other changes; ``limiter/cooldowns.py`` explains cool-downs.
"""

from dataclasses import asdict
from typing import Final

import click
from celery import Celery

from celery_concurrency.cli.command import command, json_option, operator_option
from celery_concurrency.cli.durations import Duration
from celery_concurrency.cli.output import (
    duration,
    echo,
    local_time,
    mistake,
    print_doubts,
    print_json,
    print_table,
    refusal,
    then,
)
from celery_concurrency.errors import InvalidConfig
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.config.store import Stored
from celery_concurrency.limiter.cooldowns import MAX_SECONDS, Cooldown
from celery_concurrency.limiter.limits import limit_problem
from celery_concurrency.worker.apps import limiter_of

for_option = click.option(
    "--for", "seconds", type=Duration(MAX_SECONDS), help="For how long: 90s, 10m, 2h, 1d."
)
reason_option = click.option("--reason", default="", help="The reason; others see it.")


@command()
@click.argument("limit")
@for_option
@click.option("--off", is_flag=True, help="Lift the cool-down.")
@reason_option
@operator_option
@json_option
def cool(
    app: Celery, limit: str, seconds: int | None, off: bool, reason: str, operator: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Let LIMIT admit no task for a while. Running tasks go on.

    If it already cools down, the longer of the two stands. This makes no new version of the
    configuration.
    """
    if (seconds is not None) == off:
        raise mistake("give either --for, such as --for 10m, or --off")
    limiter = limiter_of(app)
    if seconds is not None:
        _cool(limiter, limit, seconds, reason, operator, as_json)
    elif reason:
        raise mistake("--reason goes with --for")
    elif not limiter.cooldowns.lift(limit):
        raise refusal(f"{limit} does not cool down; the command cooldowns lists those that do")
    elif as_json:
        print_json({"limit": limit, "lifted": True})
    else:
        echo(f"{limit} admits tasks again")


@command()
@json_option
def cooldowns(app: Celery, as_json: bool) -> None:
    """Show which limits cool down: until when, why, and by whom.

    Limits with a probe after a refusal are listed too.
    """
    found, total = limiter_of(app).cooldowns.read()
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        head = ("limit", "until", "left", "since", "by", "reason")
        rows = [
            (one.limit, local_time(one.until), duration(one.seconds) if one.seconds else "over",
             local_time(one.since), one.by or "-", one.reason or "-", then(one.refused, one.probe))
            for one in found
        ]  # fmt: skip
        some = any(row[-1] for row in rows)
        print_table((*head, "then") if some else head, rows if some else (row[:-1] for row in rows))
    if total > len(found):
        echo(f"{total} cool down in all; these are the last to open", err=True)


@command()
@click.argument("limit")
@for_option
@reason_option
@operator_option
@json_option
def pause(
    app: Celery, limit: str, seconds: int | None, reason: str, operator: str, as_json: bool
) -> None:
    """Let LIMIT admit no task: global, platform:douyin. Running tasks go on.

    With --for it cools down, as with the command cool, and opens by itself.
    """
    limiter = limiter_of(app)
    if seconds is not None:
        _cool(limiter, limit, seconds, reason, operator, as_json)
    elif reason:
        raise mistake("--reason goes with --for")
    else:
        stored = limiter.config.pause(limit, Author("cli", operator))
        _print_paused(stored, as_json)
        if not stored.is_new:
            echo(f"nothing changed: {limit} was paused before", err=True)


@command()
@click.argument("limit")
@operator_option
@json_option
def resume(app: Celery, limit: str, operator: str, as_json: bool) -> None:
    """Let LIMIT, which is paused or cools down, admit tasks again.

    A cool-down after a platform's refusal stays: cool LIMIT --off lifts it.
    """
    limiter = limiter_of(app)
    cooling = None if limit_problem(limit) else limiter.cooldowns.find(limit)
    refused = cooling is not None and cooling.refused
    lifted = cooling is not None and not refused and limiter.cooldowns.lift(limit)
    try:
        stored = limiter.config.resume(limit, Author("cli", operator))
    except InvalidConfig:  # it is not paused
        if refused:
            raise refusal(f"{limit} is not paused. {_REFUSED.format(limit=limit)}") from None
        if not lifted:
            raise
        stored = limiter.config.sync()
    _print_paused(stored, as_json)
    if refused:
        echo(f"{limit} still waits. {_REFUSED.format(limit=limit)}", err=True)


_REFUSED: Final = "A platform refused it: 'cool {limit} --off' lifts the cool-down"


def _cool(
    limiter: Limiter, limit: str, seconds: int, reason: str, operator: str, as_json: bool
) -> None:
    doubts = limiter.cooldowns.check(limit)
    until = limiter.cooldowns.set(limit, seconds, reason, operator)
    # A short one may be over by now, or lifted.
    stands = limiter.cooldowns.find(limit) or Cooldown(limit, until, 0.0, None, reason, operator)
    if as_json:
        print_json(asdict(stands))
    else:
        why = f": {stands.reason}" if stands.reason else ""
        left = duration(stands.seconds)
        echo(f"{limit} admits nobody until {local_time(stands.until)} ({left}){why}")
    print_doubts(doubts)


def _print_paused(stored: Stored, as_json: bool) -> None:
    paused = stored.config.paused
    if as_json:
        print_json(paused)
    else:
        echo(f"paused now: {', '.join(paused)}" if paused else "nothing is paused now")
    print_doubts(stored.doubts)
