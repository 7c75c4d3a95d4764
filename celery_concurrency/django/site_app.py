"""The site's Celery app, for ``views.py``, ``checks.py`` and the command ``concurrency``."""

from typing import Final

from celery import Celery, current_app

from celery_concurrency.errors import ImproperlyConfigured
from celery_concurrency.worker.celery_compat import real_app

#: What Celery calls the app that it makes where there is none.
FALLBACK: Final = "default"

MISSING: Final = "Django has loaded no Celery app"
REMEDY: Final = (
    "Import it in your project's __init__.py, as Celery's guide for Django does: "
    "from mysite.celery import app"
)


def has_app() -> bool:
    """Return whether the site has a Celery app of its own."""
    return bool(current_app.main != FALLBACK)


def site_app() -> Celery:
    """Return the site's Celery app: the one that was made last.

    Raises:
        ImproperlyConfigured: there is none.
    """
    if not has_app():
        raise ImproperlyConfigured(f"{MISSING}. {REMEDY}")
    app: Celery = real_app(current_app)
    return app
