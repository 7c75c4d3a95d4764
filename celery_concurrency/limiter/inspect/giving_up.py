"""When waiters will be given up: the bounds on waiting for their limits.

``waiting.py`` and ``explanation.py`` show it; ``scripts/sweep.lua`` gives them up.
"""

from collections.abc import Sequence

from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.inspect.waiter_records import Record
from celery_concurrency.limiter.keyspace import Keyspace


def read_moments_to_give_up(
    keyspace: Keyspace, config: Config, records: Sequence[Record]
) -> dict[str, float]:
    """Return when each of these waiters is given up, in Unix seconds of the Redis server.

    It costs a command for each of their limits that has such a bound.

    Returns:
        by the waiter's name; those that may wait for ever are left out.
    """
    bounded = [
        (one, limit, seconds)
        for one in records if config.waiting
        for limit in one.limits if (seconds := config.bounds_of(limit).seconds)
    ]  # fmt: skip
    moments: dict[str, float] = {}
    for (one, _, seconds), asked in keyspace.for_each(
        bounded, lambda pipe, entry: pipe.zscore(keyspace.keys.waiting(entry[1]), entry[0].name)
    ):
        # Unknown until the walk after a change of the bounds has come to it.
        moment = (asked or one.since) + seconds
        moments[one.name] = min(moment, moments.get(one.name, moment))
    return moments
