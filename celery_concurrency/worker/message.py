"""A task's message as it was delivered, to be sent on later.

The same bytes are sent on instead of a new message, so serializer, compression, headers,
priority, canvas, stamps and properties stay as they are. ``parking.py`` says how it waits.
"""

import re
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from celery.utils.quorum_queues import detect_quorum_queues
from kombu.serialization import dumps, registry
from kombu.transport.native_delayed_delivery import calculate_routing_key
from kombu.utils import json

from celery_concurrency.scripts.constants import MESSAGE_START, PARKED, REDELIVERED
from celery_concurrency.worker.celery_compat import headers_of

#: Properties that are set again when a message is published.
_OWN_PROPERTIES: Final = (
    "content_type", "content_encoding", "application_headers", "body_encoding", "expiration",
    "delivery_info", "delivery_tag",
)  # fmt: skip

#: RabbitMQ thinks that a message with these headers goes in circles, and drops it.
_DEATH_HEADERS: Final = ("x-death", "x-first-death-", "x-last-death-")

#: Where Celery sends messages with a countdown for quorum queues.
_DELAY_EXCHANGE: Final = "celery_delayed_27"

_PUBLISH_POLICY: Final = {
    "max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5
}  # fmt: skip


@dataclass(frozen=True)
class TaskMessage:
    """A message as it was delivered.

    Attributes:
        body: its bytes, uncompressed.
        content_type, content_encoding: how to read them.
        compression: the content type of its compression; None if uncompressed.
        headers: its headers.
        properties: those that a sender sets.
        expiration: seconds after which the broker drops it, None for never.
        exchange, routing_key: where it was sent; the queue itself, if others got a copy.
        is_copy: others got a copy.
    """

    body: bytes | str
    content_type: str
    content_encoding: str
    compression: str | None
    headers: dict[str, Any]
    properties: dict[str, Any]
    expiration: float | None
    exchange: str
    routing_key: str
    is_copy: bool = False

    @classmethod
    def of(cls, request: Any) -> Self:
        """Return the message of a worker's request (``celery.worker.request.Request``)."""
        message = request.message
        headers = message.headers
        body = request.body
        content_type, content_encoding = message.content_type, message.content_encoding
        if "task" not in headers:
            # Task protocol 1 has everything in the body; Celery has converted it to protocol 2.
            headers = {
                name: value
                for name, value in headers_of(request).items()
                if name not in ("args", "kwargs", "properties", "delivery_info", "hostname")
            }
            serializer = registry.type_to_name[content_type]
            # kombu's own types stop at this method.
            content_type, content_encoding, body = dumps(body, serializer)  # type: ignore[no-untyped-call]
        properties = message.properties or {}
        delivery = message.delivery_info or {}
        exchange, routing_key, is_copy = _address(
            request.app, delivery.get("exchange") or "", delivery.get("routing_key") or ""
        )
        expiration = properties.get("expiration")
        if delivery.get("redelivered"):
            headers = {**headers, REDELIVERED: True}
        return cls(
            body=body,
            content_type=content_type,
            content_encoding=content_encoding,
            compression=headers.get("compression"),
            headers={
                name: value
                for name, value in headers.items()
                if name != "compression" and not name.startswith(_DEATH_HEADERS)
            },
            properties={
                name: value
                for name, value in properties.items()
                if value is not None and name not in _OWN_PROPERTIES
            },
            expiration=None if expiration is None else int(expiration) / 1000,
            exchange=exchange,
            routing_key=routing_key,
            is_copy=is_copy,
        )

    def to_json(self) -> bytes:
        """Return it as a JSON object whose first member is ``headers``."""
        fields = {"headers": self.headers, **asdict(self)}
        if isinstance(self.body, bytes):
            fields["body"] = {"base64": b64encode(self.body).decode()}
        return to_bytes(fields)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Return the message that ``to_json`` wrote, with the headers that scripts added."""
        # kombu's own types stop at this function.
        fields = json.loads(text)  # type: ignore[no-untyped-call]
        if isinstance(fields["body"], dict):
            fields["body"] = b64decode(fields["body"]["base64"])
        return cls(**fields)

    def publish(self, app: Any, countdown: float | None = None, producer: Any = None) -> None:
        """Send the message to the broker.

        Args:
            app: the Celery app.
            countdown: seconds until it runs; None leaves its ``eta`` as it is.
            producer: publishes it, without retries; None takes one of the app's.
        """
        headers = self.headers
        if countdown is not None:
            eta = datetime.now(UTC) + timedelta(seconds=countdown)
            headers = {**headers, "eta": eta.isoformat()}
        exchange, routing_key = self._route(app, countdown or 0)
        with app.producer_or_acquire(producer) as acquired:
            acquired.publish(
                self.body,
                exchange=exchange,
                routing_key=routing_key,
                content_type=self.content_type,
                content_encoding=self.content_encoding,
                compression=self.compression,
                headers=headers,
                expiration=self.expiration,
                declare=self._queues(app),
                retry=producer is None,
                retry_policy=_PUBLISH_POLICY,
                **self.properties,
            )

    def asked_with(self, ticket: int) -> Self:
        """Return it with a note of when it first asked, which it keeps where it is sent on.

        Args:
            ticket: from its denial (``outcomes.Ticket.number``).
        """
        if PARKED in self.headers:
            return self
        place = {"as": "", "score": ticket, "limits": []}
        return replace(self, headers={**self.headers, PARKED: place})

    def is_broadcast(self, app: Any) -> bool:
        """Return whether every worker got a copy of this message."""
        return bool(self.exchange) and any(
            queue.exchange.type == "fanout" for queue in self._queues(app)
        )

    def _queues(self, app: Any) -> list[Any]:
        """Return the app's queues on this message's exchange; none for the default exchange."""
        if not self.exchange:
            return []
        return [queue for queue in app.amqp.queues.values() if queue.exchange.name == self.exchange]

    def _route(self, app: Any, countdown: float) -> tuple[str, str]:
        """Return exchange and routing key, those of Celery's delay queues where it uses them."""
        kind = broker_kind(app)
        delayed = self.exchange.startswith("celery_delayed") or any(
            queue.exchange.type != "direct" for queue in self._queues(app)
        )
        if self.exchange and delayed and countdown >= 1 and detect_quorum_queues(app, kind)[0]:
            return _DELAY_EXCHANGE, calculate_routing_key(int(countdown), self.routing_key)
        return self.exchange, self.routing_key


