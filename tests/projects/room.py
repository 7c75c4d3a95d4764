"""Tasks that wait for each other in the waiting room, and record cheaply that they ran."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from celery import Celery
from celery.signals import celeryd_init
from kombu import Queue
from kombu.serialization import register
from kombu.utils import json

from celery_concurrency.limiter import waiting_room
from tests.support.jotting import jotted
from tests.support.sites import note

app = Celery("room", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.concurrency_waiting = os.environ.get("WAITING", "auto")
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_redis_url = os.environ.get("REDIS_URL")
# Who asks again instead of being handed its turn would do so long after a test.
app.conf.concurrency_retry_countdown = float(os.environ.get("COUNTDOWN", "600"))
app.conf.concurrency_handoff_timeout = float(os.environ.get("HANDOFF_TIMEOUT", "30"))
app.conf.broker_connection_retry_on_startup = True
app.conf.broker_transport_options = {
    "visibility_timeout": float(os.environ.get("VISIBILITY", "3600"))
}
if "KEYPREFIX" in os.environ:
    app.conf.broker_transport_options["global_keyprefix"] = os.environ["KEYPREFIX"]
    # A queue that goes if nobody uses it.
    app.conf.task_queues = [Queue("celery", routing_key="celery", expires=600)]
app.conf.accept_content = ["json", "reversed"]
if "PREFETCH" in os.environ:
    app.conf.worker_prefetch_multiplier = int(os.environ["PREFETCH"])


@celeryd_init.connect
def in_workers(**_: object) -> None:
    """What is set in the worker alone, and not in the test that imports this."""
    if "PATIENCE" in os.environ:
        waiting_room.PATIENCE_SECONDS = float(os.environ["PATIENCE"])
    if os.environ.get("KILLED") == "parked":
        waiting_room.WaitingRoom.park = killed_after(waiting_room.WaitingRoom.park)


def killed_after(call: Callable[..., object]) -> Callable[..., NoReturn]:
    """Return a call after which nothing is left of the worker that a child has made it in."""

    def called(*args: object) -> NoReturn:
        call(*args)
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(1)

    return called


# A serializer that only this project knows: its bodies are bytes and no text.
register(
    "reversed",
    lambda value: json.dumps(value).encode()[::-1],
    lambda body: json.loads(bytes(body)[::-1]),
    content_type="application/x-reversed",
    content_encoding="binary",
)


@app.task(bind=True)
def work(self, seconds: float = 0.0) -> str:
    """Hold what this task holds for ``seconds``."""
    with jotted(self):
        if seconds:
            time.sleep(seconds)
    return self.request.id


@app.task(bind=True)
def relay(self, more: int, seconds: float) -> None:
    """``work`` that sends the next of its kind itself, when it has ended."""
    with jotted(self):
        time.sleep(seconds)
    if more:
        relay.delay(more - 1, seconds)


@app.task(bind=True, acks_late=True)
def late(self) -> None:
    """Have a message that is acknowledged when this has ended."""
    with jotted(self):
        pass


@app.task(bind=True)
def until(self, file: str) -> None:
    """Hold what this task holds until a file is there; note that it begins."""
    note(self.request.id)
    with jotted(self):
        deadline = time.monotonic() + 120
        while not Path(file).exists() and time.monotonic() < deadline:
            time.sleep(0.01)


@app.task(bind=True)
def told(self, *args: object) -> None:
    """Be told of another's end: its callback, errback or chord's body."""
    note("told")


@app.task(bind=True)
def seen(self, *args: object) -> dict:
    """Return what a body can see of its message."""
    with jotted(self):
        request = self.request
    names = (
        "headers", "timelimit", "expires", "reply_to", "correlation_id", "root_id", "parent_id",
        "argsrepr", "retries", "group", "stamps", "ignore_result", "content_type", "delivery_tag",
        "compression", "delivery_info",
    )  # fmt: skip
    view = {name: getattr(request, name, None) for name in names}
    properties = {
        name: value
        for name, value in request.properties.items()
        if name not in ("correlation_id", "reply_to")
    }
    return {**view, "args": args, "properties": properties}
