"""The gate: the path of a run, from the receipt of its message to its end.

Only ``before_start`` can stop a task: Celery swallows what a handler of ``task_prerun`` raises.
So ``on_prerun`` asks the limiter and keeps the outcome on the run, ``check`` acts on it, and
``on_postrun`` releases the tokens, parks the message or sends it on. ``hooks.py`` installs
these functions, ``run.py`` defines a run.
"""

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, Final

from celery.contrib.abortable import AbortableTask
from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded
from celery.states import FAILURE, IGNORED, REJECTED, RETRY, SUCCESS
from celery.worker import state as worker_state

from celery_concurrency.errors import (
    ConcurrencyError,
    ConfigConflict,
    LimiterUnavailable,
    RunEnded,
)
from celery_concurrency.limiter.limits import limits_of
from celery_concurrency.limiter.outcomes import Denied, Granted, Repeated, Skipped
from celery_concurrency.scripts.constants import DISCARD
from celery_concurrency.worker import progress, tracing
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.busy import busy_of, say_not_replaced, tell_canvas
from celery_concurrency.worker.celery_compat import headers_of, ours_on, sent_along
from celery_concurrency.worker.parking import waiter_of
from celery_concurrency.worker.progress import Stage
from celery_concurrency.worker.refusal_telling import tell_refusal
from celery_concurrency.worker.run import (
    Asked,
    Failed,
    Run,
    RunOutcome,
    TurnedAway,
    Unanswered,
    Uncounted,
    Ungated,
    receive,
)
from celery_concurrency.worker.run_log import log_decision, log_outcome, log_place, log_release
from celery_concurrency.worker.tags import tags_of
from celery_concurrency.worker.unknown_headers import unknown_headers
from celery_concurrency.worker.weight import weight_of

#: Seconds between two attempts to park a message or send it on while the servers are away.
PAUSES: Final = (0.2, 0.5, 1, 2, 5)


def is_gated(task: Any) -> bool:
    """Return whether this task asks for tokens: Celery's own and exempt tasks don't."""
    if not getattr(task.before_start, "is_gate", False):
        return False
    return not is_exempt(task.name, settings_of(task.app).exempt)


def is_exempt(name: str, exempt: Iterable[str]) -> bool:
    """Return whether a task of this name is never gated; ``exempt`` is a list of globs."""
    return name.startswith("celery.") or any(fnmatchcase(name, glob) for glob in exempt)


def on_received(sender: Any = None, request: Any = None, **_: Any) -> None:
    """``task_received``, in the main process: create the run and send it along to the child."""
    if request is None:
        return
    if headers_of(request).get(DISCARD):
        # Cancelled or expired while it waited: Celery ends it as revoked and tells its canvas.
        worker_state.revoked.add(request.id)
    elif is_gated(request.task):
        if sent_along(request) is None:
            receive(request)
        unknown_headers.note(request.task.name, headers_of(request))


def on_prerun(sender: Any = None, task: Any = None, **_: Any) -> None:
    """``task_prerun``, where the task runs: ask for its tokens, keep the outcome."""
    run: Run | None = ours_on(task.request)
    if run is not None and isinstance(run.outcome, Failed | Unanswered):
        log_outcome(task, run)  # given up while it waited, or of another namespace
    if run is None or run.outcome is not None:
        return  # or the door has parked it, or may have
    try:
        _decide(task, run)
    except SoftTimeLimitExceeded:
        # It can come at any moment, even after the limiter said yes.
        limiter_of(task.app).give_up(run.token)
        reason = "it reached its time limit before the limiter answered"
        run.outcome = Unanswered(LimiterUnavailable(reason))
        log_outcome(task, run)