def broker_kind(app: Any) -> str:
    """Return an app's kind of broker, such as "redis" or "amqp", without connecting to it."""
    return str(app.pool.connection.transport.driver_type)


def message_rank(app: Any, message: TaskMessage) -> int:
    """Return a message's priority as a rank, 0 for the highest.

    Redis brokers deliver low numbers first, other brokers high numbers.
    """
    priority = min(max(int(message.properties.get("priority") or 0), 0), 255)
    return priority if broker_kind(app) == "redis" else 255 - priority


def to_bytes(fields: dict[str, Any]) -> bytes:
    """Return JSON as kombu writes it: headers may have types that plain JSON lacks.

    Without its spaces, as many may wait; ``headers`` come first.
    """
    text: str = json.dumps(fields, separators=(",", ":"))  # type: ignore[no-untyped-call]
    return (MESSAGE_START + text.removeprefix('{"headers":{')).encode()


def _address(app: Any, exchange: str, routing_key: str) -> tuple[str, str, bool]:
    """Return the exchange and routing key to send a message on to, and whether it is a copy.

    If several queues got a copy each, sending one copy to the exchange would copy it again,
    every time it waits. So a copy goes straight to a queue that got one and that this worker reads.
    (For fanout exchanges see ``is_broadcast``.)
    """
    if not exchange:
        return exchange, routing_key, False
    queues = app.amqp.queues
    copies = [
        name
        for name, queue in queues.items()
        if queue.exchange.name == exchange and is_routed(queue, routing_key)
    ]
    read = [name for name in copies if name in queues.consume_from]
    if read and len(copies) > 1:
        return "", read[0], True
    return exchange, routing_key, False


def is_routed(queue: Any, routing_key: str) -> bool:
    """Return whether a direct or a topic exchange puts this key's messages into a queue."""
    if queue.exchange.type != "topic":
        return bool(queue.exchange.type == "direct" and queue.routing_key == routing_key)
    words = (r"[^.]+" if word == "*" else re.escape(word) for word in queue.routing_key.split("."))
    # A # stands for any number of words, or none.
    pattern = r"\.".join(words).replace(r"\#\.", r"(?:.*\.)?").replace(r"\.\#", r"(?:\..*)?")
    return re.fullmatch(pattern.replace(r"\#", ".*"), routing_key) is not None
