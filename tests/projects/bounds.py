"""Tasks for which waiting has bounds, and what is told of their ends."""

from __future__ import annotations

import os

from celery import Celery

from tests.projects.busy import wait_for_file
from tests.support.sites import note

app = Celery("bounds", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_waiting = os.environ.get("WAITING", "handoff")
app.conf.concurrency_retry_countdown = 0.2
app.conf.broker_connection_retry_on_startup = True
app.conf.result_extended = True


@app.task(bind=True, concurrency={"account": lambda user, file="": user})
def work(self, user: str, file: str = "") -> str:
    """Run until the file is there."""
    note(self.request.id)
    wait_for_file(file)
    return self.request.id


@app.task(
    bind=True,
    concurrency={"account": lambda user: user},
    acks_late=True,
    autoretry_for=(Exception,),
    retry_backoff=False,
    default_retry_delay=0,
    max_retries=5,
)
def stubborn(self, user: str) -> str:
    """Be retried whatever goes wrong."""
    note(self.request.id)
    return self.request.id


@app.task(bind=True, concurrency={"account": lambda user, file: user})
def again(self, user: str, file: str) -> str:
    """Retry once the file is there."""
    note(self.request.id)
    if not self.request.retries:
        wait_for_file(file)
        raise self.retry(countdown=0)
    return self.request.id


@app.task(ignore_result=True, concurrency={"account": lambda user: user})
def forgotten(user: str) -> None:
    """Have no result."""


@app.task
def told(*args: object) -> str:
    """Be told of another's end."""
    note("told")
    return "told"


@app.task
def failed(request, error, traceback) -> None:
    """Be told of another's failure."""
    note(f"failed {request.id} {error!r}")
