"""Queues with their limits in two Redis servers, and one whose limits are where the default is."""

from __future__ import annotations

import os
import time

from celery import Celery

from tests.support.recording import recorded

app = Celery("namespaces", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_waiting = os.environ.get("WAITING", "auto")
app.conf.concurrency_retry_countdown = 0.5
app.conf.broker_connection_retry_on_startup = True
app.conf.concurrency_namespaces = {
    "eu": {"queues": ["eu.*"], "redis_url": os.environ["EU_URL"]},
    "us": {"queues": ["us.*"], "redis_url": os.environ["US_URL"], "key_prefix": "limits"},
}


@app.task(bind=True)
def publish(self, seconds: float = 0) -> str:
    """Record when it ran, and on which worker."""
    with recorded(self):
        time.sleep(seconds)
    return self.request.hostname
