"""The API as a blueprint for the user's Flask app, and as a separate app.

``routes.py`` has what declares a route; the routes are in one file per subject.
"""

from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any, Final

from celery import Celery
from flask import Blueprint, Flask, Response
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, MapAdapter, Rule

from celery_concurrency.api import (
    adaptive_routes,
    caller_routes,
    config_routes,
    cooldown_routes,
    monitoring_routes,
    openapi,
    token_routes,
    usage_routes,
    waiting_routes,
    worker_routes,
)
from celery_concurrency.api.access import (
    Authorize,
    admit,
    refuse_cross_site,
    refuse_foreign_host,
)
from celery_concurrency.api.envelope import failure
from celery_concurrency.api.errors import answer_errors, on_http_error
from celery_concurrency.api.page import create_page
from celery_concurrency.api.routes import IdConverter, Route
from celery_concurrency.worker.apps import limiter_of, settings_of

URL_PREFIX: Final = "/api/v1/concurrency"

#: All routes, in the order in which they are documented.
ROUTES: Final = [
    *config_routes.routes,
    *cooldown_routes.routes,
    *adaptive_routes.routes,
    *usage_routes.routes,
    *token_routes.routes,
    *waiting_routes.routes,
    *worker_routes.routes,
    *caller_routes.routes,
    *monitoring_routes.routes,
]
ROUTES.append(openapi.route_of(tuple(ROUTES)))

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: Under names that no converter of the user's own app has.
CONVERTERS: Final = {"concurrency_id": IdConverter}


def create_blueprint(
    celery_app: Celery, authorize: Authorize | None = None, *, namespace: str | None = None
) -> Blueprint:
    """Return the API as a blueprint, under ``/api/v1/concurrency``.

    Args:
        celery_app: the app whose limits to serve.
        authorize: called with each request. If it returns a false value, the answer is a 403; if
            it returns a text, that is the operator's name. It may also ``abort`` itself.
        namespace: which of ``concurrency_namespaces``; by default that of this process.

    Raises:
        ImproperlyConfigured: the Celery app's settings are wrong.
    """
    limiter_of(celery_app, namespace)  # so that a wrong setting fails here, not with a request
    blueprint = _blueprint("concurrency", ROUTES, celery_app, authorize, namespace)
    blueprint.url_prefix = URL_PREFIX
    _answer_other_requests(blueprint)
    return blueprint


def create_app(
    celery_app: Celery,
    authorize: Authorize | None = None,
    *,
    loopback: bool = False,
    namespace: str | None = None,
) -> Flask:
    """Return the admin app: the page at ``/``, the API, ``/metrics`` at the root too.

    All of its errors have the API's form.

    Args:
        celery_app: the app whose limits to serve.
        authorize: as for ``create_blueprint``; ``access.bearer`` makes one.
        loopback: the app is served on loopback, and answers only to loopback names.
        namespace: as for ``create_blueprint``; the page says which.

    Raises:
        ImproperlyConfigured: the Celery app's settings are wrong.
    """
    app = Flask("celery_concurrency", static_folder=None)
    if loopback:
        app.before_request(refuse_foreign_host)
    app.register_blueprint(create_blueprint(celery_app, authorize, namespace=namespace))
    # Prometheus' default path.
    metrics = [route for route in ROUTES if route.path == "/metrics"]
    app.register_blueprint(
        _blueprint("concurrency_metrics", metrics, celery_app, authorize, namespace)
    )
    settings = settings_of(celery_app, namespace)
    shown = settings.namespace if settings.namespaces else ""
    app.register_blueprint(create_page(shown), url_prefix="/")
    app.register_error_handler(HTTPException, on_http_error)
    return app


def _blueprint(
    name: str,
    routes: Sequence[Route],
    celery_app: Celery,
    authorize: Authorize | None,
    namespace: str | None,
) -> Blueprint:
    """Return these routes as a blueprint that checks who calls."""
    blueprint = Blueprint(name, __name__)

    @blueprint.before_request
    def check() -> None:
        refuse_cross_site()
        if authorize is not None:
            admit(authorize)

    blueprint.record(lambda state: state.app.url_map.converters.update(CONVERTERS))
    for route in routes:
        blueprint.add_url_rule(
            route.path,
            endpoint=route.view.__name__,
            view_func=_view(route, celery_app, namespace),
            methods=[route.method],
        )
    answer_errors(blueprint)
    return blueprint


def _view(route: Route, celery_app: Celery, namespace: str | None) -> Callable[..., Response]:
    @wraps(route.view)
    def view(**in_path: Any) -> Response:
        # Looked up in each request: the server may fork after this.
        limiter = limiter_of(celery_app, namespace)
        return route.view(limiter, **in_path, **route.arguments())

    return view


def _answer_other_requests(blueprint: Blueprint) -> None:
    """Answer 404 and 405 below the prefix; the user's app would answer in HTML."""

    def no_route(path: str = "") -> Response:
        methods = _known().allowed_methods(f"/{path}")
        if not methods:
            return failure(404, "not_found")
        allowed = ", ".join(sorted({*methods, "OPTIONS"}))
        return failure(405, "method_not_allowed", Allow=allowed)

    blueprint.add_url_rule("/", view_func=no_route, methods=METHODS, strict_slashes=False)
    blueprint.add_url_rule("/<concurrency_id:path>", view_func=no_route, methods=METHODS)


@cache
def _known() -> MapAdapter:
    """Return all routes without an app; werkzeug takes a while to compile them."""
    rules = [Rule(route.path, methods=[route.method]) for route in ROUTES]
    return Map(rules, converters=CONVERTERS).bind("")
