"""What there is to see at a moment: what ``monitor.py`` looks at, again and again.

How it is shown is in ``line_views.py`` and ``live_view.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from heapq import nlargest
from typing import Final

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.inspect.holders import Holder, read_tokens
from celery_concurrency.limiter.inspect.usage import LimitUsage, Usage
from celery_concurrency.limiter.inspect.waiting import Waiting, read_waiting

#: Of those who hold and of those who wait, how many are read.
SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is to see at a moment.

    Attributes:
        at: when, by the clock here.
        usage: of the limits.
        holders: some of those who hold tokens, the soonest to expire first.
        held: how many hold any.
        waiting: the first of those who wait.
    """

    at: datetime
    usage: Usage
    holders: list[Holder]
    held: int
    waiting: list[Waiting]

    @classmethod
    def of(cls, limiter: Limiter) -> Snapshot:
        """Look at a limiter.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        usage = limiter.usage()
        tokens = read_tokens(limiter.keyspace, count=SHOWN)
        # Behind place 0 are all, and they are counted already.
        page = read_waiting(limiter.keyspace, limiter.config.sync().config, count=SHOWN, cursor="0")
        return cls(datetime.now(), usage, tokens.tokens, tokens.total, page.waiting)


def busiest(limits: list[tuple[str, LimitUsage]], count: int) -> list[tuple[str, LimitUsage]]:
    """Return those that most wait for and run in, this many, in the order they come in."""
    places = range(len(limits))
    most = nlargest(count, places, lambda one: (limits[one][1].waiting, limits[one][1].current))
    return [limits[one] for one in sorted(most)]
