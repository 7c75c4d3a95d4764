"""Tasks that end as no task should: with the process that they run in."""

from __future__ import annotations

import os
import signal
import time

from celery import Celery, Task
from redis import Redis

from celery_concurrency import current_lease
from tests.support.recording import recorded
from tests.support.sites import note

app = Celery("crashes", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.concurrency_waiting = os.environ.get("WAITING", "auto")
app.conf.concurrency_redis_url = os.environ.get("LIMITER_URL")
app.conf.concurrency_worker_timeout = float(os.environ.get("WORKER_TIMEOUT", "30"))
app.conf.concurrency_on_lost = os.environ.get("ON_LOST", "log")
app.conf.concurrency_redis_unavailable = os.environ.get("UNAVAILABLE", "retry")
app.conf.concurrency_retry_countdown = 0.5
app.conf.imports = ("celery_concurrency.signals",)
app.conf.broker_connection_retry_on_startup = True
app.conf.broker_transport_options = {
    "visibility_timeout": int(os.environ.get("VISIBILITY_TIMEOUT", "3600"))
}


@app.task(bind=True)
def work(self, seconds: float = 0) -> str:
    """Record when it ran."""
    note(f"begins {time.clock_gettime(time.CLOCK_MONOTONIC)} {os.getpid()}")
    with recorded(self):
        time.sleep(seconds)
    return "done"


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def safe(self, seconds: float = 0) -> str:
    """As ``work``, and delivered again if its process dies: then it takes no time."""
    with Redis.from_url(os.environ["RECORDS_URL"]) as client:
        again = client.incr(f"runs of {self.request.id}") > 1
    note(f"begins {time.clock_gettime(time.CLOCK_MONOTONIC)} {os.getpid()}")
    with recorded(self):
        time.sleep(0 if again else seconds)
    return "again" if again else "done"


def die_once(self) -> list:
    """Kill the child it runs in; the second time, return its retries and its headers."""
    with Redis.from_url(os.environ["RECORDS_URL"]) as client:
        again = client.incr(f"runs of {self.request.id}") > 1
    note("begins again" if again else "killed")
    if not again:
        os.kill(os.getpid(), signal.SIGKILL)
    return [self.request.retries, self.request.headers]


#: ``task_retry_on_worker_lost`` came with Celery 5.7; the others don't look at it.
retried = {"bind": True, "retry_on_worker_lost": True, "default_retry_delay": 0.1}
app.task(die_once, name="retried", **retried)
app.task(die_once, name="retried.late", acks_late=True, reject_on_worker_lost=True, **retried)


@app.task
def kill_itself() -> None:
    note("killed")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def exit_at_once() -> None:
    note("killed")
    os._exit(1)


@app.task
def stubborn(seconds: float) -> None:
    """Ignore what asks it to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note("stubborn")
    time.sleep(seconds)


@app.task(bind=True)
def stay(self) -> bool:
    """Run until somebody says ``go on``; return whether it has lost its tokens by then."""
    lease = current_lease()
    note("stays")
    with (
        recorded(self),
        Redis.from_url(os.environ["RECORDS_URL"], socket_timeout=None) as client,
    ):
        client.blpop(["go on"], timeout=60)
    return lease is not None and lease.lost


@app.task
def look_at_lease(seconds: float) -> list:
    """Return what a task sees of its lease, before and after some seconds."""
    lease = current_lease()
    note("looking")
    before = [lease.lost, list(lease.limits), lease.fence]
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not lease.lost:
        time.sleep(0.1)
    return [before, lease.lost]


class Killed(Task):
    """A task whose child is killed once, between its denial and its message's place."""

    def on_retry(self, exc, task_id, args, kwargs, einfo) -> None:
        with Redis.from_url(os.environ["RECORDS_URL"]) as client:
            if client.incr(f"denials of {task_id}") == 1:
                note("killed")
                os.kill(os.getpid(), signal.SIGKILL)


@app.task(base=Killed)
def denied() -> str:
    note("ran")
    return "done"


@app.task(base=Killed, acks_late=True)
def denied_late() -> str:
    note("ran")
    return "done"


class Stuck(Task):
    """A task that reaches its hard time limit once, between its denial and its message's place."""

    def on_retry(self, exc, task_id, args, kwargs, einfo) -> None:
        with Redis.from_url(os.environ["RECORDS_URL"]) as client:
            if client.incr(f"denials of {task_id}") == 1:
                note("stuck")
                time.sleep(60)


@app.task(base=Stuck, time_limit=5)
def denied_for_long() -> str:
    note("ran")
    return "done"


@app.task(base=Stuck, time_limit=5, acks_late=True)
def denied_for_long_late() -> str:
    note("ran")
    return "done"


@app.task
def failed(request, exc, traceback) -> None:
    note(f"failed: {exc!r}")
