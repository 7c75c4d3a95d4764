"""A caller outside of tasks: asks for tokens and waits for them, as steps (``steps.py``).

A caller waits in the same waiting room as tasks do. The hand-over puts its message into a list,
which ``blocking_acquire.py`` reads in a thread of the caller, ``async_acquire.py`` in its event
loop.
"""

import json
import math
import os
import secrets
import socket
import time
import uuid
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from typing import Any, Final

from celery_concurrency.errors import LimiterUnavailable, LimitReached, RunEnded
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.later import Later
from celery_concurrency.limiter.outcomes import Denied, Granted, Outcome, Ticket, not_waiting
from celery_concurrency.limiter.steps import Pop, Steps
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.limiter.waiting_room import WaitingRoom
from celery_concurrency.scripts.constants import GIVEN_UP

#: How the ids of callers, and so their tokens, begin.
CALL: Final = "call-"
#: Seconds of silence after which a process's tokens are taken back.
LEASE_SECONDS: Final = 30.0
#: Seconds that tokens stay reserved for a caller, who is there and waits.
HOLD_SECONDS: Final = 5.0
#: Seconds after which a caller parks again, so that a dead caller stops waiting.
STAY_SECONDS: Final = 60.0
#: Seconds after that until it asks again although nothing came: Redis may have lost its data.
LATE_SECONDS: Final = 5.0
#: Seconds between two looks at a list; in between it sweeps, because there may be no worker.
LOOK_SECONDS: Final = 1
#: The shortest pause while somebody waits for a moment, which may be another caller's.
MOMENT_LOOK_SECONDS: Final = 0.1


def new_id() -> str:
    """Return an id for a caller, or for a list that several callers share."""
    return f"{CALL}{uuid.uuid4()}"


def look(room: WaitingRoom, queue: str, seconds: float = LOOK_SECONDS) -> Steps[bytes | None]:
    """Wait for a message, not for long, and return it; without one, do what a worker does."""
    opens = yield from room.meeting_moments()
    until = LOOK_SECONDS if opens is None else max(opens, MOMENT_LOOK_SECONDS)
    # 0 would wait for ever.
    found = yield Pop(queue, max(min(LOOK_SECONDS, seconds, until), 0.01))
    if found:
        message: bytes = found[1]
        return message
    yield from room.sweeping()
    return None


class Caller:
    """Asks for tokens and waits for them.

    Args:
        trying: the steps of ``Limiter.try_acquire``.
        later: leaves the room for it where Redis is away, or a cancellation cuts that short.
        tags, weight: what it asks for.
        timeout: seconds that it waits at most; None waits for ever.
        caller_id: from ``new_id``.
        queue: the list into which its message is put.
        look: waits for that message, for at most so many seconds, and returns it; None if it
            did not come.
    """

    def __init__(
        self,
        keyspace: Keyspace,
        room: WaitingRoom,
        trying: Callable[..., Steps[Outcome]],
        later: Later,
        *,
        tags: Mapping[str, object],
        timeout: float | None,
        weight: int,
        caller_id: str,
        queue: str,
        look: Callable[[float], Steps[bytes | None]],
    ) -> None:
        self._keyspace, self._room = keyspace, room
        self._trying, self._later, self._look = trying, later, look
        self._tags, self._weight = tags, weight
        self._ends = math.inf if timeout is None else time.monotonic() + timeout
        self._id, self._queue = caller_id, queue
        self._name = f"{os.getpid()}@{socket.gethostname()}"
        # From when it is parked until it has what was handed over.
        self._parked: Ticket | None = None
        # The run that a call to park may still be on its way for.
        self._on_its_way = ""

    def waiting(self) -> Steps[Granted]:
        """Wait until the tokens are granted; return the grant.

        Raises:
            LimitReached: they were not granted in time.
            TooManyWaiting, WaitedTooLong: bounds on waiting.
        """
        try:
            return (yield from self._waiting())
        except GeneratorExit:
            raise  # nobody can ask for it any more
        except BaseException:
            yield from self._leaving()
            raise

    def _waiting(self) -> Steps[Granted]:
        ticket: Ticket | None = None
        while True:
            token = f"{self._id}:{secrets.token_hex(8)}"
            outcome = yield from self._trying(
                token, self._tags, worker=self._name, lease=LEASE_SECONDS, ticket=ticket,
                weight=self._weight,
            )  # fmt: skip
            if isinstance(outcome, Granted):
                return outcome
            if not isinstance(outcome, Denied):
                raise RunEnded()  # nobody else has its id, and it is never skipped
            self._parked = None
            ticket = Ticket(
                outcome.ticket.number,
                outcome.ticket.parked_as or token,
                outcome.limits,
                outcome.weight,
            )
            if self._left() <= 0 or not (yield from self._parking(token, outcome, ticket)):
                raise LimitReached(f"timed out: it waits for {outcome}")

    def _parking(self, token: str, denied: Denied, ticket: Ticket) -> Steps[bool]:
        """Wait in the waiting room; return True to ask again, False if time is up."""
        self._parked = ticket
        waiter = yield from self._waiter(token, denied)
        self._on_its_way = token
        yield from self._room.parking(waiter)
        self._on_its_way = ""
        return (yield from self._being_woken())

    def _leaving(self) -> Steps[None]:
        """Stop waiting, and give up what was handed over just now."""
        parked = self._parked
        if not parked:
            return
        try:
            if self._on_its_way:
                # It must not be parked when nobody is there any more.
                yield from self._room.rescuing(self._on_its_way, self._id)
            if not (yield from self._room.cancelling(self._id)):
                yield from self._room.forgoing(parked.parked_as, parked.limits, parked.weight)
        except (LimiterUnavailable, CancelledError):
            self._later.add(self._id, lambda _: self._keyspace.run(self._leaving()))

    def _left(self) -> float:
        """Return the seconds left to wait."""
        return self._ends - time.monotonic()

    def _waiter(self, token: str, denied: Denied) -> Steps[Waiter]:
        now = yield from self._keyspace.telling_time()
        return Waiter(
            run=token,
            task_id=self._id,
            retries=0,
            replaced=0,
            limits=denied.limits,
            ticket=denied.ticket.number,
            parked_as=denied.ticket.parked_as,
            message=json.dumps({"headers": {"id": self._id, "task": self._name}}).encode(),
            hold=HOLD_SECONDS,
            expires=int(now) + STAY_SECONDS,
            weight=denied.weight,
            queue=self._queue,
            queue_expires=int(1000 * STAY_SECONDS),
        )

    def _being_woken(self) -> Steps[bool]:
        """Wait until the message is put back or it is time to park again; False if time is up."""
        asks_anew = time.monotonic() + STAY_SECONDS + LATE_SECONDS
        while (left := asks_anew - time.monotonic()) > 0:
            message = yield from self._look(min(left, self._left()))
            if message:
                given_up: Any = json.loads(message)["headers"].get(GIVEN_UP)
                if given_up:
                    self._parked = None  # nothing is reserved for it
                    raise not_waiting(*given_up)
                return True
            if self._left() <= 0:
                # Cancel fails if room was handed over just now; then the caller has it.
                cancelled = yield from self._room.cancelling(self._id)
                if cancelled:
                    self._parked = None
                return not cancelled
        return True
