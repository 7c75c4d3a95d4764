"""What the limiter says of a run: its tokens are granted, it has to wait, or it is a copy.

It is asked in ``limiter.py``; what a task makes of the answer is ``worker/gate.py``'s matter.
"""

from __future__ import annotations

from dataclasses import dataclass

from celery_concurrency.limiter.waiting_room import Place
from celery_concurrency.scripts.constants import PAUSED


@dataclass(frozen=True, slots=True)
class Granted:
    """A run holds its tokens.

    Attributes:
        token: the run.
        limits: those that it holds a token in.
        expiry: when they expire, in Unix seconds of the Redis server.
        fence: a number that is higher than that of every acquisition before.
    """

    token: str
    limits: tuple[str, ...]
    expiry: int
    fence: int


@dataclass(frozen=True, slots=True)
class Denied:
    """A run holds nothing, as a limit has no room for it.

    Attributes:
        token: the run.
        limits: those that it asked for.
        limit: the first of them without room, or with room for others who came before.
        held: living tokens in that limit; None where others came before.
        max: how many it allows; ``PAUSED`` where it admits nobody for now, None
            where others came before.
        place: where it stands in the order of those who wait.
    """

    token: str
    limits: tuple[str, ...]
    limit: str
    held: int | None
    max: int | None
    place: Place

    def __str__(self) -> str:
        if self.max is None:
            return f"{self.limit} (others came before)"
        allowed = f"{self.held} of {self.max}" if self.max != PAUSED else f"paused, {self.held} run"
        return f"{self.limit} ({allowed})"


@dataclass(frozen=True, slots=True)
class Repeated:
    """A second copy of a message that a run has begun on.

    Attributes:
        token: the run that began, while it lives; None when it has ended, and the
            message is one too many.
    """

    token: str | None
