"""The demo's Celery project: as a user would write it, and below, what only a demo needs.

``processes.py`` starts its workers.
"""

import os
import signal
from functools import cache
from typing import Any

from celery import Celery
from celery.signals import task_revoked, worker_process_init, worker_ready
from redis import Redis

from celery_concurrency.demo.load import TWIN, record_cancelled, recorded
from celery_concurrency.demo.platform import Platform, Refused, RiskControl
from celery_concurrency.demo.processes import READY
from celery_concurrency.testing.lifeline import die_with_parent

url = os.environ["DEMO_REDIS_URL"]

app = Celery("demo", broker=url, backend=url)
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_retry_countdown = 1
app.conf.broker_connection_retry_on_startup = True

# What a platform's refusal means for the account; what the twin raises is no RiskControl.
app.conf.concurrency_refusals = {
    "celery_concurrency.demo.platform.RiskControl": {
        "dimension": "account", "seconds": "retry_after", "grow": 2, "most": 4,
    },
}  # fmt: skip

redis = Redis.from_url(url)


@app.task(bind=True, name="publish", max_retries=None)  # type: ignore[untyped-decorator]  # Celery has no types
def publish(self: Any, platform: str, account: str, seconds: float) -> None:
    """Publish something, which takes some seconds; again and again until it isn't refused."""
    try:
        with recorded(redis, self.request.id):
            platform_of(platform).call(account, seconds)
    except Refused as refusal:
        raise self.retry(exc=refusal, countdown=0) from refusal


@cache
def platform_of(name: str) -> Platform:
    """Return a client of a platform."""
    return Platform(redis, name, refusal=Refused if name == TWIN else RiskControl)


@worker_ready.connect  # type: ignore[untyped-decorator]  # Celery has no types
def say_ready(**_: Any) -> None:
    """Tell the demo, which reads the log."""
    print(READY, flush=True)


@task_revoked.connect  # type: ignore[untyped-decorator]  # Celery has no types
def say_cancelled(request: Any, **_: Any) -> None:
    """Tell the demo, which else would miss a run."""
    record_cancelled(redis, request.id)


# Made in the worker, called in each process of its pool.
end_with_worker = die_with_parent(signal.SIGKILL)


@worker_process_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def prepare_process(**_: Any) -> None:
    """End the pool's processes with their worker, even while they wait for Redis."""
    end_with_worker()
