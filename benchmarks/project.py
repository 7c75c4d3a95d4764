"""The tasks that real workers run here, with us or without."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery
from redis import Redis

from tests.support.jotting import jotted

app = Celery("project", broker=os.environ["BROKER_URL"])
if "KEEPS_RESULTS" in os.environ:
    app.conf.result_backend = os.environ["BROKER_URL"]
else:
    app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True
if "GATED" in os.environ:
    app.conf.imports = ("celery_concurrency.signals",)
    app.conf.concurrency_waiting = os.environ.get("WAITING", "auto")
    app.conf.concurrency_retry_countdown = 1
elif "TWO_CALLS" in os.environ:
    app.conf.imports = ("benchmarks.twocalls",)


@app.task
def nothing() -> None:
    """Do nothing."""


@app.task(bind=True)
def work(self: Any, seconds: float) -> None:
    """Take so long, and record it."""
    with jotted(self):
        time.sleep(seconds)


@app.task(bind=True, max_retries=None)
def locked(self: Any, seconds: float) -> None:
    """Take so long, under a lock that those who don't get it ask for again after a second."""
    lock = Redis.from_url(os.environ["BROKER_URL"]).lock("lock:account:a", timeout=60)
    if not lock.acquire(blocking=False):
        raise self.retry(countdown=1)
    try:
        with jotted(self):
            time.sleep(seconds)
    finally:
        lock.release()
