"""The worker's bootstep: starts the housekeeping thread, and says at start how tasks wait.

What the thread does is in ``housekeeping.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from celery import bootsteps
from celery.concurrency import prefork
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.limits import BUILTIN_TAGS
from celery_concurrency.log import WORKER_LOG
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.heartbeat import Heartbeat
from celery_concurrency.worker.housekeeping import Housekeeping
from celery_concurrency.worker.waiting_mode import waiting_mode_of

logger = logging.getLogger(WORKER_LOG)


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

    def create(self, parent: Any) -> Housekeeping:
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
        return Housekeeping(limiter, heartbeat, lambda: _greet(parent.app))


def _greet(app: Any) -> None:
    """Say how tasks wait, and warn where those that do are at risk.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    try:
        waiting = waiting_mode_of(app)
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
