"""The gate: the path of a run from its message's receipt to its end.

Handlers of Celery's signals can't stop a task (what they raise is swallowed),
and ``before_start`` can. So ``task_prerun`` asks the limiter and keeps the
answer on the request, ``before_start`` acts on it, and ``task_postrun`` gives
back the tokens or finds the message a place to wait. Where they are put in is
``hooks.py``'s matter, what is kept of a run meanwhile ``run.py``'s.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Final

from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded
from celery.states import REJECTED
from celery.worker import state as worker_state

from celery_concurrency.errors import (
    ConcurrencyError,
    ConfigConflict,
    LimiterUnavailable,
    LimitReached,
    RunEnded,
)
from celery_concurrency.limiter.limits import limits_of
from celery_concurrency.limiter.outcomes import Denied, Granted, Repeated
from celery_concurrency.scripts.constants import DISCARD
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.message import TaskMessage
from celery_concurrency.worker.run import (
    MESSAGE,
    TOKEN,
    Run,
    begin_run,
    new_token,
    run_of,
    take_run,
)
from celery_concurrency.worker.run_log import log_decision, log_wait
from celery_concurrency.worker.tags import tags_of
from celery_concurrency.worker.waiting_mode import rank_of, waiter_of

#: Seconds between two tries to find a message a place while the servers are away.
PAUSES: Final = (0.2, 0.5, 1, 2, 5)


def is_gated(task: Any) -> bool:
    """Return whether this task asks for tokens: not Celery's own, not an exempt one."""
    if not getattr(task.before_start, "is_gate", False):
        return False
    return not is_exempt(task.name, settings_of(task.app).exempt)


def is_exempt(name: str, exempt: Iterable[str]) -> bool:
    """Return whether a task of this name is never gated.

    Args:
        name: the task's.
        exempt: globs, the app's ``concurrency_exempt``.
    """
    return name.startswith("celery.") or any(fnmatchcase(name, glob) for glob in exempt)


def on_received(sender: Any = None, request: Any = None, **_: Any) -> None:
    """``task_received``, in the main process: name the run, keep its message."""
    if request is None:
        return
    if request.request_dict.get(DISCARD):
        # Cancelled or expired while it waited: as revoked, its canvas is told.
        worker_state.revoked.add(request.id)
    elif is_gated(request.task):
        request.request_dict[TOKEN] = new_token(request.id)
        request.request_dict[MESSAGE] = TaskMessage.of(request)


def on_prerun(sender: Any = None, task: Any = None, **_: Any) -> None:
    """``task_prerun``, where the task runs: ask for its tokens, keep the answer."""
    request = task.request
    if request.is_eager or not is_gated(task):
        return
    run = begin_run(request)
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
                ticket=run.ticket,
                **_facts(task),
            )
            log_decision(logging.WARNING, task, run, "runs", str(exc), reason=str(exc))
        else:
            log_wait(logging.WARNING, task, run, str(exc))
    except (RunEnded, ConfigConflict) as exc:
        run.held, run.reason = False, exc  # it comes back as another run
        log_wait(logging.WARNING, task, run, str(exc))
    except SoftTimeLimitExceeded:
        # It strikes at any moment, also after the limiter said yes.
        limiter_of(task.app).give_up(run.token)
        run.admitted, run.held, run.denied = False, False, None
        run.reason = LimiterUnavailable("its time limit struck before the limiter's answer")
        log_wait(logging.WARNING, task, run, str(run.reason))
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
    run = run_of(request) or begin_run(request)
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
    run = take_run(task.request)
    if run is None:
        return
    try:
        _end(task, run, state)
    except SoftTimeLimitExceeded:
        # It strikes once. A second release does no harm, and finding a place sees to itself.
        _end(task, run, state)


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
        ticket=run.ticket,
    )
    run.admitted = run.held = isinstance(answer, Granted)
    match answer:
        case Granted(limits=limits):
            run.granted, run.began = answer, time.monotonic()
            log_decision(
                logging.INFO, task, run, "granted", ", ".join(limits),
                limits=list(limits), waited=run.waited,
            )  # fmt: skip
        case Denied():
            run.denied = answer
            run.reason = LimitReached(f"waits for {answer}")
            log_wait(logging.INFO, task, run, f"for {answer}")
        case Repeated(token=None):
            # This copy of its message is one too many; what the first said of it stays.
            run.failure = Ignore("it has run before")
            detail = "as a copy of its message was run before"
            log_decision(logging.INFO, task, run, "dropped", detail)
        case Repeated(token=other):
            run.reason = LimitReached(f"waits for its other run {other}")
            log_wait(logging.INFO, task, run, f"for its other run {other}")


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


def _end(task: Any, run: Run, state: str | None) -> None:
    if run.turned_away and run.message:
        _find_place(task, run, run.message)
    elif run.held:
        # The message of one that was cut off, or that rejects it, may be delivered again.
        _release(task, run, done=state not in (None, REJECTED))


def _find_place(task: Any, run: Run, message: TaskMessage) -> None:
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
            log_decision(logging.WARNING, task, run, "keeps its slot", detail, reason=str(exc))
        else:
            return


def _wait(task: Any, run: Run, message: TaskMessage) -> None:
    """Park the message, or send it on for later.

    Once it may have been parked, it has to be: sent on as well, there would be two.
    """
    if run.waiter is None and run.denied is not None:
        run.waiter = waiter_of(task, run.token, run.denied, message)
    if run.waiter is None:
        countdown = settings_of(task.app).retry_countdown
        message.publish(task.app, countdown)
        log_decision(logging.DEBUG, task, run, "sent on", f"for {countdown} s", countdown=countdown)
        return
    outcome = limiter_of(task.app).waiting_room.park(run.waiter)
    log_decision(logging.DEBUG, task, run, outcome, limits=list(run.waiter.limits))


def _release(task: Any, run: Run, *, done: bool) -> None:
    try:
        held = limiter_of(task.app).release(run.token, done=done)
    except LimiterUnavailable as exc:
        log_decision(logging.WARNING, task, run, "releases later", str(exc), reason=str(exc))
    else:
        seconds = None if run.began is None else round(time.monotonic() - run.began, 3)
        detail = "" if held else "after its tokens had expired"
        log_decision(logging.INFO, task, run, "released", detail, held=seconds, expired=not held)
