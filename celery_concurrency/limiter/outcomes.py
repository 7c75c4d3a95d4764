"""Outcomes: the limiter's answers to a run that asks for tokens.

``limiter.py`` asks; ``worker/gate.py`` acts on the answer.
"""

import math
from dataclasses import dataclass
from typing import Final

from celery_concurrency.errors import NotWaiting, TooManyWaiting, WaitedTooLong
from celery_concurrency.limiter.weights import places_in
from celery_concurrency.scripts.constants import PAUSED, RANK

#: Why nobody else is admitted while one run goes first.
TRIED: Final = "(one run goes first, after a refusal)"


def asked_at(number: int) -> float:
    """Return when a ticket's task first asked, in Unix seconds of the Redis server."""
    return number % RANK / 1000


def rank_of(number: int) -> int:
    """Return the rank in a ticket's number: 0 is the highest priority."""
    return number // RANK


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where a run stands in the order of waiters.

    Attributes:
        number: orders the waiters, lowest first.
        parked_as: the run that first parked its message, the same for all copies of the message;
            "" if it was never parked.
        limits: the limits it waited for; () if it never waited.
        weight: its weight then.
        received: when a worker received its message, in Unix microseconds, if it replaces older
            ones; else 0.
    """

    number: int
    parked_as: str = ""
    limits: tuple[str, ...] = ()
    weight: int = 1
    received: int = 0

    @property
    def asked(self) -> float:
        """When the task first asked, in Unix seconds of the Redis server."""
        return asked_at(self.number)


@dataclass(frozen=True, slots=True)
class Granted:
    """A run holds its tokens.

    Attributes:
        token: the run.
        limits: the limits in which it holds a token.
        expiry: when the tokens expire, in Unix seconds of the Redis server.
        fence: a number higher than that of every earlier acquisition.
    """

    token: str
    limits: tuple[str, ...]
    expiry: int
    fence: int


@dataclass(frozen=True, slots=True)
class Shut:
    """When and why a limit opens by itself; until then it admits nobody.

    Attributes:
        until: that moment, in Unix seconds of the Redis server.
        seconds: how many were left when the limiter was asked.
        rate: how many may begin in how many seconds; None if the limit cools down.
        reason: why it cools down; "" if that is not known here.
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
    """Return the two numbers of a rate in the scripts' form, ``max/per``; None if it is not one."""
    most, slash, per = cause.partition("/")
    return (int(most), int(per)) if slash else None


@dataclass(frozen=True, slots=True)
class Denied:
    """A run holds nothing, because a limit has no room for it.

    Attributes:
        token: the run.
        limits: all limits that it asked for.
        limit: the limit without room that is likely to stay so for longest (in the order of
            ``inspect/blocking.py``), or one whose room is for earlier waiters.
        held: places taken in that limit; None if earlier waiters come first.
        max: how many it has; ``PAUSED`` if it is paused, None if earlier waiters come first.
        ticket: its place in the order of waiters.
        shut: when and why that limit opens by itself; None if it doesn't.
        probe: the run that is the probe in that limit after a refusal; None if there is none.
        weight: how many places the run takes in each shared limit.
    """

    token: str
    limits: tuple[str, ...]
    limit: str
    held: int | None
    max: int | None
    ticket: Ticket
    shut: "Shut | None" = None
    probe: str | None = None
    weight: int = 1

    def __str__(self) -> str:
        if self.probe is not None:
            return f"{self.limit} {TRIED}"
        if self.shut is not None:
            return f"{self.limit} {self.shut}"
        if self.max is None:
            return f"{self.limit} (others came before)"
        allowed = f"{self.held} of {self.max}" if self.max != PAUSED else f"paused, {self.held} run"
        places = places_in(self.limit, self.weight)
        if places > 1 and self.max != PAUSED:
            allowed += f", it takes {places}"
        return f"{self.limit} ({allowed})"


@dataclass(frozen=True, slots=True)
class Repeated:
    """Another run has already begun on a copy of the same message.

    Attributes:
        token: that run, while it lives; None if it has ended, so this copy is dropped.
    """

    token: str | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A run is dropped instead of waiting.

    Attributes:
        token: the run.
        limits: all limits that it asked for.
        limit: the one that is busy: it has no room, or others wait for it.
    """

    token: str
    limits: tuple[str, ...]
    limit: str

    def __str__(self) -> str:
        return f"{self.limit} is busy"


def not_waiting(why: str, limit: str, bound: int, number: int) -> NotWaiting:
    """Return the error of a run that may not wait, or no longer, from a script's answer.

    Args:
        why: "crowded" or "overdue".
        bound: how many may wait for the limit, or for how many seconds.
        number: how many waited, or for how many seconds it did.
    """
    error = TooManyWaiting if why == "crowded" else WaitedTooLong
    return error(limit, bound, number)


Outcome = Granted | Denied | Repeated | Skipped
