"""The commands of ``adaptive``: show adaptive limits, and put one back to its maximum.

``limiter/adaptive.py`` explains them; ``config set`` sets their ranges.
"""

from typing import Any

import click
from celery import Celery
from pydantic import TypeAdapter

from celery_concurrency.cli.command import command, json_option, operator_option
from celery_concurrency.cli.output import (
    echo,
    local_time,
    mistake,
    print_json,
    print_table,
    refusal,
)
from celery_concurrency.limiter.adaptive import AdaptiveLimit, Move
from celery_concurrency.limiter.limits import WILDCARD, limit_problem, split_limit
from celery_concurrency.worker.apps import limiter_of


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def adaptive(ctx: click.Context, as_json: bool) -> None:
    """Show adaptive limits: value in force, when and why it moved."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(show_adaptive, as_json=as_json)
    elif as_json:
        raise mistake(f"write --json after {ctx.invoked_subcommand}")


@command()
@json_option
def show_adaptive(app: Celery, as_json: bool) -> None:
    """Show the adaptive limits, like adaptive without a command."""
    limiter = limiter_of(app)
    found, total = limiter.adaptive.read()
    if as_json:
        print_json([_as_json(one) for one in found])
        return
    moves = limiter.adaptive.last_moves([one.limit for one in found])
    print_table(
        ("limit", "in force", "range", "moved", "why"),
        (
            (
                one.limit,
                in_force(one),
                f"{one.entry.min}..{one.entry.max}",
                local_time(one.moved),
                _why(moves.get(one.limit)),
            )
            for one in found
        ),
    )
    if total > len(found):
        echo(f"{total} are adaptive in all; these are the last that moved", err=True)


@command("reset")
@click.argument("limit")
@operator_option
@json_option
def reset_adaptive(app: Celery, limit: str, operator: str, as_json: bool) -> None:
    """Put LIMIT back to its maximum at once: platform:douyin."""
    limiter = limiter_of(app)
    if split_limit(limit)[1] == WILDCARD:
        raise refusal(f"{limit} is a wildcard: name one limit; adaptive lists those that moved")
    if problem := limit_problem(limit):
        raise refusal(problem)
    if limiter.adaptive.find(limit) is None:
        raise refusal(f"{limit} is not adaptive: 'config set adaptive.{limit}=1-10' makes it so")
    moved = limiter.adaptive.reset(limit, operator)
    stands = limiter.adaptive.find(limit)
    if stands is None:  # its entry was taken out meanwhile
        raise refusal(f"{limit} is not adaptive any more")
    if as_json:
        print_json(_as_json(stands))
    else:
        how = f"is back at {stands.current}" if moved else f"was already at {stands.current}"
        echo(f"{limit} {how}; in force: {in_force(stands)}")


adaptive.add_command(reset_adaptive)


def in_force(one: AdaptiveLimit) -> str:
    """Return the limit in force, and where it comes from if it is not the adaptive one."""
    if one.in_force < 0:
        return "paused"
    if one.entry.mode == "observe":
        return f"{one.in_force or 'unlimited'} (it would be {one.current})"
    return f"{one.in_force}" if one.in_force == one.current else f"{one.in_force} (configured)"


def _as_json(one: AdaptiveLimit) -> Any:
    return TypeAdapter(AdaptiveLimit).dump_python(one)


def _why(move: Move | None) -> str:
    # Moves are kept for a day, and for a week when the last one was.
    return f"{move.before} -> {move.after}: {move.why}" if move else "-"
