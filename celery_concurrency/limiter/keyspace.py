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
from celery_concurrency.limiter.cluster import ClusterClient
from celery_concurrency.limiter.keys import Keys
from celery_concurrency.limiter.steps import Blocking, Commands, Pop, Script, Steps, run

T = TypeVar("T")

#: Commands sent in one round trip; Redis serves other clients between two.
BATCH: Final = 500


class Keyspace:
    """Where the limiter's keys are.

    Args:
        redis: a client made by ``connection.connect``.
        prefix: begins the name of every key; in a Redis Cluster it gets a hash tag.

    Raises:
        ImproperlyConfigured: see ``ClusterClient.use``.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.is_in_cluster = isinstance(redis, ClusterClient)
        self.prefix = redis.use(prefix) if isinstance(redis, ClusterClient) else prefix
        self.keys = Keys(self.prefix)

    @property
    def database(self) -> int:
        """The number of the Redis database that the keys are in."""
        return int(self.redis.get_connection_kwargs().get("db") or 0)

    def call(self, verb: str, *args: str | int | bytes) -> scripts.Answer:
        """Call a script (``scripts.call``)."""
        return scripts.call(self.redis, verb, self.prefix, *args)

    def run(self, steps: Steps[T]) -> T:
        """Take steps (``steps.py``), each as soon as Redis has answered the one before."""
        return run(steps, self._answer)

    def _answer(self, request: object) -> Any:
        if type(request) is Script:  # nearly all are, and a match takes longer
            return self.call(request.verb, *request.args)
        match request:
            case Commands(commands):
                pipe = self.pipeline()
                for command in commands:
                    # redis-py has no types here.
                    pipe.execute_command(*command)  # type: ignore[no-untyped-call]
                return pipe.execute()
            case Pop(key, seconds):
                return self.redis.blpop([key], timeout=seconds)
            case Blocking(work):
                return work()
        raise TypeError(f"{request} is only answered in an event loop")

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
        return self.run(self.telling_time())

    def telling_time(self) -> Steps[float]:
        """Return the steps of ``now``."""
        # TIME names no key: in a cluster, a node that has ours no more would answer it, too.
        _, time = yield Commands((("EXISTS", self.prefix), ("TIME",)))
        return unix_seconds(time)


def unix_seconds(time: tuple[int, int]) -> float:
    """Return the reply of ``TIME``, seconds and microseconds, as seconds."""
    return time[0] + time[1] / 1e6


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Return the items in lists of ``BATCH``."""
    left = iter(items)
    while batch := list(islice(left, BATCH)):
        yield batch
