"""The lines that ``monitor.py`` prints into a pipe; in a terminal ``live_view.py`` draws."""

from __future__ import annotations

from typing import Any, Final

import click

from celery_concurrency.cli.explain import reason_of
from celery_concurrency.cli.output import print_json, print_problem, printable
from celery_concurrency.cli.snapshot import Snapshot, busiest
from celery_concurrency.limiter.inspect.holders import Holder
from celery_concurrency.limiter.inspect.usage import LimitUsage

#: How many of those who hold and of those who wait a line names, and how many limits: of
#: accounts in use there may be thousands.
NAMED: Final = 3
LIMITS_NAMED: Final = 12


class LineView:
    """A line a moment, for a pipe or a log."""

    def show(self, moment: Snapshot) -> None:
        """Print a line."""
        busy = [limit for limit in moment.usage.limits() if _is_busy(*limit)]
        limits = [_amount(*limit) for limit in busiest(busy, LIMITS_NAMED)]
        parts = [_some(limits, len(busy))]
        if moment.held:
            holders = [_holder(one) for one in moment.holders[:NAMED]]
            parts.append(f"{moment.held} hold: {_some(holders, moment.held)}")
        waiting = moment.usage.global_.waiting
        if moment.waiting:
            waiters = [
                f"{one.task_id} as {reason_of(one.blocked_by)}" for one in moment.waiting[:NAMED]
            ]
            parts.append(f"{waiting} wait: {_some(waiters, waiting)}")
        click.echo(printable(f"{moment.at:%H:%M:%S}  {' | '.join(parts)}"))
        print_problem(moment.usage.config_problem)

    def fail(self, problem: str) -> None:
        """Print it, among the errors."""
        click.echo(printable(problem), err=True)


class JsonView(LineView):
    """A JSON object a line, for programs."""

    def show(self, moment: Snapshot) -> None:
        """Print a line."""
        data: dict[str, Any] = {
            "at": moment.at.timestamp(),
            "usage": moment.usage.to_dict(),
            "tokens": [one.model_dump() for one in moment.holders],
            "waiting": [one.to_dict() for one in moment.waiting],
        }
        print_json(data)


def _is_busy(name: str, limit: LimitUsage) -> bool:
    return name == "global" or bool(limit.current or limit.waiting or limit.max or limit.paused)


def _amount(name: str, limit: LimitUsage) -> str:
    waiting = f" +{limit.waiting} waiting" if limit.waiting else ""
    paused = " paused" if limit.paused else ""
    return f"{name} {limit.current}/{limit.max or 'unlimited'}{paused}{waiting}"


def _holder(one: Holder) -> str:
    return f"{one.task_id} ({'reserved' if one.reserved else one.worker or '-'})"


def _some(shown: list[str], total: int) -> str:
    more = total - len(shown)
    return ", ".join([*shown, f"{more} more"] if more > 0 else shown)
