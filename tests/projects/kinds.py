"""Every way in which a task can be made."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task, shared_task

from tests.support.sites import note

app = Celery("kinds", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.concurrency_waiting = os.environ.get("WAITING", "retry")
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_retry_countdown = float(os.environ.get("COUNTDOWN", "0.3"))
app.conf.concurrency_exempt = ("free.*", "*.exempt")
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_pool_start_method = os.environ.get("START_METHOD", "fork")
app.autodiscover_tasks(["tests.projects.found"])


def before(self, task_id: str, args: Any, kwargs: Any) -> None:
    """Be put in place of a task's before_start by the configuration."""
    note(f"before {self.name}")


app.conf.task_annotations = {
    name: {"before_start": before} for name in ("annotated", "late.annotated")
}


@app.on_after_finalize.connect
def late(sender: Celery, **_: Any) -> None:
    """Make one more task when the app is complete."""

    @sender.task(name="late")
    def late() -> str:
        note("late")
        return "late"

    @sender.task(name="late.annotated")
    def late_annotated() -> str:
        note("late.annotated")
        return "late.annotated"


@app.task
def plain() -> str:
    """Be as plain as can be."""
    note("plain")
    return "plain"


@shared_task
def shared() -> str:
    """Belong to any app."""
    note("shared")
    return "shared"


@app.task(bind=True)
def bound(self) -> str:
    """Know its own request."""
    note("bound")
    return "bound"


class ByClass(Task):
    """A task that is a class."""

    name = "by_class"

    def run(self) -> str:
        note("by_class")
        return "by_class"


by_class = app.register_task(ByClass())


class OwnBeforeStart(Task):
    """A base whose before_start does not call super."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note(f"before {self.name}")


@app.task(base=OwnBeforeStart, name="own_before_start")
def own_before_start() -> str:
    note("own_before_start")
    return "own_before_start"


@app.task(base=OwnBeforeStart, name="same_base")
def same_base() -> str:
    note("same_base")
    return "same_base"


@app.task(name="annotated")
def annotated() -> str:
    note("annotated")
    return "annotated"


class OwnCall(Task):
    """A base with a __call__ of its own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)


@app.task(base=OwnCall)
def own_call() -> str:
    note("own_call")
    return "own_call"


@app.task(autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0)
def autoretry() -> str:
    note("autoretry")
    return "autoretry"


@app.task
def early() -> str:
    """Be evaluated while the module is imported."""
    note("early")
    return "early"


EARLY = early.name  # a look at a task evaluates it


@app.task(lazy=False)
def not_lazy() -> str:
    """Be bound without a promise."""
    note("not_lazy")
    return "not_lazy"


@app.task(name="free.task")
def free() -> str:
    note("free")
    return "free"


@app.task(name="some.exempt")
def exempt() -> str:
    note("exempt")
    return "exempt"


@app.task
def direct() -> str:
    """Call another task as a function, and run one eagerly."""
    return plain() + shared.apply(headers={"account": "direct"}).get(disable_sync_subtasks=False)


#: The name of each task that is gated, by what its body notes.
GATED = {
    "plain": plain.name,
    "shared": "tests.projects.kinds.shared",
    "bound": bound.name,
    "by_class": "by_class",
    "own_before_start": "own_before_start",
    "same_base": "same_base",
    "annotated": "annotated",
    "own_call": own_call.name,
    "autoretry": autoretry.name,
    "early": EARLY,
    "not_lazy": not_lazy.name,
    "late": "late",
    "late.annotated": "late.annotated",
    "found": "tests.projects.found.tasks.found",
}
