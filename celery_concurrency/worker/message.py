"""A task's message, kept as it came so that it can be sent on later.

What is sent on are the bytes that came, not a message made anew: serializer,
compression, headers, priority, canvas, stamps and properties stay as they are.

Where it waits is ``waiting_mode.py``'s and ``limiter/waiting_room.py``'s matter.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from celery.utils.quorum_queues import detect_quorum_queues
from kombu.compression import compress
from kombu.serialization import dumps, registry
from kombu.transport.native_delayed_delivery import calculate_routing_key
from kombu.utils import json

#: Properties that a message is given anew when it is published.
_OWN_PROPERTIES: Final = (
    "content_type", "content_encoding", "application_headers", "body_encoding", "expiration",
    "delivery_info", "delivery_tag",
)  # fmt: skip

#: RabbitMQ drops a message as going in circles if it finds these on it again.
_DEATH_HEADERS: Final = ("x-death", "x-first-death-", "x-last-death-")

#: Where Celery sends messages that quorum queues are to hold back.
_DELAY_EXCHANGE: Final = "celery_delayed_27"

_PUBLISH_POLICY: Final = {
    "max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """A message as it was delivered.

    Attributes:
        body: its bytes, uncompressed.
        content_type, content_encoding: how to read them.
        compression: the content type of its compression, None without.
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
    def of(cls, request: Any) -> TaskMessage:
        """Keep the message of a worker's request (``celery.worker.request.Request``)."""
        message = request.message
        headers = message.headers
        body = request.body
        content_type, content_encoding = message.content_type, message.content_encoding
        if "task" not in headers:
            # Task protocol 1 has all in the body; Celery has made it protocol 2 by now.
            headers = {
                name: value
                for name, value in request.request_dict.items()
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

    def with_headers(self, headers: dict[str, Any]) -> TaskMessage:
        """Return the message with these headers too, or instead of its own."""
        return replace(self, headers={**self.headers, **headers})

    def to_json(self) -> bytes:
        """Return it as a JSON object whose first member is ``headers``."""
        fields = {"headers": self.headers, **asdict(self)}
        if isinstance(self.body, bytes):
            fields["body"] = {"base64": b64encode(self.body).decode()}
        return _to_bytes(fields)

    @classmethod
    def from_json(cls, text: bytes) -> TaskMessage:
        """Return the message that ``to_json`` wrote down; headers added since are in it."""
        # kombu's own types stop at this function.
        fields = json.loads(text)  # type: ignore[no-untyped-call]
        if isinstance(fields["body"], dict):
            fields["body"] = b64decode(fields["body"]["base64"])
        return cls(**fields)

    def to_redis(self, channel: Any) -> bytes:
        """Return it as kombu's Redis transport keeps it in a queue, its headers first.

        Args:
            channel: of that transport. The delivery tag is a new one, as always: one that
                is used twice lets the first delivery's ack take away the second's message.
        """
        headers = dict(self.headers)
        body: Any = self.body
        if self.compression:
            raw = body.encode(self.content_encoding) if isinstance(body, str) else body
            body, headers["compression"] = compress(raw, self.compression)  # type: ignore[no-untyped-call]  # kombu
        properties = {**self.properties, "delivery_info": {}}
        if self.expiration is not None:
            properties["expiration"] = str(int(self.expiration * 1000))
        message = channel.prepare_message(
            body,
            self.properties.get("priority"),
            self.content_type,
            self.content_encoding,
            headers,
            properties,
        )
        channel._inplace_augment_message(message, self.exchange, self.routing_key)
        return _to_bytes({"headers": headers, **message})

    def queue(self, channel: Any) -> str | None:
        """Return the one queue that a Redis channel would put it in; None if there is none such."""
        if not self.exchange:
            return self.routing_key or None
        queues = set(channel._lookup(self.exchange, self.routing_key))
        return str(queues.pop()) if len(queues) == 1 else None

    def publish(self, app: Any, countdown: float | None = None, producer: Any = None) -> None:
        """Send the message on, to be run in ``countdown`` seconds, or as it is.

        Args:
            app: the Celery app.
            countdown: seconds; None leaves the message's ``eta`` as it is.
            producer: what to publish with; None takes one of the app's.

        Raises:
            kombu.exceptions.OperationalError: the broker does not take it.
        """
        headers = self.headers
        if countdown is not None:
            eta = datetime.now(UTC) + timedelta(seconds=countdown)
            headers = {**headers, "eta": eta.isoformat()}
        own = producer
        with app.producer_or_acquire(producer) as producer:
            exchange, routing_key = self._route(app, producer, countdown or 0)
            producer.publish(
                self.body,
                exchange=exchange,
                routing_key=routing_key,
                content_type=self.content_type,
                content_encoding=self.content_encoding,
                compression=self.compression,
                headers=headers,
                expiration=self.expiration,
                declare=self._queues(app),
                # Who brings a producer tries again by itself.
                retry=own is None,
                retry_policy=_PUBLISH_POLICY,
                **self.properties,
            )

    def is_broadcast(self, app: Any) -> bool:
        """Return whether every worker got a copy of this message."""
        return bool(self.exchange) and any(
            queue.exchange.type == "fanout" for queue in self._queues(app)
        )

    def _queues(self, app: Any) -> list[Any]:
        """Return the app's queues on this message's exchange; none for the anonymous one."""
        if not self.exchange:
            return []
        return [queue for queue in app.amqp.queues.values() if queue.exchange.name == self.exchange]

    def _route(self, app: Any, producer: Any, countdown: float) -> tuple[str, str]:
        """Return exchange and routing key, by way of Celery's delay queues where it uses them."""
        driver = producer.connection.transport.driver_type
        delayed = self.exchange.startswith("celery_delayed") or any(
            queue.exchange.type != "direct" for queue in self._queues(app)
        )
        if self.exchange and delayed and countdown >= 1 and detect_quorum_queues(app, driver)[0]:
            return _DELAY_EXCHANGE, calculate_routing_key(int(countdown), self.routing_key)
        return self.exchange, self.routing_key


def _to_bytes(fields: dict[str, Any]) -> bytes:
    # kombu's own JSON: it knows the types that headers may have beyond JSON's.
    return str(json.dumps(fields)).encode()  # type: ignore[no-untyped-call]


def _address(app: Any, exchange: str, routing_key: str) -> tuple[str, str, bool]:
    """Return where to send a message on that came by this exchange, and whether it is a copy.

    An exchange that put copies into several queues would copy each of them again,
    every time it waits. So one that did is passed by: any queue does that both got
    a copy and is read by this worker. (``is_broadcast`` sees to fanout exchanges.)
    """
    queues = app.amqp.queues
    copies = [
        name
        for name, queue in queues.items()
        if exchange and queue.exchange.name == exchange and _is_routed(queue, routing_key)
    ]
    read = [name for name in copies if name in queues.consume_from]
    if read and len(copies) > 1:
        return "", read[0], True
    return exchange, routing_key, False


def _is_routed(queue: Any, routing_key: str) -> bool:
    """Return whether a direct or a topic exchange puts this key's messages into a queue."""
    if queue.exchange.type != "topic":
        return bool(queue.exchange.type == "direct" and queue.routing_key == routing_key)
    words = (r"[^.]+" if word == "*" else re.escape(word) for word in queue.routing_key.split("."))
    # A # stands for any number of words, none too.
    pattern = r"\.".join(words).replace(r"\#\.", r"(?:.*\.)?").replace(r"\.\#", r"(?:\..*)?")
    return re.fullmatch(pattern.replace(r"\#", ".*"), routing_key) is not None
