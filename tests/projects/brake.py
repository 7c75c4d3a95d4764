"""A task that calls a fake platform, again and again until that accepts it.

What a platform raises whose name ends with ``-fixed`` is nothing that the limiter is told to look
for: it has the same load and no brake.
"""

from __future__ import annotations

import os
from functools import cache

from celery import Celery
from redis import Redis

from celery_concurrency.demo.platform import Platform, Refused, RiskControl

app = Celery("brake", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.imports = ("celery_concurrency.signals",)
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True
app.conf.concurrency_refusals = {
    "celery_concurrency.demo.platform.RiskControl": {
        "dimension": "account",
        "seconds": "retry_after",
        "grow": 2,
        "most": 4,
    }
}


@cache
def platform_of(name: str) -> Platform:
    """Return a client of a platform."""
    redis = Redis.from_url(os.environ["RECORDS_URL"])
    refusal = Refused if name.endswith("-fixed") else RiskControl
    return Platform(redis, name, refusal=refusal, refusal_seconds=0.2)


@app.task(bind=True, max_retries=None)
def call(self, platform: str, account: str, seconds: float) -> None:
    """Call a platform; once more if it refuses."""
    try:
        platform_of(platform).call(account, seconds)
    except Refused as refusal:
        raise self.retry(exc=refusal, countdown=0) from refusal
