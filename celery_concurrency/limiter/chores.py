"""Chores: what one worker of all has to do about once a second, and whether any is due.

Each worker looks, by one cheap request, and whoever sees that one is due does it: a thousand
workers that each call the scripts for that only to hear that another has done it would keep Redis
busy. Two may see it at once, and do it twice: the second finds nothing left to do.

``worker/housekeeping.py`` does them.
"""

from typing import Final, NamedTuple

from celery_concurrency.limiter.keyspace import Keyspace, unix_seconds

#: Seconds before its time at which a sweep counts as due: its own call comes a little later than
#: this look, and would find it due.
SOON: Final = 0.02


class Chores(NamedTuple):
    """Which chores are due.

    Attributes:
        sweep: what no task's own call does (``waiting_room.py``), and the statistics' history.
        tally: to count runs that have ended (``stats/durations.py``).
        moves: to log moves of adaptive limits (``adaptive.py``).
    """

    sweep: bool
    tally: bool
    moves: bool


def look_for_chores(keyspace: Keyspace) -> Chores:
    """Return which chores are due.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    keys, pipe = keyspace.keys, keyspace.pipeline()
    pipe.get(keys.sweep_next)
    pipe.time()
    pipe.exists(keys.ended)
    pipe.exists(keys.adaptive_unlogged)
    due, time, ended, moved = pipe.execute()
    is_due = due is None or unix_seconds(time) >= float(due) - SOON
    return Chores(sweep=is_due, tally=bool(ended), moves=bool(moved))
