"""Rescue: puts a run's message back if its child was killed before the body began.

Celery would end such a task as failed, though it only had to wait. Its body has not begun, and
the main process has its message: the message goes back to the broker, and the task asks again.
``progress.py`` knows how far a run had got. A hard time limit at that point is treated in the
same way, though the child still lives when Celery reports it.
"""

import logging
import os
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Reject, Retry
from kombu.utils.functional import LRUCache
from kombu.utils.imports import symbol_by_name

from celery_concurrency.errors import LimitReached
from celery_concurrency.limiter.background import Background
from celery_concurrency.limiter.waiters import waiter_name
from celery_concurrency.log import WORKER_LOG, fields
from celery_concurrency.worker.apps import limiter_of
from celery_concurrency.worker.celery_compat import headers_of, sent_along
from celery_concurrency.worker.door import door_of, exception_info
from celery_concurrency.worker.heartbeat import has_ended
from celery_concurrency.worker.progress import Stage, note, stage_of
from celery_concurrency.worker.run import Run

logger = logging.getLogger(WORKER_LOG)

#: How often one worker rescues a task: the task's own handlers may be what kills the children.
MOST: Final = 3
#: Seconds between two attempts while the servers are away, and to finish when the worker ends.
PAUSE: Final = 1.0
FINISH_SECONDS: Final = 5.0


@lru_cache
def rescuing(base: Any) -> type[Any]:
    """Return a class of worker requests that rescues runs.

    Args:
        base: the class that the task has now (``Task.Request``), or its name.
    """
    original: type[Any] = symbol_by_name(base)  # type: ignore[no-untyped-call]  # kombu

    class RescuingRequest(original):  # type: ignore[misc]  # a base known at run time
        """A worker's request."""

        rescues = base
        #: Whether its message is put back because its child was killed; None until it has ended.
        is_kept: bool | None = None

        def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> Any:
            """Celery's hook for a run that failed, or whose child was killed."""
            ending = _ending_of(self, exc_info)
            self.is_kept = ending is not exc_info
            result = super().on_failure(ending, *args, **options)
            error = _raised(exc_info)
            if isinstance(error, Retry) and isinstance(error.exc, LimitReached):
                door_of(self.app).note_denied(self)
            return result

        def on_timeout(self, soft: bool, timeout: float) -> Any:
            """Celery's hook for a time limit; a pool of processes calls ``on_failure`` first."""
            if not soft and self.is_kept is None:
                exc_info = exception_info(TimeLimitExceeded(timeout))
                ending = _ending_of(self, exc_info)
                if ending is not exc_info:
                    return super().on_failure(ending)
            return None if self.is_kept and not soft else super().on_timeout(soft, timeout)

    return RescuingRequest


def _raised(exc_info: Any) -> BaseException:
    """Return what a run raised, which is wrapped unless it came from another process."""
    error: BaseException = exc_info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error


def _ending_of(request: Any, exc_info: Any) -> Any:
    """Return how a run ends: not as failed if its child was killed before its body began."""
    error = _raised(exc_info)
    run: Run | None = sent_along(request)
    if run is None or not isinstance(error, WorkerLostError | TimeLimitExceeded):
        return exc_info
    stage = stage_of(run.token)
    if stage in (None, Stage.BEGUN) or (stage != Stage.PLACED and not _rescuer.may(request.id)):
        return exc_info
    if stage == Stage.ASKING and isinstance(error, TimeLimitExceeded):
        note(run.token, Stage.TAKEN)
    if stage != Stage.PLACED and request.task.acks_late:
        return exception_info(Reject("its child was killed before its body began", requeue=True))
    if stage == Stage.ASKING:
        _rescuer.add(request, run)
    return exception_info(Retry("its child was killed before its body began"))


class _Rescuer:
    """Puts the messages of killed runs back, in a thread because the servers may be away."""

    def __init__(self) -> None:
        self._runs: deque[tuple[Any, Run]] = deque()
        self._times: Any = LRUCache(limit=1000)  # type: ignore[no-untyped-call]  # kombu
        self._thread = Background("concurrency-rescue", self._round)

    def may(self, task_id: str) -> bool:
        """Return whether this task may be rescued once more."""
        self._times[task_id] = times = self._times.get(task_id, 0) + 1
        return bool(times <= MOST)

    def add(self, request: Any, run: Run) -> None:
        self._runs.append((request, run))
        try:
            self._thread.wake()
        except RuntimeError:  # no more threads can be started
            self._round()

    def finish(self, seconds: float) -> None:
        """Wait for the rest for at most this many seconds; log what is lost."""
        self._thread.join(seconds)
        while self._runs:
            _say_lost(*self._runs.popleft(), "the worker ended before its message was put back")

    def _round(self) -> float | None:
        # A message that can't be put back, maybe for ever, must not hold up the others.
        for entry in list(self._runs):
            if _is_placed(*entry):
                with suppress(ValueError):  # the worker ends, and has logged that it is lost
                    self._runs.remove(entry)
        return PAUSE if self._runs else None


_rescuer: Final = _Rescuer()


def finish() -> None:
    """Before the worker ends, put back the messages of killed runs."""
    _rescuer.finish(FINISH_SECONDS)


def _is_placed(request: Any, run: Run) -> bool:
    """Try to put a message back; return whether that is done."""
    pid = request.worker_pid
    if pid and pid != os.getpid() and not has_ended(pid):
        return False  # after a time limit, it may be placing its message right now
    try:
        detail = _rescue(request, run)
    except Exception as exc:  # noqa: BLE001 - in any case, a lost message is worse
        logger.debug("the message of %s can't be put back yet: %s", run.token, exc)
        return False
    logger.warning(
        "Task %s[%s] was not lost with its process: %s",
        request.name,
        request.id,
        detail,
        extra=fields("rescued", task_id=request.id, task_name=request.name, token=run.token),
    )
    return True


def _rescue(request: Any, run: Run) -> str:
    """Put a message back, unless it was parked or sent on; return which, for the log."""
    if stage_of(run.token) == Stage.PLACED:
        return "its message was parked or sent on"
    limiter, headers = limiter_of(request.app), headers_of(request)
    # Its process may have been killed after the grant but before the answer.
    limiter.release(run.token, began=False)
    waiter = waiter_name(
        request.id, headers.get("retries") or 0, headers.get("replaced_task_nesting") or 0
    )
    if limiter.waiting_room.rescue(run.token, waiter):
        return "it waits"
    run.message.publish(request.app)
    return "its message is back in its queue"


def _say_lost(request: Any, run: Run, why: str) -> None:
    logger.error(
        "Task %s[%s] may be lost: %s",
        request.name,
        request.id,
        why,
        extra=fields("message lost", task_id=request.id, task_name=request.name, token=run.token),
    )
