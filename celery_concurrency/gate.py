"""The gate: the path of a run from its message's receipt to its end.

Handlers of Celery's signals can't stop a task (what they raise is swallowed),
and ``before_start`` can. So ``task_prerun`` asks the limiter and keeps the
answer on the request, ``before_start`` acts on it, and ``task_postrun`` gives
back the tokens or finds the message a place to wait. Where they are put in is
``task.py``'s matter.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from celery import current_task
from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded
from celery.states import REJECTED
from celery.worker import state as worker_state

from celery_concurrency.apps import limiter_of, settings_of
from celery_concurrency.errors import (
    ConcurrencyError,
    ConfigConflict,
    LimiterUnavailable,
    LimitReached,
    RunEnded,
)
from celery_concurrency.handoff import DISCARD, PARKED, rank_of, waiter_of
from celery_concurrency.lease import Lease
from celery_concurrency.limits import BUILTIN_TAGS, limits_of
from celery_concurrency.log import WORKER_LOG, fields
from celery_concurrency.message import KeptMessage
from celery_concurrency.tags import tags_of
from celery_concurrency.verdicts import Denied, Granted, Repeated
from celery_concurrency.waitingroom import Place, Waiter

logger = logging.getLogger(WORKER_LOG)

#: What the worker's main process adds to a request, for the process that runs it.
TOKEN: Final = "concurrency_token"  # noqa: S105 - the name of a field, no secret
MESSAGE: Final = "concurrency_message"

#: The attribute of a request under which its run is kept; headers become attributes too.
RUN: Final = "_concurrency_run"

#: Seconds between two tries to find a message a place while the servers are away.
PAUSES: Final = (0.2, 0.5, 1, 2, 5)


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
    message: KeptMessage | None
    place: Place | None
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


def is_gated(task: Any) -> bool:
    """Return whether this task asks for tokens: not Celery's own, not an exempt one."""
    name = task.name
    if name.startswith("celery.") or not getattr(task.before_start, "is_gate", False):
        return False
    return not any(fnmatchcase(name, glob) for glob in settings_of(task.app).exempt)


def on_received(sender: Any = None, request: Any = None, **_: Any) -> None:
    """``task_received``, in the main process: name the run, keep its message."""
    if request is None:
        return
    if request.request_dict.get(DISCARD):
        # Cancelled or expired while it waited: as revoked, its canvas is told.
        worker_state.revoked.add(request.id)
    elif is_gated(request.task):
        request.request_dict[TOKEN] = _new_token(request.id)
        request.request_dict[MESSAGE] = KeptMessage.of(request)


def on_prerun(sender: Any = None, task: Any = None, **_: Any) -> None:
    """``task_prerun``, where the task runs: ask for its tokens, keep the answer."""
    request = task.request
    if request.is_eager or not is_gated(task):
        return
    run = _begin(request)
    try:
        _ask(task, run)
    except LimiterUnavailable as exc:
        run.held = False  # the limiter gives up by itself what it may have taken
        run.reason = exc
        if settings_of(task.app).redis_unavailable == "run":
            run.admitted = run.held = True
            run.began = time.monotonic()
            limiter_of(task.app).count_later(
                run.token,
                run.tags,
                rank=rank_of(task.app, run.message),
                place=run.place,
                **_facts(task),
            )
            _log(logging.WARNING, task, run, "runs", str(exc), reason=str(exc))
        else:
            _log_wait(logging.WARNING, task, run, str(exc))
    except (RunEnded, ConfigConflict) as exc:
        run.held, run.reason = False, exc  # it comes back as another run
        _log_wait(logging.WARNING, task, run, str(exc))
    except SoftTimeLimitExceeded:
        # It strikes at any moment, also after the limiter said yes.
        limiter_of(task.app).give_up(run.token)
        run.admitted, run.held, run.denied = False, False, None
        run.reason = LimiterUnavailable("its time limit struck before the limiter's answer")
        _log_wait(logging.WARNING, task, run, str(run.reason))
    except Exception as exc:  # noqa: BLE001 - Celery would swallow it: the task fails with it
        run.failure, run.held = exc, False  # of the mistakes that end here none has asked


