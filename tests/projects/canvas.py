"""Tasks to build canvases of; all of one account, so that they wait for each other."""

from __future__ import annotations

import os
import time

from celery import Celery, chain
from kombu import Exchange, Queue

from tests.support.recording import recorded
from tests.support.sites import note

app = Celery("canvas", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.concurrency_waiting = os.environ.get("WAITING", "retry")
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_retry_countdown = 0.2
app.conf.broker_connection_retry_on_startup = True
app.conf.accept_content = ["json", "pickle"]
# A topic exchange that puts a copy of each message into two queues.
COPIES = Exchange("copies", "topic")
BOTH = [Queue("first", COPIES, routing_key="both.#"), Queue("second", COPIES, routing_key="both.*")]
app.conf.task_queues = [
    Queue("celery", Exchange("celery"), routing_key="celery"),
    Queue("other", Exchange("other"), routing_key="other"),
    *BOTH,
]
SAME = {"account": "canvas"}


@app.task(concurrency=SAME)
def add(*numbers: int) -> int:
    note(f"add{sorted(numbers)}")
    return sum(numbers)


@app.task
def quiet() -> None:
    """Wait without a note."""


@app.task(concurrency=SAME)
def total(numbers: list[int], more: int = 0) -> int:
    note(f"total{sorted(numbers)}")
    return sum(numbers) + more


@app.task(concurrency=SAME)
def fail(*_: object) -> None:
    note("fail")
    raise ValueError("as it should")


@app.task(concurrency=SAME)
def failed(*args: object) -> None:
    """Be told of a failure."""
    note("failed")


@app.task(bind=True, concurrency=SAME)
def replaced(self, number: int) -> None:
    note("replaced")
    raise self.replace(chain(add.s(number, 1), add.s(10)))


@app.task(bind=True, concurrency=SAME, max_retries=2)
def flaky(self) -> str:
    """Fail until there are no retries left; note each run's number."""
    note(f"flaky {self.request.retries}")
    raise self.retry(exc=ValueError("no luck"), countdown=0)


@app.task(bind=True, max_retries=1)
def again(self) -> dict:
    """Retry at once, and be slow to end; return the second run's headers."""
    with recorded(self):
        try:
            if self.request.retries == 0:
                raise self.retry(countdown=0)
        finally:
            time.sleep(0.3)
    return self.request.headers


@app.task(bind=True)
def seen(self, *args: object, **kwargs: object) -> dict:
    """Return all that a body can see of its message."""
    request = self.request
    note(f"seen {request.id}")
    names = (
        "headers", "timelimit", "expires", "reply_to", "correlation_id", "root_id", "parent_id",
        "delivery_info", "argsrepr", "kwargsrepr", "retries", "group", "stamps", "stamped_headers",
        "ignore_result", "replaced_task_nesting", "origin", "properties", "is_eager",
    )  # fmt: skip
    view = {name: getattr(request, name, None) for name in names}
    return {**view, "args": repr(args), "kwargs": repr(kwargs)}
