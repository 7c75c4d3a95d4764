"""What makes a pair cost the server more or less: settings and habits, by turns in one run."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from redis import Redis

from benchmarks.calls import main_thread
from benchmarks.crowd import Crowd
from benchmarks.pair import TAGS
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.server import Server
from tests.support.workers import settle

#: Pairs of each in a turn, and how many wait while others do.
PAIRS = 200
WAITING = 1_000


@dataclass(frozen=True, eq=False)
class Habit:
    """One way to use the limiter.

    Attributes:
        what: it is, beside four limits on a server that keeps its data while nobody waits.
        config: a change to the configuration.
        tags: of the task.
        waiting: how many wait meanwhile.
        accounts: for how many other accounts they wait.
        keeping: whether the server keeps its data.
    """

    what: str
    config: dict[str, Any]
    tags: dict[str, str]
    waiting: int = 0
    accounts: int = 1
    keeping: bool = True


AS_IT_IS = Habit("as it is", {}, TAGS)
HABITS = [
    AS_IT_IS,
    Habit("a task without tags: one limit instead of four", {}, {}),
    Habit("a thousand wait for one other account", {}, TAGS, WAITING),
    Habit("a thousand wait, each for an account of its own", {}, TAGS, WAITING, WAITING),
    Habit("a rate for each account", {"rates": {"account:*": [{"max": 10_000, "per": 1}]}}, TAGS),
    Habit("an adaptive limit", {"adaptive": {"platform:douyin": {"min": 1, "max": 9}}}, TAGS),
    Habit("an observed limit", {"platform_max": {"douyin": {"max": 5, "mode": "observe"}}}, TAGS),
    Habit("a server that keeps nothing on disk", {}, TAGS, keeping=False),
]


def measure(
    keeping: Server, scratch: Server, turns: int, say: Callable[[str], None]
) -> dict[str, float]:
    """Return what a pair costs each way, over what it costs as it is; medians of all turns."""
    clients = {True: connect(keeping.url()), False: connect(scratch.url())}
    pairs = {
        habit: _pair(clients[habit.keeping], f"habit{number}", habit)
        for number, habit in enumerate(HABITS)
    }
    ratios: dict[str, list[float]] = {habit.what: [] for habit in HABITS}
    for turn in range(turns + 1):
        spent = {habit: _spent(clients[habit.keeping], pair) for habit, pair in pairs.items()}
        if turn:  # the first warms up
            for habit, seconds in spent.items():
                ratios[habit.what].append(seconds / spent[AS_IT_IS])
    found = {what: round(median(some), 2) for what, some in ratios.items() if what != AS_IT_IS.what}
    for what, ratio in found.items():
        say(f"  {what}: {ratio} of a pair")
    for client in clients.values():
        client.close()
    return found


def _pair(redis: Redis, prefix: str, habit: Habit) -> Callable[[], None]:
    settle(redis, prefix)
    crowd = Crowd(redis, prefix, {"global_max": 0, **habit.config})
    limiter: Limiter = crowd.limiter
    crowd.hold(iter(range(1, habit.accounts + 1)))
    crowd.park(1 + number % habit.accounts for number in range(habit.waiting))
    task = str(uuid.uuid4())

    def pair() -> None:
        token = f"{task}:{uuid.uuid4().hex[:16]}"
        limiter.try_acquire(
            token, habit.tags, task="proj.tasks.publish", worker="w1@host", lease=30
        )
        limiter.release(token, done=True)

    return pair


def _spent(redis: Redis, pair: Callable[[], None]) -> float:
    before = main_thread(redis)
    for _ in range(PAIRS):
        pair()
    return main_thread(redis) - before
