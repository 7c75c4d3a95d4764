"""Runs: what is known of one execution of a task, kept on its request while it lives.

What is done with it on its way is ``gate.py``'s matter. Below Celery a run is a token,
a name that begins with its task's id (``limiter/limiter.py``).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

from celery import current_task

from celery_concurrency.errors import ConcurrencyError, LimiterUnavailable
from celery_concurrency.limiter.leases import Lease
from celery_concurrency.limiter.outcomes import Denied, Granted, Ticket
from celery_concurrency.limiter.waiters import Waiter
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.message import TaskMessage
from celery_concurrency.worker.waiting_mode import PARKED, ticket_of

#: What the worker's main process adds to a request, for the process that runs it.
TOKEN: Final = "concurrency_token"  # noqa: S105 - the name of a field, no secret
MESSAGE: Final = "concurrency_message"

#: The attribute of a request under which its run is kept; headers become attributes too.
_RUN: Final = "_concurrency_run"


@dataclass(slots=True)
class Run:
    """One execution of a task, and what the limiter said of it.

    Attributes:
        token: its identity; the main process and the child share it.
        message: the task's message, to be kept if it has to wait.
        place: where its message waited before; None if it did not.
        tags: the tags that its limits follow from.
        admitted: it may run.
        held: it holds tokens that have to be given back.
        granted, denied: the limiter's answer, yes or no.
        reason: why it waits; no verdict means no.
        failure: the task is at fault and fails with this.
        turned_away: it was told to wait, so its message has to find a place.
        waiter: its message as it is to be parked, once that is known.
        lease: what it holds, for the task to look at; made when it first looks.
        began: when it was admitted, by this process's monotonic clock.
    """

    token: str
    message: TaskMessage | None
    ticket: Ticket | None
    tags: dict[str, object]
    admitted: bool = False
    held: bool = False
    granted: Granted | None = None
    denied: Denied | None = None
    reason: ConcurrencyError | None = None
    failure: Exception | None = None
    turned_away: bool = False
    waiter: Waiter | None = None
    lease: Lease | None = None
    began: float | None = None

    @property
    def waited(self) -> float:
        """How many seconds its message waited until it was granted, by the server's clock."""
        if self.ticket is None or self.granted is None:
            return 0.0
        # A fencing number is the server's time in microseconds, or a little more.
        return round(max(0.0, self.granted.fence / 1e6 - self.ticket.asked), 3)


def new_token(task_id: str) -> str:
    """Return the name of a new run of a task."""
    return f"{task_id}:{secrets.token_hex(8)}"


def begin_run(request: Any) -> Run:
    """Make the run of a request, and take our own fields off it.

    What stayed in the headers, the task's own ``retry`` would copy into its next message.
    """
    own = {name: request.__dict__.pop(name, None) for name in (TOKEN, MESSAGE, PARKED)}
    if request.headers:
        request.headers = {
            name: value for name, value in request.headers.items() if name not in own
        } or None
    run = Run(
        token=own[TOKEN] or new_token(request.id),
        message=own[MESSAGE],
        ticket=ticket_of(own[PARKED]) if own[PARKED] else None,
        tags={},
        reason=LimiterUnavailable("the limiter was not asked"),
    )
    setattr(request, _RUN, run)
    return run


def run_of(request: Any) -> Run | None:
    """Return the run of a request; None where it has not begun, or is not gated."""
    run: Run | None = getattr(request, _RUN, None)
    return run


def take_run(request: Any) -> Run | None:
    """Take a request's run off it, as it ends here, and return it; None where there is none."""
    run: Run | None = request.__dict__.pop(_RUN, None)
    return run


def current_lease() -> Lease | None:
    """Return what the task that runs here now holds; None if it holds nothing.

    A task that is not gated, or that began while Redis was away, holds nothing.
    """
    task = current_task
    run = run_of(task.request) if task else None
    if run is None or run.granted is None:
        return None
    limiter = limiter_of(task.app)
    seconds = settings_of(task.app).worker_timeout
    if run.lease is None:
        run.lease = Lease.of(run.granted, limiter.keyspace, seconds)
    return run.lease
