"""What each process keeps for a Celery app: its settings (``settings.py``) and its limiter.

Connections, locks and threads don't survive a fork, so a pool's child makes its own.
"""

import math
import os
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, ref

from celery import Celery

from celery_concurrency.errors import ImproperlyConfigured
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.worker.celery_compat import real_app
from celery_concurrency.worker.outbox import Sender
from celery_concurrency.worker.settings import Settings

T = TypeVar("T")

P = ParamSpec("P")

# For each app: function and arguments to process id, time limit, and what the function returned.
_made: WeakKeyDictionary[Any, dict[Any, tuple[int, float, Any]]] = WeakKeyDictionary()
# The namespace that this process, and those it forks, serves for an app, if it was told.
_chosen: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def per_process(
    seconds: float = math.inf,
) -> Callable[[Callable[Concatenate[Celery, P], T]], Callable[Concatenate[Celery, P], T]]:
    """Decorate a function of an app so that each process calls it once for each app.

    Args:
        seconds: how long its result is kept before it is called again.
    """

    def decorate(make: Callable[Concatenate[Celery, P], T]) -> Callable[Concatenate[Celery, P], T]:
        @wraps(make)
        def made(app: Celery, /, *args: P.args, **kwargs: P.kwargs) -> T:
            app, key = real_app(app), (make, *args)
            pid, until, value = _made.get(app, {}).get(key, (0, 0.0, None))
            if pid != os.getpid() or time.monotonic() > until:
                value = make(app, *args, **kwargs)
                until = time.monotonic() + seconds
                _made.setdefault(app, {})[key] = (os.getpid(), until, value)
            return value  # type: ignore[no-any-return]  # it is what ``make`` returned

        return made

    return decorate


def forget(app: Celery) -> None:
    """Forget everything kept for an app; for tests, which change its settings."""
    _made.pop(real_app(app), None)
    _chosen.pop(real_app(app), None)


def choose(app: Celery, namespace: str) -> None:
    """Serve a namespace in this process, and in those it forks, where none is named."""
    _chosen[real_app(app)] = namespace


def settings_of(app: Celery, namespace: str | None = None) -> Settings:
    """Return an app's settings, read once.

    Args:
        namespace: one of ``concurrency_namespaces``, or ``"default"``; by default that of this
            process.

    Raises:
        ImproperlyConfigured: see ``Settings.of``.
    """
    return _settings(app, namespace or _of_this_process(app))


def limiter_of(app: Celery, namespace: str | None = None) -> Limiter:
    """Return this process's limiter for an app; nothing is sent to Redis yet.

    Args:
        namespace: as for ``settings_of``.

    Raises:
        ImproperlyConfigured: see ``Settings.of`` and ``connect``.
    """
    return _limiter(app, namespace or _of_this_process(app))


def _of_this_process(app: Celery) -> str | None:
    # Asked several times for each task, and most processes were told nothing.
    return _chosen.get(real_app(app)) if _chosen else None


@per_process()
def _settings(app: Celery, namespace: str | None) -> Settings:
    return Settings.of(app.conf, namespace)


@per_process()
def _limiter(app: Celery, namespace: str | None) -> Limiter:
    settings = _settings(app, namespace)
    try:
        client = connect(settings.redis_url, settings.redis_options)
    except ImproperlyConfigured as exc:
        raise ImproperlyConfigured(
            str(exc).replace("concurrency_redis_url", settings.redis_setting)
        ) from exc
    # The limiter must not keep its own app alive.
    sender = Sender(ref(app), lambda: limiter.waiting_room)
    limiter = Limiter(
        client,
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
