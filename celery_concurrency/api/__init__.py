"""The HTTP API: a blueprint for the user's Flask app, and an app of its own."""

from celery_concurrency.api.blueprint import create_app, create_blueprint

__all__ = ["create_app", "create_blueprint"]
