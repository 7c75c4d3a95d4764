"""The worker's housekeeping: a thread of the main process that ticks about once a second.

It renews the tokens of living runs, takes over configuration written by hand, sweeps, counts
how long runs took, keeps the statistics' history, logs how adaptive limits moved and which
headers are nearly tags, tells the waiting room of revoked tasks, and in one worker of all meets
the moments at which limits open. It lives from before the first task until after the last.
Which runs live, and what becomes of the dead, is in ``heartbeat.py``.
"""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from celery import signals
from celery.worker import state as worker_state

from celery_concurrency.errors import ConcurrencyError, LimiterUnavailable
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.leases import BEAT_SECONDS
from celery_concurrency.log import WORKER_LOG, Outage, fields
from celery_concurrency.worker import rescue
from celery_concurrency.worker.heartbeat import Heartbeat
from celery_concurrency.worker.run import reservation_of
from celery_concurrency.worker.unknown_headers import unknown_headers

logger = logging.getLogger(WORKER_LOG)

TICK: Final = BEAT_SECONDS
#: Seconds between two looks at the pool's processes, and of the one worker that meets moments.
LOOK: Final = 0.25
WATCHING_LOOK: Final = 0.1
SHORTEST_LOOK: Final = 0.005
#: For how many ticks we look for a revoked task among the waiters: it may be on its way there.
REVOKE_TICKS: Final = 5
#: Seconds after which a line on a move says when that was.
LATE: Final = 60.0


