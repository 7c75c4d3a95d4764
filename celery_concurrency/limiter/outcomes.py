"""Outcomes: what the limiter answers a run that asks for tokens.

It is asked in ``limiter.py``; what a task does with the answer is in ``worker/gate.py``.
"""

import math
from dataclasses import dataclass
from typing import Final

from celery_concurrency.scripts.constants import PAUSED, RANK

#: Why nobody else is admitted while one run goes first.
TRIED: Final = "(one run goes first, after a refusal)"


def asked_at(number: int) -> float:
    """Return when the holder of a ticket asked first, in Unix seconds of the Redis server."""
    return number % RANK / 1000


def rank_of(number: int) -> int:
    """Return the rank in a ticket's number: 0 is the highest priority."""
    return number // RANK


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where a run stands in the order of waiters.

    Attributes:
        number: orders them; the lowest comes first.
        parked_as: the run by which its message was parked first, which all copies of the
            message share; "" if it never was parked.
        limits: those it waited with; () if it never did.
    """

    number: int
    parked_as: str = ""
    limits: tuple[str, ...] = ()

    @property
    def asked(self) -> float:
        """When it asked first, in Unix seconds of the Redis server."""
        return asked_at(self.number)


@dataclass(frozen=True, slots=True)
class Granted:
    """A run holds its tokens.

    Attributes:
        token: the run.
        limits: those it holds a token in.
        expiry: when they expire, in Unix seconds of the Redis server.
        fence: a number higher than that of every acquisition before.
    """

    token: str
    limits: tuple[str, ...]
    expiry: int
    fence: int


@dataclass(frozen=True, slots=True)
class Shut:
    """A limit that admits nobody until a moment.

    Attributes:
        until: that moment, in Unix seconds of the Redis server.
        seconds: how many were left when the limiter was asked.
        rate: how many may begin in how many seconds; None where it cools down.
        reason: why it cools down; "" where that is not known here.
    """

    until: float
    seconds: float
    rate: tuple[int, int] | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.rate:
            why = f"{self.rate[0]} per {self.rate[1]} s"
        else:
            why = f"it cools down: {self.reason}" if self.reason else "it cools down"
        return f"opens in {math.ceil(self.seconds)} s ({why})"


def rate_of(cause: str) -> tuple[int, int] | None:
    """Return what ``max/per`` says, as the scripts write a rate; None where it is none."""
    most, slash, per = cause.partition("/")
    return (int(most), int(per)) if slash else None


@dataclass(frozen=True, slots=True)
class Denied:
    """A run holds nothing, as a limit has no room for it.

    Attributes:
        token: the run.
        limits: those it asked for.
        limit: the one of those without room that stays shut for longest (in the order of
            ``inspect/blocking.py``), or one whose room is for earlier waiters.
        held: living tokens in that limit; None where earlier waiters come first.
        max: how many it allows; ``PAUSED`` where it admits nobody for now, None
            where earlier waiters come first.
        ticket: where it stands in the order of waiters.
        shut: until when that limit is shut, and by what; None where no moment opens it.
        probe: the run that goes first in that limit, as it was refused; None where none has to.
    """

    token: str
    limits: tuple[str, ...]
    limit: str
    held: int | None
    max: int | None
    ticket: Ticket
    shut: "Shut | None" = None
    probe: str | None = None

    def __str__(self) -> str:
        if self.probe is not None:
            return f"{self.limit} {TRIED}"
        if self.shut is not None:
            return f"{self.limit} {self.shut}"
        if self.max is None:
            return f"{self.limit} (others came before)"
        allowed = f"{self.held} of {self.max}" if self.max != PAUSED else f"paused, {self.held} run"
        return f"{self.limit} ({allowed})"


@dataclass(frozen=True, slots=True)
class Repeated:
    """A second copy of a message that a run has begun on.

    Attributes:
        token: the run that began, while it lives; None when it has ended, and this copy
            is to be dropped.
    """

    token: str | None


Outcome = Granted | Denied | Repeated
