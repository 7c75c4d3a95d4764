"""Health: whether Redis answers, how fast, by which configuration, and when a worker swept last.

Which limits are full is in ``usage.py``.
"""

from __future__ import annotations

import time

from pydantic import BaseModel
from redis import Redis

from celery_concurrency.limiter.connection import asking
from celery_concurrency.limiter.waiting_room import SWEEP_PERIOD


class Health(BaseModel):
    """What is there while all is well.

    Attributes:
        config_version: that of the configuration; 0 before there is any.
        ping_ms: how long Redis took to answer, in milliseconds.
    """

    config_version: int
    ping_ms: float


def read_health(redis: Redis, prefix: str) -> Health:
    """Ask Redis, and change nothing.

    Raises:
        LimiterUnavailable: it does not answer, or can't answer now.
    """
    with asking():
        redis.ping()  # a connection may have to be made first
        begun = time.perf_counter()
        redis.ping()
        seconds = time.perf_counter() - begun
        version = redis.get(f"{prefix}:config:version")
    return Health(config_version=int(version or 0), ping_ms=round(seconds * 1000, 3))


def read_sweep_age(redis: Redis, prefix: str) -> float | None:
    """Return how many seconds ago a worker swept last; None where none ever did.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    with asking():
        pipe = redis.pipeline(transaction=False)
        pipe.get(f"{prefix}:sweep:next")
        pipe.time()
        due, (seconds, micros) = pipe.execute()
    if due is None:
        return None
    return float(max(0.0, seconds + micros / 1e6 - (float(due) - SWEEP_PERIOD)))
