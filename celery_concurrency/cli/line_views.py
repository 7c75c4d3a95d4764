"""The lines that ``monitor`` prints into a pipe or a log: text, or JSON.

In a terminal, ``live_view.py`` draws instead.
"""

from typing import Any, Final

from celery_concurrency.cli.explain import reason_of
from celery_concurrency.cli.output import echo, print_json, print_problem
from celery_concurrency.cli.snapshot import Snapshot, busiest
from celery_concurrency.limiter.inspect.holders import Holder
from celery_concurrency.limiter.inspect.usage import LimitUsage

#: How many holders, waiters and limits a line names: thousands of accounts may be in use.
NAMED: Final = 3
LIMITS_NAMED: Final = 12


class LineView:
    """Prints a line of text for each snapshot."""

    def show(self, snapshot: Snapshot, title: str = "") -> None:
        """Print the line; a title stands in place of the time."""
        busy = [limit for limit in snapshot.usage.limits() if _is_busy(*limit)]
        limits = [_amount(*limit) for limit in busiest(busy, LIMITS_NAMED)]
        parts = [_some(limits, len(busy))]
        if snapshot.held:
            holders = [_holder(one) for one in snapshot.holders[:NAMED]]
            parts.append(f"{snapshot.held} hold: {_some(holders, snapshot.held)}")
        waiting = snapshot.usage.global_.waiting
        if snapshot.waiting:
            waiters = [
                f"{one.task_id} as {reason_of(one.blocked_by)}" for one in snapshot.waiting[:NAMED]
            ]
            parts.append(f"{waiting} wait: {_some(waiters, waiting)}")
        start = f"{title} | " if title else f"{snapshot.at:%H:%M:%S}  "
        echo(start + " | ".join(parts))
        print_problem(snapshot.usage.config_problem)

    def fail(self, problem: str) -> None:
        """Print a problem on stderr."""
        echo(problem, err=True)


class JsonView(LineView):
    """Prints a JSON object for each snapshot."""

    def show(self, snapshot: Snapshot, title: str = "") -> None:
        """Print the object in one line."""
        data: dict[str, Any] = {
            "at": snapshot.at.timestamp(),
            "usage": snapshot.usage.to_dict(),
            "tokens": [one.model_dump() for one in snapshot.holders],
            "waiting": [one.to_dict() for one in snapshot.waiting],
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
