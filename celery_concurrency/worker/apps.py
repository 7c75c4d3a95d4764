"""What we keep for a Celery app: its settings, and a limiter for each process.

What may be in the settings is in ``settings.py``; what is kept of a run in ``run.py``.
"""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakKeyDictionary, ref

from celery import Celery

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.worker.outbox import deliver
from celery_concurrency.worker.settings import Settings

_settings: WeakKeyDictionary[Any, Settings] = WeakKeyDictionary()
# A limiter's locks and threads don't survive a fork: a child makes its own.
_limiters: WeakKeyDictionary[Any, tuple[int, Limiter]] = WeakKeyDictionary()


def settings_of(app: Celery) -> Settings:
    """Return an app's settings, read once.

    Raises:
        ImproperlyConfigured: see ``Settings.of``.
    """
    app = _real(app)
    settings = _settings.get(app)
    if settings is None:
        settings = _settings[app] = Settings.of(app.conf)
    return settings


def limiter_of(app: Celery) -> Limiter:
    """Return this process's limiter for an app; nothing is sent to Redis yet.

    Raises:
        ImproperlyConfigured: see ``Settings.of`` and ``connect``.
    """
    app = _real(app)
    pid, limiter = _limiters.get(app, (0, None))
    if limiter is None or pid != os.getpid():
        limiter = _make_limiter(app)
        _limiters[app] = (os.getpid(), limiter)
    return limiter


def forget(app: Celery) -> None:
    """Read an app's settings anew when they are needed next; for tests."""
    app = _real(app)
    _settings.pop(app, None)
    _limiters.pop(app, None)


def _make_limiter(app: Any) -> Limiter:
    settings = settings_of(app)
    # The limiter must not keep alive the app that it is kept for.
    reference = ref(app)
    limiter = Limiter(
        connect(settings.redis_url, settings.redis_options),
        settings.key_prefix,
        settings.default_config,
        deliver=lambda: deliver(reference(), limiter.waiting_room),
        copies_seconds=_copies_seconds(app.conf),
    )
    return limiter


def _copies_seconds(conf: Any) -> int:
    """Return for how long the broker may deliver a message again whose ack was lost."""
    options = conf.broker_transport_options or {}
    return int(2 * float(options.get("visibility_timeout") or 3600))


def _real(app: Any) -> Any:
    # current_app and the like are proxies, which can't be looked up by identity.
    return app._get_current_object() if hasattr(app, "_get_current_object") else app
