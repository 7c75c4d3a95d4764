"""The last 24 hours of one adaptive limit: its moves, samples and refusals, for a plot.

How it stands now is in ``limiter/adaptive.py``, what was counted in ``limiter/stats/history.py``.
"""

from typing import Final

from pydantic import BaseModel, Field

from celery_concurrency.limiter.adaptive import AdaptiveLimit, AdaptiveLimits, Move, Sample
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import GLOBAL, split_limit
from celery_concurrency.limiter.stats.history import read_counts
from celery_concurrency.scripts.constants import SHARED_DIMENSIONS

#: Seconds of an interval in which refusals are counted, and of all of them.
RESOLUTION: Final = 300
WINDOW: Final = 86_400


class Refusals(BaseModel):
    """The refusals of an interval."""

    at: int = Field(description="When it begins, in Unix seconds of the Redis server.")
    count: int = Field(description="How many refusals runs told in it.")


class AdaptiveHistory(BaseModel):
    """The last 24 hours of an adaptive limit."""

    limit: AdaptiveLimit = Field(description="As it stands now.")
    moves: list[Move] = Field(description="The oldest first.")
    samples: list[Sample] = Field(description="About one a minute while a worker is alive.")
    resolution: int = Field(description="Seconds of an interval of refusals.")
    refusals: list[Refusals] | None = Field(
        description="One for each interval, the oldest first; null where they are not counted: "
        "of accounts, and of your own dimensions."
    )


def read_adaptive_history(
    keyspace: Keyspace, adaptive: AdaptiveLimits, limit: AdaptiveLimit
) -> AdaptiveHistory:
    """Return the history of an adaptive limit.

    Args:
        limit: as ``adaptive.find`` returns it.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    name = limit.limit
    refusals = None
    if name == GLOBAL or split_limit(name)[0] in SHARED_DIMENSIONS:
        counter = f"refused:{'total' if name == GLOBAL else name}"
        refusals = [
            Refusals(at=at, count=count)
            for at, count in read_counts(keyspace, counter, RESOLUTION, WINDOW)
        ]
    return AdaptiveHistory(
        limit=limit,
        moves=adaptive.moves(name),
        samples=adaptive.samples(name),
        resolution=RESOLUTION,
        refusals=refusals,
    )