def check(task: Any) -> None:
    """``before_start``: let the run go on, or stop it.

    Raises:
        celery.exceptions.Retry: it has to wait.
        InvalidTag: it is mistagged; so are other mistakes of the task's author.
        ConcurrencyError: it has to wait, and there is no message to send on.
    """
    request = task.request
    if request.is_eager or request.called_directly or not is_gated(task):
        return
    run: Run = getattr(request, RUN, None) or _begin(request)
    if run.failure:
        raise run.failure
    if run.admitted:
        return
    if run.message is None:
        # A task that says RETRY for ever would be worse than one that says what is wrong.
        raise ConcurrencyError(
            f"task {task.name} {run.reason}, but the worker kept no message to send on: "
            "name celery_concurrency.signals in imports"
        )
    run.turned_away = True
    raise Retry(exc=run.reason, when=settings_of(task.app).retry_countdown)


def on_postrun(sender: Any = None, task: Any = None, state: str | None = None, **_: Any) -> None:
    """``task_postrun``, after the task's state was written: release, or wait."""
    run: Run | None = task.request.__dict__.pop(RUN, None)
    if run is None:
        return
    try:
        _end(task, run, state)
    except SoftTimeLimitExceeded:
        # It strikes once. A second release does no harm, and finding a place sees to itself.
        _end(task, run, state)


def reservation_of(request: Any) -> tuple[str, list[str]] | None:
    """Return what a message that will not run was parked as and waited for, if it was."""
    parked = getattr(request, PARKED, None)
    discarded = getattr(request, DISCARD, False)
    return (parked["as"], parked["limits"]) if parked and not discarded else None


def current_lease() -> Lease | None:
    """Return what the task that runs here now holds; None if it holds nothing.

    A task that is not gated, or that began while Redis was away, holds nothing.
    """
    task = current_task
    run: Run | None = getattr(task.request, RUN, None) if task else None
    if run is None or run.granted is None:
        return None
    limiter = limiter_of(task.app)
    seconds = settings_of(task.app).worker_timeout
    if run.lease is None:
        run.lease = Lease.of(run.granted, limiter.redis, limiter.prefix, seconds)
    return run.lease


def _end(task: Any, run: Run, state: str | None) -> None:
    if run.turned_away and run.message:
        _find_place(task, run, run.message)
    elif run.held:
        # The message of one that was cut off, or that rejects it, may be delivered again.
        _release(task, run, done=state not in (None, REJECTED))


def _new_token(task_id: str) -> str:
    return f"{task_id}:{secrets.token_hex(8)}"


def _begin(request: Any) -> Run:
    """Make the run of a request, and take our own fields off it.

    What stayed in the headers, the task's own ``retry`` would copy into its next message.
    """
    own = {name: request.__dict__.pop(name, None) for name in (TOKEN, MESSAGE, PARKED)}
    if request.headers:
        request.headers = {
            name: value for name, value in request.headers.items() if name not in own
        } or None
    run = Run(
        token=own[TOKEN] or _new_token(request.id),
        message=own[MESSAGE],
        place=_place_of(own[PARKED]) if own[PARKED] else None,
        tags={},
        reason=LimiterUnavailable("the limiter was not asked"),
    )
    setattr(request, RUN, run)
    return run


def _place_of(parked: dict[str, Any]) -> Place:
    """Return where a message waited, by what ``handoff.waiter_of`` put on it."""
    return Place(parked["score"], parked["as"], tuple(parked["limits"]))


def _ask(task: Any, run: Run) -> None:
    run.tags = tags_of(task)
    if run.message and run.message.is_broadcast(task.app):
        _refuse_broadcast(task, run)
        return
    # Until the answer says otherwise: a soft time limit may strike before it is read.
    run.held = True
    answer = limiter_of(task.app).try_acquire(
        run.token,
        run.tags,
        **_facts(task),
        rank=rank_of(task.app, run.message),
        place=run.place,
    )
    run.admitted = run.held = isinstance(answer, Granted)
    match answer:
        case Granted(limits=limits):
            run.granted, run.began = answer, time.monotonic()
            _log(
                logging.INFO, task, run, "granted", ", ".join(limits),
                limits=list(limits), waited=_waited(run, answer),
            )  # fmt: skip
        case Denied():
            run.denied = answer
            run.reason = LimitReached(f"waits for {answer}")
            _log_wait(logging.INFO, task, run, f"for {answer}")
        case Repeated(token=None):
            # This copy of its message is one too many; what the first said of it stays.
            run.failure = Ignore("it has run before")
            _log(logging.INFO, task, run, "dropped", "as a copy of its message was run before")
        case Repeated(token=other):
            run.reason = LimitReached(f"waits for its other run {other}")
            _log_wait(logging.INFO, task, run, f"for its other run {other}")


