"""The gate: the path of a run, from the receipt of its message to its end.

Only ``before_start`` can stop a task: Celery swallows what a handler of ``task_prerun`` raises.
So ``on_prerun`` asks the limiter and keeps the outcome on the run, ``check`` acts on it, and
``on_postrun`` gives back the tokens, or parks the message or sends it on. ``hooks.py`` puts
them in, ``run.py`` says what a run is.
"""

import logging
import time
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Final

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
from celery_concurrency.limiter.outcomes import Denied, Granted, Repeated
from celery_concurrency.scripts.constants import DISCARD
from celery_concurrency.worker import progress
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.celery_compat import headers_of, ours_on
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

#: Seconds between two tries to park a message or send it on while the servers are away.
PAUSES: Final = (0.2, 0.5, 1, 2, 5)


def is_gated(task: Any) -> bool:
    """Return whether this task asks for tokens: not Celery's own, not an exempt one."""
    if not getattr(task.before_start, "is_gate", False):
        return False
    return not is_exempt(task.name, settings_of(task.app).exempt)


def is_exempt(name: str, exempt: Iterable[str]) -> bool:
    """Return whether a task of this name is never gated; ``exempt`` are globs."""
    return name.startswith("celery.") or any(fnmatchcase(name, glob) for glob in exempt)


def on_received(sender: Any = None, request: Any = None, **_: Any) -> None:
    """``task_received``, in the main process: make the run, and send it along to the child."""
    if request is None:
        return
    if headers_of(request).get(DISCARD):
        # Cancelled or expired while it waited: it ends as revoked, and its canvas is told.
        worker_state.revoked.add(request.id)
    elif is_gated(request.task):
        receive(request)
        unknown_headers.note(request.task.name, headers_of(request))


def on_prerun(sender: Any = None, task: Any = None, **_: Any) -> None:
    """``task_prerun``, where the task runs: ask for its tokens, keep the outcome."""
    run: Run | None = ours_on(task.request)
    if run is None or run.outcome is not None:
        return  # the door has parked it, or may have
    try:
        _decide(task, run)
    except SoftTimeLimitExceeded:
        # It strikes at any moment, also after the limiter said yes.
        limiter_of(task.app).give_up(run.token)
        reason = "its time limit struck before the limiter's answer"
        run.outcome = Unanswered(LimiterUnavailable(reason))
        log_outcome(task, run)


def check(task: Any) -> None:
    """``before_start``: let the run go on, or stop it.

    Raises:
        celery.exceptions.Retry: it has to wait.
        celery.exceptions.Ignore: its message is a copy of one that has run, or was taken from
            this process, as that is about to be killed.
        InvalidTag: it is mistagged; so are other mistakes of the task's author.
        ConcurrencyError: the main process did not see it, so there is no message to send on.
    """
    request = task.request
    run: Run | None = ours_on(request)
    if run is None:
        if request.is_eager or request.called_directly or not is_gated(task):
            return
        raise ConcurrencyError(
            f"task {task.name} can not be limited, as the worker kept no message to send on: "
            "name celery_concurrency.signals in imports, or see in its log why it could not"
        )
    if progress.stage_of(run.token) == Stage.TAKEN:
        if isinstance(run.outcome, Granted | Uncounted):
            run.outcome = Asked()  # whatever it was given, its body does not begin
        raise Ignore("its process is about to be killed, and another one is to run it")
    match run.outcome:
        case Granted() | Uncounted() | Ungated() | Failed() | Repeated(token=None):
            # Killed from now on, it ends as Celery says (rescue.py).
            progress.note(run.token, Stage.BEGUN)
    match run.outcome:
        case Granted() | Uncounted() | Ungated():
            return
        case Failed(error):
            raise error
        case Repeated(token=None):
            raise Ignore("it has run before")  # its result stays as it is
    run.outcome = TurnedAway(run.answer)
    raise Retry(exc=run.reason, when=settings_of(task.app).retry_countdown)


def on_postrun(
    sender: Any = None, task: Any = None, state: str | None = None, retval: Any = None, **_: Any
) -> None:
    """``task_postrun``, after the task's state was written: release, or let the message wait.

    Args:
        retval: what the body returned, or the exception that ended it.
    """
    run: Run | None = ours_on(task.request)
    if run is None:
        return
    try:
        _end(task, run, state, retval)
    except SoftTimeLimitExceeded:
        # It strikes once, and all of this may be repeated.
        _end(task, run, state, retval)