class Housekeeping:
    """Does what has to be done now and then, in a thread of its own.

    Args:
        limiter: this process's.
        heartbeat: of this worker's runs.
        greet: is called in the first tick that reaches Redis, and if it returns False, as
            the broker is away, once more when the worker has connected to that.
    """

    def __init__(
        self, limiter: Limiter, heartbeat: Heartbeat, greet: Callable[[], bool] = lambda: True
    ) -> None:
        self._limiter = limiter
        self._heartbeat = heartbeat
        self._greet = greet
        self._greeting_due = True
        self._greeted = False
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="concurrency-tick", daemon=True)
        self._outage = Outage(logger, "limiter")
        self._watcher = secrets.token_hex(8)
        self._watching = False
        self._next_look = LOOK
        self._revokes = _Revokes()
        self._dimensions: tuple[str, ...] = ()
        self._forgone: deque[tuple[str, tuple[str, ...]]] = deque()

    def start(self) -> None:
        """Tick once now, so that the first task finds all in order; then go on in the thread."""
        self.tick()
        self._wait_until_open()
        signals.worker_ready.connect(self.on_ready)
        signals.task_revoked.connect(self.on_revoked)
        signals.task_received.connect(self._heartbeat.on_received)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for a tick under way, and for the messages of killed runs."""
        rescue.finish()
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._heartbeat.release_dead()  # the pool's processes are gone, in whatever way
        if not self._outage.is_on:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        try:
            self._heartbeat.end()
        except LimiterUnavailable as exc:
            logger.debug("others see this worker as silent for a while: %s", exc)

    def _wait_until_open(self) -> None:
        """Where Redis lost its data, or has none yet, delay the start until it admits runs."""
        try:
            seconds = self._limiter.leases.closed_for()
        except LimiterUnavailable:
            return  # the first tick has logged it, and tasks wait
        if seconds:
            logger.info(
                "the limiter's data is new: runs that live elsewhere have %.0f s to say so", seconds
            )
            time.sleep(seconds)

    def on_ready(self, **_: Any) -> None:
        """``worker_ready``: the worker is connected to its broker."""
        if not self._greeted:
            self._greeting_due = True
            self._wake.set()

    def on_revoked(self, request: Any = None, terminated: bool = False, **_: Any) -> None:
        """``task_revoked``: a task that won't run gives up, in the thread, what it was handed."""
        reservation = None if terminated else reservation_of(request)
        if reservation:
            self._forgone.append(reservation)
            self._wake.set()

    def tick(self) -> None:
        """Do all of it once; log when Redis goes away and when it comes back."""
        try:
            self._do(self._say_hello)
            self._do(self._take_over)
            self._do(self._heartbeat.beat)
            self._do(self._pass_on)
            self._do(self._limiter.waiting_room.sweep)
            self._do(self._watch)
            self._do(self._limiter.durations.tally)
            self._do(self._limiter.stats.snapshot)
            self._do(self._tell_moves)
            self._do(self._judge_headers)
            self._do(self._limiter.keyspace.check_memory)
        except LimiterUnavailable as exc:
            self._outage.begin(exc)
        else:
            self._outage.end()

    def _do(self, part: Callable[[], object]) -> None:
        """Do a part of a tick; its failure stops no other part, least of all the beat."""
        try:
            part()
        except LimiterUnavailable:
            raise
        except ConcurrencyError as exc:
            logger.warning("%s", exc)
        except Exception:
            logger.exception("a part of a tick failed; the next one comes in %s s", TICK)

    def _say_hello(self) -> None:
        if self._greeting_due:
            self._greeted = self._greet()
            self._greeting_due = False

    def _take_over(self) -> None:
        """Take over configuration written by hand."""
        self._dimensions = tuple(self._limiter.config.sync().config.dimensions)

    def _judge_headers(self) -> None:
        unknown_headers.judge(self._limiter.keyspace, self._dimensions)

    def _pass_on(self) -> None:
        """Tell the waiting room what became of tasks in this worker."""
        for task_id in self._revokes.recent():
            if self._limiter.waiting_room.cancel(task_id):
                logger.info(
                    "task %s was revoked while it waited",
                    task_id,
                    extra=fields("revoked", task_id=task_id),
                )
        while self._forgone:
            self._limiter.waiting_room.forgo(*self._forgone[0])
            self._forgone.popleft()

    def _tell_moves(self) -> None:
        """Log the moves of adaptive limits that no worker has logged yet."""
        for move in self._limiter.adaptive.take_unlogged():
            how = "falls" if move.falls else "rises"
            # No worker was there to say so.
            when = f" at {time.ctime(move.at)}" if time.time() - move.at > LATE else ""
            logger.log(
                logging.WARNING if move.falls else logging.INFO,
                "limit %s %s from %d to %d%s: %s",
                move.limit, how, move.before, move.after, when, move.why,
                extra=fields(
                    f"limit {how}", limit=move.limit, before=move.before, after=move.after,
                    reason=move.why, at=move.at,
                ),
            )  # fmt: skip

    def _watch(self) -> None:
        self._watching = self._limiter.waiting_room.watch_moments(self._watcher)

    def _meet_moments(self) -> None:
        """Where this worker watches, hand over what has opened; look again at the next moment."""
        self._next_look = LOOK
        if self._watching:
            opens = self._limiter.waiting_room.meet_moments()
            # By then one may be filed that comes earlier. Never at once: after a loss of data
            # nobody is admitted, and what is due stays so.
            if opens is None:
                opens = WATCHING_LOOK
            self._next_look = min(WATCHING_LOOK, max(SHORTEST_LOOK, opens))

    def _run(self) -> None:
        next_tick = time.monotonic() + TICK
        while not self._stopped.is_set():
            woken = self._wake.wait(self._next_look)
            self._wake.clear()
            if self._stopped.is_set():
                return
            try:
                self._heartbeat.release_dead()
                if woken or time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK
                    self.tick()
                elif not self._outage.is_on:
                    if self._heartbeat.is_unknown():
                        # A run that no beat has named yet would lose its tokens with the data.
                        self._heartbeat.beat()
                    self._meet_moments()
                else:
                    self._next_look = LOOK
            except LimiterUnavailable as exc:
                self._outage.begin(exc)
            except Exception:
                # A tick lost is better than a thread lost.
                logger.exception("a tick failed; the next one comes in %s s", TICK)


class _Revokes:
    """The tasks that this worker was told to revoke lately, and that may be waiting."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._recent: dict[str, int] = {}

    def recent(self) -> list[str]:
        """Return the tasks that were revoked in the last ticks."""
        # The main thread adds to it meanwhile: it iterates over a list made in one go.
        revoked = set(worker_state.revoked)
        self._recent.update(dict.fromkeys(revoked - self._seen, REVOKE_TICKS))
        self._seen = revoked
        found = list(self._recent)
        self._recent = {task: ticks - 1 for task, ticks in self._recent.items() if ticks > 1}
        return found
