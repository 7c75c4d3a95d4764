"""Tasks that wait, parked as the gate does it; and what was put back into their queue.

Whole scenes are made of these; ``floor.py`` has each call that leads to them, one by one.
"""

from __future__ import annotations

import json
import secrets

from celery_concurrency.limiter import Denied
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.scripts.constants import MESSAGE_START

QUEUE = "tests-queue"


def hold(limiter, task_id, tags, **facts):
    """Let a run hold tokens; returns its token."""
    token = f"{task_id}:{secrets.token_hex(8)}"
    granted = limiter.try_acquire(token, tags, task="publish", worker="w1@h", **facts)
    assert not isinstance(granted, Denied), granted
    return token


def waiter_of(denied, task_id, message, **facts):
    """Return a denied run's message as it is to wait; ``facts`` are more of ``Waiter``'s."""
    usual = {"retries": 0, "replaced": 0, "hold": 30, "queue": QUEUE}
    return Waiter(
        run=denied.token,
        task_id=task_id,
        limits=denied.limits,
        weight=denied.weight,
        ticket=denied.ticket.number,
        message=message,
        parked_as=denied.ticket.parked_as,
        **{**usual, **facts},
    )


def park(limiter, task_id, tags, *, task="publish", rank=0, retries=0, weight=1, **headers):
    """Let a task wait that finds no room; returns its place."""
    run = f"{task_id}:{secrets.token_hex(8)}"
    denied = limiter.try_acquire(run, tags, task=task, rank=rank, weight=weight)
    assert isinstance(denied, Denied), denied
    headers = {"lang": "py", "task": task, "id": task_id, "argsrepr": "('a secret',)", **headers}
    message = json.dumps({"headers": headers, "body": "a secret"}, ensure_ascii=False)
    assert message.startswith(MESSAGE_START)
    waiter = waiter_of(denied, task_id, message.encode(), retries=retries)
    assert limiter.waiting_room.park(waiter) == "parked"
    return denied.ticket


def waiters(redis):
    """Return the names of those who wait."""
    start = "concurrency:waiter:"
    return {key.removeprefix(start) for key in redis.scan_iter(f"{start}*", count=1000)}


def put_back(redis):
    """Return the messages in the queue, the next to be read first, and empty it."""
    messages = [json.loads(message) for message in reversed(redis.lrange(QUEUE, 0, -1))]
    redis.delete(QUEUE)
    return messages
