"""The log of runs: each decision about a run, as text and as fields (``docs/logging.md``).

The loggers are in ``log.py``.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

from celery_concurrency.errors import NotWaiting, TooManyWaiting
from celery_concurrency.limiter.limits import BUILTIN_DIMENSIONS, BUILTIN_TAGS, GLOBAL, split_limit
from celery_concurrency.limiter.outcomes import Denied, Granted, Repeated, Skipped
from celery_concurrency.log import WORKER_LOG, fields
from celery_concurrency.worker.run import Failed, Run, Unanswered, Uncounted

logger = logging.getLogger(WORKER_LOG)


def log_outcome(task: Any, run: Run) -> None:
    """Log a run's outcome."""
    match run.outcome:
        case Granted(limits=limits):
            # Its release tells all of it again, and each line costs a task as much as a call.
            log_decision(
                logging.DEBUG, task, run, "granted", ", ".join(limits),
                limits=list(limits), waited=waited_by(run),
            )  # fmt: skip
        case Denied() as denied:
            _log_wait(logging.INFO, task, run, denied)
        case Repeated(token=None):
            detail = "because a copy of its message has run before"
            log_decision(logging.INFO, task, run, "dropped", detail)
        case Skipped() as skipped:
            detail = f"because {skipped}"
            log_decision(logging.INFO, task, run, "skipped", detail, limit=skipped.limit)
        case Failed(NotWaiting() as error):
            crowded = isinstance(error, TooManyWaiting)
            decision = "refused as crowded" if crowded else "given up"
            log_decision(
                logging.INFO, task, run, decision, f"because {error}", reason=str(error),
                limit=error.limit,
            )  # fmt: skip
        case Repeated():
            _log_wait(logging.INFO, task, run)
        case Uncounted(reason):
            log_decision(logging.WARNING, task, run, "runs", str(reason), reason=str(reason))
        case Unanswered():
            _log_wait(logging.WARNING, task, run)


def log_arrival(task: Any, run: Run) -> None:
    """Log that a run waits because its message was parked when it arrived."""
    assert isinstance(run.answer, Denied)
    _log_wait(logging.INFO, task, run, run.answer, " and is parked as it arrives")


def log_place(task: Any, run: Run, place: str, limits: Sequence[str]) -> None:
    """Log where a run's message went, just after Celery logged a retry with a countdown.

    Args:
        place: what ``WaitingRoom.park`` returned.
        limits: the run's limits.
    """
    level, detail, more = logging.DEBUG, "", {}
    if place == "parked":
        level, more = logging.INFO, {"reason": str(run.reason)}
        detail = f"and starts as soon as there is room, without a countdown: {run.reason}"
    elif place == "handed over":
        level, detail = logging.INFO, "at once, without a countdown, because there is room by now"
    elif place == "crowded":
        detail = "and put back to fail, because as many wait as may"
    elif place == "replaced":
        level, detail = logging.INFO, "by a newer one, which waits"
    log_decision(level, task, run, place, detail, limits=list(limits), **more)


def log_release(task: Any, run: Run, *, held: bool) -> None:
    """Log that a run gave its tokens back.

    Args:
        held: it had them until then; if not, they had expired or were never given.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    limits = run.outcome.limits if isinstance(run.outcome, Granted) else ()
    seconds = None if run.began is None else round(time.monotonic() - run.began, 3)
    waited = waited_by(run)
    detail = ", ".join(limits)
    if not held:
        detail += " after its tokens had expired"
    elif seconds is not None:
        detail += f" after {seconds} s"
    if waited:
        detail += f", for which it had waited {waited} s"
    log_decision(
        logging.INFO, task, run, "released", detail.strip(),
        limits=list(limits), waited=waited, held=seconds, expired=not held,
    )  # fmt: skip


def log_decision(
    level: int, task: Any, run: Run, decision: str, detail: str = "", **more: Any
) -> None:
    """Log a decision about a run.

    Args:
        decision: one of those in ``docs/logging.md``.
        detail: the rest of the line, for people.
        more: further fields of this decision.
    """
    if not logger.isEnabledFor(level):
        return
    task_id = run.token.rpartition(":")[0]
    tags = _tags_of(run)
    logger.log(
        level,
        "Task %s[%s] %s (%s)",
        task.name,
        task_id,
        f"{decision} {detail}".rstrip(),
        " ".join(f"{name}={value}" for name, value in tags.items()) or "no tags",
        extra=fields(
            decision, task_id=task_id, task_name=task.name, token=run.token, tags=tags, **more
        ),
    )


def _log_wait(
    level: int, task: Any, run: Run, denied: Denied | None = None, more: str = ""
) -> None:
    reason = str(run.reason)
    shut = denied.shut if denied else None
    detail = f"because {reason}" if shut else reason.removeprefix("waits ")
    log_decision(
        level, task, run, "waits", detail + more,
        reason=reason, limit=denied and denied.limit, current=denied and denied.held,
        max=denied and denied.max, opens_at=shut and shut.until,
    )  # fmt: skip


def waited_by(run: Run) -> float:
    """Return the seconds from a message's first ask to its grant, by the server's clock."""
    if run.ticket is None or not isinstance(run.outcome, Granted):
        return 0.0
    # A fencing number is the server's time in microseconds, or a little more.
    return round(max(0.0, run.outcome.fence / 1e6 - run.ticket.asked), 3)


def _tags_of(run: Run) -> dict[str, object]:
    """Return the tags that count; of other headers, those that have a limit."""
    tags = {name: run.tags[name] for name in BUILTIN_TAGS if name in run.tags}
    limits = run.answer.limits if isinstance(run.answer, Granted | Denied | Skipped) else ()
    named = (split_limit(limit) for limit in limits)
    own = {dimension: name for dimension, name in named if dimension not in BUILTIN_DIMENSIONS}
    own.pop(GLOBAL, None)
    return {**tags, **own}
