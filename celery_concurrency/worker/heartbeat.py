"""The heartbeat of a worker: its living runs keep their tokens, its dead ones lose them.

Both for the processes of a pool, whose end no signal of Celery's may tell: a child
that was killed releases nothing. What is done here is done in the main process, by
the thread of ``housekeeping.py``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from celery.worker import state as worker_state

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter import Limiter
from celery_concurrency.log import WORKER_LOG, fields
from celery_concurrency.worker.run import TOKEN

logger = logging.getLogger(WORKER_LOG)


class Heartbeat:
    """Renews and gives back the tokens of the runs of one worker.

    Args:
        limiter: whose.
        seconds: of silence after which this worker's tokens are taken back.
        on_lost: is given the request of a run whose tokens were taken back all the same.
        processes: the pool's runs have processes, in which they may end without a word.
    """

    def __init__(
        self,
        limiter: Limiter,
        seconds: float,
        on_lost: Callable[[Any], None] = lambda _: None,
        *,
        processes: bool = True,
    ) -> None:
        self._limiter = limiter
        self._seconds = seconds
        self._on_lost = on_lost
        self._processes = processes
        # A child runs one task at a time: of what it ran before nothing is left to give back.
        self._running: dict[int, str] = {}
        # Received since the last look; and before, and not begun.
        self._new: list[Any] = []
        self._waiting: list[Any] = []

    def on_received(self, request: Any = None, **_: Any) -> None:
        """``task_received``, in the main thread: remember the request until a child has it."""
        if request is not None and self._processes:
            self._new.append(request)

    def beat(self) -> None:
        """Renew what lives here; tell of what was taken back.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        requests = dict(self._active())
        # Each is named by one beat alone.
        lost = self._limiter.leases.beat(requests.keys(), self._seconds)
        for token in lost:
            request = requests[token]
            logger.error(
                "Task %s[%s] runs on without its tokens: they were taken back, as this worker "
                "could not renew them for too long",
                request.name,
                request.id,
                extra=fields("lost", task_id=request.id, task_name=request.name, token=token),
            )
        for token in lost:
            try:
                self._on_lost(requests[token])
            except Exception:
                logger.exception("what is to be done about %s failed", token)

    def is_unknown(self) -> bool:
        """Whether runs live here that would not be found again after a loss of data."""
        return any(not self._limiter.leases.knows(token) for token, _ in self._active())

    def look(self) -> None:
        """Give back the tokens of runs whose process has ended."""
        if not self._processes:
            return
        self._look_who_runs()
        ended = {pid: token for pid, token in self._running.items() if _has_ended(pid)}
        for pid, token in ended.items():
            del self._running[pid]
            self._release(token)

    def _look_who_runs(self) -> None:
        """Note which child has which run, however short it was: no signal tells."""
        requests, self._new = [*self._waiting, *self._new], []
        begun = [request for request in requests if request.worker_pid]
        for request in sorted(begun, key=lambda request: request.time_start or 0):
            token = request.request_dict.get(TOKEN)
            if token:
                self._running[request.worker_pid] = token
        self._waiting = [request for request in requests if _may_begin(request)]

    def _release(self, token: str) -> None:
        try:
            if self._limiter.release(token):
                logger.warning(
                    "released %s, as its process has ended",
                    token,
                    extra=fields("released for it", task_id=token.rpartition(":")[0], token=token),
                )
        except LimiterUnavailable as exc:
            logger.warning("releases %s later, as its process has ended: %s", token, exc)

    def _active(self) -> Iterator[tuple[str, Any]]:
        # The main thread adds to it meanwhile: a list of its references is made in one go.
        for reference in list(worker_state.active_requests.data):
            request = reference()
            token = request is not None and request.request_dict.get(TOKEN)
            if token:
                yield token, request


def _may_begin(request: Any) -> bool:
    """Return whether a request has not begun, and still may: not revoked, expired or dropped."""
    if request.worker_pid:
        return False
    known = worker_state.requests.get(request.id) is request
    return known or request in worker_state.scheduled_requests


def _has_ended(pid: int) -> bool:
    """Return whether a child process has ended, reaped by its parent or not."""
    try:
        # After the name, which is in brackets and may hold anything, comes the state.
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return not _exists(pid)
    return stat.rpartition(")")[2].split()[0] in "ZX"


def _exists(pid: int) -> bool:
    """Return whether there is such a process; the only way where there is no /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
