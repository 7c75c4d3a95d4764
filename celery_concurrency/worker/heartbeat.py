"""A worker's heartbeat: its living runs keep their tokens, its dead runs lose them.

Celery may send no signal when a pool's child ends, and a killed child releases nothing. All of
this runs in the main process, in the thread of ``housekeeping.py``.
"""

import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery.worker import state as worker_state

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.workers import WorkerFacts, forget_worker
from celery_concurrency.log import WORKER_LOG, fields
from celery_concurrency.worker.celery_compat import active_requests
from celery_concurrency.worker.progress import Stage, stage_of
from celery_concurrency.worker.run import token_of

logger = logging.getLogger(WORKER_LOG)


class Heartbeat:
    """Renews the tokens of one worker's runs, and releases those of its dead runs.

    Args:
        limiter: holds the tokens.
        seconds: how long this worker may be silent before its tokens are taken back.
        on_lost: called with the request of a living run whose tokens were taken back.
        worker: what the worker says of itself; None to say nothing.
        processes: whether the runs are in child processes, which may be killed.
    """

    def __init__(
        self,
        limiter: Limiter,
        seconds: float,
        on_lost: Callable[[Any], None] = lambda _: None,
        *,
        worker: WorkerFacts | None = None,
        processes: bool = True,
    ) -> None:
        self._limiter = limiter
        self._seconds = seconds
        self._on_lost = on_lost
        self._worker = worker
        self._processes = processes
        # Process id to its latest run: a child runs one task at a time and released the earlier.
        self._running: dict[int, str] = {}
        # Requests that no child had at the last look.
        self._received: deque[Any] = deque()

    def on_received(self, request: Any = None, **_: Any) -> None:
        """``task_received``, in the main thread: remember the request until a child has it."""
        if request is not None and self._processes:
            self._received.append(request)

    def note_mode(self, mode: str) -> None:
        """Say with each beat from now on how denied tasks wait here: ``handoff`` or ``retry``."""
        if self._worker:
            self._worker = replace(self._worker, mode=mode)

    def beat(self) -> None:
        """Say that this worker lives, and renew its runs' tokens; report those taken back."""
        if self._worker and self._worker.since is None:
            self._worker = replace(self._worker, since=self._limiter.keyspace.now())
        requests = self._active()
        lost = self._limiter.leases.beat(requests.keys(), self._seconds, self._worker)
        for token in lost:
            request = requests[token]
            logger.error(
                "Task %s[%s] keeps running without its tokens: they were taken back, because this "
                "worker could not renew them in time",
                request.name,
                request.id,
                extra=fields("lost", task_id=request.id, task_name=request.name, token=token),
            )
        for token in lost:
            try:
                self._on_lost(requests[token])
            except Exception:
                logger.exception("concurrency_on_lost failed for %s", token)

    def end(self) -> None:
        """Say that this worker ends in good order and sends no more beats."""
        if self._worker:
            forget_worker(self._limiter.keyspace, self._worker.name)

    def is_unknown(self) -> bool:
        """Whether living runs here could not get their tokens back after a loss of data."""
        return any(not self._limiter.leases.knows(token) for token in self._active())

    def release_dead(self) -> None:
        """Release the tokens of runs whose process has ended."""
        if not self._processes:
            return
        self._look_who_runs()
        for pid in list(self._running):
            if has_ended(pid):
                self._release(self._running.pop(pid))

    def _look_who_runs(self) -> None:
        """Note which child has which run, even a very short one: there is no signal for it."""
        # The main thread may add requests at the same time.
        requests = [self._received.popleft() for _ in range(len(self._received))]
        begun = [request for request in requests if request.worker_pid]
        for request in sorted(begun, key=lambda request: request.time_start or 0):
            token = token_of(request)
            if token:
                self._running[request.worker_pid] = token
        self._received.extend(request for request in requests if _may_begin(request))

    def _release(self, token: str) -> None:
        began = stage_of(token) not in (Stage.ASKING, Stage.TAKEN)
        try:
            if self._limiter.release(token, began=began):
                logger.warning(
                    "released %s because its process has ended",
                    token,
                    extra=fields("released for it", task_id=token.rpartition(":")[0], token=token),
                )
        except LimiterUnavailable as exc:
            logger.warning("will release %s later; its process has ended: %s", token, exc)

    def _active(self) -> dict[str, Any]:
        """Return the requests of the runs that live here, by their tokens."""
        requests = ((token_of(request), request) for request in active_requests())
        return {token: request for token, request in requests if token}


def _may_begin(request: Any) -> bool:
    """Return whether a request has not begun but may: it is neither revoked nor expired."""
    if request.worker_pid:
        return False
    known = worker_state.requests.get(request.id) is request
    return known or request in worker_state.scheduled_requests


def has_ended(pid: int) -> bool:
    """Return whether a child process has ended, whether or not its parent reaped it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        # No such process, or no /proc.
        try:
            os.kill(pid, 0)
        except OSError as exc:
            return isinstance(exc, ProcessLookupError)
        return False
    # The state follows the name, which is in parentheses and may contain anything.
    return stat.rpartition(")")[2].split()[0] in "ZX"
