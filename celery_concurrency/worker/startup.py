"""What a worker logs when it starts: how tasks wait, and probable mistakes.

``bootstep.py`` starts the thread whose first tick calls this.
"""

import logging
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.limits import BUILTIN_DIMENSIONS, BUILTIN_TAGS, GLOBAL, OTHER_TAGS
from celery_concurrency.log import WORKER_LOG
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.busy import BUSY_TAG
from celery_concurrency.worker.waiting_mode import WaitingMode, waiting_mode_of
from celery_concurrency.worker.weight import WEIGHT_TAG

logger = logging.getLogger(WORKER_LOG)


def greet(app: Any) -> WaitingMode | None:
    """Log how tasks wait, and warn of probable mistakes.

    Returns:
        how they wait; None if that isn't known because the broker is away, which Celery logs.

    Raises:
        LimiterUnavailable: Redis can't be asked.
    """
    try:
        mode = waiting_mode_of(app)
    except LimiterUnavailable:
        raise
    except (RedisError, OSError, OperationalError) as exc:
        logger.debug("it is not known yet how denied tasks wait: %s", exc)
        return None
    for problem in (*_unknown_tags(app), *_unknown_dimensions(app)):
        logger.warning("%s", problem)
    how = "start as soon as there is room" if mode.by_handoff else "ask again by countdown"
    logger.info("denied tasks %s (%s)", how, mode.reason)
    settings, prefix = settings_of(app), limiter_of(app).prefix
    if settings.namespaces:
        logger.info("this worker serves the namespace %s", settings.namespace)
    if prefix != settings.key_prefix:
        logger.info("all keys begin with %s: a Redis Cluster needs a hash tag", prefix)
    if not mode.by_handoff and _bounds_how_many(app):
        logger.warning(
            "how many tasks wait for a limit is not bounded: the field 'most' of 'waiting' needs "
            "the waiting room (concurrency_waiting = 'handoff')"
        )
    if mode.by_handoff:
        for risk in _risks(limiter_of(app).redis):
            logger.warning("waiting tasks are at risk: %s", risk)
    return mode


def _bounds_how_many(app: Any) -> bool:
    waiting = limiter_of(app).config.sync().config.waiting
    return any(bounds.most for bounds in waiting.values())


def _unknown_tags(app: Any) -> Iterator[str]:
    """Yield a warning for each declared tag that no limit uses: it limits nothing."""
    known = [*BUILTIN_TAGS, *limiter_of(app).config.sync().config.dimensions]
    for name, task in sorted(app.tasks.items()):
        declared = getattr(task, "concurrency", None)
        for tag in declared if isinstance(declared, Mapping) else ():
            if tag not in {*known, *OTHER_TAGS, BUSY_TAG, WEIGHT_TAG}:
                yield (
                    f"task {name} declares the tag {tag!r}, which no limit uses: use "
                    f"{', '.join(known)}, or configure a dimension of that name"
                )


def _unknown_dimensions(app: Any) -> Iterator[str]:
    """Yield a warning for each kind of refusal whose dimension no limit uses.

    It is not an error, because the dimension may be configured later, at run time.
    """
    refusals = settings_of(app).refusals
    if not refusals:
        return
    known = [GLOBAL, *BUILTIN_TAGS, *limiter_of(app).config.sync().config.dimensions]
    for path, entry in refusals.items():
        if entry.dimension not in {*known, *BUILTIN_DIMENSIONS}:
            close = get_close_matches(entry.dimension, known, n=1) or known
            yield (
                f"concurrency_refusals[{path!r}]: no limit uses the dimension "
                f"{entry.dimension!r}, so nothing cools down: use {', '.join(close)}, or "
                "configure a dimension of that name"
            )


def _risks(redis: Redis) -> list[str]:
    """Return why this Redis server may lose the tasks that wait in it."""

    def setting(name: str) -> str | None:
        # A managed server may refuse to say.
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
