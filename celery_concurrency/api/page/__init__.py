"""The page for operators: a blueprint beside the API's.

It is a frame in the reader's language; its scripts fetch all data from the API. So it needs no
limiter and asks for no token: the API alone checks access.

Its texts are in ``texts.py``, the API's routes in ``api/blueprint.py``.
"""

import posixpath
from typing import Final

from flask import Blueprint, Response, render_template, request, url_for
from werkzeug.routing import BuildError

from celery_concurrency.api.envelope import LANGUAGES, preferred_language
from celery_concurrency.api.page.texts import texts_in
from celery_concurrency.errors import ImproperlyConfigured

#: Where it is unless the app names another place.
URL_PREFIX: Final = "/concurrency"

#: Where the page's app may leave a header and its token in the WSGI environment: changes that the
#: page makes carry them, as Django's protection from other sites' forms asks for.
CSRF: Final = "celery_concurrency.csrf"

#: Only our own files, nothing inline, and not inside a frame.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Don't tell other sites this page's address.
    "Referrer-Policy": "no-referrer",
    # Revalidated on each load, usually with a 304, so an upgrade shows at once.
    "Cache-Control": "no-cache",
}


def create_page(namespace: str = "") -> Blueprint:
    """Return the page as a blueprint, at ``/concurrency/`` unless it is registered elsewhere.

    The same app must have the blueprint of ``create_blueprint``, under its own name.

    Args:
        namespace: that of the API, to be shown in the title.
    """
    blueprint = Blueprint(
        "concurrency_page",
        __name__,
        url_prefix=URL_PREFIX,
        template_folder="templates",
        static_folder="static",
    )

    @blueprint.get("/")
    def page() -> Response:
        asked = request.args.get("lang")
        language = asked if asked in LANGUAGES else preferred_language()
        texts = texts_in(language)
        if namespace:
            texts = {**texts, "title": f"{texts['title']}: {namespace}"}
        html = render_template(
            "celery_concurrency/page.html",
            language=language,
            api=_address_of_api(),
            csrf=request.environ.get(CSRF),
            t=texts,
        )
        return Response(html, headers={"Vary": "Accept-Language"})

    @blueprint.after_request
    def guard(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    return blueprint


def _address_of_api() -> str:
    """Return the API's address relative to the page, which works behind any proxy too."""
    try:
        api = url_for("concurrency.get_config").removesuffix("/config")
    except BuildError:
        raise ImproperlyConfigured(
            "the page needs the API: register create_blueprint(celery_app) in the same app"
        ) from None
    return posixpath.relpath(api, request.script_root + request.path)
