"""Reports to the limiter, at the end of a run, that a platform refused it.

``refusals.py`` says which exceptions are refusals. A task that handles the exception itself
calls ``Lease.refused``.
"""

import logging
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from celery.states import SUCCESS

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.leases import author_of
from celery_concurrency.limiter.limits import GLOBAL, limit_in, limits_of
from celery_concurrency.limiter.outcomes import Granted
from celery_concurrency.log import WORKER_LOG
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.refusals import Meaning, refusals_of
from celery_concurrency.worker.run import Run
from celery_concurrency.worker.run_log import log_decision

logger = logging.getLogger(WORKER_LOG)

#: Tasks and entries whose limit was not found; each is logged once.
_without_limit: set[tuple[str, str]] = set()


def tell_refusal(task: Any, run: Run, state: str | None, ended_by: Any) -> None:
    """If a body ended by a refusal, report that before its tokens are released.

    Args:
        state: the task's state; None if its process was made to stop.
        ended_by: the exception that ended the body. An exception that the task returned does not
            count.
    """
    if state in (None, SUCCESS) or not settings_of(task.app).refusals:
        return
    try:
        refusal = refusals_of(task.app).find(ended_by)
        if refusal:
            _tell(task, run, refusal)
    except SoftTimeLimitExceeded:
        raise
    except Exception:  # whatever goes wrong here, the tokens must be released
        logger.exception(
            "the refusal of task %s[%s] could not be reported", task.name, task.request.id
        )


def _tell(task: Any, run: Run, refusal: Meaning) -> None:
    entry, seconds = refusal.entry, refusal.seconds
    limits = _limits(task, run)
    limit = limit_in(limits, entry.dimension)
    if limit is None:
        # It is still a refusal: it counts, and adaptive limits fall.
        limit, seconds = GLOBAL, 0.0
        _warn_once(task, refusal)
    if run.lease and limit in run.lease.refused_in:
        return  # the task has reported it itself, maybe long ago
    until, detail = None, ""
    try:
        until = limiter_of(task.app).refuse(
            run.token, limits, limit, seconds, grow=entry.grow, most=max(entry.most, seconds),
            reason=refusal.reason, by=author_of(run.token),
        )  # fmt: skip
    except LimiterUnavailable as exc:
        detail = f"; reported to the limiter later: {exc}"
    log_decision(
        logging.WARNING, task, run, "refused", f"for {limit}: {refusal.reason}{detail}",
        limit=limit, seconds=seconds, until=until or None, reason=refusal.reason,
    )  # fmt: skip


def _limits(task: Any, run: Run) -> tuple[str, ...]:
    if isinstance(run.outcome, Granted):
        return run.outcome.limits
    # It began while Redis was away, so it may still be uncounted.
    try:
        dimensions = limiter_of(task.app).config.sync().config.dimensions
    except LimiterUnavailable:
        return limits_of(run.tags)
    return limits_of(run.tags, dimensions)


def _warn_once(task: Any, refusal: Meaning) -> None:
    if (task.name, refusal.path) not in _without_limit:
        _without_limit.add((task.name, refusal.path))
        logger.warning(
            "concurrency_refusals[%r]: task %s has no %s, so nothing cools down when it is "
            "refused. The refusal still counts. This is logged once",
            refusal.path, task.name, refusal.entry.dimension,
        )  # fmt: skip
