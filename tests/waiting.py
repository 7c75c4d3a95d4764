"""Tasks that wait, parked as the gate does it; and what was put back into their queue."""

from __future__ import annotations

import json
import secrets

from celery_concurrency.limiter import Denied
from celery_concurrency.waitingroom import OPENING, Waiter

QUEUE = "tests-queue"


def hold(limiter, task_id, tags, **facts):
    """Let a run hold tokens; returns its token."""
    token = f"{task_id}:{secrets.token_hex(8)}"
    granted = limiter.try_acquire(token, tags, task="publish", worker="w1@h", **facts)
    assert not isinstance(granted, Denied), granted
    return token


def park(limiter, task_id, tags, *, task="publish", rank=0, retries=0, **headers):
    """Let a task wait that finds no room; returns its place."""
    run = f"{task_id}:{secrets.token_hex(8)}"
    denied = limiter.try_acquire(run, tags, task=task, rank=rank)
    assert isinstance(denied, Denied), denied
    headers = {"lang": "py", "task": task, "id": task_id, "argsrepr": "('a secret',)", **headers}
    message = json.dumps({"headers": headers, "body": "a secret"}, ensure_ascii=False)
    assert message.startswith(OPENING)
    waiter = Waiter(
        run=run,
        task_id=task_id,
        retries=retries,
        replaced=0,
        limits=denied.limits,
        score=denied.place.score,
        message=message.encode(),
        hold=30,
        queue=QUEUE,
    )
    assert limiter.waiting.park(waiter) == "parked"
    return denied.place


def put_back(redis):
    """Return the messages in the queue, the next to be read first, and empty it."""
    messages = [json.loads(message) for message in reversed(redis.lrange(QUEUE, 0, -1))]
    redis.delete(QUEUE)
    return messages
