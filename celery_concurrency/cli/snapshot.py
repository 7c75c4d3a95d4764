"""What ``monitor.py`` shows, read once: usage, who holds tokens, who waits."""

from dataclasses import dataclass
from datetime import datetime
from heapq import nlargest
from typing import Final, Self

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.inspect.holders import Holder, read_tokens
from celery_concurrency.limiter.inspect.usage import LimitUsage, Usage
from celery_concurrency.limiter.inspect.waiting import Waiting, read_waiting

#: How many holders and how many waiters are read.
SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a limiter did at a moment.

    Attributes:
        at: when, by the local clock.
        usage: of all limits.
        holders: the first holders, who has held for longest first.
        held: how many holders there are.
        waiting: the first waiters.
    """

    at: datetime
    usage: Usage
    holders: list[Holder]
    held: int
    waiting: list[Waiting]

    @classmethod
    def of(cls, limiter: Limiter) -> Self:
        """Read it from Redis."""
        usage = limiter.usage()
        tokens = read_tokens(limiter.keyspace, count=SHOWN)
        # All tickets come after 0; a first page, without cursor, would count all waiters again.
        page = read_waiting(limiter.keyspace, limiter.config.sync().config, count=SHOWN, cursor="0")
        return cls(datetime.now(), usage, tokens.tokens, tokens.total, page.waiting)


def busiest(limits: list[tuple[str, LimitUsage]], count: int) -> list[tuple[str, LimitUsage]]:
    """Return the limits with most waiters and then most tokens, in the order given."""
    indexes = range(len(limits))
    most = nlargest(count, indexes, lambda one: (limits[one][1].waiting, limits[one][1].current))
    return [limits[one] for one in sorted(most)]
