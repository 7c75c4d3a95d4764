"""Tasks that note their begin and their end, for a load under which processes are killed."""

from __future__ import annotations

import json
import os
import time

from celery import Celery
from celery.signals import task_failure

from celery_concurrency import current_lease

app = Celery("soak", broker=os.environ["BROKER_URL"])
app.conf.concurrency_redis_url = os.environ["LIMITER_URL"]
app.conf.concurrency_waiting = os.environ.get("WAITING", "auto")
app.conf.concurrency_worker_timeout = 8.0
app.conf.concurrency_handoff_timeout = 3.0
app.conf.concurrency_retry_countdown = 0.5
app.conf.imports = ("celery_concurrency.signals",)
app.conf.task_ignore_result = True
app.conf.task_acks_late = True
app.conf.task_reject_on_worker_lost = True
app.conf.worker_prefetch_multiplier = 2
app.conf.broker_connection_retry_on_startup = True
# What a killed worker had comes again soon.
app.conf.broker_transport_options = {"visibility_timeout": 5}


def journal(what: str, task_id: str, account: str) -> None:
    """Note this in one line, which is written at once or not at all."""
    at = time.clock_gettime(time.CLOCK_MONOTONIC)
    lease = current_lease()
    fence = lease.fence if lease else 0
    line = json.dumps([what, task_id, account, os.getpid(), os.getppid(), at, fence]) + "\n"
    file = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


@task_failure.connect
def note_failure(task_id: str, exception: BaseException, **_: object) -> None:
    """Note that a worker has failed a task, as one whose child was killed."""
    journal(type(exception).__name__, task_id, "")


@app.task(bind=True)
def work(self, seconds: float) -> None:
    """Hold what this task holds for ``seconds``; acknowledged when it has ended."""
    account = self.request.headers["account"]
    journal("begin", self.request.id, account)
    time.sleep(seconds)
    journal("end", self.request.id, account)


@app.task(bind=True, acks_late=False)
def early(self, seconds: float) -> None:
    """As ``work``, but acknowledged when it begins."""
    work.run.__func__(self, seconds)
