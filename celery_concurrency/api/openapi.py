"""The API's description in OpenAPI 3.1, made from the routes (``routes.py``) and their models."""

import inspect
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from flask import Response, request
from pydantic import TypeAdapter

from celery_concurrency.api.access import SAFE_METHODS
from celery_concurrency.api.envelope import json_response
from celery_concurrency.api.models import Failure, Success
from celery_concurrency.api.routes import Route
from celery_concurrency.limiter import Limiter

PATH: Final = "/openapi.json"

_REF: Final = "#/components/schemas/{model}"
_REFUSED: Final = {"$ref": "#/components/responses/Refused"}
_TEXT: Final = {"type": "string"}


def route_of(routes: Sequence[Route]) -> Route:
    """Return the route that answers the description of these routes and of itself."""

    def get_openapi(limiter: Limiter) -> Response:
        """Return this description."""
        # The address of this request shows where the blueprint is mounted.
        server = request.script_root + request.path.removesuffix(PATH)
        return json_response(describe([*routes, route], server))

    route = Route("GET", PATH, get_openapi, data=dict[str, Any], enveloped=False)
    return route


def describe(routes: Sequence[Route], server: str) -> dict[str, Any]:
    """Return the OpenAPI document of these routes, whose paths are below ``server``."""
    schemas, components = _schemas(routes)
    paths: dict[str, Any] = {}
    for route in routes:
        address = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.path)
        paths.setdefault(address, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "celery-concurrency", "version": version("celery-concurrency")},
        "servers": [{"url": server}],
        # A token, if the server asks for one.
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                "Refused": {
                    "description": "It was refused (4xx) and nothing was changed, or it failed.",
                    "content": {"application/json": {"schema": schemas[str(Failure)]}},
                }
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(routes: Sequence[Route]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Return the schemas by type, and those that they refer to by name."""
    types: dict[str, Any] = {str(Failure): Failure}
    for route in routes:
        for one in (_answer(route), route.body):
            if one is not None:
                types[str(one)] = one
    # For validation: a field with a default is then not required.
    by_key, definitions = TypeAdapter.json_schemas(
        [(key, "validation", TypeAdapter(one)) for key, one in types.items()], ref_template=_REF
    )
    return {key: schema for (key, _), schema in by_key.items()}, definitions["$defs"]


def _answer(route: Route) -> Any:
    envelope: Any = Success  # for mypy, which knows no type argument of run time
    return envelope[route.data] if route.enveloped else route.data


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    summary, _, more = inspect.cleandoc(route.view.__doc__ or "").partition("\n\n")
    answer: dict[str, Any] = {
        "description": "Done",
        "content": {route.media_type: {"schema": schemas[str(_answer(route))]}},
    }
    if route.versioned:
        etag = {"description": "The configuration's version.", "required": True, "schema": _TEXT}
        answer["headers"] = {"ETag": etag}
    operation: dict[str, Any] = {
        "operationId": route.view.__name__,
        "summary": summary,
        "description": more,
        "parameters": _parameters(route),
        "responses": {
            "200": answer,
            **{str(status): _REFUSED for status in _refusals(route)},
        },
    }
    if route.body is not None:
        body = {"application/json": {"schema": schemas[str(route.body)]}}
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    names = re.findall(r"<(?:\w+:)?(\w+)>", route.path)
    text = {**_TEXT, "minLength": 1}
    parameters = [_parameter(name, "path", text, required=True) for name in names]
    if route.query is not None:
        query = route.query.model_json_schema()
        required = query.get("required", ())
        parameters += [
            _parameter(name, "query", schema, required=name in required)
            for name, schema in query["properties"].items()
        ]
    if route.method not in SAFE_METHODS:
        about = "Who makes this change, for the history."
        text = {**_TEXT, "maxLength": 200}
        parameters.append(_parameter("X-Operator", "header", text, description=about))
        if route.versioned:
            about = "The ETag of the version that must be in force."
            parameters.append(_parameter("If-Match", "header", _TEXT, description=about))
    return parameters


def _parameter(name: str, where: str, schema: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"name": name, "in": where, **more, "schema": schema}


def _refusals(route: Route) -> list[int]:
    """Return the statuses of a route's errors."""
    changes = route.method not in SAFE_METHODS
    statuses = {401, 403, 503, *route.refusals}
    if route.query is not None or changes:
        statuses.add(400)
    if "<" in route.path:
        statuses.add(404)
    if route.body is not None:
        statuses |= {413, 415}
    if route.versioned and changes:
        statuses |= {409, 412}
    return sorted(statuses)
