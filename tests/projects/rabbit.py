"""A project on RabbitMQ, with a queue of the test's own; the tokens are in Redis all the same."""

from __future__ import annotations

import os
import time

from celery import Celery
from kombu import Exchange, Queue
from redis import Redis

from celery_concurrency.worker import outbox
from celery_concurrency.worker.message import TaskMessage
from tests.support.recording import recorded, wait_until_seen_full
from tests.support.sites import note
from tests.support.starts import note_start

app = Celery("rabbit", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.concurrency_waiting = os.environ.get("WAITING", "retry")
app.conf.imports = ("celery_concurrency.signals",)
app.conf.concurrency_redis_url = os.environ.get("LIMITER_URL", os.environ["RECORDS_URL"])
app.conf.concurrency_retry_countdown = float(os.environ["COUNTDOWN"])
app.conf.concurrency_worker_timeout = float(os.environ.get("WORKER_TIMEOUT", "30"))
app.conf.broker_connection_retry_on_startup = True
# Its queues for remote control and events would stay behind.
app.conf.worker_enable_remote_control = False

name = os.environ["QUEUE"]
if os.environ.get("QUORUM"):
    app.conf.task_queues = [
        Queue(
            name,
            Exchange(name, "topic"),
            routing_key=name,
            queue_arguments={"x-queue-type": "quorum"},
        )
    ]
    app.conf.broker_transport_options = {"confirm_publish": True}
else:
    app.conf.task_queues = [
        Queue(name, Exchange(name), routing_key=name, max_priority=10, queue_arguments={})
    ]
app.conf.task_default_queue = name
app.conf.task_default_exchange = name
app.conf.task_default_exchange_type = "topic" if os.environ.get("QUORUM") else "direct"
app.conf.task_default_routing_key = name


slow = float(os.environ.get("SLOW", "0"))
if slow:
    publish_at_once = TaskMessage.publish

    def publish_slowly(*args, **kwargs) -> None:
        """What the outbox has is on its way to the broker for so many seconds."""
        time.sleep(slow)
        publish_at_once(*args, **kwargs)

    TaskMessage.publish = publish_slowly
    # A process that ends may stand still meanwhile.
    outbox.FINISH_SECONDS = 60


@app.task(bind=True)
def publish(self, seconds: float = 0.1) -> str:
    """Hold what this task holds for ``seconds``."""
    with recorded(self):
        time.sleep(seconds)
    return self.request.id


@app.task(bind=True)
def publish_when_full(self, limits: list[str], seconds: float) -> str:
    """Hold until the test has seen each of these limits in full, and ``seconds`` more."""
    with recorded(self):
        wait_until_seen_full(limits)
        time.sleep(seconds)
    return self.request.id


@app.task(bind=True)
def begin(self) -> str:
    """Note the start."""
    note_start(self)
    return self.request.id


@app.task(bind=True)
def stay(self) -> str:
    """Hold what this task holds until somebody says ``go on``."""
    with recorded(self), Redis.from_url(os.environ["RECORDS_URL"], socket_timeout=None) as client:
        note("stays")
        client.blpop(["go on"], timeout=60)
    return self.request.id


@app.task(bind=True)
def seen(self) -> dict:
    """Return what a body can see of its message."""
    note(f"seen {self.request.id}")
    request = self.request
    return {
        "headers": request.headers,
        "priority": request.delivery_info["priority"],
        "routing_key": request.delivery_info["routing_key"],
        "exchange": request.delivery_info["exchange"],
        "properties": {
            key: value
            for key, value in request.properties.items()
            if key in ("priority", "app_id", "message_id", "type", "delivery_mode")
        },
    }
