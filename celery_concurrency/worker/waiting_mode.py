"""How an app's denied messages wait: in the waiting room, or with the broker by countdown.

By hand-off where the setting says so, or by ``auto`` where the broker is the very
Redis server that the tokens are in: a parked message is then as safe as a queued
one, and the script that frees room puts it back itself. When a message is parked, and
what comes then, is ``gate.py``'s and ``limiter/waiting_room.py``'s matter.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from weakref import WeakKeyDictionary

from redis import Redis

from celery_concurrency.limiter.outcomes import Denied, Ticket
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.scripts.constants import DISCARD
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.message import TaskMessage

#: The header of a message that was parked: where it waited.
PARKED: Final = "concurrency_parked"

#: For how long it is taken for granted that broker and limiter are one server, or not:
#: either may fail over to another one.
SURE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """How messages of an app wait.

    Attributes:
        by_handoff: in the waiting room.
        same_server: the broker is the Redis server that the tokens are in.
        reason: in words, for the log.
    """

    by_handoff: bool
    same_server: bool
    reason: str


# Connections don't survive a fork: each process finds out by itself.
_known: WeakKeyDictionary[Any, tuple[int, float, Waiting]] = WeakKeyDictionary()

# The kind of each app's broker, which does not change.
_drivers: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def waiting_mode_of(app: Any) -> Waiting:
    """Return how messages of this app wait now.

    Raises:
        OperationalError: the broker, and
        RedisError: the limiter's server can't be asked.
    """
    pid, until, waiting = _known.get(app, (0, 0.0, None))
    if waiting is None or pid != os.getpid() or time.monotonic() > until:
        waiting = _find_out(app)
        _known[app] = (os.getpid(), time.monotonic() + SURE_SECONDS, waiting)
    return waiting


def forget(app: Any) -> None:
    """Find out anew when it is needed next; for tests."""
    _known.pop(app, None)


def _find_out(app: Any) -> Waiting:
    wanted = settings_of(app).waiting
    if wanted == "retry":
        return Waiting(False, False, "concurrency_waiting is 'retry'")
    same = _is_same_server(app, limiter_of(app).redis)
    if wanted == "handoff":
        return Waiting(True, same, "concurrency_waiting is 'handoff'")
    if same:
        return Waiting(True, True, "the broker is the Redis server that holds the tokens")
    return Waiting(False, False, "the broker is not the Redis server that holds the tokens")


def _is_same_server(app: Any, redis: Redis) -> bool:
    """Compare the servers' own ids, as one server may have many addresses."""
    with app.connection_or_acquire() as connection:
        connection.ensure_connection(max_retries=1)
        if connection.transport.driver_type != "redis":
            return False
        with connection.default_channel.conn_or_acquire() as client:
            broker: Any = client.info("server")
    ours: Any = redis.info("server")
    return bool(broker["run_id"] == ours["run_id"])


def waiter_of(task: Any, token: str, denied: Denied, message: TaskMessage) -> Waiter | None:
    """Return a denied run's message as it is to wait; None where it can't but by countdown.

    Args:
        task: with its request.
        token: the run.
        denied: what the limiter said.
        message: as it came.

    Raises:
        OperationalError: the broker can't be asked.
        RedisError: the limiter's server can't be asked.
    """
    app, request = task.app, task.request
    waiting = waiting_mode_of(app)
    if not waiting.by_handoff or message.is_copy:
        # Copies of a message share the task's id: one could not be told from the other.
        return None
    facts: dict[str, Any] = {
        "run": token,
        "task_id": request.id,
        "retries": request.retries or 0,
        "replaced": request.replaced_task_nesting or 0,
        "limits": denied.limits,
        "ticket": denied.ticket.number,
        "hold": settings_of(app).handoff_timeout,
        "expires": _seconds_of(request.expires),
    }
    parked = {
        "as": denied.ticket.parked_as or token,
        "score": denied.ticket.number,
        "limits": list(denied.limits),
    }
    kept = message.with_headers({PARKED: parked, "eta": None})
    if not waiting.same_server:
        return Waiter(message=kept.to_json(), **facts)
    with app.producer_or_acquire() as producer:
        channel = producer.channel
        queue = kept.queue(channel)
        if queue is None:
            return None
        home = limiter_of(app).redis.get_connection_kwargs().get("db") or 0
        db = channel._connparams()["db"]
        return Waiter(
            message=kept.to_redis(channel),
            queue=f"{channel.global_keyprefix}{channel._q_for_pri(queue, 0)}",
            queue_expires=_expiry_of(app, channel, queue),
            db=db if db != home else None,
            **facts,
        )


def ticket_of(parked: dict[str, Any]) -> Ticket:
    """Return where a message waited, by what ``waiter_of`` put on it."""
    return Ticket(parked["score"], parked["as"], tuple(parked["limits"]))


def reservation_of(request: Any) -> tuple[str, list[str]] | None:
    """Return what a message that will not run was parked as and waited for, if it was."""
    parked = getattr(request, PARKED, None)
    discarded = getattr(request, DISCARD, False)
    return (parked["as"], parked["limits"]) if parked and not discarded else None


def _expiry_of(app: Any, channel: Any, name: str) -> int | None:
    """Return the milliseconds after which a queue goes if nobody uses it; None for never.

    A channel knows it of queues that were declared on it, which this one may not be.
    """
    if not hasattr(channel, "_expires"):
        return None  # before kombu 5.7 no Redis queue expired, whatever its arguments say
    queue = app.amqp.queues.get(name)
    if queue is None:
        return channel._expires.get(name)  # type: ignore[no-any-return]  # kombu
    arguments = channel.prepare_queue_arguments(queue.queue_arguments or {}, expires=queue.expires)
    return arguments.get("x-expires")  # type: ignore[no-any-return]  # kombu


def rank_of(app: Any, message: TaskMessage | None) -> int:
    """Return a message's priority as 0 for the highest: brokers count in two directions."""
    priority = min(max(int((message and message.properties.get("priority")) or 0), 0), 255)
    if app not in _drivers:
        with app.connection_for_write() as connection:  # not connected for that
            _drivers[app] = connection.transport.driver_type
    return priority if _drivers[app] == "redis" else 255 - priority


def _seconds_of(expires: Any) -> float | None:
    """Return a message's ``expires``, a text in ISO 8601, in Unix seconds."""
    if not expires:
        return None
    moment = expires if isinstance(expires, datetime) else datetime.fromisoformat(expires)
    return moment.timestamp() if moment.tzinfo else moment.astimezone().timestamp()
