"""What we make of an app once in each process: its settings, its limiter, its waiting mode.

Connections, locks and threads don't survive a fork, so a pool's child makes its own. What is
made is in ``apps.py``, ``waiting_mode.py`` and ``message.py``.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from celery import Celery

from celery_concurrency.worker.celery_compat import real_app

T = TypeVar("T")

# For each app: function to process id, time limit, and what the function returned.
_made: WeakKeyDictionary[Any, dict[Any, tuple[int, float, Any]]] = WeakKeyDictionary()


def per_process(
    seconds: float = math.inf,
) -> Callable[[Callable[[Celery], T]], Callable[[Celery], T]]:
    """Decorate a function of an app, so that each process calls it once for each app.

    Args:
        seconds: after which it is called again.
    """

    def decorate(make: Callable[[Celery], T]) -> Callable[[Celery], T]:
        @wraps(make)
        def made(app: Celery) -> T:
            pid, until, value = _made.get(app, {}).get(make, (0, 0.0, None))
            if pid != os.getpid() or time.monotonic() > until:
                app = real_app(app)  # a proxy is found like its app, and would not last as long
                value = make(app)
                until = time.monotonic() + seconds
                _made.setdefault(app, {})[make] = (os.getpid(), until, value)
            return value  # type: ignore[no-any-return]  # it is what ``make`` returned

        return made

    return decorate


def forget(app: Celery) -> None:
    """Make all of an app anew when it is needed next; for tests, which change its settings."""
    _made.pop(app, None)
