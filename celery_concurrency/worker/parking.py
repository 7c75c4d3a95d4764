"""Parking: whether an app's denied tasks wait in the waiting room, and what the room gets.

They do where the setting says so, or by ``auto`` where the broker is the Redis server that
holds the tokens: a parked message is then as safe as a queued one. Else they wait by countdown.
``gate.py`` decides when a message is parked, ``limiter/waiting_room.py`` says what follows.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from celery import Celery

from celery_concurrency.limiter.outcomes import Denied, Ticket
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.worker import kombu_redis
from celery_concurrency.worker.apps import limiter_of, per_process, settings_of
from celery_concurrency.worker.message import TaskMessage

#: The header of a message that was parked: where it waited.
PARKED: Final = "concurrency_parked"

#: Seconds until we look again whether broker and limiter are one server: either may fail over.
SURE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class WaitingMode:
    """How an app's denied tasks wait.

    Attributes:
        by_handoff: in the waiting room.
        same_server: the broker is the Redis server that holds the tokens.
        reason: why, for the log.
    """

    by_handoff: bool
    same_server: bool
    reason: str


@per_process(SURE_SECONDS)
def waiting_mode_of(app: Celery) -> WaitingMode:
    """Return how denied tasks of this app wait now.

    Raises:
        OperationalError: the broker is away.
    """
    wanted = settings_of(app).waiting
    if wanted == "retry":
        return WaitingMode(False, False, "concurrency_waiting is 'retry'")
    # By the servers' own ids: one server may have many addresses.
    broker = kombu_redis.server_id(app)
    ours: Any = limiter_of(app).redis.info("server") if broker else {}
    same = bool(broker) and broker == ours["run_id"]
    if wanted == "handoff":
        return WaitingMode(True, same, "concurrency_waiting is 'handoff'")
    is_it = "is" if same else "is not"
    return WaitingMode(same, same, f"the broker {is_it} the Redis server that holds the tokens")


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