def _facts(task: Any) -> dict[str, Any]:
    """Return what the limiter is told of every run."""
    return {
        "task": task.name,
        "worker": str(task.request.hostname or ""),
        "lease": settings_of(task.app).worker_timeout,
    }


def _refuse_broadcast(task: Any, run: Run) -> None:
    """Every worker has this message: one that waits would be sent on to all of them."""
    dimensions = limiter_of(task.app).config.sync().config.dimensions
    if len(limits_of(run.tags, dimensions)) > 1:
        raise ConcurrencyError(
            f"task {task.name} came by a broadcast queue, which can't be limited: send it to "
            "another queue, take its tags off, or name it in concurrency_exempt"
        )
    run.admitted = True


def _find_place(task: Any, run: Run, message: KeptMessage) -> None:
    """Find the message a place to wait; while there is none, keep the slot and try on."""
    attempt = 0
    while True:
        # Everything: a lost message is worse than a slot held. A soft time limit may
        # strike here too, and the run has nothing left to do but this.
        try:
            if attempt:
                time.sleep(PAUSES[min(attempt, len(PAUSES)) - 1])
            _wait(task, run, message)
        except Exception as exc:  # noqa: BLE001
            attempt += 1
            detail = f"as its message finds no place: {exc}"
            _log(logging.WARNING, task, run, "keeps its slot", detail, reason=str(exc))
        else:
            return


def _wait(task: Any, run: Run, message: KeptMessage) -> None:
    """Park the message, or send it on for later.

    Once it may have been parked, it has to be: sent on as well, there would be two.
    """
    if run.waiter is None and run.denied is not None:
        run.waiter = waiter_of(task, run.token, run.denied, message)
    if run.waiter is None:
        countdown = settings_of(task.app).retry_countdown
        message.publish(task.app, countdown)
        _log(logging.DEBUG, task, run, "sent on", f"for {countdown} s", countdown=countdown)
        return
    outcome = limiter_of(task.app).waiting.park(run.waiter)
    _log(logging.DEBUG, task, run, outcome, "", limits=list(run.waiter.limits))


def _release(task: Any, run: Run, *, done: bool) -> None:
    try:
        held = limiter_of(task.app).release(run.token, done=done)
    except LimiterUnavailable as exc:
        _log(logging.WARNING, task, run, "releases later", str(exc), reason=str(exc))
    else:
        seconds = None if run.began is None else round(time.monotonic() - run.began, 3)
        detail = "" if held else "after its tokens had expired"
        _log(logging.INFO, task, run, "released", detail, held=seconds, expired=not held)


def _waited(run: Run, granted: Granted) -> float:
    """Return how many seconds a run's message has waited, by the Redis server's clock."""
    if run.place is None:
        return 0.0
    # A fencing number is the server's time in microseconds, or a little more.
    return round(max(0.0, granted.fence / 1e6 - run.place.asked), 3)


def _log_wait(level: int, task: Any, run: Run, detail: str) -> None:
    """Log that a run waits, and for what: no limit where the reason is another."""
    denied = run.denied
    _log(
        level, task, run, "waits", detail, reason=str(run.reason),
        limit=denied and denied.limit, current=denied and denied.held, max=denied and denied.max,
    )  # fmt: skip


def _log(level: int, task: Any, run: Run, decision: str, detail: str, **more: Any) -> None:
    """Log a decision, as text and as fields of the record (``concurrency``)."""
    if not logger.isEnabledFor(level):
        return
    task_id = task.request.id
    tags = {name: run.tags[name] for name in BUILTIN_TAGS if name in run.tags}
    logger.log(
        level,
        "Task %s[%s] %s (%s)",
        task.name,
        task_id,
        _printable(f"{decision} {detail}".rstrip()),
        _printable(" ".join(f"{name}={value}" for name, value in tags.items()) or "no tags"),
        extra=fields(
            decision, task_id=task_id, task_name=task.name, token=run.token, tags=tags, **more
        ),
    )


def _printable(text: str) -> str:
    """Return a text in one line: what a tag may hold must not look like a line of the log."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
