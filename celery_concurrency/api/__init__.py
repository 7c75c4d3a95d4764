"""The HTTP API and its page: blueprints for the user's Flask app, and a separate app, WSGI or ASGI.

``access.py`` decides who may call; ``cli/serve.py`` serves the separate app.
"""

from celery_concurrency.api.asgi import create_asgi_app
from celery_concurrency.api.blueprint import URL_PREFIX, create_app, create_blueprint
from celery_concurrency.api.page import create_page

__all__ = ["URL_PREFIX", "create_app", "create_asgi_app", "create_blueprint", "create_page"]
