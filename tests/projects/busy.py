"""Tasks that don't wait like others where their account is busy."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

from tests.support.sites import note

app = Celery("busy", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_waiting = os.environ.get("WAITING", "handoff")
app.conf.concurrency_retry_countdown = 0.2
app.conf.broker_connection_retry_on_startup = True


def of_user(busy: str) -> dict[str, object]:
    return {"account": lambda user: user, "concurrency_busy": busy}


def wait_for_file(file: str) -> None:
    deadline = time.monotonic() + 120
    while file and not Path(file).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@app.task(bind=True, concurrency=of_user("skip"))
def poll(self, user: str, file: str = "") -> str:
    """Be dropped where the user is busy."""
    note(self.request.id)
    if file:
        Path(f"{file}.pid").write_text(str(os.getpid()))
    wait_for_file(file)
    return self.request.id


@app.task(bind=True, concurrency=of_user("replace"))
def render(self, user: str, file: str = "") -> str:
    """Wait in the place of an older one."""
    note(self.request.id)
    wait_for_file(file)
    return self.request.id


@app.task(bind=True, concurrency=of_user("skip"), max_retries=3)
def stubborn(self, user: str) -> int:
    """Retry at once, while its own tokens may still be there."""
    if self.request.retries < 3:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task(bind=True, concurrency=of_user("skip"), acks_late=True, reject_on_worker_lost=True)
def late(self, user: str) -> str:
    """Kill its process at its first run; the broker delivers it again."""
    if not self.request.delivery_info["redelivered"]:
        os.kill(os.getpid(), 9)
    return self.request.id


@app.task
def told(*args: object) -> str:
    """Be told of another's end."""
    note("told")
    return "told"
