"""Runs: one execution of a task, from the receipt of its message to its end.

``gate.py`` takes a run along its path. Below Celery a run is a token, a name that begins with
its task's id (``limiter/limiter.py``).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from celery import current_task

from celery_concurrency.errors import ConcurrencyError, LimiterUnavailable, LimitReached
from celery_concurrency.limiter.leases import Lease
from celery_concurrency.limiter.outcomes import Denied, Granted, Repeated, Ticket
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.scripts.constants import DISCARD
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.celery_compat import (
    headers_of,
    ours_on,
    put_ours_on,
    send_along,
    sent_along,
)
from celery_concurrency.worker.message import TaskMessage
from celery_concurrency.worker.parking import PARKED, ticket_of


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The limiter has not said yes: the task waits.

    Attributes:
        reason: why there is no answer.
        held: the run may hold its tokens all the same.
    """

    reason: ConcurrencyError
    held: bool = False


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Redis is away and the task runs; its tokens are counted later."""

    reason: LimiterUnavailable


@dataclass(frozen=True, slots=True)
class Ungated:
    """The task runs and needs no tokens."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The task fails with this error: its author made a mistake."""

    error: Exception


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The task was told to retry, so its message has to be parked or sent on.

    Attributes:
        before: the outcome that it was told so for.
    """

    before: Denied | Repeated | Unanswered


Outcome = Granted | Denied | Repeated | Unanswered | Uncounted | Ungated | Failed | TurnedAway


@dataclass(slots=True)
class Run:
    """One execution of a task.

    Attributes:
        token: its name; the main process and the child share it.
        message: the task's message; None where the worker kept none.
        ticket: where its message waited before; None if it did not.
        tags: what its limits follow from.
        outcome: what the limiter said, and what became of that.
        waiter: its message as it is parked, once that is known.
        lease: what it holds, for the task to read; made when it first asks.
        began: when it had its answer, by this process's monotonic clock.
    """

    token: str
    message: TaskMessage | None
    ticket: Ticket | None
    outcome: Outcome
    tags: dict[str, object] = field(default_factory=dict)
    waiter: Waiter | None = None
    lease: Lease | None = None
    began: float | None = None

    @property
    def answer(self) -> Outcome:
        """The outcome, as it was before the task was turned away."""
        return self.outcome.before if isinstance(self.outcome, TurnedAway) else self.outcome

    @property
    def reason(self) -> ConcurrencyError | None:
        """Why the task waits, or runs uncounted; None in other cases."""
        match self.answer:
            case Denied() as denied:
                return LimitReached(f"waits for {denied}")
            case Repeated(token=str(other)):
                return LimitReached(f"waits for its other run {other}")
            case Unanswered(reason) | Uncounted(reason):
                return reason
        return None

    @property
    def waited(self) -> float:
        """How many seconds its message waited until it was granted, by the server's clock."""
        if self.ticket is None or not isinstance(self.outcome, Granted):
            return 0.0
        # A fencing number is the server's time in microseconds, or a little more.
        return round(max(0.0, self.outcome.fence / 1e6 - self.ticket.asked), 3)


@dataclass(frozen=True, slots=True)
class Received:
    """What the main process sends along with a request.

    Attributes:
        token: the run's name.
        message: the task's message.
        parked: the header of a message that was parked.
    """

    token: str
    message: TaskMessage
    parked: dict[str, Any] | None


def receive(request: Any) -> None:
    """Name the run of a worker's request, and send along what the child needs of it."""
    message = TaskMessage.of(request)
    parked = headers_of(request).pop(PARKED, None)
    send_along(request, Received(_new_token(request.id), message, parked))


def begin_run(context: Any) -> Run:
    """Make the run of a task's request, where the task runs."""
    received = ours_on(context)
    outcome = Unanswered(LimiterUnavailable("the limiter was not asked"))
    if isinstance(received, Received):
        ticket = ticket_of(received.parked) if received.parked else None
        run = Run(received.token, received.message, ticket, outcome)
    else:
        run = Run(_new_token(context.id), None, None, outcome)
    put_ours_on(context, run)
    return run


def run_of(context: Any) -> Run | None:
    """Return the run of a task's request; None where none has begun."""
    run = ours_on(context)
    return run if isinstance(run, Run) else None


def end_run(context: Any) -> Run | None:
    """Take the run off a task's request and return it; None where none has begun."""
    run = run_of(context)
    if run is not None:
        put_ours_on(context, None)
    return run


def token_of(request: Any) -> str | None:
    """Return the run of a worker's request; None where it is not gated."""
    received = sent_along(request)
    return received.token if isinstance(received, Received) else None


def reservation_of(context: Any) -> tuple[str, list[str]] | None:
    """Return what the message of a revoked task was parked as and waited for, if it was."""
    if getattr(context, DISCARD, False):
        return None  # it has none any more
    received = ours_on(context)
    # A task that was revoked before its receipt still has the header.
    parked = received.parked if isinstance(received, Received) else getattr(context, PARKED, None)
    return (parked["as"], parked["limits"]) if parked else None


def current_lease() -> Lease | None:
    """Return what the task that runs here now holds; None if it holds nothing.

    A task that is not gated, or that began while Redis was away, holds nothing.
    """
    task = current_task
    run = run_of(task.request) if task else None
    if run is None or not isinstance(run.outcome, Granted):
        return None
    if run.lease is None:
        seconds = settings_of(task.app).worker_timeout
        run.lease = Lease.of(run.outcome, limiter_of(task.app).keyspace, seconds)
    return run.lease


def _new_token(task_id: str) -> str:
    return f"{task_id}:{secrets.token_hex(8)}"
