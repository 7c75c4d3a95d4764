"""The demo's Celery project, as a user would write it, but that its task records its runs.

What a demo alone needs is in ``worker.py``.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery
from redis import Redis

from celery_concurrency.demo.records import recorded

url = os.environ["DEMO_REDIS_URL"]

app = Celery("demo", broker=url, backend=url)
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_retry_countdown = 1
app.conf.broker_connection_retry_on_startup = True

redis = Redis.from_url(url)


@app.task(bind=True)  # type: ignore[untyped-decorator]  # Celery has no types
def publish(self: Any, seconds: float) -> None:
    """Publish something, which takes some seconds."""
    with recorded(redis, self.request.id, self.request.headers):
        time.sleep(seconds)
