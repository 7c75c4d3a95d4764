"""kombu's Redis transport: how it keeps a message in a queue, so that a script can put it back.

All private parts of kombu that we use are here, each behind a function whose docstring names
the versions that have it. A test checks each part by name. ``parking.py`` says what is put back.
"""

from typing import Any

from kombu.compression import compress
from kombu.transport.virtual import QoS as VirtualQoS
from kombu.utils.json import loads

from celery_concurrency.worker.message import TaskMessage, to_bytes


def server_id(app: Any) -> str | None:
    """Return the ``run_id`` of the broker's Redis server; None if it is not Redis.

    ``Channel.conn_or_acquire``: kombu 5.5 to 5.7. Without it an app's waiting mode stays
    unknown, and its denied tasks keep their slots.

    Raises:
        OperationalError: the broker is away.
    """
    with app.connection_or_acquire() as connection:
        connection.ensure_connection(max_retries=1)
        if connection.transport.driver_type != "redis":
            return None
        with connection.default_channel.conn_or_acquire() as client:
            return str(client.info("server")["run_id"])


def queued(app: Any, message: TaskMessage) -> dict[str, Any] | None:
    """Return a message as the broker keeps it: ``message``, ``queue``, ``queue_expires``, ``db``.

    Returns:
        those fields of a ``Waiter``; None unless exactly one queue would get the message.

    Raises:
        OperationalError: the broker is away.
    """
    with app.producer_or_acquire() as producer:
        channel = producer.channel
        queue = queue_of(channel, message.exchange, message.routing_key)
        if queue is None:
            return None
        return {
            "message": envelope(channel, message),
            "queue": queue_key(channel, queue),
            "queue_expires": queue_expires(app, channel, queue),
            "db": database(channel),
        }


def queue_of(channel: Any, exchange: str, routing_key: str) -> str | None:
    """Return the one queue that gets a message sent there; None if it is not exactly one.

    ``Channel._lookup``: kombu 5.5 to 5.7. Without it, as for those below, a denied task keeps
    its slot and says why.
    """
    if not exchange:
        return routing_key or None
    queues = set(channel._lookup(exchange, routing_key))
    return str(queues.pop()) if len(queues) == 1 else None


def envelope(channel: Any, message: TaskMessage) -> bytes:
    """Return a message as a queue stores it, its headers first, with a new delivery tag.

    If two deliveries had the same tag, the ack of the first would remove the second's message.
    ``Channel._inplace_augment_message``: kombu 5.5 to 5.7.
    """
    headers = dict(message.headers)
    body: Any = message.body
    if message.compression:
        raw = body.encode(message.content_encoding) if isinstance(body, str) else body
        body, headers["compression"] = compress(raw, message.compression)  # type: ignore[no-untyped-call]  # kombu
    properties = {**message.properties, "delivery_info": {}}
    if message.expiration is not None:
        properties["expiration"] = str(int(message.expiration * 1000))
    fields = channel.prepare_message(
        body,
        message.properties.get("priority"),
        message.content_type,
        message.content_encoding,
        headers,
        properties,
    )
    channel._inplace_augment_message(fields, message.exchange, message.routing_key)
    return to_bytes({"headers": headers, **fields})


def queue_key(channel: Any, queue: str) -> str:
    """Return the key of a queue's list; ``_q_for_pri``, ``global_keyprefix``: kombu 5.5 to 5.7."""
    return f"{channel.global_keyprefix}{channel._q_for_pri(queue, 0)}"


def queue_expires(app: Any, channel: Any, name: str) -> int | None:
    """Return the milliseconds after which an unused queue expires; None for never.

    ``Channel._expires`` and ``prepare_queue_arguments``: kombu 5.7. Without them no Redis queue
    expires, whatever its arguments say.
    """
    if not hasattr(channel, "_expires"):
        return None
    queue = app.amqp.queues.get(name)
    if queue is None:
        return channel._expires.get(name)  # type: ignore[no-any-return]  # kombu
    # It may never have been declared on this channel.
    arguments = channel.prepare_queue_arguments(queue.queue_arguments or {}, expires=queue.expires)
    return arguments.get("x-expires")  # type: ignore[no-any-return]  # kombu


def database(channel: Any) -> int:
    """Return the number of the broker's database; ``Channel._connparams``: kombu 5.5 to 5.7."""
    return int(channel._connparams()["db"])


def unacked(message: Any) -> dict[str, Any]:
    """Return where the broker notes that a delivered message has no ack yet.

    ``Channel.unacked_key`` and ``unacked_index_key``: kombu 5.5 to 5.7. Without them a task
    whose group waits goes to the pool.

    Returns:
        ``key`` of a hash and ``index`` of a sorted set with the delivery's ``tag``; ``db``.
    """
    channel = message.channel
    return {
        "key": f"{channel.global_keyprefix}{channel.unacked_key}",
        "index": f"{channel.global_keyprefix}{channel.unacked_index_key}",
        "tag": message.delivery_tag,
        "db": database(channel),
    }


def queue_before(message: Any) -> dict[str, Any] | None:
    """Return the list from which a message was delivered: its ``key`` and ``db``.

    ``Channel.active_queues``, ``_get_message_priority``, ``_q_for_pri``: kombu 5.5 to 5.7.
    Without them a task whose group waits goes to the pool.

    Returns:
        None if it was not sent straight to a queue that is read here.
    """
    channel, delivery = message.channel, message.delivery_info
    queue = delivery.get("routing_key")
    if delivery.get("exchange") or queue not in channel.active_queues:
        return None
    priority = channel._get_message_priority({"properties": message.properties}, reverse=False)
    key = f"{channel.global_keyprefix}{channel._q_for_pri(queue, priority)}"
    return {"key": key, "db": database(channel)}


def message_of(before: Any, text: bytes) -> Any:
    """Return a message as kombu reads it from a queue; ``Channel.Message``: kombu 5.5 to 5.7.

    Args:
        before: one that was delivered from there; the same kinds of body are accepted.
        text: the message, as the queue has it.
    """
    channel = before.channel
    message = channel.Message(loads(text), channel=channel)  # type: ignore[no-untyped-call]
    message.accept = before.accept
    return message


def leave_unacked(request: Any) -> None:
    """Let a request whose message was never delivered seem acknowledged: nothing is sent.

    ``Message._state``: kombu 5.5 to 5.7. Without it the ack may be sent, which is harmless.
    """
    request.message._state = "ACK"
    request.acknowledged = True


def note_acked(message: Any) -> None:
    """Let kombu know that a script has acknowledged a message; nothing is sent.

    ``Message._state``: kombu 5.5 to 5.7. Without it the ack is sent again, which is harmless.
    """
    VirtualQoS.ack(message.channel.qos, message.delivery_tag)  # type: ignore[no-untyped-call]  # kombu
    message._state = "ACK"
