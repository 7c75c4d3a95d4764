"""Health: whether Redis answers, how fast, and which configuration is there."""

from __future__ import annotations

import time

from pydantic import BaseModel
from redis import Redis

from celery_concurrency.connection import asking


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
