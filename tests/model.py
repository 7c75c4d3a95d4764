"""What must hold of the limiter, as plain Python: the model that its scripts are held against."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from celery_concurrency.config import PAUSED, Config

Limits = tuple[str, ...]


@dataclass
class Model:
    """Who holds what. Time is the server's; ``lapsed`` holders are due, not yet swept.

    Attributes:
        config: in force.
        held: run to the limits that its record names.
        lapsed: runs whose time is over.
        freed: (run, limit) that an operator's DEL took out of a semaphore.
        ended: runs that were given up or swept; late calls of theirs are refused.
        counters: as in the seed.
    """

    config: Config = field(default_factory=Config)
    held: dict[str, Limits] = field(default_factory=dict)
    lapsed: set[str] = field(default_factory=set)
    freed: set[tuple[str, str]] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    counters: Counter[str] = field(default_factory=Counter)

    def members(self, limit: str, living: bool = False) -> set[str]:
        """Return the runs in a semaphore; the living ones only, if asked."""
        return {
            run
            for run, limits in self.held.items()
            if limit in limits
            and (run, limit) not in self.freed
            and not (living and run in self.lapsed)
        }

    def most(self, limit: str) -> float:
        """Return how many a limit admits now."""
        if limit in self.config.paused:
            return PAUSED
        return self.config.max_of(limit) or math.inf

    def full(self, limits: Limits) -> tuple[str, int, int] | None:
        """Return the first limit without room, its living holders and its maximum."""
        if not self.config.enabled:
            return None
        for limit in limits:
            living, most = len(self.members(limit, living=True)), self.most(limit)
            if living >= most:
                return limit, living, int(most)
        return None

    def acquire(self, run: str, limits: Limits) -> str | tuple[str, int, int]:
        """Return "granted", "ended", or the limit that denies."""
        if run in self.ended or run in self.lapsed:
            return "ended"
        if run in self.held:
            return "granted"
        full = self.full(limits)
        if full:
            return full
        self.held[run] = limits
        self.counters["acquired:total"] += 1
        for limit in limits:
            if limit.startswith(("platform:", "task_type:")):
                self.counters[f"acquired:{limit}"] += 1
        return "granted"

    def release(self, run: str, mark: bool) -> bool:
        """Return whether it held anything."""
        held = run in self.held
        if held:
            self._forget(run)
            self.counters["released:total"] += 1
        if mark:
            self.ended.add(run)
        return held

    def expire(self) -> int:
        """Sweep all that are due."""
        due = [run for run in self.held if run in self.lapsed]
        for run in due:
            self._forget(run)
            self.ended.add(run)
        self.counters["expired:total"] += len(due)
        return len(due)

    def delete_semaphore(self, limit: str) -> None:
        """An operator's DEL: frees the limit for good."""
        self.freed |= {(run, limit) for run in self.members(limit)}

    def _forget(self, run: str) -> None:
        limits = self.held.pop(run)
        self.lapsed.discard(run)
        self.freed -= {(run, limit) for limit in limits}
