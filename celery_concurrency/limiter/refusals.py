"""Refusals: a platform said no to a run (429, risk control), as reported to ``scripts/refuse.lua``.

``worker/refusals.py`` says which exceptions are refusals, ``cooldowns.py`` what cools down.
"""

from dataclasses import dataclass, replace
from typing import Final

from celery_concurrency.errors import InvalidCooldown
from celery_concurrency.limiter.cooldowns import MAX_SECONDS, check_texts
from celery_concurrency.limiter.steps import Steps
from celery_concurrency.limiter.waiters import group_of
from celery_concurrency.limiter.waiting_room import WaitingRoom

#: A refusal of the probe multiplies the last seconds by this, up to two hours.
DEFAULT_GROW: Final = 2.0
DEFAULT_MOST: Final = 7200.0
MAX_GROW: Final = 100.0
#: Seconds in which a refusal may be reported again; Redis remembers it for a minute longer.
TOLD_SECONDS: Final = 540.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A platform refused a run; ``Limiter.refuse`` explains the attributes.

    Attributes:
        ago: how many seconds ago, if it is reported later.

    Raises:
        InvalidCooldown: names the attribute that is out of bounds.
    """

    token: str
    limits: tuple[str, ...]
    limit: str
    seconds: float
    grow: float = DEFAULT_GROW
    most: float = DEFAULT_MOST
    reason: str = ""
    by: str = ""
    ago: float = 0.0

    def __post_init__(self) -> None:
        if self.limit not in self.limits:
            raise InvalidCooldown("limit", f"{self.limit!r} is not one of {', '.join(self.limits)}")
        for field, value, least, most in (
            ("seconds", self.seconds, 0, MAX_SECONDS),
            ("grow", self.grow, 1, MAX_GROW),
            ("most", self.most, 0, MAX_SECONDS),
        ):
            # This refuses NaN too.
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not least <= value <= most:
                raise InvalidCooldown(field, f"must be a number from {least} to {most}")
        check_texts(reason=self.reason, by=self.by)

    def after(self, seconds: float) -> "Refusal":
        """Return the same refusal, to be reported this many seconds later."""
        return replace(self, ago=seconds)

    def telling(self, room: WaitingRoom) -> Steps[float]:
        """Report it, as steps (``steps.py``); a repeat changes nothing.

        Returns:
            when the cool-down ends, in Unix seconds of the Redis server; 0 if there is none.

        Raises:
            LimiterUnavailable: Redis can't be asked; it may have got the report all the same.
        """
        until = yield from room.calling_and_handing_over(
            "refuse",
            self.token,
            group_of(self.limits),
            self.limit,
            repr(float(self.seconds)),
            repr(float(self.ago)),
            repr(float(self.grow)),
            repr(float(self.most)),
            self.reason,
            self.by,
        )
        return float(until or 0)