def _decide(task: Any, run: Run) -> None:
    """Find the outcome, and log it."""
    try:
        run.outcome = _ask(task, run)
    except LimiterUnavailable as exc:
        # The limiter itself gives back what it may have taken.
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
            f"task {task.name} came by a broadcast queue, which can't be limited: send it to "
            "another queue, take its tags off, or name it in concurrency_exempt"
        )
    # Whatever ends the run before the answer is read may leave it with its tokens.
    run.outcome = Asked()
    progress.note(run.token, Stage.ASKING)
    runs_anyway = settings_of(task.app).redis_unavailable == "run"
    return limiter.try_acquire(run.token, run.tags, runs_anyway=runs_anyway, **_facts(task, run))


def _facts(task: Any, run: Run) -> dict[str, Any]:
    """Return what the limiter is told of a run, beside its tags."""
    return {
        "task": task.name,
        "worker": str(task.request.hostname or ""),
        "rank": run.rank,
        "ticket": run.ticket,
        "lease": run.lease_seconds,
    }


def _end(task: Any, run: Run, state: str | None, retval: Any) -> None:
    match run.outcome:
        case TurnedAway():
            _wait(task, run)
        case Granted() | Uncounted():
            # First: no other run may go where this one was just refused.
            tell_refusal(task, run, state, retval)
            succeeded = _succeeded(state, retval) and not (run.lease and run.lease.refused_in)
            _release(task, run, done=not _may_come_again(task, state), succeeded=succeeded)
        case Asked():
            _release(task, run, done=False)


def _succeeded(state: str | None, retval: Any) -> bool:
    """Return whether a body did what it wanted to: also one that was replaced, or polls on."""
    if state == RETRY:
        # By its own will, and not as something failed.
        return retval is not None and retval.exc is None and retval.__context__ is None
    return state in (SUCCESS, IGNORED)


def _may_come_again(task: Any, state: str | None) -> bool:
    """Return whether the message of a run that ends in this state may be delivered again."""
    if state == FAILURE and task.acks_late:
        # Not acknowledged, it goes where the broker keeps dead letters. Celery 5.7 has two names.
        return not getattr(task, "acks_on_failure", task.acks_on_failure_or_timeout)
    return state in (None, REJECTED)  # cut off, or rejected by the task itself


def _wait(task: Any, run: Run) -> None:
    """Park the message or send it on; while neither can be done, keep the slot and try again."""
    attempt = 0
    while True:
        # Everything: a lost message is worse than a slot held. A soft time limit may
        # strike here too, and the run has nothing left to do but this.
        try:
            if attempt:
                time.sleep(PAUSES[min(attempt, len(PAUSES)) - 1])
            if progress.stage_of(run.token) == Stage.TAKEN:
                return  # this process is about to be killed, and the main one sees to it
            _wait_once(task, run)
        except Exception as exc:  # noqa: BLE001
            level = logging.DEBUG if attempt else logging.WARNING
            detail = f"as its message finds no place: {exc}"
            log_decision(level, task, run, "keeps its slot", detail, reason=str(exc))
            attempt += 1
        else:
            return


def _wait_once(task: Any, run: Run) -> None:
    """Park the message, or send it on.

    Once it may have been parked, it must be parked: if it were sent on too, there would be two.
    """
    if run.waiter is None and isinstance(run.answer, Denied):
        denied = run.answer
        run.waiter = waiter_of(task.app, run.token, denied.limits, run.message, denied.ticket)
    if run.waiter is None:
        countdown = settings_of(task.app).retry_countdown
        run.message.publish(task.app, countdown)
        log_decision(logging.DEBUG, task, run, "sent on", f"for {countdown} s", countdown=countdown)
    else:
        log_place(task, run, limiter_of(task.app).waiting_room.park(run.waiter), run.waiter.limits)
    progress.note(run.token, Stage.PLACED)


def _release(task: Any, run: Run, *, done: bool, succeeded: bool = False) -> None:
    # Where its answer was not read, its body has not begun.
    began = not isinstance(run.outcome, Asked)
    try:
        held = limiter_of(task.app).release(run.token, done=done, began=began, succeeded=succeeded)
    except LimiterUnavailable as exc:
        log_decision(logging.WARNING, task, run, "releases later", str(exc), reason=str(exc))
    else:
        log_release(task, run, held=held)