def check(task: Any) -> None:
    """``before_start``: let the run go on, or stop it.

    Raises:
        celery.exceptions.Retry: it has to wait.
        celery.exceptions.Ignore: its message is a copy of one that has run, or the main process
            took the message because this process is about to be killed; or it is skipped.
        InvalidTag, WeightTooHigh: one of its tags is not valid, or its weight is more than a limit
            has; other mistakes of the task's author are raised too.
        NotWaiting: it has to wait, and may not, or no longer.
        ConcurrencyError: the main process did not see it, so there is no message to send on.
    """
    request = task.request
    run: Run | None = ours_on(request)
    if run is None:
        if request.is_eager or request.called_directly or not is_gated(task):
            return
        raise ConcurrencyError(
            f"task {task.name} can't be limited, because the worker did not keep its message: "
            "add celery_concurrency.signals to imports, or find the reason in the worker's log"
        )
    if progress.stage_of(run.token) == Stage.TAKEN:
        if isinstance(run.outcome, Granted | Uncounted):
            run.outcome = Asked()  # whatever it was granted, its body does not begin
        raise Ignore("its process is about to be killed; another one will run it")
    match run.outcome:
        case Granted() | Uncounted() | Ungated() | Failed() | Repeated(token=None):
            # If it is killed from now on, Celery decides how it ends (rescue.py).
            progress.note(run.token, Stage.BEGUN)
            tracing.begin_hold(task, run)
    match run.outcome:
        case Granted() | Uncounted() | Ungated():
            return
        case Failed(error):
            raise error
        case Repeated(token=None):
            raise Ignore("it has run before")  # its result stays as it is
        case Skipped() as skipped:
            raise Ignore(f"it is skipped: {skipped}")
    run.outcome = TurnedAway(run.answer)
    if run.may_wait:
        # Parked by then, it may have run and ended: a state written now would stay for ever.
        raise Ignore("it waits, or is about to")
    if _is_aborted(task):
        # It waits like the others, but Retry would overwrite the state that its body is to see.
        raise Ignore("it was aborted, which its body is to see at its turn")
    raise Retry(exc=run.reason, when=settings_of(task.app).retry_countdown)


def on_postrun(
    sender: Any = None, task: Any = None, state: str | None = None, retval: Any = None, **_: Any
) -> None:
    """``task_postrun``, after Celery wrote the task's state: release, or let the message wait.

    Args:
        retval: what the body returned, or the exception that ended it.
    """
    run: Run | None = ours_on(task.request)
    if run is None:
        return
    try:
        _end(task, run, state, retval)
    except SoftTimeLimitExceeded:
        # A time limit comes once, and all of this may be repeated.
        _end(task, run, state, retval)


def _decide(task: Any, run: Run) -> None:
    """Find out the outcome and log it."""
    try:
        run.outcome = _ask(task, run)
    except LimiterUnavailable as exc:
        # The limiter itself releases what it may have taken.
        if settings_of(task.app).redis_unavailable == "run":
            run.outcome = Uncounted(exc)
            limiter_of(task.app).count_later(run.token, run.tags, **_facts(task, run))
        else:
            run.outcome = Unanswered(exc)
    except (RunEnded, ConfigConflict) as exc:
        run.outcome = Unanswered(exc)  # its message comes back as another run
    except SoftTimeLimitExceeded:
        raise
    except Exception as exc:  # noqa: BLE001 - Celery would swallow it: the task fails with it
        run.outcome = Failed(exc)
    run.began = time.monotonic()
    log_outcome(task, run)


def _ask(task: Any, run: Run) -> RunOutcome:
    """Ask the limiter for the run's tokens."""
    run.tags = tags_of(task)
    limiter = limiter_of(task.app)
    if run.broadcast:
        # Every worker has this message: sent on, it would reach all of them again.
        if len(limits_of(run.tags, limiter.config.sync().config.dimensions)) == 1:
            return Ungated()
        raise ConcurrencyError(
            f"task {task.name} came through a broadcast queue, and can't be limited there: send it "
            "to another queue, remove its tags, or add it to concurrency_exempt"
        )
    # If the run ends before it has read the answer, it may hold tokens.
    run.outcome = Asked()
    progress.note(run.token, Stage.ASKING)
    runs_anyway = settings_of(task.app).redis_unavailable == "run"
    # What has begun before goes on: its own tokens may be what is in its way.
    busy = busy_of(run.tags)
    skips = busy == "skip" and not run.has_begun
    return limiter.try_acquire(
        run.token, run.tags, runs_anyway=runs_anyway, skips=skips, replaces=busy == "replace",
        has_begun=run.has_begun, **_facts(task, run),
    )  # fmt: skip


def _is_aborted(task: Any) -> bool:
    """Return whether somebody has aborted a task that can be (``celery.contrib.abortable``)."""
    if not isinstance(task, AbortableTask):
        return False
    with suppress(Exception):  # its result backend is away, and waiting must not fail by that
        return bool(task.is_aborted())
    return False


