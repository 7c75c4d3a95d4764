"""The waiting mode: whether an app's denied tasks wait in the waiting room or by countdown.

They wait in the waiting room if the setting says so, or with ``auto`` if the broker is the Redis
server that holds the tokens: then a parked message is as safe as a queued one. ``parking.py``
says what is parked.
"""

from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from redis.exceptions import NoPermissionError, ResponseError

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.worker import kombu_redis
from celery_concurrency.worker.apps import limiter_of, per_process, settings_of

#: Seconds until we check again whether broker and limiter are one server: either may fail over.
SURE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class WaitingMode:
    """How an app's denied tasks wait.

    Attributes:
        by_handoff: in the waiting room.
        same_server: the broker is the Redis server that holds the tokens, and its scripts put
            messages back themselves; else the outbox has them.
        reason: why, for the log.
    """

    by_handoff: bool
    same_server: bool
    reason: str

    @property
    def name(self) -> str:
        """Return it as people are told: ``handoff`` or ``retry``."""
        return "handoff" if self.by_handoff else "retry"


@per_process(SURE_SECONDS)
def waiting_mode_of(app: Celery) -> WaitingMode:
    """Return how denied tasks of this app wait now.

    Raises:
        OperationalError: the broker is away.
    """
    wanted = settings_of(app).waiting
    if wanted == "retry":
        return WaitingMode(False, False, "concurrency_waiting is 'retry'")
    limiter = limiter_of(app)
    if limiter.keyspace.is_in_cluster:
        # Nobody's broker: kombu can't use a cluster.
        same, reason = False, "a Redis Cluster holds the tokens, and can't be the broker"
    else:
        # Compare the servers' own ids: one server may have many addresses.
        broker = kombu_redis.server_id(app)
        ours: Any = limiter.redis.info("server") if broker else {}
        same = bool(broker) and broker == ours["run_id"]
        is_it = "is" if same else "is not"
        reason = f"the broker {is_it} the Redis server that holds the tokens"
    if wanted == "handoff":
        reason = "concurrency_waiting is 'handoff'"
    queue = _forbidden_queue(app) if same else None
    if queue is not None:
        reason += f"; our user may not write its queue {queue!r}, so workers send messages back"
    return WaitingMode(same or wanted == "handoff", same and queue is None, reason)


def _forbidden_queue(app: Celery) -> str | None:
    """Return a queue of this worker that our user may not write, None if it may write them all.

    A script that took a message out and may not put it back would lose it.
    """
    for queue in app.amqp.queues.consume_from:
        try:
            limiter_of(app).redis.ltrim(queue, 0, -1)  # changes nothing
        except LimiterUnavailable as exc:
            if isinstance(exc.__cause__, NoPermissionError):
                return str(queue)
            if not isinstance(exc.__cause__, ResponseError):
                raise
    return None
