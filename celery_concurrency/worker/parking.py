"""Parked messages: what goes into the waiting room, and what a message brings back from it.

``gate.py`` parks a message after Celery wrote its task's state; ``limiter/waiting_room.py`` says
what follows.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from celery_concurrency.limiter.outcomes import Ticket
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.limiter.weights import without_weight
from celery_concurrency.scripts.constants import PARKED
from celery_concurrency.worker import kombu_redis
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.message import TaskMessage
from celery_concurrency.worker.waiting_mode import waiting_mode_of


def waiter_of(
    app: Any,
    token: str,
    limits: tuple[str, ...],
    message: TaskMessage,
    ticket: Ticket | None,
    replaces: int | None = None,
    weight: int = 1,
    has_begun: bool = False,
) -> Waiter | None:
    """Return the waiter for a run's message; None if it can only wait by countdown.

    Args:
        token: the run.
        limits: the limits it waits for.
        ticket: the ticket from its denial; None if it gets one when it joins its group.
        replaces: when the run was received (``Run.received``), if it replaces older ones.
        weight: the run's weight.
        has_begun: an earlier run of its task has begun (``Run.has_begun``).

    Raises:
        OperationalError: the broker is away.
    """
    mode = waiting_mode_of(app)
    if not mode.by_handoff or message.is_copy:
        # Copies of a message share the task's id, so they can't be told apart.
        return None
    sent = message.headers
    # Its new place is put in when it leaves the room.
    headers = {name: value for name, value in sent.items() if name != PARKED}
    message = replace(message, headers={**headers, "eta": None})
    if mode.same_server:
        queued = kombu_redis.queued(app, message)
        if queued is None:
            return None
        if queued["db"] == limiter_of(app).keyspace.database:
            queued["db"] = None
    else:
        queued = {"message": message.to_json()}
    return Waiter(
        run=token,
        task_id=sent["id"],
        retries=sent.get("retries") or 0,
        replaced=sent.get("replaced_task_nesting") or 0,
        limits=limits,
        ticket=ticket.number if ticket else None,
        parked_as=ticket.parked_as if ticket else "",
        hold=settings_of(app).handoff_timeout,
        expires=_unix_seconds(sent.get("expires")),
        replaces=None if replaces is None else sent["task"],
        received=replaces or 0,
        weight=weight,
        has_begun=has_begun,
        **queued,
    )


def ticket_of(parked: dict[str, Any]) -> Ticket:
    """Return the ticket of a message that was parked, from its header."""
    limits, weight = without_weight(parked["limits"])
    received = parked.get("received") or 0
    return Ticket(parked["score"], parked["as"], tuple(limits), weight, received)


def _unix_seconds(expires: Any) -> float | None:
    """Return a message's ``expires``, a text in ISO 8601, in Unix seconds.

    Without a zone it is in UTC, as for Celery (``celery.utils.time.maybe_make_aware``).
    """
    if not expires:
        return None
    moment = expires if isinstance(expires, datetime) else datetime.fromisoformat(expires)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
