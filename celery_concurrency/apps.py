"""Moved: ``limiter_of`` is in ``worker/apps.py``. This file goes with the next release."""

import warnings

from celery_concurrency.worker.apps import limiter_of

__all__ = ["limiter_of"]

warnings.warn(
    "celery_concurrency.apps has moved: import limiter_of from celery_concurrency.worker.apps",
    DeprecationWarning,
    stacklevel=2,
)
