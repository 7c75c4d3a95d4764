"""Tasks that take several places, and write down when they had them."""

from __future__ import annotations

import json
import os
import time

from celery import Celery

from tests.projects.busy import wait_for_file
from tests.support.sites import note

app = Celery("weights", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_waiting = os.environ.get("WAITING", "handoff")
app.conf.concurrency_retry_countdown = 0.2
app.conf.concurrency_handoff_timeout = 3.0
# What is killed here are children, whose tokens come back at once.
app.conf.concurrency_worker_timeout = 30.0
app.conf.broker_connection_retry_on_startup = True
app.conf.broker_transport_options = {"visibility_timeout": 5}


@app.task(
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    concurrency={"platform": "p", "concurrency_weight": lambda weight: weight},
)
def work(self, weight: int, seconds: float = 0.0, file: str = "") -> int:
    """Hold this many places for a while, and until the file is there."""
    what = {"id": self.request.id, "pid": os.getpid(), "weight": weight}
    note(json.dumps({**what, "at": time.monotonic(), "by": weight}))
    time.sleep(seconds)
    wait_for_file(file)
    note(json.dumps({**what, "at": time.monotonic(), "by": -weight}))
    return weight


@app.task(bind=True, concurrency={"platform": "p", "concurrency_weight": 3}, max_retries=1)
def again(self) -> int:
    """Retry once; return how heavy its last run was."""
    if not self.request.retries:
        raise self.retry(countdown=0)
    return int((self.request.headers or {}).get("concurrency_weight", 0))


@app.task
def told(*args: object) -> str:
    """Be told of another's end."""
    note("told")
    return "told"
