"""A steady load of a fake platform: as many calls wait as are accepted, whatever it refuses."""

from __future__ import annotations

from itertools import count
from statistics import median
from typing import Any

from celery_concurrency.demo.platform import Call, Platform


class Feed:
    """Sends a task for each call that a platform has accepted.

    Args:
        task: it calls the platform.
        platform: a client of it.
        name: its name.
        seconds: how long each call takes.
        ahead: how many tasks are sent that have not been accepted yet.
        accounts: how many there are; they come by turns.
    """

    def __init__(
        self,
        task: Any,
        platform: Platform,
        name: str,
        *,
        seconds: float,
        ahead: int,
        accounts: int = 60,
    ) -> None:
        self._task = task
        self.platform = platform
        self.name = name
        self._ahead = ahead
        self._accounts = accounts
        self._number = count()
        self.seconds = seconds
        self.sent = 0
        self.calls: list[Call] = []

    @property
    def accepted(self) -> list[Call]:
        """The calls that the platform accepted."""
        return [call for call in self.calls if call.accepted]

    @property
    def refused(self) -> list[Call]:
        """Those that it refused."""
        return [call for call in self.calls if not call.accepted]

    def read(self) -> None:
        """Take note of the new calls."""
        self.calls += self.platform.take_calls()

    def is_done(self) -> bool:
        """Return whether all that was sent has been accepted by now."""
        self.read()
        return len(self.accepted) == self.sent

    def fill(self) -> None:
        """Take note of the new calls, and send as many tasks as are missing."""
        self.read()
        accepted = len(self.accepted)
        while self.sent - accepted < self._ahead:
            account = f"{self.name}-{next(self._number) % self._accounts}"
            headers = {"platform": self.name, "account": account, "type": "call"}
            self._task.apply_async((self.name, account, self.seconds), headers=headers)
            self.sent += 1

    def work(self, begin: float, end: float) -> float:
        """Return how many calls were done between two Unix times, parts of them too."""
        spans = (min(end, call.at + self.seconds) - max(begin, call.at) for call in self.accepted)
        return sum(span for span in spans if span > 0) / self.seconds

    def pace(self, places: int) -> float:
        """Return how many calls a second it accepted, of which so many may run at once.

        By the median, as the machine may stand still for a while.
        """
        times = [call.at for call in self.accepted]
        rounds = [later - at for at, later in zip(times, times[places:], strict=False)]
        return places / median(rounds)
