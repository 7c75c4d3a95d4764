"""The admin app as an ASGI application, to be mounted in FastAPI, Starlette or the like.

It is the app of ``blueprint.py``, run in threads by a2wsgi: the same routes, models and checks.
"""

from typing import Any

from celery import Celery

from celery_concurrency.api.access import Authorize
from celery_concurrency.api.blueprint import create_app
from celery_concurrency.errors import ImproperlyConfigured


def create_asgi_app(
    celery_app: Celery, authorize: Authorize | None = None, *, namespace: str | None = None
) -> Any:
    """Return the admin app for an ASGI server: ``app.mount("/limits", create_asgi_app(celery))``.

    The page is at its root, the API under ``/api/v1/concurrency``. A request never blocks the event
    loop.

    Args:
        celery_app: the app whose limits to serve.
        authorize: as for ``create_blueprint``: it gets Flask's request, in a thread. The ASGI
            scope, with what middleware of yours left there, is in
            ``request.environ["asgi.scope"]``.
        namespace: as for ``create_blueprint``.

    Returns:
        an ASGI application (``a2wsgi.WSGIMiddleware``).

    Raises:
        ImproperlyConfigured: the Celery app's settings are wrong, or a2wsgi is not installed.
    """
    try:
        from a2wsgi import WSGIMiddleware  # noqa: PLC0415 - of an extra
    except ImportError as exc:
        raise ImproperlyConfigured(
            "create_asgi_app needs a2wsgi: pip install 'celery-concurrency[asgi]'"
        ) from exc
    app = create_app(celery_app, authorize, namespace=namespace)
    return WSGIMiddleware(app.wsgi_app)  # type: ignore[arg-type]  # its own types of WSGI
