"""Tasks that fill all slots of a worker, and others that wait meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery
from celery.contrib.abortable import AbortableTask
from celery.signals import task_retry

from tests.support.sites import note

app = Celery("door", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_waiting = os.environ.get("WAITING", "handoff")
app.conf.concurrency_redis_url = os.environ.get("REDIS_URL")
app.conf.concurrency_park_on_receipt = "LATE" not in os.environ
# Who asks again instead of being handed its turn would do so long after a test.
app.conf.concurrency_retry_countdown = float(os.environ.get("COUNTDOWN", "600"))
app.conf.worker_deduplicate_successful_tasks = True
app.conf.broker_connection_retry_on_startup = True
if os.environ.get("VISIBILITY"):
    app.conf.broker_transport_options = {"visibility_timeout": float(os.environ["VISIBILITY"])}
if os.environ.get("KEYPREFIX"):
    app.conf.broker_transport_options = {"global_keyprefix": os.environ["KEYPREFIX"]}
    app.conf.result_backend_transport_options = {"global_keyprefix": os.environ["KEYPREFIX"]}


@task_retry.connect
def on_retry(request, reason, **_: object) -> None:
    note(f"retry {request.id} {reason.exc}")


@app.task
def fill(file: str) -> None:
    """Keep a slot until a file is there."""
    deadline = time.monotonic() + 120
    while not Path(file).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@app.task(bind=True)
def work(self, *args: object) -> str:
    """Note that the body ran."""
    note(self.request.id)
    return self.request.id


@app.task(bind=True, acks_late=True)
def late(self) -> None:
    """Have a message that is acknowledged when this has ended."""
    note(self.request.id)


@app.task(bind=True, ignore_result=True)
def forgotten(self) -> None:
    """Keep no result."""
    note(self.request.id)


@app.task(bind=True, base=AbortableTask)
def abortable(self) -> None:
    """Note whether somebody has aborted it."""
    note(f"{self.request.id} {self.is_aborted()}")


@app.task(bind=True, rate_limit="1000/s")
def limited(self) -> None:
    """Go by Celery's own rate limit as well."""
    note(self.request.id)


@app.task(bind=True, concurrency={"account": lambda user: f"user{user}"})
def declared(self, user: int) -> None:
    """Find its tag in its arguments."""
    note(self.request.id)


@app.task(bind=True)
def told(self, *args: object) -> None:
    """Be told of another's end: its callback, errback or chord's body."""
    note("told")
