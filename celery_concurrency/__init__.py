"""Concurrency limits for Celery tasks, in several dimensions at a time.

Put ``celery_concurrency.signals`` into Celery's ``imports`` and tag tasks with
headers. You can change the limits at run time over HTTP or the command line.

Importing this package imports nothing else until one of its names is used: the
limiter works without Celery, and pytest loads our plugin in projects that don't
use it.

``CONTRIBUTING.md`` says what is where.
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
        TooManyWaiting,
        UnknownVersion,
        VersionMismatch,
        WaitedTooLong,
        WeightTooHigh,
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
    "TooManyWaiting",
    "UnknownVersion",
    "VersionMismatch",
    "WaitedTooLong",
    "WeightTooHigh",
    "current_lease",
]

#: The modules of the names that are not errors.
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
