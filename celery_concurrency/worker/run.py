"""Runs: one execution of a task, from the receipt of its message to its end.

``gate.py`` takes a run along its path. The limiter knows a run by its token, a name that begins
with its task's id (``limiter/limiter.py``).
"""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from celery import current_task

from celery_concurrency.errors import ConcurrencyError, LimiterUnavailable, LimitReached
from celery_concurrency.limiter.leases import Lease
from celery_concurrency.limiter.outcomes import (
    Denied,
    Granted,
    Repeated,
    Skipped,
    Ticket,
    not_waiting,
)
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.scripts.constants import DISCARD, GIVEN_UP, PARKED, REDELIVERED
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.celery_compat import headers_of, ours_on, send_along, sent_along
from celery_concurrency.worker.foreign_queues import check_queue
from celery_concurrency.worker.message import TaskMessage, message_rank
from celery_concurrency.worker.parking import ticket_of


@dataclass(frozen=True, slots=True)
class Asked:
    """The limiter's answer was not read: the task waits, and may hold its tokens."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The limiter gave no answer, for this reason: the task waits and holds no tokens."""

    reason: ConcurrencyError


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Redis is away, and the task runs; its tokens are counted later."""

    reason: LimiterUnavailable


@dataclass(frozen=True, slots=True)
class Ungated:
    """The task runs and needs no tokens."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The task fails with this error: its author made a mistake, or it may not wait."""

    error: Exception


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """The task was told to retry, so its message must be parked or sent on."""

    before: "RunOutcome | None"


RunOutcome = (
    Granted
    | Denied
    | Repeated
    | Skipped
    | Asked
    | Unanswered
    | Uncounted
    | Ungated
    | Failed
    | TurnedAway
)


@dataclass
class Run:
    """One execution of a task. The main process creates it and sends it to the child.

    Attributes:
        token: its name.
        message: the task's message.
        ticket: where its message waited before; None if it did not.
        rank: the rank of its priority, 0 for the highest.
        broadcast: whether every worker got its message.
        lease_seconds: how long its tokens last without being renewed.
        received: when its message first reached a worker, in Unix microseconds; 0 if its task has
            begun before, and was retried, replaced or delivered again.
        may_wait: the main process parked its message, or may have: no answer came to that.
        outcome: what the limiter said and what came of it; None before it was asked.
        tags: the tags that decide its limits.
        began: when it had its answer, by the child's monotonic clock.
        waiter: its message as it will be parked, once that is known.
        lease: what it holds, for the task to read; made when the task first asks for it.
        hold_span: the span of its hold, if the task is traced (``tracing.py``).
    """

    token: str
    message: TaskMessage
    ticket: Ticket | None
    rank: int
    broadcast: bool
    lease_seconds: float
    received: int = 0
    may_wait: bool = False
    outcome: RunOutcome | None = None
    tags: dict[str, object] = field(default_factory=dict)
    began: float | None = None
    waiter: Waiter | None = None
    lease: Lease | None = None
    hold_span: Any = None

    @property
    def has_begun(self) -> bool:
        """Whether an earlier run of its task has begun."""
        return self.received == 0

    @property
    def answer(self) -> RunOutcome | None:
        """The limiter's outcome, even after the task was turned away."""
        return self.outcome.before if isinstance(self.outcome, TurnedAway) else self.outcome

    @property
    def reason(self) -> ConcurrencyError:
        """Why the task waits or runs uncounted."""
        match self.answer:
            case Denied() as denied:
                return reason_of(denied)
            case Repeated(token=other):
                return LimitReached(f"waits for its other run {other}")
            case Unanswered(reason) | Uncounted(reason):
                return reason
        return LimiterUnavailable("the limiter was not asked")


def reason_of(denied: Denied) -> LimitReached:
    """Return what the state of a denied task says."""
    return LimitReached(str(denied) if denied.shut else f"waits for {denied}")


def receive(request: Any) -> None:
    """Create the run of a worker's request and send it along to the child."""
    app = request.app
    message = TaskMessage.of(request)
    parked = headers_of(request).pop(PARKED, None)
    if headers_of(request).pop(REDELIVERED, False):
        request.delivery_info["redelivered"] = True
    run = Run(
        token=f"{request.id}:{secrets.token_hex(8)}",
        message=message,
        ticket=ticket_of(parked) if parked else None,
        rank=message_rank(app, message),
        broadcast=message.is_broadcast(app),
        lease_seconds=settings_of(app).worker_timeout,
        received=_received(request, parked or {}),
        outcome=_known_outcome(request, message),
    )
    send_along(request, run)


def _known_outcome(request: Any, message: TaskMessage) -> RunOutcome | None:
    """Return what is known of a run's outcome as its message arrives; None for nothing."""
    given_up = headers_of(request).pop(GIVEN_UP, None)
    if given_up:
        return Failed(not_waiting(*given_up))
    if settings_of(request.app).namespaces:
        try:
            check_queue(request.app, message, request.hostname)
        except ConcurrencyError as exc:
            return Unanswered(exc)
    return None


def _received(request: Any, parked: dict[str, Any]) -> int:
    """Return when a request's message was first received; see ``Run.received``."""
    headers = headers_of(request)
    has_begun = (
        request.delivery_info["redelivered"]
        or headers.get("retries")
        or headers.get("replaced_task_nesting")
    )
    return 0 if has_begun else parked.get("received") or time.time_ns() // 1000


def token_of(request: Any) -> str | None:
    """Return the run of a worker's request; None if the task is not gated."""
    run: Run | None = sent_along(request)
    return run.token if run else None


def reservation_of(context: Any) -> tuple[str, tuple[str, ...], int] | None:
    """Return the name, limits and weight with which a revoked task's message was parked, if any."""
    run: Run | None = ours_on(context)
    given_up = getattr(context, GIVEN_UP, None) or (run and isinstance(run.outcome, Failed))
    if given_up or getattr(context, DISCARD, False):
        return None  # it was put back without tokens
    parked = getattr(context, PARKED, None)  # still there if it was revoked before its receipt
    ticket = run.ticket if run else parked and ticket_of(parked)
    if not ticket or not ticket.parked_as:
        return None
    return ticket.parked_as, ticket.limits, ticket.weight


def current_lease() -> Lease | None:
    """Return the lease of the task that runs here; None if it holds no tokens.

    A task without limits, or one that began while Redis was away, holds none.
    """
    task = current_task
    run: Run | None = ours_on(task.request) if task else None
    if run is None or not isinstance(run.outcome, Granted):
        return None
    if run.lease is None:
        limiter = limiter_of(task.app)
        run.lease = limiter.lease_of(run.outcome, run.lease_seconds)
    return run.lease
