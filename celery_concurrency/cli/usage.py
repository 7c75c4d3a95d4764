"""The commands ``usage`` and ``stats``.

``monitor.py`` shows usage again and again; ``tokens.py`` and ``waiting.py`` list single tasks.
"""

from collections.abc import Iterator
from typing import Final

import click
from celery import Celery

from celery_concurrency.cli.command import command, json_option
from celery_concurrency.cli.observed import print_observed
from celery_concurrency.cli.output import (
    allowed,
    echo,
    local_time,
    mistake,
    oldest,
    print_json,
    print_limits,
    print_notes,
    print_table,
    waiters,
)
from celery_concurrency.limiter.config.history import read_pauses
from celery_concurrency.limiter.inspect.usage import Usage
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import GLOBAL
from celery_concurrency.limiter.stats.counters import DEFAULT_WINDOW, WINDOWS
from celery_concurrency.limiter.stats.history import (
    DEFAULT_RESOLUTION,
    RESOLUTIONS,
    Point,
    read_stats_history,
)
from celery_concurrency.worker.apps import limiter_of


@command()
@json_option
def usage(app: Celery, as_json: bool) -> None:
    """Show how many tasks run and wait in each limit, and its rates."""
    limiter = limiter_of(app)
    found = limiter.usage()
    if as_json:
        print_json(found.to_dict())
    else:
        print_limits(
            ("limit", "current", "max", "waiting", "oldest wait"),
            (
                ((name, limit.current, allowed(limit), waiters(limit), oldest(limit)), limit)
                for name, limit in found.limits()
            ),
        )
        if found.observed:
            echo("")
            print_observed(found.observed)
        print_notes(_pauses(limiter.keyspace, found))
    print_notes(found.notes())


def _pauses(keyspace: Keyspace, found: Usage) -> Iterator[str]:
    """Return who paused which limits, and when, as far as the history goes back."""
    paused = [name for name, limit in found.limits() if limit.paused]
    for limit, pause in read_pauses(keyspace, paused).items():
        who = pause.operator or "somebody"
        yield f"{limit} is paused since {local_time(pause.at)} by {who} ({pause.source})"


@command()
@click.option(
    "--window",
    type=click.Choice(list(WINDOWS)),
    default=DEFAULT_WINDOW,
    show_default=True,
    help="How far to look back.",
)
@click.option("--history", is_flag=True, help="Show each interval.")
@click.option(
    "--resolution",
    type=click.Choice(list(RESOLUTIONS)),
    default=DEFAULT_RESOLUTION,
    show_default=True,
    help="Length of the history's intervals; wait and hold times are kept for each 5m.",
)
@json_option
def stats(app: Celery, window: str, history: bool, resolution: str, as_json: bool) -> None:
    """Show how often tokens were acquired and released."""
    limiter = limiter_of(app)
    if history:
        if WINDOWS[window] is None:
            raise mistake("--history needs a window: 1h, 6h or 24h")
        found = read_stats_history(limiter.keyspace, resolution, window)
        if as_json:
            print_json(found.model_dump())
        else:
            print_table(_HISTORY_HEAD, map(_history_row, found.points))
        return
    counters = limiter.stats.window(window)
    if as_json:
        print_json(counters)
    else:
        print_table(("counter", window), sorted(counters.items()))


_HISTORY_HEAD: Final = (
    *("from", "acquired", "released", "denied"),
    *("wait p50", "p95", "p99", "hold p50", "p95", "p99"),
)


def _history_row(point: Point) -> tuple[str, ...]:
    """Return the cells of an interval, counted over all runs."""
    cells = [local_time(point.at)]
    cells += [str(point.counters.get(f"{what}:total", 0)) for what in _HISTORY_HEAD[1:4]]
    for by_limit in (point.wait, point.hold):
        times = by_limit.get(GLOBAL)
        cells += map(_seconds, (times.p50, times.p95, times.p99)) if times else 3 * ["-"]
    return tuple(cells)


def _seconds(seconds: float) -> str:
    # The second form for 1640 s, where the first would say 1.64e+03.
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"
