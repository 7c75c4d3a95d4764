"""A Django site whose tasks run under limits."""

from mysite.celery import app

__all__ = ["app"]
