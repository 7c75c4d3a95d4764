"""The worker's housekeeping: a thread of the main process that ticks about once a second.

It renews the tokens of living runs, takes over configuration written by hand, logs headers that
are nearly tags, and tells the waiting room of revoked tasks. In one worker of all it also does
the chores (``limiter/chores.py``), and in one hands over at the moments when limits open. It
starts before the first task and ends after the last. ``heartbeat.py`` knows which runs live, and
deals with the dead.
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
from celery_concurrency.limiter.chores import look_for_chores
from celery_concurrency.limiter.leases import BEAT_SECONDS
from celery_concurrency.log import WORKER_LOG, Outage, fields
from celery_concurrency.worker import rescue
from celery_concurrency.worker.heartbeat import Heartbeat
from celery_concurrency.worker.run import reservation_of
from celery_concurrency.worker.unknown_headers import unknown_headers

logger = logging.getLogger(WORKER_LOG)

TICK: Final = BEAT_SECONDS
#: Seconds between two looks at the pool's processes, and at the next moment (in one worker).
LOOK: Final = 0.25
WATCHING_LOOK: Final = 0.1
SHORTEST_LOOK: Final = 0.005
#: How many ticks we look for a revoked task among the waiters: it may be on its way there.
REVOKE_TICKS: Final = 5
#: Seconds after which the log line about a move says when it moved.
LATE: Final = 60.0


class Housekeeping:
    """Does the worker's periodic work, in its own thread.

    Args:
        limiter: this process's limiter.
        heartbeat: this worker's heartbeat.
        greet: called in the first tick that reaches Redis. If it returns False because the
            broker is away, it is called once more when the worker has connected to the broker.
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
        self._forgone: deque[tuple[str, tuple[str, ...], int]] = deque()

    def start(self) -> None:
        """Tick once now, before the first task; then go on in the thread."""
        self.tick()
        self._wait_until_open()
        signals.worker_ready.connect(self.on_ready)
        signals.task_revoked.connect(self.on_revoked)
        signals.task_received.connect(self._heartbeat.on_received)
        self._thread.start()

    def stop(self) -> None:
        """Stop; wait for a tick in progress and for the messages of killed runs."""
        rescue.finish()
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._heartbeat.release_dead()  # all of the pool's processes are gone
        if not self._outage.is_on:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        try:
            self._heartbeat.end()
        except LimiterUnavailable as exc:
            logger.debug("other workers see this one as silent for a while: %s", exc)

    def _wait_until_open(self) -> None:
        """If Redis lost its data or has none yet, delay the start until it admits runs."""
        try:
            seconds = self._limiter.leases.closed_for()
        except LimiterUnavailable:
            return  # the first tick has logged the outage, and tasks wait
        if seconds:
            logger.info(
                "the limiter's data is new: waiting %.0f s so that other workers can report the "
                "tokens they hold",
                seconds,
            )
            time.sleep(seconds)

    def on_ready(self, **_: Any) -> None:
        """``worker_ready``: the worker is connected to its broker."""
        if not self._greeted:
            self._greeting_due = True
            self._wake.set()

    def on_revoked(self, request: Any = None, terminated: bool = False, **_: Any) -> None:
        """``task_revoked``: the thread gives up what was handed over to the revoked task."""
        reservation = None if terminated else reservation_of(request)
        if reservation:
            self._forgone.append(reservation)
            self._wake.set()

    def tick(self) -> None:
        """Do everything once; log when Redis goes away and when it comes back."""
        try:
            self._do(self._say_hello)
            self._do(self._take_over)
            self._do(self._heartbeat.beat)
            self._do(self._pass_on)
            self._do(self._do_chores)
            self._do(self._watch)
            self._do(self._judge_headers)
        except LimiterUnavailable as exc:
            self._outage.begin(exc)
        else:
            self._outage.end()

    def _do(self, part: Callable[[], object]) -> None:
        """Do one part of a tick; if it fails, the other parts go on, above all the beat."""
        try:
            part()
        except LimiterUnavailable:
            raise
        except ConcurrencyError as exc:
            logger.warning("%s", exc)
        except Exception:
            logger.exception("part of a housekeeping tick failed; the next tick is in %s s", TICK)

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
        """Tell the waiting room which tasks this worker was told to revoke or gave up."""
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
        """Log the moves of adaptive limits that no other worker has logged."""
        for move in self._limiter.adaptive.take_unlogged():
            how = "falls" if move.falls else "rises"
            # No worker was there to log it then.
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

    def _do_chores(self) -> None:
        """Do what one worker of all has to do, if that is due."""
        due = look_for_chores(self._limiter.keyspace)
        if due.sweep:
            self._do(self._limiter.waiting_room.sweep)
            self._do(self._limiter.stats.snapshot)
        if due.tally:
            self._do(self._limiter.durations.tally)
        if due.moves:
            self._do(self._tell_moves)

    def _watch(self) -> None:
        self._watching = self._limiter.waiting_room.watch_moments(self._watcher)

    def _meet_moments(self) -> None:
        """If this worker watches the moments, hand over what has opened; plan the next look."""
        self._next_look = LOOK
        if self._watching:
            opens = self._limiter.waiting_room.meet_moments()
            # An earlier moment may be added until then. Never look at once: after a loss of data
            # nobody is admitted, and what is due stays due.
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
                        # A run that no beat has named yet would lose its tokens for good.
                        self._heartbeat.beat()
                    self._meet_moments()
                else:
                    self._next_look = LOOK
            except LimiterUnavailable as exc:
                self._outage.begin(exc)
            except Exception:
                # Better to lose a tick than the thread.
                logger.exception("a housekeeping tick failed; the next tick is in %s s", TICK)


class _Revokes:
    """The tasks that this worker was recently told to revoke, and that may be waiting."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._recent: dict[str, int] = {}

    def recent(self) -> list[str]:
        """Return the tasks that were revoked in the last ticks."""
        # The main thread may add to it at the same time, so iterate over a copy.
        revoked = set(worker_state.revoked)
        self._recent.update(dict.fromkeys(revoked - self._seen, REVOKE_TICKS))
        self._seen = revoked
        found = list(self._recent)
        self._recent = {task: ticks - 1 for task, ticks in self._recent.items() if ticks > 1}
        return found
