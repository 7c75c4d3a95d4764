"""Moved: ``connect`` is in ``limiter/connection.py``. This file goes with the next release."""

import warnings

from celery_concurrency.limiter import connect

__all__ = ["connect"]

warnings.warn(
    "celery_concurrency.connection has moved: import connect from celery_concurrency.limiter",
    DeprecationWarning,
    stacklevel=2,
)
