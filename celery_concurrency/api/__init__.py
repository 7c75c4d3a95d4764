"""The HTTP API and its page: blueprints for the user's Flask app, and an app of its own.

Who may do what is in ``access.py`` and ``author.py``; serving it is ``cli/serve.py``'s matter.
"""

from celery_concurrency.api.blueprint import URL_PREFIX, create_app, create_blueprint
from celery_concurrency.api.page import create_page

__all__ = ["URL_PREFIX", "create_app", "create_blueprint", "create_page"]
