"""The setting ``concurrency_refusals``: which exceptions say that a platform refused a run.

Its classes are imported only where tasks run (``classes_of``): a process that only sends tasks
may not have them. ``refusals.py`` applies the entries to exceptions.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator

from celery_concurrency.errors import ImproperlyConfigured
from celery_concurrency.limiter.cooldowns import MAX_SECONDS
from celery_concurrency.limiter.limits import name_problem
from celery_concurrency.limiter.refusals import DEFAULT_GROW, DEFAULT_MOST, MAX_GROW
from celery_concurrency.text import printable

#: Seconds of a cool-down if neither the exception nor ``default`` says how long.
DEFAULT_SECONDS: Final = 60.0


def _check_path(path: object) -> str:
    if isinstance(path, type):
        raise ValueError(f"write its dotted path: '{path.__module__}.{path.__qualname__}'")
    text = path if isinstance(path, str) else ""
    names = text.split(".")
    if len(names) < 2 or not all(name.isidentifier() for name in names):
        raise ValueError("is not the dotted path of a class, such as 'proj.errors.RiskControl'")
    return text


def _check_dimension(dimension: str) -> str:
    problem = "has a colon" if ":" in dimension else name_problem(dimension)
    if problem:
        raise ValueError(f"{problem}: use 'account', 'platform', 'type', 'global', or your own")
    return dimension


def _check_seconds(seconds: Any) -> float | str:
    if isinstance(seconds, str) and seconds.isidentifier():
        return seconds
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if is_number and 0 <= seconds <= MAX_SECONDS:
        return float(seconds)
    raise ValueError(
        f"must be 0 to {MAX_SECONDS} seconds, or the name of an attribute of the exception"
    )


# Strict, so that True does not count as a second.
_Seconds = Annotated[float, Field(strict=True, ge=0, le=MAX_SECONDS)]


class RefusalEntry(BaseModel):
    """What an exception means.

    Attributes:
        dimension: which of the run's limits cools down, such as ``"account"``.
        seconds: for how long, or the name of the exception's attribute that says so. With 0
            nothing cools down; the refusal counts, and adaptive limits fall.
        default: seconds if the attribute does not say.
        grow: if the probe after a cool-down is refused too, the next cool-down is this many
            times as long.
        most: seconds up to which it grows; a first cool-down may be longer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimension: Annotated[str, AfterValidator(_check_dimension)]
    seconds: Annotated[float | str, PlainValidator(_check_seconds)]
    default: _Seconds | None = None
    grow: Annotated[float, Field(strict=True, ge=1, le=MAX_GROW)] = DEFAULT_GROW
    most: _Seconds = DEFAULT_MOST

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        if not isinstance(given, Mapping | RefusalEntry):
            raise ValueError("must be a dict, such as {'dimension': 'account', 'seconds': 600}")
        for key in given if isinstance(given, Mapping) else ():
            if key not in cls.model_fields:
                close = get_close_matches(str(key), cls.model_fields, n=1) or cls.model_fields
                raise ValueError(f"{key!r} is not a valid key; use {', '.join(close)}")
        return given

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if isinstance(self.seconds, str):
            return self
        if self.default is not None:
            raise ValueError("default needs seconds to name an attribute of the exception")
        if self.most < self.seconds and "most" in self.model_fields_set:
            raise ValueError(f"most must be at least seconds, which is {self.seconds:g}")
        return self


#: Dotted path of an exception class, and what it means.
RefusalEntries = dict[Annotated[str, PlainValidator(_check_path)], RefusalEntry]


def problem_of(error: Any) -> str:
    """Return pydantic's error about an entry as one line that names the entry.

    Args:
        error: one of ``ValidationError.errors()``, at ``("refusals", path, ...)``.
    """
    path, *where = error["loc"][1:]
    field = ".".join(str(one) for one in where if one != "[key]")
    problem = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        problem = "is missing"
    elif field:
        problem = f"is {error['input']!r}: {problem}"
    return f"{_entry(path)}: {f'{field} {problem}'.strip()}"


def classes_of(entries: Mapping[str, RefusalEntry]) -> dict[type[BaseException], str]:
    """Import the exception classes of all entries.

    Returns:
        each class with the path that stands for it.

    Raises:
        ImproperlyConfigured: names the entry whose class can't be imported, is not an exception
            class, or is the class of another entry.
    """
    classes: dict[type[BaseException], str] = {}
    for path in entries:
        try:
            found = _imported(path)
        except Exception as exc:  # importing a module may raise anything
            problem = f"can't be imported: {type(exc).__name__}: {printable(exc)}"
            raise ImproperlyConfigured(f"{_entry(path)}: {problem}") from exc
        if not (isinstance(found, type) and issubclass(found, Exception)):
            raise ImproperlyConfigured(f"{_entry(path)}: is not an exception class: {found!r}")
        if found in classes:
            raise ImproperlyConfigured(f"{_entry(path)}: is the same class as {classes[found]!r}")
        classes[found] = path
    return classes


def _entry(path: object) -> str:
    return f"concurrency_refusals[{path!r}]"


def _imported(path: str) -> Any:
    """Return what a dotted path names; it may be a class inside another class."""
    owner, _, name = path.rpartition(".")
    try:
        found = import_module(owner)
    except ModuleNotFoundError as exc:
        # The missing name may also be something that the module itself needs.
        if exc.name != owner or "." not in owner:
            raise
        found = _imported(owner)
    return getattr(found, name)
