"""Limits as listings show them: how they adapt, and the bounds on waiting for them.

``limiter/adaptive.py`` lists them by themselves; ``usage.py`` and ``limit_state.py`` show them
beside the others.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Self

from pydantic import BaseModel

from celery_concurrency.limiter.adaptive import AdaptiveLimit, read_limits
from celery_concurrency.limiter.config.maximum import Mode
from celery_concurrency.limiter.config.schema import Bounds, Config
from celery_concurrency.limiter.inspect.moments import Moments
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.scripts.constants import PAUSED


class AdaptiveUsage(BaseModel):
    """How a limit adapts.

    Attributes:
        current: its own value, between ``min`` and ``max``.
        min, max: the range.
        in_force: what holds now: a configured maximum below it wins, and alone where ``mode``
            is ``observe``; 0 is unlimited, -1 paused.
        mode: in ``observe`` it turns nobody away.
    """

    current: int
    min: int
    max: int
    in_force: int
    mode: Mode = "enforce"

    @classmethod
    def of(cls, one: AdaptiveLimit) -> Self:
        """Return how a limit adapts."""
        entry = one.entry
        return cls(
            current=one.current, min=entry.min, max=entry.max, in_force=one.in_force,
            mode=entry.mode,
        )  # fmt: skip

    @property
    def has_fallen(self) -> bool:
        """Whether it stands below its highest."""
        return self.current < self.max

    def __str__(self) -> str:
        observed = f", {self.current} observed" if self.mode == "observe" else ""
        return f"adaptive {self.min}-{self.max}{observed}"


class Limited(Moments):
    """A limit, with what it does by itself.

    Attributes:
        current: living tokens.
        max: how many the configuration allows, 0 for unlimited.
        paused: it admits nobody for now.
        adaptive: None where it is not.
        bounds: on waiting for it.
        weight: of a name of the fair dimension: how often it goes on in turn; None of others.
    """

    LEFT_OUT: ClassVar = Moments.LEFT_OUT | {"adaptive", "bounds", "weight"}

    current: int
    max: int
    paused: bool = False
    adaptive: AdaptiveUsage | None = None
    bounds: Bounds = Bounds()
    weight: int | None = None

    @property
    def allows(self) -> int:
        """How many it allows now, 0 for unlimited; while it is paused, what is shown beside it."""
        if self.adaptive is None:
            return self.max
        if self.adaptive.in_force == PAUSED:
            return self.max or self.adaptive.current
        return self.adaptive.in_force


def read_adaptive(
    keyspace: Keyspace, config: Config, limits: Iterable[str]
) -> dict[str, AdaptiveUsage]:
    """Return how those of these limits adapt that do; two commands for each of them."""
    return {one.limit: AdaptiveUsage.of(one) for one in read_limits(keyspace, config, limits)}


def read_moved(keyspace: Keyspace, config: Config, most: int) -> list[str]:
    """Return adaptive limits that moved in the last week.

    Args:
        most: those that moved last.
    """
    moved: Any = keyspace.redis.zrevrange(keyspace.keys.adaptive, 0, most - 1)
    return [limit for one in moved if config.adaptive_of(limit := one.decode())]
