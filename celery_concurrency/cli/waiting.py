"""The commands for the waiting room: ``waiting``, ``cancel``, ``drain``, ``purge``.

``explain.py`` says why one task waits.
"""

import sys

import click
from celery import Celery

from celery_concurrency.cli.command import command, json_option, limit_option, operator_option
from celery_concurrency.cli.explain import reason_of, show_explanation
from celery_concurrency.cli.output import (
    echo,
    local_time,
    mistake,
    print_json,
    print_table,
    refusal,
)
from celery_concurrency.cli.tokens import limits_and_places
from celery_concurrency.errors import AmbiguousId
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.actions import note_action
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.inspect.counts import count_waiting
from celery_concurrency.limiter.inspect.holders import DEFAULT_COUNT, MAX_COUNT
from celery_concurrency.limiter.inspect.short_ids import whole_id
from celery_concurrency.limiter.inspect.waiting import Waiting, read_waiting
from celery_concurrency.limiter.limits import GLOBAL
from celery_concurrency.worker.apps import limiter_of, settings_of


@command()
@click.argument("task_id", metavar="[ID]", default="")
@limit_option("Only those that count in this limit: platform:douyin.")
@click.option(
    "--count", type=click.IntRange(1), default=DEFAULT_COUNT, show_default=True,
    help="How many to show.",
)  # fmt: skip
@json_option
def waiting(app: Celery, task_id: str, limit: str, count: int, as_json: bool) -> None:
    """Show which tasks wait, in order; or why the task ID waits.

    The first characters of an ID are enough, at least four, if no other id begins with them.
    """
    if task_id and limit:
        raise mistake("give either an ID or --limit: with an ID, all of its limits are explained")
    limiter = limiter_of(app)
    if task_id:
        show_explanation(limiter, task_id, as_json)
        return
    total, waiters = _first(limiter, limit, count)
    if as_json:
        print_json({"waiting": [one.to_dict() for one in waiters], "total": total})
        return
    ends = any(one.given_up_at for one in waiters)
    print_table(
        ("task id", "task", "since", *(["given up at"] * ends), "position", "waits as", "limits"),
        (
            (
                one.task_id,
                one.task or "-",
                local_time(one.since),
                *([local_time(one.given_up_at)] * ends),
                one.position,
                reason_of(one.blocked_by),
                limits_and_places(one.limits, one.weight),
            )
            for one in waiters
        ),
    )
    if total > len(waiters):
        echo(f"{total} wait in all; --count shows more", err=True)


@command()
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@operator_option
def cancel(app: Celery, task_ids: tuple[str, ...], operator: str) -> None:
    """Cancel waiting tasks; workers discard them as revoked.

    The first characters of an ID are enough, at least four, if no other id begins with them.
    """
    limiter, by = limiter_of(app), Author("cli", operator)
    missing, problems = [], []
    for given in task_ids:
        try:
            task_id = whole_id(limiter.keyspace, given)
        except AmbiguousId as exc:
            problems.append(str(exc))
            continue
        if limiter.waiting_room.cancel(task_id):
            note_action(limiter.keyspace, by, "cancelled", task_id)
            echo(f"cancelled {task_id}")
        else:
            missing.append(given)
    if missing:
        none = f"not waiting (any more): {' '.join(missing)}; the command waiting lists who waits"
        problems.insert(0, none)
    if problems:
        raise refusal(". ".join(problems))


@command()
def drain(app: Celery) -> None:
    """Give all waiting tasks back to the broker.

    Workers that hand off (concurrency_waiting auto or handoff) would park them again, so first
    set it to "retry" and restart the workers.
    """
    limiter = limiter_of(app)
    mode = settings_of(app).waiting
    if mode != "retry":
        echo(
            f"warning: concurrency_waiting is {mode!r} here, and workers that hand off will park "
            "them again: set it to 'retry' and restart the workers first",
            err=True,
        )
    total, given = _total(limiter), 0
    with click.progressbar(length=total, label="giving back", file=sys.stderr) as bar:
        for count in limiter.waiting_room.drain():
            given += count
            bar.update(count)
            if given >= total:  # tasks that are parked again would never end
                break
    echo(f"{given} given back to the broker")
    left = _total(limiter)
    if left:
        echo(f"{left} wait again, or are new", err=True)


@command()
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def purge(app: Celery, yes: bool, as_json: bool) -> None:
    """Throw away all waiting tasks, as celery purge does with queues.

    They never run, and nobody is told: their state stays RETRY, and their chords never end. (To
    have them discarded as revoked, use cancel, or DELETE /waiting?limit=global.) A task that was
    handed room is back in its queue, where celery purge finds it: stop the senders, then call
    this first. Callers of limiter.acquire keep their place.
    """
    limiter = limiter_of(app)
    total, thrown = _total(limiter), 0
    if total and not yes:
        click.confirm(
            f"This throws away {total} waiting tasks for good, and nobody is told.\nAre you sure?",
            abort=True,
            err=True,
        )
    with click.progressbar(length=total, label="throwing away", file=sys.stderr) as bar:
        for taken, some in limiter.waiting_room.purge():
            thrown += some
            bar.update(taken)
    left = _total(limiter)
    if as_json:
        print_json({"purged": thrown, "waiting": left})
        return
    echo(f"{thrown} thrown away")
    if left:
        echo(f"{left} still wait, or are new", err=True)


def _total(limiter: Limiter) -> int:
    return count_waiting(limiter.keyspace)[GLOBAL]


def _first(limiter: Limiter, limit: str, count: int) -> tuple[int, list[Waiting]]:
    """Return how many tasks wait in all, and the first ``count`` of them."""
    config = limiter.config.sync().config
    cursor: str | None = ""
    total: int = 0
    waiters: list[Waiting] = []
    while cursor is not None and len(waiters) < count:
        some = min(count - len(waiters), MAX_COUNT)
        page = read_waiting(limiter.keyspace, config, limit, some, cursor)
        waiters += page.waiting
        total = page.total or total
        cursor = page.next
    return total, waiters
