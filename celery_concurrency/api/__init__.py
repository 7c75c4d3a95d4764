"""The HTTP API and its page: blueprints for the user's Flask app, and an app of its own.

``access.py`` decides who may call, and ``cli/serve.py`` serves it.
"""

from celery_concurrency.api.blueprint import URL_PREFIX, create_app, create_blueprint
from celery_concurrency.api.page import create_page

__all__ = ["URL_PREFIX", "create_app", "create_blueprint", "create_page"]
