"""A project whose limiter has a Redis of its own, which its tests break."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import task_prerun
from redis import Redis

from tests.support.sites import note

app = Celery("away", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.concurrency_waiting = os.environ.get("WAITING", "retry")
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_redis_url = os.environ["LIMITER_URL"]
app.conf.concurrency_redis_unavailable = os.environ.get("UNAVAILABLE", "retry")
app.conf.concurrency_retry_countdown = 0.5
app.conf.broker_connection_retry_on_startup = True


@task_prerun.connect
def hold_up(task, **_: object) -> None:
    """Wait at the gate, before it asks, until the test lets the run go on."""
    if (task.request.headers or {}).get("held_up"):
        note("at the gate")
        with Redis.from_url(os.environ["RECORDS_URL"]) as client:
            client.blpop("go on", timeout=60)


@app.task
def work() -> str:
    note("work")
    return "done"
