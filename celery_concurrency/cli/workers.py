"""The command ``workers``: who is alive, and what each holds.

They are read in ``limiter/inspect/workers.py``; ``tokens --worker`` lists what one of them holds.
"""

import time

from celery import Celery

from celery_concurrency.cli.command import command, json_option
from celery_concurrency.cli.output import duration, print_folded, print_json, print_notes
from celery_concurrency.limiter.inspect.workers import Worker, read_workers
from celery_concurrency.worker.apps import limiter_of


@command()
@json_option
def workers(app: Celery, as_json: bool) -> None:
    """Show who is alive, and what each holds; silent ones first.

    Programs that hold tokens outside of tasks are there too, as process@host.
    """
    found = read_workers(limiter_of(app).keyspace)
    if as_json:
        print_json(found.model_dump())
    else:
        print_folded(
            ("worker", "state", "up", "mode", "version", "pool", "tokens"),
            (
                (
                    one.name,
                    _state(one),
                    duration(time.time() - one.since) if one.since else "-",
                    one.mode or "-",
                    one.version or "-",
                    f"{one.pool} {one.concurrency}" if one.pool else "-",
                    one.tokens,
                )
                for one in found.workers
            ),
        )
    print_notes(found.notes())


def _state(one: Worker) -> str:
    if one.alive is None:
        return one.kind if one.kind == "program" else "unknown"
    return "alive" if one.alive else f"silent {duration(one.silent or 0)}"
