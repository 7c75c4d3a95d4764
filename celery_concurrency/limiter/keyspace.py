"""A keyspace: one prefix on one Redis server. Everything that the limiter does goes through one.

Every function that asks Redis raises ``LimiterUnavailable`` if it can't. Most docstrings don't
repeat that.

``connection.py`` connects to Redis; ``keys.py`` has the names of the keys.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

from redis import Redis
from redis.client import Pipeline

from celery_concurrency import scripts
from celery_concurrency.limiter.keys import Keys

T = TypeVar("T")

#: Commands sent in one round trip; Redis serves other clients between two.
BATCH: Final = 500


class Keyspace:
    """Where the limiter's keys are.

    Args:
        redis: a client made by ``connection.connect``.
        prefix: begins the name of every key.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.prefix = prefix
        self.keys = Keys(prefix)

    @property
    def database(self) -> int:
        """The number of the Redis database that the keys are in."""
        return int(self.redis.get_connection_kwargs().get("db") or 0)

    def call(self, verb: str, *args: str | int | bytes) -> scripts.Answer:
        """Call a script (``scripts.call``)."""
        return scripts.call(self.redis, verb, self.prefix, *args)

    def pipeline(self) -> Pipeline:
        """Return a pipeline, which sends its commands in one round trip, not atomically.

        It is not a transaction: a Redis that is out of memory refuses transactions that only read.
        """
        return self.redis.pipeline(transaction=False)

    def for_each(
        self, items: Iterable[T], command: Callable[[Pipeline, T], object]
    ) -> Iterator[tuple[T, Any]]:
        """Send one command per item, in batches, and yield each item with its reply.

        Args:
            items: any number; read a batch at a time.
            command: adds an item's command to a pipeline.
        """
        for some in batches(items):
            pipe = self.pipeline()
            for item in some:
                command(pipe, item)
            yield from zip(some, pipe.execute(), strict=True)

    def check_memory(self) -> None:
        """Send a command that may take memory but changes nothing, to see if Redis accepts it.

        Raises:
            OutOfMemory: Redis refuses such commands now.
            LimiterUnavailable: Redis refuses all writes, or can't be asked.
        """
        self.redis.zadd(self.keys.leases, {"": 0}, xx=True)

    def now(self) -> float:
        """Return the server's time, in Unix seconds."""
        time: Any = self.redis.time()
        return unix_seconds(time)


def unix_seconds(time: tuple[int, int]) -> float:
    """Return the reply of ``TIME``, seconds and microseconds, as seconds."""
    return time[0] + time[1] / 1e6


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Return the items in lists of ``BATCH``."""
    left = iter(items)
    while batch := list(islice(left, BATCH)):
        yield batch
