"""What a user would take instead: each as its own documentation shows it, on one key.

They count in one limit where we count in four, and none of them keeps statistics.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from celery_singleton.backends.redis import RedisBackend as SingletonBackend
from dramatiq.rate_limits import ConcurrentRateLimiter
from dramatiq.rate_limits.backends import RedisBackend as DramatiqBackend
from redis import Redis
from redis_semaphore import Semaphore

#: Takes and gives back once.
Pair = Callable[[], None]


def peers(redis: Redis, url: str) -> dict[str, Pair]:
    """Return each peer's pair by the peer's name.

    Args:
        redis: the client that they use.
        url: of the same server, for the one that takes no client.
    """
    return {
        "SET NX PX + DEL": _plain(redis),
        "redis-py Lock": _lock(redis),
        "dramatiq ConcurrentRateLimiter": _dramatiq(redis),
        "Redis-Semaphore": _semaphore(redis),
        "celery-singleton": _singleton(url),
    }


def _plain(redis: Redis) -> Pair:
    def pair() -> None:
        assert redis.set("peer:plain", uuid.uuid4().hex, nx=True, px=60_000)
        redis.delete("peer:plain")

    return pair


def _lock(redis: Redis) -> Pair:
    lock = redis.lock("peer:lock", timeout=60)

    def pair() -> None:
        assert lock.acquire(blocking=False)
        lock.release()

    return pair


def _dramatiq(redis: Redis) -> Pair:
    mutex = ConcurrentRateLimiter(DramatiqBackend(client=redis), "peer:dramatiq", limit=8)

    def pair() -> None:
        with mutex.acquire():
            pass

    return pair


def _semaphore(redis: Redis) -> Pair:
    semaphore = Semaphore(redis, count=8, namespace="peer:semaphore", blocking=False)

    def pair() -> None:
        semaphore.acquire()
        semaphore.release()

    return pair


def _singleton(url: str) -> Pair:
    backend = SingletonBackend(url)

    def pair() -> None:
        assert backend.lock("peer:singleton", uuid.uuid4().hex, expiry=60)
        backend.unlock("peer:singleton")

    return pair
