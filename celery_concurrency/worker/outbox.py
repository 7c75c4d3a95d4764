"""The outbox: messages that were handed room and go back by way of a broker of its own.

A script that frees room can't publish where the broker is not its Redis server. It
leaves the message in the outbox, and the process that called it publishes here, in a
thread: a broker that hangs holds up no heartbeat, and no slot. A message is
taken out when the broker has confirmed it; until then somebody else sends it after a
while. Copies that come of this are known by the name under which it was parked.

What a message is, and how it is published, is in ``message.py``.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import Any, Final
from weakref import WeakKeyDictionary

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.waiting_room import WaitingRoom
from celery_concurrency.log import WORKER_LOG
from celery_concurrency.worker.message import TaskMessage

logger = logging.getLogger(WORKER_LOG)

#: For how long a process that ends waits for what it is sending, in seconds.
FINISH_SECONDS: Final = 5.0
#: Of the connections to brokers, by their kinds: what makes sending sure, and ends it
#: where a broker hangs.
_TRANSPORT_OPTIONS: Final = {
    "amqp": {"confirm_publish": True, "read_timeout": 3, "write_timeout": 3},
    "redis": {"socket_timeout": 3, "socket_connect_timeout": 3},
}


class Sender:
    """Publishes what is in the outbox, on a connection of its own.

    In a thread that is there only while there is something to send.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = False
        self._thread: threading.Thread | None = None
        self._producer: Any = None

    def send(self, app: Any, room: WaitingRoom) -> None:
        """Have all sent there is, and return at once.

        What can't be sent now is left for later, and logged.

        Args:
            app: whose broker.
            room: its waiting room.
        """
        with self._lock:
            # One thread a process is enough: it looks again for those who come meanwhile.
            self._wanted = True
            # A time limit that struck may have left one that was never started.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, args=(app, room), name="concurrency-sender", daemon=True
                )
                try:
                    self._thread.start()
                except RuntimeError as exc:  # no more threads, or the interpreter ends
                    logger.warning("messages of the outbox are sent later: %s", exc)

    def finish(self, seconds: float) -> None:
        """Wait until nothing is being sent any more, for so many seconds at most."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(seconds)

    def _run(self, app: Any, room: WaitingRoom) -> None:
        while self._is_wanted():
            try:
                self._send_all(app, room)
            except LimiterUnavailable as exc:
                logger.warning("messages of the outbox are sent later: %s", exc)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the messages are still there
                logger.warning(
                    "messages of the outbox are sent later, as the broker is away: %s", exc
                )
                self._close()

    def _is_wanted(self) -> bool:
        """Return whether somebody came since the last look; if nobody did, the thread ends."""
        with self._lock:
            wanted, self._wanted = self._wanted, False
            if not wanted:
                self._thread = None
            return wanted

    def _send_all(self, app: Any, room: WaitingRoom) -> None:
        # First of all: what is claimed while the broker is away lies there when it is back.
        self._open(app)
        while batch := room.claim():
            for number, message in batch:
                if self._send_one(app, message, number):
                    room.confirm(number)

    def _send_one(self, app: Any, message: bytes, number: int) -> bool:
        """Send a message; return false where it is this one that can't be sent from here.

        Another worker may be able to, or this one when what is missing is there: it is
        claimed again after a while, and holds up no other.
        """
        if not message:
            return True  # somebody deleted it by hand
        producer = self._open(app)
        try:
            TaskMessage.from_json(message).publish(app, producer=producer)
        except producer.connection.connection_errors:
            raise
        except Exception:
            logger.exception("message %d of the outbox can't be sent from here", number)
            self._close()  # the broker may have closed the channel for it
            return False
        return True

    def _open(self, app: Any) -> Any:
        """Return what to publish with, connected.

        Raises:
            OperationalError: the broker is away.
        """
        if self._producer is None:
            connection = app.connection_for_write()
            # Without confirms, a message that the broker loses on the way would be taken for
            # sent; without time-outs, one thread would hang as long as the broker does.
            driver = connection.transport.driver_type
            connection.transport_options = {
                **(connection.transport_options or {}),
                **_TRANSPORT_OPTIONS.get(driver, {}),
            }
            self._producer = app.amqp.Producer(connection)
            connection.ensure_connection(timeout=connection.connect_timeout)
        return self._producer

    def _close(self) -> None:
        if self._producer is not None:
            connection, self._producer = self._producer.connection, None
            try:
                connection.release()
            except Exception as exc:  # noqa: BLE001 - it is broken, which is why it is closed
                logger.debug("closing a connection: %s", exc)


# Neither a connection nor a thread survives a fork: a child makes its own.
_senders: WeakKeyDictionary[Any, tuple[int, Sender]] = WeakKeyDictionary()


def deliver(app: Any, room: WaitingRoom) -> None:
    """Have sent what is in an app's outbox, from this process; it returns at once.

    Args:
        app: whose broker.
        room: its waiting room.
    """
    pid, sender = _senders.get(app, (0, None))
    if sender is None or pid != os.getpid():
        sender = Sender()
        _senders[app] = (os.getpid(), sender)
    sender.send(app, room)


def finish(**_: Any) -> None:
    """Let this process send what it has begun to, before it ends; not for long.

    ``worker_process_shutdown`` in a pool's child, ``atexit`` elsewhere. What a process that is
    killed has claimed, another one sends after ``CLAIM_SECONDS``.
    """
    for pid, sender in list(_senders.values()):
        if pid == os.getpid():
            sender.finish(FINISH_SECONDS)


atexit.register(finish)
