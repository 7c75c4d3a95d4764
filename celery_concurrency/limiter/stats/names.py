"""Names: which limits have statistics of their own, by name.

The scripts decide (``scripts/lib/named.lua``): there is room for ``NAMED_MOST``, and twice as
many with those that the configuration names. The rest of a dimension is counted together, as
``limits.other_of``. ``counters.py`` and ``durations.py`` read what was counted.
"""

from typing import Any

from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.scripts.constants import NAMED_MOST


def read_names(keyspace: Keyspace) -> list[str]:
    """Return the limits that are counted by name, those that were used last first."""
    names: Any = keyspace.redis.zrevrange(keyspace.keys.named, 0, 2 * NAMED_MOST - 1)
    return [name.decode() for name in names]


def are_full(keyspace: Keyspace) -> bool:
    """Return whether a limit that the configuration does not name has no room any more."""
    count: Any = keyspace.redis.zcard(keyspace.keys.named)
    return bool(count >= NAMED_MOST)
