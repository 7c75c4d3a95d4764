"""What each process keeps for a Celery app: its settings (``settings.py``) and its limiter.

Connections, locks and threads don't survive a fork, so a pool's child makes its own.
"""

import math
import os
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

from celery import Celery

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.worker.celery_compat import real_app
from celery_concurrency.worker.outbox import Sender
from celery_concurrency.worker.settings import Settings

T = TypeVar("T")

# For each app: function to process id, time limit, and what the function returned.
_made: WeakKeyDictionary[Any, dict[Any, tuple[int, float, Any]]] = WeakKeyDictionary()


def per_process(
    seconds: float = math.inf,
) -> Callable[[Callable[[Celery], T]], Callable[[Celery], T]]:
    """Decorate a function of an app so that each process calls it once for each app.

    Args:
        seconds: how long its result is kept before it is called again.
    """

    def decorate(make: Callable[[Celery], T]) -> Callable[[Celery], T]:
        @wraps(make)
        def made(app: Celery) -> T:
            app = real_app(app)
            pid, until, value = _made.get(app, {}).get(make, (0, 0.0, None))
            if pid != os.getpid() or time.monotonic() > until:
                value = make(app)
                until = time.monotonic() + seconds
                _made.setdefault(app, {})[make] = (os.getpid(), until, value)
            return value  # type: ignore[no-any-return]  # it is what ``make`` returned

        return made

    return decorate


def forget(app: Celery) -> None:
    """Forget everything kept for an app; for tests, which change its settings."""
    _made.pop(real_app(app), None)


@per_process()
def settings_of(app: Celery) -> Settings:
    """Return an app's settings, read once.

    Raises:
        ImproperlyConfigured: see ``Settings.of``.
    """
    return Settings.of(app.conf)


@per_process()
def limiter_of(app: Celery) -> Limiter:
    """Return this process's limiter for an app; nothing is sent to Redis yet.

    Raises:
        ImproperlyConfigured: see ``Settings.of`` and ``connect``.
    """
    settings = settings_of(app)
    # The limiter must not keep its own app alive.
    sender = Sender(ref(app), lambda: limiter.waiting_room)
    limiter = Limiter(
        connect(settings.redis_url, settings.redis_options),
        settings.key_prefix,
        settings.default_config,
        deliver=sender.send,
        copies_seconds=_copies_seconds(app.conf),
    )
    return limiter


def _copies_seconds(conf: Any) -> int:
    """Return how many seconds after a lost ack the broker may deliver a message again."""
    options = conf.broker_transport_options or {}
    return int(2 * float(options.get("visibility_timeout") or 3600))
