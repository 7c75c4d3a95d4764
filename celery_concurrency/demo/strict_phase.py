"""The strict phase: for a while a platform and its twin allow little (``platform.py``).

Refusals lower the limit of the one and let its accounts cool down, and do nothing to the other
(``load.py``, ``project.py``), which as many tasks ask. So each has what the other is held against.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from redis import Redis

from celery_concurrency.demo.load import STRICT, TWIN
from celery_concurrency.demo.platform import Platform
from celery_concurrency.limiter import Limiter

#: What they allow meanwhile: calls within a second, and at once.
RATE: Final = 3
PARALLEL: Final = 1

#: From when to when in a session of so many seconds or less, in parts of it.
PART: Final = (0.2, 0.5)
SHORT_SECONDS: Final = 60
#: In a longer one: from when to when of each minute, in seconds.
OF_MINUTE: Final = (8, 20)

LIMIT: Final = f"platform:{STRICT}"


class StrictPhase:
    """Makes the two platforms strict when it is time to, and counts what they refuse.

    Args:
        redis: where they live.
        limiter: that of the workers.
        seconds: how long the session goes on; 0 is until it is ended.

    Attributes:
        is_strict: whether they are now.
    """

    def __init__(self, redis: Redis, limiter: Limiter, seconds: float) -> None:
        self._platforms = {name: Platform(redis, name) for name in (STRICT, TWIN)}
        self._limiter = limiter
        self._seconds = seconds
        self._calls: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        # By the server's clock, as the moves are.
        self._begun = self._told = limiter.keyspace.now()
        self.is_strict = False

    def turn(self, elapsed: float) -> None:
        """Make them strict, or lenient, as it is to be after so many seconds of the session."""
        if 0 < self._seconds <= SHORT_SECONDS:
            self._set(PART[0] <= elapsed / self._seconds < PART[1])
        else:
            self._set(OF_MINUTE[0] <= elapsed % 60 < OF_MINUTE[1])

    def end(self) -> None:
        """Let them be lenient from now on."""
        self._set(False)

    def read(self) -> None:
        """Count the new calls."""
        for name, platform in self._platforms.items():
            calls = platform.take_calls()
            self._calls[name] += len(calls)
            self._refused[name] += sum(not call.accepted for call in calls)

    def state(self) -> str:
        """Return in a line how it stands."""
        mood = "strict" if self.is_strict else "lenient"
        found = self._limiter.adaptive.find(LIMIT)
        force = f"{found.in_force} of {found.entry.max} at once, " if found else ""
        cooling = [one.seconds > 0 for one in self._limiter.cooldowns.read()[0] if one.refused]
        return (
            f"{STRICT} is {mood}: {force}accounts that cool down {sum(cooling)}, that try one task "
            f"{len(cooling) - sum(cooling)}, refused {self._refused[STRICT]} (under a fixed limit "
            f"{self._refused[TWIN]})"
        )

    def news(self) -> Iterator[str]:
        """Yield a line for each move of the limit since the last time."""
        for move in self._limiter.adaptive.moves(LIMIT):
            if move.at > self._told:
                self._told = move.at
                yield (
                    f"{move.at - self._begun:5.1f} s  {LIMIT} moved from {move.before} to "
                    f"{move.after}: {move.reason}"
                )

    def verdict(self) -> str:
        """Return what each refused, in a line for the report."""
        adaptive, fixed = (
            f"{self._refused[name]} of {self._calls[name]} calls" for name in (STRICT, TWIN)
        )
        return (
            f"{STRICT} refused {adaptive}; {TWIN}, as strict and as loaded under a fixed limit, "
            f"refused {fixed}"
        )

    def _set(self, strict: bool) -> None:
        if strict == self.is_strict:
            return
        self.is_strict = strict
        for platform in self._platforms.values():
            platform.allow(rate=RATE * strict, parallel=PARALLEL * strict)
