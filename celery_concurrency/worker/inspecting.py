"""For ``celery inspect``: ``stats`` says how tasks wait, ``query_task`` whether a task waits.

``bootstep.py`` installs both; ``limiter/inspect/explanation.py`` finds out why a task waits.
"""

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final

from celery.worker.control import Panel, inspect_command

from celery_concurrency.limiter.inspect.counts import MAX_GROUPS, count_waiting
from celery_concurrency.limiter.inspect.explanation import explain_waiting
from celery_concurrency.limiter.limits import GLOBAL
from celery_concurrency.log import WORKER_LOG
from celery_concurrency.worker.apps import limiter_of
from celery_concurrency.worker.waiting_mode import waiting_mode_of

logger = logging.getLogger(WORKER_LOG)

#: The worker takes no message while it answers, and ``inspect`` waits for 1 s by default.
SECONDS: Final = 0.5
UNKNOWN: Final = "unknown"

#: Fields that ``query_task`` gives for a task in a worker, meaningless for a waiting task.
_OF_WORKERS: Final = (
    "args", "kwargs", "hostname", "time_start", "acknowledged", "delivery_info", "worker_pid",
)  # fmt: skip


def stats_of(app: Any) -> dict[str, Any]:
    """Return how an app's tasks wait, and how many over all workers; for ``inspect stats``.

    Returns:
        ``{"mode": "handoff" or "retry", "reason": why, "waiting": how many, "uncounted_groups":
        as in ``Usage``}``, each "unknown" if the servers don't answer within half a second.
    """
    names = ("mode", "reason", "waiting", "uncounted_groups")
    return {**dict.fromkeys(names, UNKNOWN), **_gathered(_stats(app))}


def _stats(app: Any) -> Iterator[tuple[str, Any]]:
    keyspace = limiter_of(app).keyspace
    yield "waiting", count_waiting(keyspace, MAX_GROUPS)[GLOBAL]
    groups: Any = keyspace.redis.zcard(keyspace.keys.groups)
    yield "uncounted_groups", max(0, groups - MAX_GROUPS)
    mode = waiting_mode_of(app)
    yield "mode", mode.name
    yield "reason", mode.reason


def extend_query_task(mark: type[Any]) -> None:
    """Make ``inspect query_task`` find waiting tasks too; calling this again does nothing.

    Args:
        mark: a bootstep. Workers without it answer as before.
    """
    original = Panel.data["query_task"]
    if getattr(original, "knows_who_waits", False):
        return

    signature = Panel.meta["query_task"].signature

    # Celery has no types.
    @inspect_command(  # type: ignore[untyped-decorator]
        name="query_task", variadic="ids", signature=signature
    )
    def query_task(state: Any, ids: Any, **kwargs: Any) -> dict[str, Any]:
        """Query for task information by id."""
        found: dict[str, Any] = original(state, ids, **kwargs)
        if any(isinstance(step, mark) for step in state.consumer.controller.steps):
            others = [id for id in ([ids] if isinstance(ids, str) else ids) if id not in found]
            found.update(waiting_of(state.app, others))
        return found

    query_task.knows_who_waits = True


def waiting_of(app: Any, task_ids: Iterable[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return which of these tasks wait, in the form of ``query_task``.

    Returns:
        ``{id: ("waiting", facts)}``, where ``concurrency`` in the facts is why it waits, and
        ``{id: ("unknown", facts)}`` if Redis does not answer within half a second.
    """
    asked = list(task_ids)
    answers = _gathered(_explanations(app, asked)) if asked else {}
    said = {}
    for id in asked:
        why = answers.get(id, UNKNOWN)
        if why is not None:
            name = None if why == UNKNOWN else why["task"]
            facts = {"id": id, "name": name, "type": name, **dict.fromkeys(_OF_WORKERS)}
            state = UNKNOWN if why == UNKNOWN else "waiting"
            said[id] = (state, {**facts, "concurrency": why})
    return said


def _explanations(app: Any, task_ids: list[str]) -> Iterator[tuple[str, Any]]:
    limiter = limiter_of(app)
    config = limiter.config.sync().config
    for id in task_ids:
        why = explain_waiting(limiter.keyspace, config, id)
        yield id, why and why.to_dict()


def _gathered(facts: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    """Return the facts that arrive in time; a background thread asks for them."""
    found: dict[str, Any] = {}

    def gather() -> None:
        try:
            for name, fact in facts:
                found[name] = fact
        except Exception:  # the other answers are still good
            logger.debug("could not answer celery inspect", exc_info=True)

    thread = threading.Thread(target=gather, name="concurrency-inspect", daemon=True)
    thread.start()
    thread.join(SECONDS)
    return dict(found)
