"""Health: how fast Redis answers, by which configuration, and when a worker swept last.

``usage.py`` shows which limits are full.
"""

import time

from pydantic import BaseModel

from celery_concurrency.errors import LimiterUnavailable, OutOfMemory
from celery_concurrency.limiter.keyspace import Keyspace, unix_seconds
from celery_concurrency.limiter.waiting_room import SWEEP_PERIOD


class Health(BaseModel):
    """What is there while all is well.

    Attributes:
        config_version: of the configuration; 0 before there is any.
        ping_ms: how long Redis took to answer, in milliseconds.
    """

    config_version: int
    ping_ms: float


def read_health(keyspace: Keyspace) -> Health:
    """Ask Redis, and change nothing.

    Raises:
        OutOfMemory: it answers, and admits nobody: what only reads or frees goes on.
        LimiterUnavailable: it does not answer, or takes no writes at all.
    """
    keyspace.redis.ping()  # a connection may have to be made first
    begun = time.perf_counter()
    keyspace.redis.ping()
    seconds = time.perf_counter() - begun
    version = keyspace.redis.get(keyspace.keys.config_version)
    keyspace.check_memory()
    return Health(config_version=int(version or 0), ping_ms=round(seconds * 1000, 3))


def is_out_of_memory(keyspace: Keyspace) -> bool:
    """Return whether Redis has no memory for more tokens and waiters."""
    try:
        keyspace.check_memory()
    except OutOfMemory:
        return True
    except LimiterUnavailable:
        pass  # it takes no writes for another reason: a replica, or a disk that is full
    return False


def read_sweep_age(keyspace: Keyspace) -> float | None:
    """Return how many seconds ago a worker swept last; None where none ever did."""
    pipe = keyspace.pipeline()
    pipe.get(keyspace.keys.sweep_next)
    pipe.time()
    due, now = pipe.execute()
    return None if due is None else max(0.0, unix_seconds(now) - float(due) + SWEEP_PERIOD)
