"""The waiting mode: whether an app's denied tasks wait in the waiting room or by countdown.

They wait in the waiting room if the setting says so, or with ``auto`` if the broker is the Redis
server that holds the tokens: then a parked message is as safe as a queued one. ``parking.py``
says what is parked.
"""

from dataclasses import dataclass
from typing import Any, Final

from celery import Celery

from celery_concurrency.worker import kombu_redis
from celery_concurrency.worker.apps import limiter_of, per_process, settings_of

#: Seconds until we check again whether broker and limiter are one server: either may fail over.
SURE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class WaitingMode:
    """How an app's denied tasks wait.

    Attributes:
        by_handoff: in the waiting room.
        same_server: the broker is the Redis server that holds the tokens.
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
    # Compare the servers' own ids: one server may have many addresses.
    broker = kombu_redis.server_id(app)
    ours: Any = limiter_of(app).redis.info("server") if broker else {}
    same = bool(broker) and broker == ours["run_id"]
    if wanted == "handoff":
        return WaitingMode(True, same, "concurrency_waiting is 'handoff'")
    is_it = "is" if same else "is not"
    return WaitingMode(same, same, f"the broker {is_it} the Redis server that holds the tokens")
