"""A crowd of waiters, parked by the scripts themselves, quickly."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from redis import Redis

from celery_concurrency import scripts
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.acquire_arguments import arguments
from celery_concurrency.limiter.limits import limits_of
from celery_concurrency.limiter.outcomes import Ticket
from celery_concurrency.limiter.waiters import Waiter, group_of
from celery_concurrency.worker.message import to_bytes

PLATFORMS = ("douyin", "xiaohongshu", "kuaishou", "bilibili", "channels")
QUEUE = "bench-queue"
#: Calls in one trip while the crowd is made.
TRIP = 500


def tags_of(account: int) -> dict[str, str]:
    """Return the tags of the tasks of an account."""
    return {
        "platform": PLATFORMS[account % len(PLATFORMS)],
        "account": f"account-{account:07}",
        "type": "publish",
    }


def message_of(task_id: str) -> dict[str, Any]:
    """Return a message of the size and the form that Celery's have in a Redis queue, as JSON."""
    headers = {
        "id": task_id, "task": "proj.tasks.publish", "lang": "py", "shadow": None, "eta": None,
        "expires": None, "group": None, "group_index": None, "retries": 0,
        "timelimit": [None, None], "root_id": task_id, "parent_id": None,
        "argsrepr": "('a video',)", "kwargsrepr": "{}", "origin": "gen1@host",
        "ignore_result": False, "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
    }  # fmt: skip
    return {
        "headers": headers,
        "body": "W1siYSB2aWRlbyJdLCB7fSwgeyJjYWxsYmFja3MiOiBudWxsLCAiZXJyYmFja3MiOiBudWxsfV0=",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "properties": {
            "correlation_id": task_id,
            "reply_to": str(uuid.uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


class Crowd:
    """Waiters of many accounts, each of which one task holds.

    Args:
        redis: a client of the server to fill.
        prefix: of all keys; several crowds fit on one server.
        config: a change to the default configuration.
        tags: what the tasks of an account are tagged with.
        dimensions: the user's own, as ``config`` names them.

    Attributes:
        holders: account to the token that holds it.
        message_bytes: of all messages that wait, as they were in their queue.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str,
        config: dict[str, Any] | None = None,
        *,
        tags: Callable[[int], dict[str, str]] = tags_of,
        dimensions: tuple[str, ...] = (),
    ) -> None:
        self.redis = redis
        self._tags = tags
        self._dimensions = dimensions
        self.limiter = Limiter(redis, prefix)
        # As if the server had been in use: at a first start nobody is admitted for some seconds.
        redis.set(f"{prefix}:epoch", 1)
        # What is held here must not expire while the crowd is made.
        self.limiter.config.update({"timeout": 86_400, **(config or {})})
        self.holders: dict[int, str] = {}
        self.message_bytes = 0
        self._asked = 0

    def limits(self, account: int) -> tuple[str, ...]:
        """Return the limits of an account's tasks."""
        return limits_of(self._tags(account), self._dimensions)

    def call(self, pipe: Any, verb: str, *args: Any) -> None:
        """Put a call of a script into a trip."""
        pipe.evalsha(scripts._sha(verb), 1, self.limiter.prefix, *args)

    def hold(self, accounts: Iterator[int]) -> None:
        """Let one run of each account hold it."""
        self._load()
        for some in _batches(accounts):
            pipe = self.redis.pipeline(transaction=False)
            for account in some:
                token = f"{uuid.uuid4()}:0123456789abcdef"
                self.holders[account] = token
                self.call(pipe, "acquire", token, *self._arguments(account))
            assert all(reply[0] == b"granted" for reply in pipe.execute())

    def take_over(self, account: int) -> None:
        """Let a run of an account begin on the room that was handed over to it."""
        token = f"{uuid.uuid4()}:0123456789abcdef"
        args = self._arguments(account, Ticket(1, parked_as=token))
        reply = scripts.call(self.redis, "acquire", self.limiter.prefix, token, *args).reply
        assert reply[0] == b"granted"
        self.holders[account] = token

    def _arguments(self, account: int, ticket: Ticket | None = None) -> tuple[str, str, str]:
        return arguments(
            self.limits(account), self._dimensions, task="proj.tasks.publish", worker="w1@host",
            ticket=ticket,
        )  # fmt: skip

    def waiter(self, account: int) -> Waiter:
        """Return one more waiter of an account."""
        self._asked += 1
        task_id = str(uuid.uuid4())
        message = message_of(task_id)
        self.message_bytes += len(json.dumps(message))
        return Waiter(
            run=f"{task_id}:0123456789abcdef",
            task_id=task_id,
            retries=0,
            replaced=0,
            limits=self.limits(account),
            ticket=1_795_511_971_000 + self._asked,
            message=to_bytes(message),
            hold=30,
            queue=QUEUE,
        )

    def park(self, accounts: Iterator[int]) -> None:
        """Let a task of each of these accounts wait."""
        self._load()
        for some in _batches(accounts):
            pipe = self.redis.pipeline(transaction=False)
            for account in some:
                waiter = self.waiter(account)
                facts = self.limiter.waiting_room._facts(waiter)
                self.call(
                    pipe, "park", waiter.run, waiter.name, group_of(waiter.limits), waiter.ticket,
                    facts, waiter.message, "", 64,
                )  # fmt: skip
            assert all(reply[0] == b"parked" for reply in pipe.execute())

    def _load(self) -> None:
        for verb in ("acquire", "park"):
            self.redis.script_load(scripts.source(verb))


def _batches(items: Iterator[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for item in items:
        batch.append(item)
        if len(batch) == TRIP:
            yield batch
            batch = []
    if batch:
        yield batch
