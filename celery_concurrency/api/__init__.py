"""The HTTP API: a blueprint for the user's Flask app, and an app of its own."""

from celery_concurrency.api.blueprint import URL_PREFIX, create_app, create_blueprint

__all__ = ["URL_PREFIX", "create_app", "create_blueprint"]
