"""Concurrency limits for Celery tasks, in several dimensions at a time.

Put ``celery_concurrency.signals`` into Celery's ``imports`` and tag tasks with
headers; the limits are changed at run time over HTTP or the command line.
"""

from celery_concurrency.errors import (
    ConcurrencyError,
    ConfigConflict,
    ImproperlyConfigured,
    InvalidConfig,
    InvalidTag,
    LimiterUnavailable,
    LimitReached,
)
from celery_concurrency.gate import current_lease
from celery_concurrency.lease import Lease
from celery_concurrency.task import ConcurrencyTask

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
    "current_lease",
]
