"""Declares a route: its view, and what the API's description says of it, in one place.

Each file of routes creates a ``Routes`` and declares its views in it; ``blueprint.py`` lists them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from flask import Response, abort, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import UnsupportedMediaType
from werkzeug.routing import BaseConverter

from celery_concurrency.api.envelope import failure
from celery_concurrency.errors import InvalidConfig
from celery_concurrency.limiter.config.problems import MAX_DETAILS, details_of
from celery_concurrency.limiter.config.schema import MAX_JSON_BYTES, parse_json
from celery_concurrency.text import printable, unprintable

#: The parameters that are names of our own. An id is Celery's, and may be any text.
NAMES: Final = frozenset({"limit"})

View = Callable[..., Response]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    Attributes:
        method: ``"GET"``, ``"PUT"``, ...
        path: below the API's prefix, in Flask's notation: ``"/tokens/<concurrency_id:token>"``.
        view: gets the limiter, the path's variables, and ``query`` and ``body`` if the route has
            them. Its docstring describes the route.
        data: the type of ``data`` in the envelope.
        query: the model of the query's parameters; the view gets an instance.
        body: the type of the JSON body; the view gets the parsed value, unchecked.
        versioned: it answers with an ETag, and checks If-Match if it changes something.
        refusals: statuses of its errors, besides those that follow from the above.
        enveloped: its answer is in the envelope; if not, ``data`` is the whole answer.
        media_type: the answer's media type.
    """

    method: str
    path: str
    view: View
    data: Any
    query: type[BaseModel] | None = None
    body: Any = None
    versioned: bool = False
    refusals: tuple[int, ...] = ()
    enveloped: bool = True
    media_type: str = "application/json"

    def arguments(self) -> dict[str, Any]:
        """Return the query and the body of this request for the view."""
        arguments: dict[str, Any] = {}
        if self.query is not None:
            asked = request.args.to_dict()
            _refuse_unprintable({name: asked[name] for name in NAMES & asked.keys()})
            arguments["query"] = validated(self.query, asked, "invalid_query")
        if self.body is not None:
            arguments["body"] = _json_body()
            _refuse_unprintable(arguments["body"])
        return arguments


class IdConverter(BaseConverter):
    """The rest of the path, line breaks and slashes included: an id may be any text."""

    regex = "(?s:.+)"
    part_isolating = False
    weight = 200  # after all others, like Werkzeug's own for paths


class Routes(list[Route]):
    """The routes of one subject."""

    def add(self, method: str, path: str, **about: Any) -> Callable[[View], View]:
        """Declare the decorated function as the view of a ``Route``."""

        def declare(view: View) -> View:
            self.append(Route(method, path, view, **about))
            return view

        return declare


def validated(model: type[Model], value: Any, code: str) -> Model:
    """Return ``value`` as a model's instance, or answer 400 with a detail for each mistake."""
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        abort(failure(400, code, details_of(exc, model)))


def _refuse_unprintable(value: Any) -> None:
    """Answer 400 if a text in a query or a body can't be printed: all of them are names."""
    details = [
        {"field": printable(field), "problem": f"has '{char}', which can't be printed: remove it"}
        for field, char in islice(_unprintable_in(value), MAX_DETAILS)
    ]
    if details:
        abort(failure(400, "unprintable", details))


def _unprintable_in(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """Yield where such a text is, as ``platform_max.<name>``, and its first such character."""
    if isinstance(value, dict):
        for name, inner in value.items():
            path = f"{field}.{name}".lstrip(".")
            char = unprintable(name)
            if char:
                yield path, char
            yield from _unprintable_in(inner, path)
    elif isinstance(value, list):
        for inner in value:
            yield from _unprintable_in(inner, field)
    elif isinstance(value, str) and (char := unprintable(value)):
        yield field, char


def _json_body() -> Any:
    if not request.is_json:
        raise UnsupportedMediaType()
    request.max_content_length = MAX_JSON_BYTES
    raw = request.get_data(cache=False)
    try:
        return parse_json(raw)
    except InvalidConfig as exc:
        abort(failure(400, "invalid_json", [{"field": "", "problem": str(exc)}]))
