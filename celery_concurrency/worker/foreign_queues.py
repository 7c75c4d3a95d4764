"""Queues of other namespaces that a worker was told to consume: their messages don't run there.

``namespaces.py`` says whose a queue is; ``run.py`` asks for each message.
"""

from collections.abc import Iterable
from typing import Any, Final

from kombu.transport.native_delayed_delivery import MAX_NUMBER_OF_BITS_TO_USE

from celery_concurrency.errors import ConcurrencyError
from celery_concurrency.worker.apps import per_process, settings_of
from celery_concurrency.worker.message import TaskMessage, is_routed
from celery_concurrency.worker.namespaces import is_of_any, namespace_of

#: How the names of Celery's exchanges for messages with a countdown begin (quorum queues).
DELAYED: Final = "celery_delayed"


def check_queue(app: Any, message: TaskMessage, hostname: str) -> None:
    """Refuse a message of another namespace's queue, which its worker was told to consume later.

    Once it was, a message whose queue can't be told is refused, too.

    Args:
        hostname: the worker's.

    Raises:
        ConcurrencyError: its limits are elsewhere, or may be.
    """
    namespaces, ours = settings_of(app).namespaces, settings_of(app).namespace

    def namespace_here(name: str) -> str:
        queue = app.amqp.queues.get(name)
        if queue is not None and is_of_any(app, queue, hostname):
            return ours
        return namespace_of(name, namespaces)

    def foreign_in(names: Iterable[str]) -> dict[str, str]:
        found = {name: namespace_here(name) for name in names}
        return {name: other for name, other in found.items() if other != ours}

    consumed = _foreign_of(app)
    consumed.update(foreign_in(app.amqp.queues.consume_from))
    queues = list(_queues_of(app, message))
    foreign = foreign_in(queues)
    is_ours = bool(queues) and not foreign
    # Others may have got copies of it, or nothing is known of its exchange.
    may_be_ours = not queues or len(foreign) < len(queues)
    if is_ours or (may_be_ours and not consumed):
        return
    name, other = next(iter((foreign or consumed).items()))
    raise ConcurrencyError(
        f"waits for a worker of the namespace {other!r}: this one serves {ours!r}, and was told "
        f"to consume the queue {name!r} all the same; end that with "
        f"celery control cancel_consumer {name}"
    )


@per_process()
def _foreign_of(app: Any) -> dict[str, str]:
    """Return the queues of other namespaces that this worker has consumed, with their namespace.

    Messages may still come when it consumes them no more.
    """
    return {}


def _queues_of(app: Any, message: TaskMessage) -> Iterable[str]:
    """Return the names of the queues from which a message may have come, as far as known."""
    if not message.exchange:
        return [message.routing_key]
    exchange, routing_key = message.exchange, message.routing_key
    delayed = exchange.startswith(DELAYED)
    if delayed:
        # Celery puts the countdown in front, one bit after the other.
        routing_key = routing_key.split(".", MAX_NUMBER_OF_BITS_TO_USE)[-1]
    return [
        name
        for name, queue in app.amqp.queues.items()
        if (delayed or queue.exchange.name == exchange) and is_routed(queue, routing_key)
    ]
