"""The heartbeat of a worker: its living runs keep their tokens, its dead ones lose them.

Both for the processes of a pool, whose end no signal of Celery's may tell: a child
that was killed releases nothing. What is done here is done in the main process, by
the thread of ``worker.py``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.worker import state as worker_state

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.gate import TOKEN
from celery_concurrency.limiter import Limiter

logger = logging.getLogger(__name__)

#: Endings of a task in whose course its process ends, or has ended.
_DEADLY: Final = (Terminated, TimeLimitExceeded, WorkerLostError)


class Heartbeat:
    """Renews and gives back the tokens of the runs of one worker.

    Args:
        limiter: whose.
        seconds: of silence after which this worker's tokens are taken back.
        on_lost: is given the request of a run whose tokens were taken back all the same.
    """

    def __init__(
        self, limiter: Limiter, seconds: float, on_lost: Callable[[Any], None] = lambda _: None
    ) -> None:
        self._limiter = limiter
        self._seconds = seconds
        self._on_lost = on_lost
        self._main = os.getpid()
        # A child runs one task at a time: of what it ran before nothing is left to give back.
        self._running: dict[int, str] = {}
        self._ending: dict[str, int] = {}
        self._received: WeakSet[Any] = WeakSet()

    # -- handlers of signals, in the main thread

    def on_received(self, request: Any = None, **_: Any) -> None:
        """``task_received``: remember the request for as long as it is there."""
        if request is not None:
            self._received.add(request)

    def on_failure(self, task_id: str = "", exception: Any = None, **_: Any) -> None:
        """``task_failure``: its process may have ended without a word."""
        if isinstance(exception, _DEADLY):
            self._ends(task_id)

    def on_revoked(self, request: Any = None, terminated: bool = False, **_: Any) -> None:
        """``task_revoked``: so may that of a task that was terminated."""
        if terminated:
            self._ends(request.id)

    def _ends(self, task_id: str) -> None:
        # A task that was delivered twice may be here as two, and one of them may live.
        for request in list(self._received):
            token = request.id == task_id and request.request_dict.get(TOKEN)
            # In the pools that have no processes, the run itself gives its tokens back.
            if token and request.worker_pid not in (None, self._main):
                self._ending[token] = request.worker_pid

    # -- the thread

    def beat(self) -> None:
        """Renew what lives here; tell of what was taken back.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        requests = dict(self._active())
        for token in self._limiter.leases.beat(requests.keys(), self._seconds):
            request = requests[token]
            logger.error(
                "Task %s[%s] runs on without its tokens: they were taken back, as this worker "
                "could not renew them for too long",
                request.name,
                request.id,
                extra={"concurrency": {"decision": "lost", "task_id": request.id, "token": token}},
            )
            self._on_lost(request)

    def is_unknown(self) -> bool:
        """Whether runs live here that would not be found again after a loss of data."""
        return any(not self._limiter.leases.knows(token) for token, _ in self._active())

    def look(self) -> None:
        """Give back the tokens of runs whose process has ended."""
        for token, request in self._active():
            if request.worker_pid and request.worker_pid != self._main:
                self._running[request.worker_pid] = token
        ended = {pid: token for pid, token in self._running.items() if _has_ended(pid)}
        for pid in ended:
            del self._running[pid]
        for token in {*ended.values(), *self._ended_otherwise()}:
            self._release(token)

    def _ended_otherwise(self) -> Iterator[str]:
        """Yield those of the runs that were told to end whose process is gone or does another."""
        for token, pid in list(self._ending.items()):
            if self._running.get(pid, token) != token or _has_ended(pid):
                del self._ending[token]
                yield token

    def _release(self, token: str) -> None:
        try:
            if self._limiter.release(token):
                logger.warning("released %s, as its process has ended", token)
        except LimiterUnavailable as exc:
            logger.warning("releases %s later, as its process has ended: %s", token, exc)

    def _active(self) -> Iterator[tuple[str, Any]]:
        # The main thread adds to it meanwhile: a list of its references is made in one go.
        for reference in list(worker_state.active_requests.data):
            request = reference()
            token = request is not None and request.request_dict.get(TOKEN)
            if token:
                yield token, request


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
