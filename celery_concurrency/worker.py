"""The worker's own part: checks at start, and a thread that ticks about once a second.

The thread renews the tokens of the runs that live here, takes over configuration
written by hand, sweeps, counts how long runs took, keeps the statistics' history and
passes on what became of waiting tasks here. It lives in the main process, and from
before the first task until after the last.

Which runs live, and what becomes of the dead, is ``heartbeat.py``'s matter.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from celery import bootsteps, signals
from celery.concurrency import prefork
from celery.worker import state as worker_state
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from celery_concurrency.apps import limiter_of, settings_of
from celery_concurrency.connection import asking
from celery_concurrency.errors import ConcurrencyError, LimiterUnavailable
from celery_concurrency.handoff import reservation_of, waiting_of
from celery_concurrency.heartbeat import Heartbeat
from celery_concurrency.lease import BEAT_SECONDS
from celery_concurrency.limiter import Limiter
from celery_concurrency.limits import BUILTIN_TAGS
from celery_concurrency.log import WORKER_LOG, fields

logger = logging.getLogger(WORKER_LOG)

TICK: Final = BEAT_SECONDS
#: How often it looks at the pool's processes in between, in seconds.
LOOK: Final = 0.25
#: How many ticks a revoked task is looked for among those who wait: it may be on its way there.
REVOKE_TICKS: Final = 5


class Ticker:
    """Does what has to be done now and then, in a thread of its own.

    Args:
        limiter: whose.
        heartbeat: of the runs of this worker.
        greet: is called in the first tick that finds the limiter there.
    """

    def __init__(
        self, limiter: Limiter, heartbeat: Heartbeat, greet: Callable[[], None] = lambda: None
    ) -> None:
        self._limiter = limiter
        self._heartbeat = heartbeat
        self._greet: Callable[[], None] | None = greet
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="concurrency-tick", daemon=True)
        self._away = False
        self._revokes = _Revokes()
        self._forgone: deque[tuple[str, list[str]]] = deque()

    def start(self) -> None:
        """Tick once now, so that a first task finds all in order, then go on in the thread."""
        self.tick()
        self._wait_until_open()
        signals.task_revoked.connect(self.on_revoked)
        signals.task_received.connect(self._heartbeat.on_received)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for a tick under way."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._heartbeat.look()  # the pool's processes are gone, in whatever way

    def _wait_until_open(self) -> None:
        """After a loss of data, or at the very first start, take no task before others may."""
        try:
            seconds = self._limiter.leases.closed_for()
        except LimiterUnavailable:
            return  # it says so itself, and tasks wait
        if seconds:
            logger.info(
                "the limiter's data is new: runs that live elsewhere have %.0f s to say so", seconds
            )
            time.sleep(seconds)

    def on_revoked(self, request: Any = None, terminated: bool = False, **_: Any) -> None:
        """``task_revoked``: what was handed room and won't run gives it up, in the thread."""
        reservation = None if terminated else reservation_of(request)
        if reservation:
            self._forgone.append(reservation)
            self._wake.set()

    def tick(self) -> None:
        """Do all of it once; Redis being away is logged when it begins and ends."""
        try:
            self._do(self._say_hello)
            self._do(self._limiter.config.sync)
            self._do(self._heartbeat.beat)
            self._do(self._pass_on)
            self._do(self._limiter.waiting.sweep)
            self._do(self._limiter.times.tally)
            self._do(self._limiter.stats.snapshot)
        except LimiterUnavailable as exc:
            if not self._away:
                logger.warning(
                    "the limiter is away: %s", exc, extra=fields("limiter away", reason=str(exc))
                )
            self._away = True
        else:
            if self._away:
                logger.warning("the limiter is back", extra=fields("limiter back"))
            self._away = False

    def _do(self, part: Callable[[], object]) -> None:
        """Do a part of a tick, and let its failure stop no other part: least of all the beat."""
        try:
            part()
        except LimiterUnavailable:
            raise
        except ConcurrencyError as exc:
            logger.warning("%s", exc)
        except Exception:
            logger.exception("a part of a tick failed; the next one comes in %s s", TICK)

    def _say_hello(self) -> None:
        if self._greet:
            self._greet()
            self._greet = None

    def _pass_on(self) -> None:
        """Tell the waiting room what became of tasks in this worker."""
        for task_id in self._revokes.look():
            if self._limiter.waiting.cancel(task_id):
                logger.info(
                    "task %s was revoked while it waited",
                    task_id,
                    extra=fields("revoked", task_id=task_id),
                )
        while self._forgone:
            self._limiter.waiting.forgo(*self._forgone[0])
            self._forgone.popleft()

    def _run(self) -> None:
        next_tick = time.monotonic() + TICK
        while not self._stopped.is_set():
            woken = self._wake.wait(LOOK)
            self._wake.clear()
            if self._stopped.is_set():
                return
            try:
                self._heartbeat.look()
                if woken or time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK
                    self.tick()
                elif not self._away and self._heartbeat.is_unknown():
                    # What no beat has seen yet would not come back after a loss of data.
                    self._heartbeat.beat()
            except Exception:
                # A tick lost is better than a thread lost.
                logger.exception("a tick failed; the next one comes in %s s", TICK)


