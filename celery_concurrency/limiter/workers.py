"""Workers: what each says of itself with its beats, so that people see who is alive.

``leases.py`` sends it, ``sweep.lua`` forgets those that are silent for too long,
``inspect/workers.py`` reads it.
"""

import json
from dataclasses import asdict, dataclass

from celery_concurrency.limiter.keyspace import Keyspace


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a worker says of itself.

    Attributes:
        name: its node name, as ``celery@host``.
        version: of this package.
        pool: the kind, as ``prefork``.
        concurrency: how many tasks it runs at once, at most.
        since: when it started, in Unix seconds of the Redis server; None before it knows.
        mode: how its denied tasks wait, ``handoff`` or ``retry``; None before it knows.
    """

    name: str
    version: str
    pool: str
    concurrency: int
    since: float | None = None
    mode: str | None = None

    def to_json(self) -> str:
        """Return it as it is stored; the name is in the key."""
        facts = asdict(self)
        del facts["name"]
        return json.dumps(facts)


def forget_worker(keyspace: Keyspace, name: str) -> None:
    """Take out a worker that ends in good order: it has not fallen silent."""
    pipe = keyspace.pipeline()
    pipe.zrem(keyspace.keys.workers, name)
    pipe.delete(keyspace.keys.worker(name))
    pipe.execute()
