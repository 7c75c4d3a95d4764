"""Every error that celery-concurrency raises on purpose.

They have one base class, so a user can catch them all. A docstring's first line is the default
message; a message names the remedy. ``api/errors.py`` turns them into HTTP answers.
"""

from collections.abc import Sequence
from typing import Any


class ConcurrencyError(Exception):
    """Something went wrong in celery-concurrency."""

    def __init__(self, message: str | None = None) -> None:
        if message is None:
            message = (self.__doc__ or type(self).__name__).splitlines()[0]
        super().__init__(message)


class ImproperlyConfigured(ConcurrencyError):
    """A Celery setting of celery-concurrency is missing or has a bad value."""


class InvalidTag(ConcurrencyError):
    """A tag must be a non-empty text or an integer, of 200 printable characters at most."""


class InvalidOperator(ConcurrencyError):
    """An operator's name must be a text of 200 printable characters at most."""


class InvalidConfig(ConcurrencyError):
    """The configuration is not valid; nothing was changed.

    Attributes:
        details: one entry per mistake, ``{"field": "platform_max.douyin",
            "problem": "..."}``; empty if nothing of it can be read.
    """

    def __init__(self, message: str | None = None, details: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.details = list(details)


class ConfigConflict(ConcurrencyError):
    """Somebody else changed the configuration at the same moment; try again."""


class VersionMismatch(ConfigConflict):
    """The configuration was changed after you read it; read it, then decide again.

    Attributes:
        version: the one that is in force.
    """

    def __init__(self, version: int) -> None:
        super().__init__(f"the configuration is at version {version}; read it, then decide again")
        self.version = version


class UnknownVersion(ConcurrencyError):
    """There is no such version in the configuration's history; list the history to see them."""


class LimiterUnavailable(ConcurrencyError):
    """Redis could not be reached; check that it runs, and check concurrency_redis_url."""


class OutOfMemory(LimiterUnavailable):
    """Redis is out of memory: let tasks run, cancel waiting tasks, or raise its maxmemory."""


class AmbiguousId(ConcurrencyError):
    """Several ids begin like this: give more characters.

    Attributes:
        candidates: some of them.
    """

    def __init__(self, given: str, candidates: Sequence[str]) -> None:
        some = ", ".join(candidates)
        super().__init__(f"several ids begin with {given!r}: give more characters. They are {some}")
        self.candidates = list(candidates)


class InvalidCooldown(ConcurrencyError):
    """The cool-down is not valid: it needs a limit, and seconds within bounds."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field, self.problem = field, problem


class NotWaiting(ConcurrencyError):
    """The task may not wait, or no longer, for a limit with bounds on waiting.

    Attributes:
        limit: that limit.
    """

    _text = "{0}"

    def __init__(self, limit: str, *numbers: int) -> None:
        text = self._text.format(limit, *numbers)
        super().__init__(text)
        # Result backends and pickle make it again from these. Its text is for who has not imported
        # this module: Celery then makes up a class, and shows its arguments.
        self.args = (limit, *numbers, text)
        self.limit = limit

    def __str__(self) -> str:
        return str(self.args[-1])


class TooManyWaiting(NotWaiting):
    """As many tasks wait for a limit as may: this one was refused.

    Attributes:
        limit: that limit.
        most: how many may wait for it.
        waiting: how many did.
    """

    _text = "{0} has {2} tasks waiting, and at most {1} may: this one is refused"

    def __init__(self, limit: str, most: int, waiting: int, _: str = "") -> None:
        super().__init__(limit, most, waiting)
        self.most, self.waiting = most, waiting


class WaitedTooLong(NotWaiting):
    """The task waited for a limit for as long as it may: it is given up.

    Attributes:
        limit: that limit.
        seconds: for how long a task may wait for it.
        waited: for how many seconds this one did.
    """

    _text = "waited for {0} for {2} s, and at most {1} s are allowed: it is given up"

    def __init__(self, limit: str, seconds: int, waited: int, _: str = "") -> None:
        super().__init__(limit, seconds, waited)
        self.seconds, self.waited = seconds, waited


class RunEnded(ConcurrencyError):
    """This run was given up, or its time is over: it gets no more tokens."""


class WeightTooHigh(ConcurrencyError):
    """A run takes more places than one of its limits has; lower its weight, or raise the limit.

    Attributes:
        limit: that limit.
        max: how many places it has, 1 or more; of an adaptive one the most it may have.
        weight: how many places the run takes.
    """

    def __init__(self, limit: str, max: int, weight: int, _: str = "") -> None:
        places = "1 place" if max == 1 else f"{max} places"
        text = (
            f"the task takes {weight} places, and {limit} has {places}, so it would wait for ever: "
            "lower its concurrency_weight, or raise that limit"
        )
        super().__init__(text)
        self.limit, self.max, self.weight = limit, max, weight
        # As for NotWaiting.
        self.args = (limit, max, weight, text)

    def __str__(self) -> str:
        return str(self.args[-1])


class LimitReached(ConcurrencyError):
    """A limit of the task has no room; the task waits for it."""
