"""How ``waiting ID`` says why a task waits, in plain words.

``limiter/inspect/explanation.py`` finds it out.
"""

import time
from collections.abc import Iterator

from celery_concurrency.cli.output import (
    allowed,
    duration,
    echo,
    local_time,
    print_json,
    print_limits,
    refusal,
)
from celery_concurrency.cli.tokens import held_as
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.inspect.blocking import Blocked
from celery_concurrency.limiter.inspect.explanation import (
    HOLDERS,
    Explanation,
    LimitOfWaiter,
    explain,
    find_runs,
)
from celery_concurrency.limiter.inspect.holders import Holder
from celery_concurrency.limiter.inspect.short_ids import whole_id


def show_explanation(limiter: Limiter, task_id: str, as_json: bool) -> None:
    """Print why a task waits.

    Raises:
        ClickException: it does not wait; the message says what it does instead.
        AmbiguousId: several ids begin with this short id.
    """
    task_id = whole_id(limiter.keyspace, task_id)
    found = explain(limiter.keyspace, limiter.config.sync().config, task_id)
    if found is None:
        raise refusal(_why_not(limiter, task_id))
    if as_json:
        print_json(found.to_dict())
        return
    echo(_sentence(found))
    print_limits(
        ("limit", "current", "max", ""),
        (((one.limit, one.current, allowed(one), _state(one)), one) for one in found.limits),
    )
    for limit in found.limits:
        for line in _holders(limit):
            echo(f"{limit.limit} is held by {line}")
        if limit.probe:
            echo(f"{limit.limit} is tried by {_line(limit.probe)}")


def reason_of(blocked: Blocked) -> str:
    """Return why a task waits, in words."""
    counts = f"{blocked.current} of {blocked.max}"
    if blocked.takes:
        counts += f", it takes {blocked.takes}"
    still = f"; none has begun there for {duration(_ago(blocked.since))}" if blocked.since else ""
    return {
        "full": f"{blocked.limit} is full ({counts}{still})",
        "paused": f"{blocked.limit} is paused",
        "kept": f"{blocked.limit} is kept for one that was passed over for long ({counts})",
        "rate": blocked.text,
        "cooling": blocked.text,
        "probe": blocked.text,
        "behind": "others with the same limits come first",
        "next": "it comes next",
    }[blocked.reason]


def _reason_and_author(blocked: Blocked) -> str:
    """Return a reason with who paused the limit or let it cool down, and when."""
    reason = reason_of(blocked)
    if blocked.reason not in ("paused", "cooling") or blocked.since is None:
        return reason
    source = f" ({blocked.source})" if blocked.source else ""
    return f"{reason} since {local_time(blocked.since)} by {blocked.by or 'somebody'}{source}"


def _ago(moment: float) -> float:
    return time.time() - moment


def _state(limit: LimitOfWaiter) -> str:
    if not limit.full or limit.paused:
        return ""  # the maximum shows that it is paused
    return "full" if limit.has_no_place else "shut"


def _holders(limit: LimitOfWaiter) -> Iterator[str]:
    """Return who holds a full limit, one line each."""
    for one in limit.holders:
        yield _line(one)
    more = limit.current - limit.kept - len(limit.holders)
    if len(limit.holders) == HOLDERS and more > 0:
        yield f"{more} more; tokens --limit {limit.limit} lists them"
    if limit.kept:
        yield "the room that is kept for one that was passed over for long"


def _line(one: Holder) -> str:
    places = f" ({one.weight} places)" if one.weight > 1 else ""
    return f"{one.token}: {held_as(one)}{places}{_where_and_since(one)}"


def _sentence(found: Explanation) -> str:
    name = f"{found.task_id} ({found.task})" if found.task else found.task_id
    if found.blocked_by is None:
        return (
            f"{name} was handed room and is back in its queue: it begins when a worker takes it, "
            f"by {local_time(found.reserved_until)}"
        )
    reasons = "; ".join(map(_reason_and_author, found.blockers or [found.blocked_by]))
    return (
        f"{name} waits since {local_time(found.since)} "
        f"({duration(_ago(found.since))}): {reasons}; "
        f"it is number {found.position} of those with the same limits{_end(found)}"
    )


def _end(found: Explanation) -> str:
    if found.given_up_at is None:
        return ""
    return f", and is given up at {local_time(found.given_up_at)}"


def _why_not(limiter: Limiter, task_id: str) -> str:
    """Return what a task that does not wait is doing."""
    for run in find_runs(limiter.keyspace, task_id):
        return f"{task_id} does not wait: it runs{_where_and_since(run)}, as {run.token}"
    return (
        f"{task_id} does not wait here: it is done, in its queue, or asks again by countdown "
        "(concurrency_waiting retry)"
    )


def _where_and_since(one: Holder) -> str:
    on = f" on {one.worker}" if one.worker else ""
    return f"{on} since {local_time(one.since)}" if one.since else on
