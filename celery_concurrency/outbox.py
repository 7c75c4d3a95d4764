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
from typing import Any
from weakref import WeakKeyDictionary

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.log import WORKER_LOG
from celery_concurrency.message import KeptMessage
from celery_concurrency.waitingroom import WaitingRoom

logger = logging.getLogger(WORKER_LOG)


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
        while batch := room.claim():
            for number, message in batch:
                if message:
                    KeptMessage.from_json(message).publish(self._app, producer=self._open())
                room.confirm(number)

    def _open(self) -> Any:
        if self._producer is None:
            connection = self._app.connection_for_write()
            # Without, a message that the broker loses on the way would be taken for sent.
            connection.transport_options = {
                **(connection.transport_options or {}),
                "confirm_publish": True,
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
