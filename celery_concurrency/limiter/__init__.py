"""The limiter: knows Redis alone, neither Celery nor the faces.

``limiter.py`` is where a caller enters; ``CONTRIBUTING.md`` says what else is where.
"""

from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.limiter import Limiter
from celery_concurrency.limiter.outcomes import Denied, Granted, Repeated

__all__ = ["Denied", "Granted", "Limiter", "Repeated", "connect"]
