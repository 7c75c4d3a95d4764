"""Parked messages: what the waiting room gets, and what it left on one that comes back.

``gate.py`` parks one after its task's state was written; ``limiter/waiting_room.py`` says what
follows.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from celery_concurrency.limiter.outcomes import Denied, Ticket
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.worker import kombu_redis
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.message import TaskMessage
from celery_concurrency.worker.waiting_mode import waiting_mode_of

#: The header of a message that was parked: where it waited.
PARKED: Final = "concurrency_parked"


def waiter_of(task: Any, token: str, denied: Denied, message: TaskMessage) -> Waiter | None:
    """Return a denied run's message as it is to wait; None where it can only wait by countdown.

    Raises:
        OperationalError: the broker is away.
    """
    app, request = task.app, task.request
    mode = waiting_mode_of(app)
    if not mode.by_handoff or message.is_copy:
        # Copies of a message share the task's id: one could not be told from the other.
        return None
    number, parked_as = denied.ticket.number, denied.ticket.parked_as or token
    parked = {"as": parked_as, "score": number, "limits": list(denied.limits)}
    message = replace(message, headers={**message.headers, PARKED: parked, "eta": None})
    if mode.same_server:
        queued = kombu_redis.queued(app, message)
        if queued is None:
            return None
        home = limiter_of(app).redis.get_connection_kwargs().get("db") or 0
        if queued["db"] == home:
            queued["db"] = None
    else:
        queued = {"message": message.to_json()}
    return Waiter(
        run=token,
        task_id=request.id,
        retries=request.retries or 0,
        replaced=request.replaced_task_nesting or 0,
        limits=denied.limits,
        ticket=number,
        hold=settings_of(app).handoff_timeout,
        expires=_unix_seconds(request.expires),
        **queued,
    )


def ticket_of(parked: dict[str, Any]) -> Ticket:
    """Return the ticket of a message that was parked, from its header."""
    return Ticket(parked["score"], parked["as"], tuple(parked["limits"]))


def _unix_seconds(expires: Any) -> float | None:
    """Return a message's ``expires``, a text in ISO 8601, in Unix seconds."""
    if not expires:
        return None
    moment = expires if isinstance(expires, datetime) else datetime.fromisoformat(expires)
    return moment.timestamp() if moment.tzinfo else moment.astimezone().timestamp()
