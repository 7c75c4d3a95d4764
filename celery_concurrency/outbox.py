"""The outbox: messages that were handed room and go back by way of a broker of its own.

A script that frees room can't publish where the broker is not its Redis server. It
leaves the message in the outbox, and whoever called it publishes here. A message is
taken out when the broker has confirmed it; until then somebody else sends it after a
while. Copies that come of this are known by the name under which it was parked.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any, Final
from weakref import WeakKeyDictionary

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.log import WORKER_LOG
from celery_concurrency.message import KeptMessage
from celery_concurrency.waitingroom import WaitingRoom

logger = logging.getLogger(WORKER_LOG)


#: For how long one call sends, in seconds: what is left, the next one sends.
SEND_SECONDS: Final = 1.0
#: Of the connections to brokers, by their kinds: what makes sending sure, and bounds it.
_TRANSPORT_OPTIONS: Final = {
    "amqp": {"confirm_publish": True, "read_timeout": 3, "write_timeout": 3},
    "redis": {"socket_timeout": 3, "socket_connect_timeout": 3},
}


class Sender:
    """Publishes what is in the outbox, on a connection of its own.

    Args:
        app: whose broker.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._wanted = False
        self._producer: Any = None

    def send(self, room: WaitingRoom) -> None:
        """Send all there is; what can't be sent now is left for later, and logged."""
        # One sender a process is enough: it looks again for those who come meanwhile.
        self._wanted = True
        while self._wanted and self._lock.acquire(blocking=False):
            try:
                self._wanted = False
                self._send_all(room)
            except LimiterUnavailable as exc:
                logger.warning("messages of the outbox are sent later: %s", exc)
                return
            except Exception as exc:  # noqa: BLE001 - whatever it is, the messages are still there
                logger.warning(
                    "messages of the outbox are sent later, as the broker is away: %s", exc
                )
                self._close()
                return
            finally:
                self._lock.release()

    def _send_all(self, room: WaitingRoom) -> None:
        ends = time.monotonic() + SEND_SECONDS
        while time.monotonic() < ends and (batch := room.claim()):
            for number, message in batch:
                if self._send_one(number, message):
                    room.confirm(number)

    def _send_one(self, number: int, message: bytes) -> bool:
        """Send a message; return false where it is this one that can't be sent from here.

        Another worker may be able to, or this one when what is missing is there: it is
        claimed again after a while, and holds up no other.
        """
        if not message:
            return True  # somebody deleted it by hand
        producer = self._open()
        try:
            KeptMessage.from_json(message).publish(self._app, producer=producer)
        except producer.connection.connection_errors:
            raise
        except Exception:
            logger.exception("message %d of the outbox can't be sent from here", number)
            self._close()  # the broker may have closed the channel for it
            return False
        return True

    def _open(self) -> Any:
        if self._producer is None:
            connection = self._app.connection_for_write()
            # Without confirms, a message that the broker loses on the way would be taken for
            # sent; without time-outs, a broker that hangs would stop whoever sends.
            driver = connection.transport.driver_type
            connection.transport_options = {
                **(connection.transport_options or {}),
                **_TRANSPORT_OPTIONS.get(driver, {}),
            }
            self._producer = self._app.amqp.Producer(connection)
        return self._producer

    def _close(self) -> None:
        if self._producer is not None:
            connection, self._producer = self._producer.connection, None
            try:
                connection.release()
            except Exception as exc:  # noqa: BLE001 - it is broken, which is why it is closed
                logger.debug("closing a connection: %s", exc)


# A connection doesn't survive a fork: a child makes its own.
_senders: WeakKeyDictionary[Any, tuple[int, Sender]] = WeakKeyDictionary()


def deliver(app: Any, room: WaitingRoom) -> None:
    """Send what is in an app's outbox, from this process; it never raises.

    Args:
        app: whose broker.
        room: its waiting room.
    """
    pid, sender = _senders.get(app, (0, None))
    if sender is None or pid != os.getpid():
        sender = Sender(app)
        _senders[app] = (os.getpid(), sender)
    sender.send(room)
