"""Adaptive limits as listings show them: the range, and what is in force in it.

``limiter/adaptive.py`` lists them by themselves; ``usage.py`` and ``limit_state.py`` show them
beside the others.
"""

from typing import ClassVar

from pydantic import BaseModel

from celery_concurrency.limiter.inspect.moments import Moments


class AdaptiveUsage(BaseModel):
    """How a limit adapts.

    Attributes:
        current: its own value, between ``min`` and ``max``.
        min, max: the range.
        in_force: what holds now: a configured maximum below it wins; -1 while it is paused.
        mode: in ``observe`` it turns nobody away.
    """

    current: int
    min: int
    max: int
    in_force: int
    mode: str = "enforce"

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
    """

    LEFT_OUT: ClassVar = Moments.LEFT_OUT | {"adaptive"}

    current: int
    max: int
    paused: bool = False
    adaptive: AdaptiveUsage | None = None

    @property
    def allows(self) -> int:
        """How many it allows now, while it is not paused; 0 for unlimited."""
        if self.adaptive is None or self.adaptive.mode == "observe":
            return self.max
        return min(self.adaptive.current, self.max or self.adaptive.current)