def _facts(task: Any, run: Run) -> dict[str, Any]:
    """Return what the limiter needs to know about a run besides its tags."""
    return {
        "task": task.name,
        "worker": str(task.request.hostname or ""),
        "rank": run.rank,
        "ticket": run.ticket,
        "lease": run.lease_seconds,
        "weight": weight_of(run.tags),
    }


def _end(task: Any, run: Run, state: str | None, retval: Any) -> None:
    match run.outcome:
        case TurnedAway():
            _wait(task, run)
        case Granted() | Uncounted():
            # First, so that no other run starts where this one was just refused.
            tell_refusal(task, run, state, retval)
            succeeded = _succeeded(state, retval) and not (run.lease and run.lease.refused_in)
            _release(task, run, done=not _may_come_again(task, state), succeeded=succeeded)
        case Skipped() as skipped:
            tell_canvas(task, f"skipped: {skipped}")
        case Asked():
            _release(task, run, done=False)


def _succeeded(state: str | None, retval: Any) -> bool:
    """Return whether a body succeeded; one that was replaced or retries by its own will did."""
    if state == RETRY:
        # It retries by its own will, not because something failed.
        return retval is not None and retval.exc is None and retval.__context__ is None
    return state in (SUCCESS, IGNORED)


def _may_come_again(task: Any, state: str | None) -> bool:
    """Return whether the broker may deliver the message of a run again that ended so."""
    if state == FAILURE and task.acks_late:
        # Unacknowledged, it goes to the broker's dead letters. Celery 5.7 has two names for that.
        return not getattr(task, "acks_on_failure", task.acks_on_failure_or_timeout)
    return state in (None, REJECTED)  # cut off, or rejected by the task itself


def _wait(task: Any, run: Run) -> None:
    """Park the message or send it on; while neither works, keep the slot and try again."""
    attempt = 0
    while True:
        # Catch everything: a lost message is worse than an occupied slot. That includes a soft
        # time limit, as this is all that the run has left to do.
        try:
            if attempt:
                time.sleep(PAUSES[min(attempt, len(PAUSES)) - 1])
            if progress.stage_of(run.token) == Stage.TAKEN:
                return  # this process is about to be killed; the main process does the rest
            _wait_once(task, run)
        except Exception as exc:  # noqa: BLE001
            level = logging.DEBUG if attempt else logging.WARNING
            detail = f"because its message can be neither parked nor sent on: {exc}"
            log_decision(level, task, run, "keeps its slot", detail, reason=str(exc))
            attempt += 1
        else:
            return


def _wait_once(task: Any, run: Run) -> None:
    """Park the message, or send it on.

    Once it may have been parked, only park it again: sending it on too would make two of it.
    """
    if run.waiter is None and isinstance(run.answer, Denied):
        denied = run.answer
        replaces = run.received if busy_of(run.tags) == "replace" else None
        run.waiter = waiter_of(
            task.app, run.token, denied.limits, run.message, denied.ticket, replaces, denied.weight,
            has_begun=run.has_begun,
        )  # fmt: skip
    if run.waiter is None:
        if isinstance(run.answer, Denied) and busy_of(run.tags) == "replace":
            say_not_replaced(task.name)
        countdown = settings_of(task.app).retry_countdown
        message = run.message
        if isinstance(run.answer, Denied):
            message = message.asked_with(run.answer.ticket.number)
        message.publish(task.app, countdown)
        detail = f"with a countdown of {countdown} s"
        log_decision(logging.DEBUG, task, run, "sent on", detail, countdown=countdown)
    else:
        log_place(task, run, limiter_of(task.app).waiting_room.park(run.waiter), run.waiter.limits)
    progress.note(run.token, Stage.PLACED)


def _release(task: Any, run: Run, *, done: bool, succeeded: bool = False) -> None:
    # Its body has not begun if it never read the answer.
    began = not isinstance(run.outcome, Asked)
    try:
        held = limiter_of(task.app).release(run.token, done=done, began=began, succeeded=succeeded)
    except LimiterUnavailable as exc:
        tracing.end_hold(run, held=None)
        log_decision(logging.WARNING, task, run, "releases later", f"({exc})", reason=str(exc))
    else:
        tracing.end_hold(run, held=held)
        log_release(task, run, held=held)
