"""Look-ahead: the messages that come next in a queue, as requests, while they are still there.

kombu takes one message at a time, and notes of each that it has no ack yet: more than half of
what it costs to let one wait. So the script that parks a message also returns those that come
next. Who of them has to wait as well goes from the queue to its place in one call
(``door.py``, ``join.lua``): at any time it is in one of them, whoever else reads the queue.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from celery.app.task import Task
from celery.worker import state as worker_state

from celery_concurrency.scripts.constants import DISCARD, GIVEN_UP, PARKED
from celery_concurrency.worker import kombu_redis
from celery_concurrency.worker.celery_compat import is_rate_limited, request_of
from celery_concurrency.worker.gate import is_gated
from celery_concurrency.worker.run import receive

#: Headers of messages that are left in their queue, to be received as always.
_UNUSUAL = ("eta", "expires", DISCARD, GIVEN_UP, PARKED)


def requests_of(consumer: Any, before: Any, texts: Iterable[bytes]) -> Iterator[tuple[bytes, Any]]:
    """Yield those of these messages that may be parked straight from their queue.

    Args:
        consumer: the worker's.
        before: the message that was delivered before them.
        texts: messages, as the queue has them.

    Yields:
        text and request of each; the request has its run, and nobody was told of it.
    """
    for text in texts:
        message = kombu_redis.message_of(before, text)
        headers = message.headers or {}
        task = consumer.app.tasks.get(headers.get("task"))
        if (
            task is None
            or not is_gated(task)
            or task.Strategy != Task.Strategy  # such as celery-batches': it may never ask
            or any(headers.get(name) for name in _UNUSUAL)
            or headers["id"] in worker_state.revoked
            or (headers.get("stamped_headers") and worker_state.revoked_stamps)
            or is_rate_limited(consumer, task)
        ):
            continue
        request = request_of(consumer, message, task)
        receive(request)
        yield text, request
