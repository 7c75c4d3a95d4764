"""Which tasks are gated: all of a process, those of one app, or those of one base class.

What the gate does is in ``gate.py``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from celery import Celery, Task, signals

from celery_concurrency.worker import gate, outbox, rescue
from celery_concurrency.worker.bootstep import add_steps, remove_steps
from celery_concurrency.worker.celery_compat import (
    on_each_app,
    tasks_of,
    unwatch_tasks,
    watch_tasks,
)


def gate_class(cls: type[Any]) -> None:
    """Put the gate in front of a task class's ``before_start``; calling this again does nothing.

    Each task has its own class, so this works whether or not ``before_start`` calls super.
    Celery's own tasks are left alone.
    """
    original = cls.before_start
    if getattr(original, "is_gate", False) or (cls.name or "").startswith("celery."):
        return

    @wraps(original)
    def before_start(self: Any, task_id: str, args: Any, kwargs: Any) -> None:
        gate.check(self)
        original(self, task_id, args, kwargs)

    before_start.is_gate = True  # type: ignore[attr-defined]  # a mark on a function
    cls.before_start = before_start
    cls.Request = rescue.rescuing(cls.Request)


def _ungate_class(cls: type[Any]) -> None:
    if getattr(cls.before_start, "is_gate", False):
        cls.before_start = cls.before_start.__wrapped__
        cls.Request = cls.Request.rescues


#: Whether every app of this process is gated; that can't be undone.
_all_are_gated = False


def gate_all_tasks() -> None:
    """Gate every task of every app of this process, those registered later included."""
    global _all_are_gated  # noqa: PLW0603 - the process has one registry of apps, Celery's
    _all_are_gated = True
    on_each_app(_gate_app)


@contextmanager
def gated(app: Celery) -> Iterator[None]:
    """Gate an app's tasks while the block runs; those that were gated before stay gated."""
    connect_hooks()
    is_new = _gate_app(app)
    try:
        yield
    finally:
        if is_new and not _all_are_gated:
            unwatch_tasks(app)
            tasks = tasks_of(app)
            if not any(isinstance(task, ConcurrencyTask) for task in tasks):
                remove_steps(app)
            for task in tasks:
                if not isinstance(task, ConcurrencyTask):
                    _ungate_class(type(task))


def _gate_app(app: Celery) -> bool:
    """Gate an app's tasks; return False if they already were."""
    is_new = watch_tasks(app, gate_class)
    for task in tasks_of(app):
        gate_class(type(task))
    add_steps(app)
    return is_new


def connect_hooks() -> None:
    """Connect the gate and the outbox to Celery's signals; calling this again does nothing."""
    for signal, handler in (
        (signals.task_received, gate.on_received),
        (signals.task_prerun, gate.on_prerun),
        (signals.task_postrun, gate.on_postrun),
        (signals.worker_process_shutdown, outbox.finish),
    ):
        signal.connect(handler, weak=False, dispatch_uid=f"concurrency.{handler.__name__}")


# Celery has no types, so its Task is Any.
class ConcurrencyTask(Task):  # type: ignore[misc]
    """A base class for gated tasks, if you prefer to be explicit.

    ``@app.task(base=ConcurrencyTask)`` gates that task even without
    ``celery_concurrency.signals`` in ``imports``. With both, the task is still gated only once.
    """

    abstract = True

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Celery's hook: a task class was bound to its app."""
        super().on_bound(app)
        gate_class(cls)
        connect_hooks()
        add_steps(app)
