"""The bootsteps: the worker's starts the thread of ``housekeeping.py``, the consumer's the door.

``inspecting.py`` has what it reports to ``celery inspect``.
"""

import logging
from importlib.metadata import version
from typing import Any

from celery import bootsteps
from celery.concurrency import prefork

from celery_concurrency.limiter.workers import WorkerFacts
from celery_concurrency.log import WORKER_LOG
from celery_concurrency.worker.apps import choose, limiter_of, settings_of
from celery_concurrency.worker.celery_compat import guard_pool
from celery_concurrency.worker.door import door_of
from celery_concurrency.worker.heartbeat import Heartbeat
from celery_concurrency.worker.housekeeping import Housekeeping
from celery_concurrency.worker.inspecting import extend_query_task, stats_of
from celery_concurrency.worker.namespaces import consumed_by
from celery_concurrency.worker.refusals import refusals_of
from celery_concurrency.worker.settings import namespaces_in
from celery_concurrency.worker.startup import greet

logger = logging.getLogger(WORKER_LOG)


class DoorStep(bootsteps.Step):  # type: ignore[misc]  # Celery has no types
    """The consumer's bootstep: puts the door before the pool."""

    def __init__(self, consumer: Any, **_: Any) -> None:
        door = door_of(consumer.app)
        door.consumer = consumer
        guard_pool(consumer, door.lets_in)


class ConcurrencyStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """The worker's bootstep: started before the pool, stopped when the pool has drained."""

    def include(self, parent: Any) -> bool:
        """Celery's hook: add the step as the first one.

        Steps stop in reverse order, so only the first is sure to outlive the pool's last task.
        """
        if not self.include_if(parent):
            return False
        self.obj = self.create(parent)
        parent.steps.insert(0, self)
        return True

    def info(self, parent: Any) -> dict[str, Any]:
        """Celery's hook: what ``inspect stats`` shows for this step."""
        return {"concurrency": stats_of(parent.app)}

    def create(self, parent: Any) -> Housekeeping:
        """Create the thread without starting it; a wrong setting stops the worker here.

        Raises:
            ImproperlyConfigured: names the setting.
        """
        _serve_namespace(parent)
        settings, limiter = settings_of(parent.app), limiter_of(parent.app)
        refusals_of(parent.app)  # imports the exception classes once, before the pool forks
        extend_query_task(ConcurrencyStep)

        def on_lost(request: Any) -> None:
            if settings.on_lost != "terminate":
                return
            try:
                request.terminate(parent.pool, signal="TERM")
            except NotImplementedError:
                # Nothing can end a body in a thread, or in a solo worker.
                logger.error(
                    "this worker's pool can't terminate tasks: %s keeps running", request.id
                )

        heartbeat = Heartbeat(
            limiter,
            settings.worker_timeout,
            on_lost,
            worker=facts_of(parent),
            # In other pools worker_pid is this process, or none.
            processes=issubclass(parent.pool_cls, prefork.TaskPool),
        )

        def hello() -> bool:
            mode = greet(parent.app)
            if mode:
                heartbeat.note_mode(mode.name)
            return mode is not None

        return Housekeeping(limiter, heartbeat, hello)


def _serve_namespace(worker: Any) -> None:
    """Serve the namespace of a worker's queues, in its pool's children too."""
    namespaces = namespaces_in(worker.app.conf)
    if namespaces:
        choose(worker.app, consumed_by(worker, namespaces))


def facts_of(worker: Any) -> WorkerFacts:
    """Return what a worker says of itself: its pool as in Celery's banner, its most processes."""
    return WorkerFacts(
        name=str(worker.hostname),
        version=version("celery-concurrency"),
        pool=worker.pool_cls.__module__.rpartition(".")[2],
        concurrency=worker.max_concurrency or worker.concurrency,
    )


def add_steps(app: Any) -> None:
    """Have an app's workers start with our steps; once, however often called."""
    app.steps["worker"].add(ConcurrencyStep)
    app.steps["consumer"].add(DoorStep)


def remove_steps(app: Any) -> None:
    """Undo ``add_steps`` for workers that start from now on."""
    app.steps["worker"].discard(ConcurrencyStep)
    app.steps["consumer"].discard(DoorStep)
