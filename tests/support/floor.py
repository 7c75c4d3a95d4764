"""The limiter's floor by hand: each call that workers would make, in an order that a test names.

Where what waits is only there to be looked at, ``waiting.py`` makes it in one call.
"""

from __future__ import annotations

import json
from typing import Any

from redis import Redis

from celery_concurrency import scripts
from celery_concurrency.limiter import Denied, Granted, Limiter
from celery_concurrency.limiter.outcomes import Ticket
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.limiter.weights import without_weight
from celery_concurrency.scripts.constants import PARKED
from tests.support.waiting import QUEUE, waiter_of, waiters


def headers_of(text: str | bytes) -> dict[str, Any]:
    """Return a message's headers, and beside them its place, if it waited."""
    headers: dict[str, Any] = json.loads(text)["headers"]
    return {**headers, **headers.get(PARKED, {})}


class Floor:
    """What workers and broker would do, step by step.

    Args:
        limiter: without an outbox, unless ``queue`` is None.
        redis: a client for looking, that reads texts.
        queue: where messages are put back.
    """

    def __init__(self, limiter: Limiter, redis: Redis, queue: str | None = QUEUE) -> None:
        self.limiter = limiter
        self.room = limiter.waiting_room
        self.redis = redis
        self.queue = queue
        self._runs = 0

    def ask(
        self, task: str, place: Ticket | None = None, rank: int = 0, weight: int = 1, **tags: str
    ) -> Any:
        """A run of a task stands at a slot; return the limiter's answer."""
        self._runs += 1
        return self.limiter.try_acquire(
            f"{task}:{self._runs}", tags, rank=rank, ticket=place, weight=weight
        )

    def hold(self, task: str = "holder", weight: int = 1, **tags: str) -> str:
        """Return the token of a run that was granted its limits."""
        answer = self.ask(task, weight=weight, **tags)
        assert isinstance(answer, Granted), answer
        return answer.token

    def waiter(
        self,
        denied: Denied,
        tags: dict[str, str],
        *,
        task: str = "",
        hold: float = 30,
        expires: float | None = None,
    ) -> Waiter:
        """Return a denied run's message as it is to wait."""
        task = task or denied.token.rpartition(":")[0]
        headers = {"task": task, "tags": tags}
        message = json.dumps({"headers": headers}, ensure_ascii=False).encode()
        return waiter_of(denied, task, message, hold=hold, expires=expires, queue=self.queue)

    def wait(self, task: str, rank: int = 0, weight: int = 1, **tags: str) -> Waiter:
        """A task asks, is denied, and waits from now on."""
        denied = self.ask(task, rank=rank, weight=weight, **tags)
        assert isinstance(denied, Denied), denied
        waiter = self.waiter(denied, tags)
        assert self.room.park(waiter) == "parked"
        return waiter

    def back(self) -> list[dict[str, Any]]:
        """Take the messages that were put back, in the order in which workers get them."""
        texts = self.redis.lrange(QUEUE, 0, -1)[::-1]
        self.redis.delete(QUEUE)
        return [headers_of(text) for text in texts]

    def tasks_back(self) -> list[str]:
        """Take the messages that were put back; return their tasks."""
        return [message["task"] for message in self.back()]

    def deliver(self, message: dict[str, Any]) -> Any:
        """A message that was put back stands at a slot; return the limiter's answer."""
        limits, weight = without_weight(message["limits"])
        place = Ticket(message["score"], message["as"], tuple(limits), weight)
        return self.ask(message["task"], place, weight=weight, **message["tags"])

    def waiting(self) -> set[str]:
        """Return the tasks that wait."""
        return waiters(self.redis)

    def holders(self, limit: str) -> list[str]:
        """Return the tokens that hold a limit."""
        return self.redis.zrange(f"concurrency:semaphore:{limit}", 0, -1)

    def lapse(self, *tokens: str) -> None:
        """Let the time of these tokens be over, as if the server's clock had gone on for them."""
        held = (*self.redis.keys("concurrency:semaphore:*"), "concurrency:leases")
        for key in (*held, *self.redis.keys("concurrency:reserved:*")):
            for token in tokens:
                self.redis.zadd(key, {token: 1}, xx=True)

    def age(self, seconds: float) -> None:
        """Let starts, moments, cool-downs and moves be older, as if the clock had gone on."""
        keys = self.redis.keys("concurrency:rate:*")
        keys += [f"concurrency:{name}" for name in ("moments", "cooldowns", "probes", "adaptive")]
        for key in keys:
            for member, moment in self.redis.zrange(key, 0, -1, withscores=True):
                self.redis.zadd(key, {member: moment - seconds})
        for key in self.redis.scan_iter("concurrency:adaptive:*:*"):
            for field in ("since", "fell"):
                moment = self.redis.hget(key, field)
                if moment is not None:
                    self.redis.hset(key, field, f"{float(moment) - seconds:.6f}")

    def sweep(self) -> None:
        """Sweep as if all limits had been looked at long ago."""
        for key in ("concurrency:blocked:shared", "concurrency:blocked:own"):
            for limit in self.redis.zrange(key, 0, -1):
                self.redis.zadd(key, {limit: 0})
        self.room.sweep(now=True)

    def advance(self, steps: int = 64, *, changed: bool = False) -> bool:
        """Go on with a hand-over in one call; return whether there is more to do.

        Args:
            steps: of the call at most.
            changed: the configuration was changed, and nobody was told yet.
        """
        reply = scripts.call(self.limiter.redis, "advance", "concurrency", int(changed), steps)
        return bool(reply.reply[0])

    def finish(self, steps: int = 64) -> list[str]:
        """Go on with a hand-over to its end; return the tasks put back, in the order of that."""
        tasks = []
        for _ in range(10_000):
            more = self.advance(steps)
            tasks += self.tasks_back()
            if not more:
                return tasks
        raise AssertionError("a hand-over without end")

    def change(self, config: dict[str, Any]) -> None:
        """Change the configuration as one who is killed before it tells those who wait."""
        told, self.limiter.config._changed = self.limiter.config._changed, lambda: None
        self.limiter.config.update(config)
        self.limiter.config._changed = told

    def later(self) -> None:
        """Wait for the next millisecond: who asks after it asked later."""
        begin = self.redis.time()
        while True:
            now = self.redis.time()
            if (now[0] - begin[0]) * 1000 + (now[1] - begin[1]) // 1000 >= 2:
                return
