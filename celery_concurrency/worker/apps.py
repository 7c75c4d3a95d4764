"""What we keep for a Celery app: its settings, and a limiter for each process.

What the settings may be is in ``settings.py``; how they are kept in ``per_process.py``.
"""

from __future__ import annotations

from typing import Any
from weakref import ref

from celery import Celery

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.worker.outbox import Sender
from celery_concurrency.worker.per_process import per_process
from celery_concurrency.worker.settings import Settings


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
    # The limiter must not keep alive the app that it is kept for.
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
    """Return for how long the broker may deliver a message again whose ack was lost."""
    options = conf.broker_transport_options or {}
    return int(2 * float(options.get("visibility_timeout") or 3600))
