"""Tasks that note what they see of their request; each twice, gated and (``free.``) exempt."""

import json
import os
import signal
from typing import Any

from celery import Celery, Task, chain, chord, current_task
from celery.canvas import StampingVisitor
from celery.worker.request import Request
from pydantic import BaseModel
from redis import Redis

from tests.support.sites import note

app = Celery("copies", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.concurrency_waiting = "handoff"
app.conf.concurrency_exempt = ("free.*",)
app.conf.concurrency_retry_countdown = 600
app.conf.imports = ("celery_concurrency.signals",)
app.conf.broker_connection_retry_on_startup = True
# Whatever has Celery read a request's fields, or write them somewhere.
app.conf.result_extended = True
app.conf.task_inherit_parent_priority = True
app.conf.task_send_sent_event = True
app.conf.task_track_started = True
app.conf.worker_deduplicate_successful_tasks = True
app.conf.worker_send_task_events = True
app.conf.task_acks_late = True


def view(request: Any, what: str) -> None:
    """Note all that can be seen of a request and is the same each time."""
    delivery = {
        name: value
        for name, value in (request.delivery_info or {}).items()
        if name in ("exchange", "routing_key", "priority")
    }
    headers = {name: str(value) for name, value in (request.headers or {}).items()}
    note(
        json.dumps(
            {
                "what": what,
                "fields": sorted(vars(request)),
                "headers": headers,
                "properties": sorted(request.properties or ()),
                "delivery": delivery,
                "stamps": request.stamps,
                "retries": request.retries,
                "nesting": request.replaced_task_nesting,
            },
            sort_keys=True,
        )
    )
    # As users do who log a whole request, or send it elsewhere.
    json.dumps({name: str(value) for name, value in vars(request).items()})
    json.dumps(request.properties)
    assert "concurrency" not in repr(request), repr(request)


def is_first(self: Task) -> bool:
    with Redis.from_url(os.environ["RECORDS_URL"]) as client:
        return client.incr(f"runs of {self.request.id}") == 1


class Dumping(Request):
    """A request class of the user's, which writes down all that it has of a message."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        with Redis.from_url(os.environ["RECORDS_URL"]) as client:
            client.sadd("dumps", str(sorted(json.loads(json.dumps(self.request_dict)))))
        super().on_accepted(pid, time_accepted)


class WithDump(Task):
    Request = Dumping


class Stamping(StampingVisitor):
    def on_signature(self, sig: Any, **headers: Any) -> dict:
        return {"stamp": "value"}


class Given(BaseModel):
    number: int


def look(self: Task, *args: object) -> None:
    view(self.request, "look")


def retried(self: Task) -> None:
    view(self.request, "retried")
    if not self.request.retries:
        self.retry(countdown=0)


def auto(self: Task) -> None:
    view(self.request, "auto")
    if not self.request.retries:
        raise ValueError("once more")


def parent(self: Task) -> None:
    view(self.request, "parent")
    app.tasks["free.look"].apply_async()


def replaced(self: Task) -> None:
    view(self.request, "replaced")
    self.replace(app.tasks["free.look"].si())


def replaced_by_chain(self: Task) -> None:
    view(self.request, "replaced by chain")
    self.replace(chain(app.tasks["free.look"].si(), app.tasks["free.look"].si()))


def grown(self: Task) -> None:
    view(self.request, "grown")
    self.add_to_chord(app.tasks["free.look"].si())


def fails(self: Task) -> None:
    view(self.request, "fails")
    raise ValueError("always")


def dies(self: Task) -> None:
    view(self.request, "dies")
    os.kill(os.getpid(), signal.SIGKILL)


def slow(self: Task) -> None:
    view(self.request, "slow")
    signal.pause()


def lost_once(self: Task) -> None:
    view(self.request, "lost once")
    if is_first(self):
        os.kill(os.getpid(), signal.SIGKILL)


def typed(given: Given) -> None:
    view(current_task.request, f"typed {given.number}")


def errback(request: Any, exc: object, traceback: object) -> None:
    """Be given the failed request itself, in the process that noticed."""
    view(request, "errback")


for prefix in ("", "free."):
    for body, options in (
        (look, {}),
        (retried, {}),
        (auto, {"autoretry_for": (ValueError,), "default_retry_delay": 0, "retry_jitter": False}),
        (parent, {}),
        (replaced, {}),
        (replaced_by_chain, {}),
        (grown, {}),
        (fails, {}),
        (dies, {}),
        (slow, {"time_limit": 5}),
        (lost_once, {"retry_on_worker_lost": True, "default_retry_delay": 0}),
    ):
        app.task(body, name=f"{prefix}{body.__name__}", bind=True, **options)
    app.task(typed, name=f"{prefix}typed", pydantic=True)
    app.task(look, name=f"{prefix}dumped", bind=True, base=WithDump)
app.task(errback, name="free.errback")


def of(name: str, prefix: str, headers: dict[str, str]) -> Any:
    """Return the signature of a scenario: the task of this name, gated or not, and what follows."""
    tasks = app.tasks
    first = tasks[prefix + name.partition(" ")[0]].s()
    first.set(headers=headers)
    end = tasks["free.look"].s()
    match name.partition(" ")[2]:
        case "linked":
            first.link(end)
            first.link_error(tasks["free.errback"].s())
            first.link_error(tasks["free.look"].si())
        case "in a chain":
            return chain(first, end)
        case "in a chord":
            return chord([first, tasks["free.look"].s()], end)
        case "stamped":
            first.stamp(Stamping())
        case "given":
            first.args = ({"number": 3},)
    return first
