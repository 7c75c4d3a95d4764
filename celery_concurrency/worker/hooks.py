"""Where the gate is put in: all tasks of a process, those of one app, or of one base class.

What the gate does is in ``gate.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from celery import Celery, Task, signals
from celery._state import _get_active_apps, connect_on_app_finalize

from celery_concurrency.worker import gate, outbox
from celery_concurrency.worker.bootstep import ConcurrencyStep


def gate_class(cls: type[Any]) -> None:
    """Put the gate in front of a task class's ``before_start``; once, however often called.

    Each task has a class of its own, so this reaches a task whatever its base
    class does with ``before_start``, calling super or not.
    """
    original = cls.before_start
    if getattr(original, "is_gate", False):
        return

    @wraps(original)
    def before_start(self: Any, task_id: str, args: Any, kwargs: Any) -> None:
        gate.check(self)
        original(self, task_id, args, kwargs)

    before_start.is_gate = True  # type: ignore[attr-defined]  # a mark on a function
    cls.before_start = before_start


def _ungate_class(cls: type[Any]) -> None:
    if getattr(cls.before_start, "is_gate", False):
        cls.before_start = cls.before_start.__wrapped__


class _GateAnnotation:
    """An entry of ``app.annotations``: sees each task class that is bound from now on."""

    def annotate(self, cls: type[Any]) -> None:
        if not cls.name or cls.name.startswith("celery."):  # the app's base class has no name
            return
        original = cls.on_bound

        def on_bound(cls: type[Any], app: Celery) -> None:
            original(app)
            # The user's own annotations came in between, and may have brought a before_start.
            gate_class(cls)

        cls.on_bound = classmethod(on_bound)


#: Whether every app of this process is gated: there is no way back then.
_all_are_gated = False


def gate_all_tasks() -> None:
    """Gate every task of every app of this process, registered or yet to come."""
    global _all_are_gated  # noqa: PLW0603 - the process has one registry of apps, Celery's
    _all_are_gated = True
    connect_on_app_finalize(_gate_app)
    for app in _get_active_apps():
        if app.finalized:
            _gate_app(app)


@contextmanager
def gated(app: Celery) -> Iterator[None]:
    """Gate an app's tasks while the block runs; what is gated otherwise stays so."""
    annotations = app.annotations
    before = _is_gated(app)
    connect_hooks()
    _gate_app(app)
    try:
        yield
    finally:
        if not (before or _all_are_gated):
            app.annotations = annotations
            tasks = list(app._tasks.values())
            if not any(isinstance(task, ConcurrencyTask) for task in tasks):
                app.steps["worker"].discard(ConcurrencyStep)
            for task in tasks:
                if not isinstance(task, ConcurrencyTask):
                    _ungate_class(type(task))


def _is_gated(app: Celery) -> bool:
    return any(isinstance(entry, _GateAnnotation) for entry in app.annotations)


def _gate_app(app: Celery) -> None:
    if not _is_gated(app):
        app.annotations = [_GateAnnotation(), *app.annotations]
    _gate_tasks(app)
    app.steps["worker"].add(ConcurrencyStep)


def _gate_tasks(sender: Celery, **_: Any) -> None:
    for task in list(sender._tasks.values()):
        if not task.name.startswith("celery."):
            gate_class(type(task))


def connect_hooks() -> None:
    """Connect the gate, and the outbox's end, to Celery's signals; once, however often called."""
    for signal, handler in (
        (signals.task_received, gate.on_received),
        (signals.task_prerun, gate.on_prerun),
        (signals.task_postrun, gate.on_postrun),
        (signals.worker_process_shutdown, outbox.finish),
    ):
        signal.connect(handler, weak=False, dispatch_uid=f"concurrency.{handler.__name__}")


# Celery has no types, so its Task is Any.
class ConcurrencyTask(Task):  # type: ignore[misc]
    """A base class for tasks that are gated, for those who prefer to be explicit.

    ``@app.task(base=ConcurrencyTask)`` gates that task, also where
    ``celery_concurrency.signals`` is not in ``imports``; both together gate once.
    """

    abstract = True

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Celery's hook for a task class that has found its app."""
        super().on_bound(app)
        gate_class(cls)
        connect_hooks()
        app.steps["worker"].add(ConcurrencyStep)
