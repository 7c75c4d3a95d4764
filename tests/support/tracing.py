"""Runs of tasks in this process, traced as a worker's pool does it; and their messages."""

from __future__ import annotations

from celery.app.trace import build_tracer
from kombu.utils.uuid import uuid

from celery_concurrency.worker.run import MESSAGE, TOKEN


class Message:
    """A kept message; what is told of it is for how long it was sent on.

    Args:
        failures: what its first tries to be sent on end with.
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

    def publish(self, app, countdown):
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(countdown)


def trace(app, body, message=None, name="work", **headers):
    """Run a body as a task of an app that was received with this message; return its result."""
    task = app.task(body, name=name, shared=False)
    id = uuid()
    request = {"id": id, TOKEN: f"{id}:1", MESSAGE: message, "delivery_info": {}, **headers}
    build_tracer(name, task, app=app)(id, (), {}, request)
    return app.AsyncResult(id)
