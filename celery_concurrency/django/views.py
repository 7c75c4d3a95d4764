"""The admin app of ``api/blueprint.py`` as Django views, behind Django's login and permissions.

The permissions are in ``models.py``. Changes need Django's CSRF token, which the page sends.
"""

from io import BytesIO
from typing import Any, Final

import flask
from celery import Celery
from django.conf import settings
from django.contrib.auth.decorators import login_required, permission_required
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.views.decorators.csrf import csrf_protect
from flask import Flask
from werkzeug.test import run_wsgi_app

from celery_concurrency.api.access import SAFE_METHODS
from celery_concurrency.api.blueprint import create_app
from celery_concurrency.api.page import CSRF
from celery_concurrency.django.site_app import site_app
from celery_concurrency.worker.apps import per_process

VIEW: Final = "celery_concurrency.view_limits"
CHANGE: Final = "celery_concurrency.change_limits"
#: Where the Flask app finds Django's request.
DJANGO: Final = "celery_concurrency.django"


@login_required
@permission_required(VIEW, raise_exception=True)
def page(request: HttpRequest) -> HttpResponse:
    """The page; whoever has not logged in is sent to do so."""
    return limits(request)


@csrf_protect
def limits(request: HttpRequest, path: str = "") -> HttpResponse:
    """The API and the page's files, below the place where the URLs are included."""
    body, status, headers = run_wsgi_app(
        _flask_app(site_app()).wsgi_app, _environ(request, path), buffered=True
    )
    response = HttpResponse(b"".join(body), status=int(status.partition(" ")[0]))
    for name, value in headers:
        response[name] = value
    return response


@per_process()
def _flask_app(app: Celery) -> Flask:
    return create_app(app, _authorize)


def _authorize(request: flask.Request) -> str | bool:
    """Return the name of the user who has the permission that this request needs."""
    user = request.environ[DJANGO].user
    permission = VIEW if request.method in SAFE_METHODS else CHANGE
    return user.has_perm(permission) and str(user.get_username())


def _environ(request: HttpRequest, path: str) -> dict[str, Any]:
    """Return Django's request for a WSGI app that is mounted where our URLs are included."""
    # Also under ASGI, META has what CGI has.
    variables = {name: text for name, text in request.META.items() if isinstance(text, str)}
    mounted = request.path.removesuffix(path).rstrip("/")
    return {
        **variables,
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": _wsgi_text(mounted),
        "PATH_INFO": _wsgi_text(f"/{path}"),
        "CONTENT_LENGTH": str(len(request.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": BytesIO(request.body),
        "wsgi.errors": BytesIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        DJANGO: request,
        CSRF: (_csrf_header(), get_token(request)),
    }


def _wsgi_text(text: str) -> str:
    """Return a text as WSGI has it: bytes that look like Latin-1."""
    return text.encode().decode("latin-1")


def _csrf_header() -> str:
    """Return the header in which Django looks for its token; META spells it HTTP_X_CSRFTOKEN."""
    name: str = settings.CSRF_HEADER_NAME
    return name.removeprefix("HTTP_").replace("_", "-")
