"""Refusals: a platform said no to a run (429, risk control), as ``scripts/refuse.lua`` is told.

Which exception means one is in ``worker/refusals.py``; what cools down, in ``cooldowns.py``.
"""

from dataclasses import dataclass, replace
from typing import Final

from celery_concurrency.errors import InvalidCooldown
from celery_concurrency.limiter.cooldowns import MAX_SECONDS, check_texts
from celery_concurrency.limiter.waiters import group_of
from celery_concurrency.limiter.waiting_room import WaitingRoom

#: What a refusal of the run that went first multiplies the last seconds by, and the most that
#: this makes of them: two hours.
DEFAULT_GROW: Final = 2.0
DEFAULT_MOST: Final = 7200.0
MAX_GROW: Final = 100.0
#: For so many seconds a refusal may be told again: Redis knows for a minute longer that it was.
TOLD_SECONDS: Final = 540.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A platform refused a run; what the attributes mean is said at ``Limiter.refuse``.

    Attributes:
        ago: how many seconds ago, where it is told later.

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
            raise InvalidCooldown("limit", f"{self.limit!r} is none of {', '.join(self.limits)}")
        for field, value, least, most in (
            ("seconds", self.seconds, 0, MAX_SECONDS),
            ("grow", self.grow, 1, MAX_GROW),
            ("most", self.most, 0, MAX_SECONDS),
        ):
            # Also no NaN.
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not least <= value <= most:
                raise InvalidCooldown(field, f"has to be a number of {least} to {most}")
        check_texts(reason=self.reason, by=self.by)

    def after(self, seconds: float) -> "Refusal":
        """Return the same, to be told so many seconds later."""
        return replace(self, ago=seconds)

    def tell(self, room: WaitingRoom) -> float:
        """Tell it; a repeat changes nothing.

        Returns:
            until when the limit cools down, in Unix seconds of the Redis server; 0 where not.

        Raises:
            LimiterUnavailable: Redis can't be asked; it may have been told all the same.
        """
        until = room.call_and_hand_over(
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
