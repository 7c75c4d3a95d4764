"""Runs of tasks in this process, traced as a worker's pool does it; and their messages."""

from __future__ import annotations

from types import SimpleNamespace

from celery.app.trace import build_tracer
from kombu.utils.uuid import uuid

from celery_concurrency.worker.celery_compat import send_along
from celery_concurrency.worker.message import message_rank
from celery_concurrency.worker.parking import ticket_of
from celery_concurrency.worker.run import Run


class Message:
    """A task's message; it notes with which countdown it was sent on.

    Args:
        failures: errors of the first tries to send it on.
        broadcast: every worker got a copy of it.
    """

    properties = {}  # noqa: RUF012 - nobody changes it
    is_copy = False

    def __init__(self, *failures, broadcast=False):
        self.failures = list(failures)
        self.sent = []
        self.broadcast = broadcast

    def is_broadcast(self, app):
        return self.broadcast

    def asked_with(self, ticket):
        return self

    def publish(self, app, countdown):
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(countdown)


def trace(
    app, body, message=None, name="work", *, token=None, parked=None, options=None, **headers
):
    """Run a body as a task of an app; return its result.

    Args:
        message: with which a worker's main process received it; None if it did not.
        token: of the run.
        parked: the header of a message that was parked.
        options: as for ``app.task``.
    """
    task = app.task(body, name=name, shared=False, **(options or {}))
    id = uuid()
    request = {"id": id, "delivery_info": {}, **headers}
    if message:
        run = run_with(token or f"{id}:1", app, message, parked)
        send_along(SimpleNamespace(request_dict=request), run)
    build_tracer(name, task, app=app)(id, (), {}, request)
    return app.AsyncResult(id)


def run_with(token, app=None, message=None, parked=None):
    """Return a run as a worker's main process makes it."""
    return Run(
        token=token,
        message=message,
        ticket=ticket_of(parked) if parked else None,
        received=1,
        rank=message_rank(app, message) if app else 0,
        broadcast=bool(message) and message.is_broadcast(app),
        lease_seconds=30,
    )


def request_of(token, pid=None):
    """Return the request of a run, as a worker's main process knows it."""
    id = token.partition(":")[0]
    request = Request(id=id, name="work", worker_pid=pid, time_start=pid and 1.0, request_dict={})
    send_along(request, run_with(token))
    return request


class Request(SimpleNamespace):
    """What a worker's main process knows of a task; a set can hold it."""

    __hash__ = object.__hash__
