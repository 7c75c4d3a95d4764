"""Tasks that note when they begin, for limits in time; some shut their own limit, or die."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from celery import Celery
from celery.signals import celeryd_init, task_prerun, worker_process_init
from redis import Redis

from celery_concurrency import current_lease
from celery_concurrency.limiter import waiting_room
from tests.support.sites import note
from tests.support.starts import note_start

app = Celery("rates", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.concurrency_waiting = os.environ.get("WAITING", "auto")
app.conf.concurrency_retry_countdown = float(os.environ.get("COUNTDOWN", "600"))
app.conf.imports = ("celery_concurrency.signals",)
app.conf.broker_connection_retry_on_startup = True


@celeryd_init.connect
def in_workers(**_: object) -> None:
    """Who watches the moments may be silent for so long before another one does."""
    if "WATCH" in os.environ:
        waiting_room.WATCH_SECONDS = float(os.environ["WATCH"])


def is_first(what: str) -> bool:
    """Return whether nobody has asked that of this before."""
    with Redis.from_url(os.environ["RECORDS_URL"]) as client:
        return client.incr(what) == 1


@app.task(bind=True)
def begin(self, seconds: float = 0.0) -> str:
    """Note the start, and hold what this task holds for ``seconds``."""
    note_start(self)
    if seconds:
        time.sleep(seconds)
    return self.request.id


@app.task(bind=True)
def refused(self, seconds: float) -> float:
    """Let this task's account cool down; return until when."""
    note_start(self)
    return current_lease().cool_down(seconds, "account", reason="429")


@app.task(bind=True)
def killed_before(self) -> str:
    """Have its process killed, the first time, when it has its tokens and has not begun."""
    note_start(self)
    return self.request.id


@app.task(bind=True)
def killed_inside(self) -> None:
    """Kill its process in its body."""
    note_start(self)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True)
def until(self, file: str) -> None:
    """Keep a slot until a file is there; note that it begins."""
    note(self.request.id)
    ends = time.monotonic() + 120
    while not Path(file).exists() and time.monotonic() < ends:
        time.sleep(0.01)


def kill(task_id: str = "", task: object = None, **_: object) -> None:
    """Come after the limiter's own handler of this signal, and before the body."""
    if getattr(task, "name", "") == killed_before.name and is_first(f"killed {task_id}"):
        note(f"killed {task_id}")
        os.kill(os.getpid(), signal.SIGKILL)


@worker_process_init.connect
def in_children(**_: object) -> None:
    """Be the last to connect: handlers are called in that order."""
    task_prerun.connect(kill, weak=False)
