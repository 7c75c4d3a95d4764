"""The outbox: handed-over messages that go back to a broker other than the tokens' Redis.

A script that frees room can't publish there. It leaves the message in the outbox, and the
process that called the script publishes it here, in a thread, so that a broker that hangs delays
no heartbeat and blocks no slot. The message leaves the outbox when the broker has confirmed it.
If that takes too long, another process sends it too; the name under which the message was parked
tells such copies.

``message.py`` publishes a message.
"""

import atexit
import logging
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

from celery import Celery

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.background import Background
from celery_concurrency.limiter.waiting_room import WaitingRoom
from celery_concurrency.log import WORKER_LOG, Outage
from celery_concurrency.worker.message import TaskMessage, broker_kind

logger = logging.getLogger(WORKER_LOG)

#: How long a process that ends waits for what it is sending, in seconds.
FINISH_SECONDS: Final = 5.0
#: By kind of broker: options that make it confirm messages, and time-outs for its calls.
_TRANSPORT_OPTIONS: Final = {
    "amqp": {"confirm_publish": True, "read_timeout": 3, "write_timeout": 3},
    "redis": {"socket_timeout": 3, "socket_connect_timeout": 3},
}

# After a fork it also has the parent's, whose threads don't run here.
_senders: WeakSet["Sender"] = WeakSet()


class Sender:
    """Publishes what is in the outbox, in its own thread and on its own connection.

    Args:
        app: returns the app that has the broker, or None when the app is gone.
        room: returns the waiting room.
    """

    def __init__(self, app: Callable[[], Celery | None], room: Callable[[], WaitingRoom]) -> None:
        self._app = app
        self._room = room
        self._producer: Any = None
        self._thread = Background("concurrency-sender", self._round)
        later = ", so messages of the outbox are sent later"
        self._limiter = Outage(logger, "limiter", later)
        self._broker = Outage(logger, "broker", later)
        _senders.add(self)

    def send(self) -> None:
        """Start to send what is in the outbox; what can't be sent now is left for later."""
        try:
            self._thread.wake()
        except RuntimeError as exc:
            logger.warning("messages of the outbox are sent later: %s", exc)

    def finish(self, seconds: float) -> None:
        """Wait until nothing is being sent, for at most this many seconds."""
        self._thread.join(seconds)

    def _round(self) -> None:
        app = self._app()
        try:
            if app is not None:
                self._send_all(app)
        except LimiterUnavailable as exc:
            self._limiter.begin(exc)
        except Exception as exc:  # noqa: BLE001 - in any case, the messages are still there
            self._broker.begin(exc)
            self._close()
        else:
            self._limiter.end()
            self._broker.end()

    def _send_all(self, app: Any) -> None:
        # Connect first: a message claimed while the broker is away would be delayed afterwards.
        self._open(app)
        room = self._room()
        while batch := room.claim():
            for number, message in batch:
                if self._send_one(app, message, number):
                    room.confirm(number)

    def _send_one(self, app: Any, message: bytes, number: int) -> bool:
        """Send a message; return False if this process can't send it.

        The others are sent all the same. Later another worker, which may be able to, claims it.
        """
        if not message:
            return True  # somebody deleted it by hand
        producer = self._open(app)
        try:
            TaskMessage.from_json(message).publish(app, producer=producer)
        except producer.connection.connection_errors:
            raise
        except Exception:
            logger.exception("this worker can't send message %d of the outbox", number)
            self._close()  # the broker may have closed the channel because of it
            return False
        return True

    def _open(self, app: Any) -> Any:
        """Return a connected producer."""
        if self._producer is None:
            # Without confirms, a message that the broker loses would count as sent; without
            # time-outs, the thread would hang as long as the broker does.
            options = _TRANSPORT_OPTIONS.get(broker_kind(app))
            connection = app.connection_for_write(transport_options=options)
            self._producer = app.amqp.Producer(connection)
            connection.ensure_connection(timeout=connection.connect_timeout)
        return self._producer

    def _close(self) -> None:
        if self._producer is not None:
            connection, self._producer = self._producer.connection, None
            try:
                connection.release()
            except Exception as exc:  # noqa: BLE001 - it is broken; that is why it is closed
                logger.debug("closing a connection: %s", exc)


def finish(**_: Any) -> None:
    """Before this process ends, give it a moment to finish what it is sending.

    Called by ``worker_process_shutdown`` in a pool's child, by ``atexit`` elsewhere. If the
    process is killed, another one sends what it had claimed after ``CLAIM_SECONDS``.
    """
    for sender in list(_senders):
        sender.finish(FINISH_SECONDS)


atexit.register(finish)
