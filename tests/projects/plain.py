"""A project as users write it; each run of a task is recorded by the task itself."""

from __future__ import annotations

import os
import time

from celery import Celery

from tests.support.recording import recorded, wait_until_seen_full

app = Celery("plain", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.concurrency_waiting = os.environ.get("WAITING", "retry")
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_retry_countdown = float(os.environ.get("COUNTDOWN", "1"))
app.conf.concurrency_redis_url = os.environ.get("REDIS_URL")
app.conf.broker_connection_retry_on_startup = True


@app.task(bind=True)
def publish(self, seconds: float = 0.1) -> str:
    """Hold what this task holds for ``seconds``."""
    with recorded(self):
        time.sleep(seconds)
    return self.request.id


@app.task(bind=True)
def publish_when_full(self, limits: list[str], seconds: float) -> str:
    """Hold until the test has seen each of these limits in full, and ``seconds`` more."""
    with recorded(self):
        wait_until_seen_full(limits)
        time.sleep(seconds)
    return self.request.id