class _Revokes:
    """The tasks that this worker was told to revoke, as long as one of them may be waiting."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._recent: dict[str, int] = {}

    def look(self) -> list[str]:
        """Return the tasks that were revoked in the last ticks."""
        # The main thread adds to it meanwhile: a dict is copied in one go.
        revoked = set(worker_state.revoked._data)
        self._recent.update(dict.fromkeys(revoked - self._seen, REVOKE_TICKS))
        self._seen = revoked
        found = list(self._recent)
        self._recent = {task: ticks - 1 for task, ticks in self._recent.items() if ticks > 1}
        return found


class ConcurrencyStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """The worker's bootstep: started before the pool, stopped when the pool has drained."""

    def include(self, parent: Any) -> bool:
        """Celery's hook: takes the step in.

        Steps stop in reverse, and the order of those that don't require each other is
        any. Only the first is still there when the pool's last task has ended.
        """
        if not self.include_if(parent):
            return False
        self.obj = self.create(parent)
        parent.steps.insert(0, self)
        return True

    def create(self, parent: Any) -> Ticker:
        """Make the thread, not yet started; a wrong setting stops the worker here.

        Raises:
            ImproperlyConfigured: names the setting.
        """
        settings, limiter = settings_of(parent.app), limiter_of(parent.app)

        def on_lost(request: Any) -> None:
            if settings.on_lost != "terminate":
                return
            try:
                request.terminate(parent.pool, signal="TERM")
            except NotImplementedError:
                # Nothing can end a body in the pools of threads, and in solo.
                logger.error("this worker's pool can't terminate tasks: %s runs on", request.id)

        heartbeat = Heartbeat(
            limiter,
            settings.worker_timeout,
            on_lost,
            # In the others, worker_pid is no process or this one.
            processes=issubclass(parent.pool_cls, prefork.TaskPool),
        )
        return Ticker(limiter, heartbeat, lambda: _greet(parent.app))


def _greet(app: Any) -> None:
    """Say how tasks wait, and warn where those that do are at risk.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    try:
        waiting = waiting_of(app)
    except (RedisError, OSError, *app.connection_for_write().connection_errors) as exc:
        logger.warning("how tasks wait that find no room is not known yet: %s", exc)
        return
    for problem in _unknown_tags(app):
        logger.warning("%s", problem)
    how = "are handed it the moment it is there" if waiting.by_handoff else "ask again by countdown"
    logger.info("tasks that find no room %s (%s)", how, waiting.reason)
    if waiting.by_handoff:
        for risk in _risks(limiter_of(app).redis):
            logger.warning("waiting tasks are at risk: %s", risk)


def _unknown_tags(app: Any) -> Iterator[str]:
    """Say which declared tags no limit goes by: their tasks are not limited by them.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    known = [*BUILTIN_TAGS, *limiter_of(app).config.sync().config.dimensions]
    for name, task in sorted(app.tasks.items()):
        declared = getattr(task, "concurrency", None)
        for tag in declared if isinstance(declared, Mapping) else ():
            if tag not in known:
                yield (
                    f"task {name} declares the tag {tag!r}, and no limit goes by that: there is "
                    f"{', '.join(known)}; a dimension of your own has to be configured"
                )


def _risks(redis: Redis) -> list[str]:
    """Return what may make this Redis server lose what waits in it."""

    def setting(name: str) -> str | None:
        # A managed server may not say.
        try:
            with asking():
                found: Any = redis.config_get(name)
        except LimiterUnavailable as exc:
            if isinstance(exc.__cause__, ResponseError):
                return None
            raise
        return next((str(value) for value in found.values()), None)

    risks = []
    policy = setting("maxmemory-policy")
    if policy not in (None, "noeviction") and setting("maxmemory") != "0":
        risks.append(
            f"maxmemory-policy is {policy!r}, so a full Redis drops them; set it to 'noeviction'"
        )
    if setting("appendonly") == "no" and setting("save") == "":
        risks.append(
            "Redis keeps nothing on disk, so a restart loses them, as it does queued ones; "
            "set 'appendonly yes'"
        )
    return risks
