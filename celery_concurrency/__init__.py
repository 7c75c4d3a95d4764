"""Concurrency limits for Celery tasks, in several dimensions at a time.

Put ``celery_concurrency.signals`` into Celery's ``imports`` and tag tasks with
headers; the limits are changed at run time over HTTP or the command line.

Importing this package imports nothing else until a name of it is asked for: the
limiter can be used without Celery, and pytest loads our plugin in projects that
don't use it.

What is where is told in ``CONTRIBUTING.md``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery_concurrency.errors import (
        ConcurrencyError,
        ConfigConflict,
        ImproperlyConfigured,
        InvalidConfig,
        InvalidTag,
        LimiterUnavailable,
        LimitReached,
        RunEnded,
        UnknownVersion,
        VersionMismatch,
    )
    from celery_concurrency.limiter.leases import Lease
    from celery_concurrency.worker.hooks import ConcurrencyTask
    from celery_concurrency.worker.run import current_lease

__all__ = [
    "ConcurrencyError",
    "ConcurrencyTask",
    "ConfigConflict",
    "ImproperlyConfigured",
    "InvalidConfig",
    "InvalidTag",
    "Lease",
    "LimitReached",
    "LimiterUnavailable",
    "RunEnded",
    "UnknownVersion",
    "VersionMismatch",
    "current_lease",
]

#: Where those live that are no error.
_HOMES = {
    "ConcurrencyTask": "worker.hooks",
    "Lease": "limiter.leases",
    "current_lease": "worker.run",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value
