"""The commands ``tokens``, which lists the holders, and ``release``, which releases a token.

``limiter/inspect/holders.py`` reads them.
"""

from collections.abc import Iterable, Iterator

import click
from celery import Celery

from celery_concurrency.cli.command import command, json_option, limit_option, operator_option
from celery_concurrency.cli.output import echo, local_time, print_json, print_table, refusal
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.actions import note_action
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.inspect.holders import MAX_COUNT, Holder, find_token, read_tokens
from celery_concurrency.limiter.inspect.short_ids import whole_token
from celery_concurrency.worker.apps import limiter_of


@command()
@limit_option("Only those that hold this limit: platform:douyin.")
@click.option("--worker", default="", help="Only those of this worker (see workers).")
@json_option
def tokens(app: Celery, limit: str, worker: str, as_json: bool) -> None:
    """Show which runs hold tokens, the oldest first."""
    holders = list(_all_holders(limiter_of(app), limit, worker))
    if as_json:
        print_json([holder.model_dump() for holder in holders])
        return
    print_table(
        ("token", "task", "limits", "worker", "since", "expires"),
        (
            (
                one.token,
                held_as(one),
                limits_and_places(one.limits, one.weight),
                one.worker or "-",
                local_time(one.since),
                local_time(one.expires),
            )
            for one in holders
        ),
    )


@command()
@click.argument("token", metavar="ID")
@operator_option
def release(app: Celery, token: str, operator: str) -> None:
    """Release the token ID (see tokens); its run goes on without it.

    The first characters of an ID, or of a task's ID, are enough: at least four, if no other name
    begins with them.
    """
    limiter, by = limiter_of(app), Author("cli", operator)
    token = whole_token(limiter.keyspace, token)
    holder = find_token(limiter.keyspace, token)
    if holder is None or not limiter.release(token):
        raise refusal(f"nobody holds {token} (any more); the command tokens lists held tokens")
    note_action(limiter.keyspace, by, "released", token)
    echo(f"released {token}: {' '.join(holder.limits)}")


def limits_and_places(limits: Iterable[str], weight: int) -> str:
    """Return a run's limits, and how many places it takes if that is more than one."""
    return " ".join(limits) + (f" ({weight} places)" if weight > 1 else "")


def held_as(one: Holder) -> str:
    """Return the task that a token's holder runs, or else what the token is for."""
    if one.task:
        return one.task
    if one.kept:
        return "room kept for it"
    if one.reserved:
        return "reserved for it"
    return "-" if one.since else "no record of it"


def _all_holders(limiter: Limiter, limit: str, worker: str) -> Iterator[Holder]:
    cursor: str | None = ""
    listed: set[str] = set()
    while cursor is not None:
        page = read_tokens(limiter.keyspace, limit, MAX_COUNT, cursor, worker=worker)
        # A token that was renewed in between comes again.
        new = [holder for holder in page.tokens if holder.token not in listed]
        listed.update(holder.token for holder in new)
        yield from new
        cursor = page.next
