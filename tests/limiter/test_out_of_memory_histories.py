"""Random histories in which Redis is out of memory now and then: nothing is lost or doubled."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from celery_concurrency.errors import OutOfMemory
from celery_concurrency.limiter import Granted
from tests.support.floor import Floor, headers_of
from tests.support.memory import PROGRAMS, server_of
from tests.support.waiting import QUEUE

CONFIG = {"account_max": 1, "platform_max": {"p": 3}, "dimensions": {"tenant": {"max": 2}}}
TASKS, CALLS = 40, 300


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda path: Path(path).name)
def server(request):
    with server_of(request.param) as server:
        yield server


class History:
    """What workers and broker would do, in a random order.

    Args:
        seed: of the order.
        queue: where messages are put back; None for the outbox.
    """

    def __init__(self, floor: Floor, seed: int) -> None:
        self.floor, self.limiter = floor, floor.limiter
        self.random = random.Random(seed)
        self.sent: list[str] = []
        self.denied: list[tuple[Any, dict[str, str], str]] = []
        self.held: dict[str, str] = {}
        self.queue: list[dict[str, Any]] = []
        self.ended: list[str] = []
        self.refused = 0

    def call(self, *calls: Callable[[], object]) -> None:
        """Make one of these calls; what is refused has changed nothing, and is tried again."""
        try:
            self.random.choice(calls)()
        except OutOfMemory:
            self.refused += 1

    def send(self) -> None:
        names = {"account": "abc", "platform": "p", "tenant": "x"}
        tags = {
            tag: self.random.choice(of) for tag, of in names.items() if self.random.random() < 0.6
        }
        task = f"t{len(self.sent)}"
        if len(self.sent) < TASKS:
            self.answered(self.floor.ask(task, **tags), tags, task)
            self.sent.append(task)

    def answered(self, outcome: Any, tags: dict[str, str], task: str) -> None:
        if isinstance(outcome, Granted):
            self.held[outcome.token] = task
        else:
            self.denied.append((outcome, tags, task))

    def park(self) -> None:
        if self.denied:
            outcome, tags, task = self.denied[0]
            self.floor.room.park(self.floor.waiter(outcome, tags, task=task))
            del self.denied[0]

    def end(self) -> None:
        if self.held:
            token = self.random.choice(list(self.held))
            self.limiter.release(token, done=True)
            self.ended.append(self.held.pop(token))

    def cancel(self) -> None:
        for task in sorted(self.floor.waiting())[:1]:
            self.floor.room.cancel(task)

    def sweep(self) -> None:
        self.floor.room.sweep(now=True)

    def take(self) -> None:
        """Take what is in the queue or the outbox."""
        self.queue += self.floor.back()
        for number, message in self.floor.room.claim():
            self.queue.append(headers_of(message))
            self.floor.room.confirm(number)

    def begin(self) -> None:
        """Let the next message stand at a slot."""
        if not self.queue:
            return
        message = self.queue[0]
        if message.get("concurrency_discard"):
            self.ended.append(message["task"])
        else:
            self.answered(self.floor.deliver(message), message["tags"], message["task"])
        del self.queue[0]

    def is_over(self) -> bool:
        return len(self.ended) >= len(self.sent) and not (self.held or self.denied or self.queue)


@pytest.mark.parametrize("queue", [QUEUE, None], ids=["queue", "outbox"])
@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_each_task_ends_once(limiter, redis, seed, queue):
    limiter.config.update(CONFIG)
    limiter.waiting_room.patience = 0
    history = History(Floor(limiter, redis, queue=queue), seed)
    works = (history.park, history.end, history.sweep, history.take, history.begin)
    full = False
    try:
        for _ in range(CALLS):
            if history.random.random() < 0.06:
                full = not full
                redis.config_set("maxmemory", int(full))
            history.call(history.send, history.cancel, *works)
    finally:
        redis.config_set("maxmemory", 0)
    for _ in range(20 * CALLS):
        history.call(*works)
        if history.is_over():
            break
    assert history.refused
    assert sorted(history.ended) == sorted(history.sent)
    assert history.floor.waiting() == set()
    assert redis.zcard("concurrency:leases") == 0
