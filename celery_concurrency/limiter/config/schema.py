"""The fields of a configuration, their bounds, and how a change is merged in.

The JSON is the user's own format; ``flat.py`` makes the copy that the scripts read, ``store.py``
stores both. What is only observed is put in force by ``observing.py``.
"""

import json
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import from_json

from celery_concurrency.errors import InvalidConfig
from celery_concurrency.limiter.config.maximum import (
    MAX_LIMIT,
    Maximum,
    Mode,
    Observed,
    enforced,
    observed,
)
from celery_concurrency.limiter.config.problems import (
    MAX_DETAILS,
    details_of,
    did_you_mean,
    quoted,
)
from celery_concurrency.limiter.limits import (
    BUILTIN_DIMENSIONS,
    BUILTIN_TAGS,
    GLOBAL,
    MAX_TAG_LENGTH,
    WILDCARD,
    name_problem,
    split_limit,
    wildcard_of,
)
from celery_concurrency.text import closest

T = TypeVar("T")

MAX_TIMEOUT = 86_400  # seconds: a day
MAX_STARTS: Final = 10_000
MAX_PERIOD: Final = 7 * 86_400  # seconds: a week
MAX_RATES: Final = 4
MAX_EVERY: Final = 86_400  # seconds: a day
MAX_WEIGHT: Final = 100
MAX_JSON_BYTES = 1_048_576

#: Names that can't be headers of ours: Celery reads them itself (attributes of
#: ``celery.app.task.Context`` and the message's own headers), or they mean one of the four
#: built-in limits. A test compares this with Celery's.
# fmt: off
RESERVED_DIMENSIONS: Final = {
    "args", "argsrepr", "as_execution_options", "called_directly", "callbacks", "chain",
    "children", "chord", "clear", "compression", "correlation_id", "delivery_info",
    "errbacks", "eta", "expires", "get", "group", "group_id", "group_index", "groups",
    "headers", "hostname", "id", "ignore_result", "is_eager", "kwargs", "kwargsrepr",
    "lang", "logfile", "loglevel", "meth", "origin", "parent_id", "properties",
    "redelivered", "replaced_task_nesting", "reply_to", "retries", "root_id", "shadow",
    "soft_time_limit", "stamped_headers", "stamps", "task", "taskset", "time_limit",
    "timelimit", "update", "utc",
    *BUILTIN_TAGS,
    *BUILTIN_DIMENSIONS,
    GLOBAL,
}
# fmt: on


def _check_name(name: str) -> str:
    problem = name_problem(name)
    if problem:
        raise ValueError(
            f"the name {name[:40]!r} {problem}: "
            f"give it 1 to {MAX_TAG_LENGTH} characters that can be printed"
        )
    return name


def _check_dimension(name: str) -> str:
    if name in RESERVED_DIMENSIONS or name.startswith(("_", "concurrency_")):
        raise ValueError(f"{name!r} is a name that Celery or celery-concurrency uses itself")
    if ":" in name or name == WILDCARD:
        raise ValueError(f"the dimension {name!r} must have no colon and not be {WILDCARD!r}")
    return name


def _check_override(name: str) -> str:
    if name == WILDCARD:
        raise ValueError(f"{WILDCARD!r} can't be used here: max already applies to all other names")
    return name


Timeout = Annotated[int, Field(ge=1, le=MAX_TIMEOUT)]
Name = Annotated[str, AfterValidator(_check_name)]
OverrideName = Annotated[Name, AfterValidator(_check_override)]
DimensionName = Annotated[Name, AfterValidator(_check_dimension)]
#: Without repeats.
Limits = Annotated[list[str], AfterValidator(lambda limits: list(dict.fromkeys(limits)))]


class _Strict(BaseModel):
    # Strict: a bool is no integer, a text is no number; a typo is no new field.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def without_default_mode(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry as it is stored: its mode only where it is not in force."""
    return {name: value for name, value in entry.items() if (name, value) != ("mode", "enforce")}


Weight = Annotated[int, Field(ge=1, le=MAX_WEIGHT)]
Weights = dict[OverrideName, Weight]


class Dimension(_Strict):
    """The limits of a dimension of the user's own, read from the header of its name.

    Attributes:
        max: tasks of one name at once; 0 is unlimited.
        overrides: name to limit, where it differs from ``max``.
        fair: where several of its names wait for one shared limit, they go on in turn. It is
            left out of JSON where they don't, as are ``weights`` where there are none.
        weights: name to how often it goes on in turn, where that is not once.
    """

    max: Maximum = 0
    overrides: dict[OverrideName, Maximum] = {}
    fair: bool = False
    weights: Weights = {}

    @model_serializer(mode="wrap")
    def _without_no_shares(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {
            name: value
            for name, value in handler(self).items()
            if value or name not in ("fair", "weights")
        }


class Fair(_Strict):
    """That a dimension is fair which is not the user's own, as ``Dimension`` says it of those.

    Attributes:
        weights: as there.
    """

    weights: Weights = {}


class Rate(_Strict):
    """How often runs of a limit may begin.

    Attributes:
        max: how many begin at most in any window of ``per`` seconds.
        per: seconds.
        mode: "observe" turns no task away, and counts those it would have turned away. It is
            left out of JSON where the rate is in force.
    """

    max: Annotated[int, Field(ge=1, le=MAX_STARTS)]
    per: Annotated[int, Field(ge=1, le=MAX_PERIOD)]
    mode: Mode = "enforce"

    @model_serializer(mode="wrap")
    def _without_default_mode(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_default_mode(handler(self))

    def __str__(self) -> str:
        return f"{self.max} per {self.per} s"


Rates = Annotated[list[Rate], Field(min_length=1, max_length=MAX_RATES)]


class Adaptive(_Strict):
    """Between which bounds a limit moves by itself, and how fast.

    Additive increase and multiplicative decrease, as TCP does it (Chiu and Jain, "Analysis of
    the increase and decrease algorithms for congestion avoidance", 1989).

    Attributes:
        min, max: the lowest and the highest maximum in force; it begins at the highest.
        decrease: what a refusal multiplies it by, rounded down.
        every: seconds; it falls once in them at most, however many refusals come, and rises
            by one after so many without a refusal in which it was used in full.
        mode: ``observe`` moves it and turns nobody away by it.
    """

    min: Annotated[int, Field(ge=1, le=MAX_LIMIT)]
    max: Annotated[int, Field(ge=1, le=MAX_LIMIT)]
    decrease: Annotated[float, Field(gt=0, lt=1)] = 0.5
    every: Annotated[int, Field(ge=1, le=MAX_EVERY)] = 60
    mode: Mode = "enforce"

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min, {self.min}, is greater than max, {self.max}")
        return self

    @model_serializer(mode="wrap")
    def _without_default_mode(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_default_mode(handler(self))

    def __str__(self) -> str:
        return f"{self.min} to {self.max}"


class Bounds(_Strict):
    """How many tasks may wait for a limit, and for how long; without either, as many and as long.

    Attributes:
        most: one more is refused at once; it fails with ``TooManyWaiting``.
        seconds: who waited for longer is given up, and fails with ``WaitedTooLong``.
    """

    most: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None
    seconds: Annotated[int, Field(ge=1, le=MAX_PERIOD)] | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


def _is_limit(limit: str, dimensions: Collection[str]) -> bool:
    dimension, name = split_limit(limit)
    is_named = dimension in dimensions and name != WILDCARD and not name_problem(name)
    return limit == GLOBAL or is_named


def _is_wildcard(limit: str, dimensions: Collection[str]) -> bool:
    dimension, name = split_limit(limit)
    return dimension in dimensions and name == WILDCARD


def _known(own: Iterable[str]) -> set[str]:
    return {*BUILTIN_DIMENSIONS, *own}


def _no_limit(limit: str, dimensions: Collection[str]) -> str:
    meant = did_you_mean(_meant_by(limit, dimensions))
    return f"names {quoted(limit)!r}, which is not a limit{meant}"


def _meant_by(limit: str, dimensions: Collection[str]) -> str | None:
    dimension, name = split_limit(limit)
    if name is None:
        return closest(limit[:MAX_TAG_LENGTH], [GLOBAL])
    if dimension in dimensions:
        return None
    of = BUILTIN_TAGS.get(dimension) or closest(dimension[:MAX_TAG_LENGTH], sorted(dimensions))
    return of and f"{of}:{name}"


def _remedy(dimensions: Iterable[str], wildcards: bool = False) -> str:
    or_all = " or '<dimension>:*'" if wildcards else ""
    return (
        f"write 'global' or '<dimension>:<name>'{or_all} "
        f"with one of the dimensions {', '.join(sorted(dimensions))}"
    )


class Config(_Strict):
    """The run-time configuration; the defaults are those of the original description.

    Every maximum is of tasks at once, over all workers; 0 is unlimited. One that is only
    observed is an ``Observed``.

    Attributes:
        global_max: limit of all tasks together.
        platform_max: platform to limit; ``"*"`` is the limit of a platform not listed.
        account_max: limit of each account.
        task_type_max: task type to limit; ``"*"`` as above.
        enabled: False admits everybody and goes on counting.
        timeout: seconds after which a token whose holder is silent expires.
        account_overrides: account to limit, where it differs from ``account_max``.
        dimensions: the user's own dimensions by the name of their header.
        paused: limits that admit nobody for now, as ``"platform:douyin"`` or ``"global"``.
        rates: limit or wildcard (``"account:*"``) to its rates, all of which hold. Those of a
            name replace those of its wildcard.
        adaptive: limit or wildcard to the bounds between which its maximum moves by itself. A
            lower maximum above holds beside it.
        waiting: limit or wildcard to the bounds on waiting for it. Those of a name replace those
            of its wildcard.
        fair: ``account`` or ``platform``, if that dimension is fair. One dimension is at most,
            of these and ``dimensions``.
    """

    global_max: Maximum = 0
    platform_max: dict[Name, Maximum] = {
        "douyin": 0,
        "xiaohongshu": 0,
        "kuaishou": 0,
        "bilibili": 0,
        "channels": 0,
    }
    account_max: Maximum = 1
    task_type_max: dict[Name, Maximum] = {"publish": 0, "batch_publish": 0}
    enabled: bool = True
    timeout: Timeout = 300
    account_overrides: dict[OverrideName, Maximum] = {}
    dimensions: dict[DimensionName, Dimension] = {}
    paused: Limits = []
    rates: dict[str, Rates] = {}
    adaptive: dict[str, Adaptive] = {}
    waiting: dict[str, Bounds] = {}
    fair: dict[Literal["account", "platform"], Fair] = {}

    @field_validator("rates", "adaptive", "waiting")
    @classmethod
    def _limits_or_wildcards(cls, entries: dict[str, T], info: ValidationInfo) -> dict[str, T]:
        known = _known(info.data.get("dimensions", ()))
        for limit in entries:
            if not _is_limit(limit, known) and not _is_wildcard(limit, known):
                raise ValueError(f"{_no_limit(limit, known)}: {_remedy(known, wildcards=True)}")
        return entries

    @model_validator(mode="after")
    def _paused_limits(self) -> Self:
        for limit in self.paused:
            problem = self.limit_problem(limit)
            if problem:
                raise ValueError(f"paused {problem}")
        return self

    @model_validator(mode="after")
    def _one_fair_dimension(self) -> Self:
        if len(names := self._fair_dimensions()) > 1:
            raise ValueError(f"only one dimension can be fair, not {' and '.join(names)}")
        return self

    def _fair_dimensions(self) -> list[str]:
        own = (name for name, dimension in self.dimensions.items() if dimension.fair)
        return [*self.fair, *own]

    def shares(self) -> tuple[str | None, dict[str, int]]:
        """Return the fair dimension, None where none is, and the weights of its names."""
        dimension = next(iter(self._fair_dimensions()), None)
        if dimension is None:
            return None, {}
        both: list[tuple[str, Dimension | Fair]] = [*self.fair.items(), *self.dimensions.items()]
        return dimension, next(one.weights for name, one in both if name == dimension)

    def weight_of(self, limit: str) -> int | None:
        """Return the weight of a name of the fair dimension; None where it is none of these."""
        fair, weights = self.shares()
        dimension, name = split_limit(limit)
        return weights.get(name, 1) if name is not None and dimension == fair else None

    def limit_problem(self, limit: str) -> str | None:
        """Return what keeps ``limit`` from being one limit's name here; None if nothing does."""
        known = _known(self.dimensions)
        return None if _is_limit(limit, known) else f"{_no_limit(limit, known)}: {_remedy(known)}"

    @classmethod
    def parse(cls, raw: bytes | str) -> Self:
        """Return the configuration in a JSON text of at most ``MAX_JSON_BYTES``.

        Raises:
            InvalidConfig: it is too long, no JSON, or has something that is not allowed.
        """
        if len(raw) > MAX_JSON_BYTES:
            raise InvalidConfig(_TOO_LONG)
        return cls.of(parse_json(raw))

    @classmethod
    def of(cls, value: object) -> Self:
        """Return the configuration in a parsed JSON value. Raises what ``parse`` does."""
        try:
            return cls.model_validate(value)
        except ValidationError as exc:
            details = details_of(exc, cls)
            first = details[0]
            where = f"{first['field']}: " if first["field"] else ""
            raise InvalidConfig(f"{where}{first['problem']}", details) from None

    def merged(self, change: object) -> Self:
        """Return this configuration with a change merged in.

        Args:
            change: a parsed JSON object with just what is to change. Maps merge by key,
                null takes an entry out of a map, a list replaces a list.

        Raises:
            InvalidConfig: the change is no object, or its result is not valid or
                longer than ``MAX_JSON_BYTES``.
        """
        if not isinstance(change, Mapping):
            raise InvalidConfig("the change must be a JSON object of fields to change")
        nulled = list(islice(_nulled_fields(change), MAX_DETAILS))
        if nulled:
            problem = "can't be null: null only removes an entry from a map"
            details = [{"field": quoted(field), "problem": problem} for field in nulled]
            raise InvalidConfig(f"{details[0]['field']} {problem}", details)
        try:
            result = self.of(_merge(self.model_dump(), change))
        except RecursionError:
            raise InvalidConfig("the change is nested too deeply") from None
        # Many small changes may add up to more than ``parse`` takes.
        if len(result.to_json().encode()) > MAX_JSON_BYTES:
            raise InvalidConfig(_TOO_LONG)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object: six fields always, the others only while they say something."""
        data = self.model_dump()
        return {name: value for name, value in data.items() if name in ALWAYS_SHOWN or value}

    def to_json(self) -> str:
        """Return the JSON text that is stored."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def rates_of(self, limit: str, mode: Mode = "enforce") -> list[Rate]:
        """Return a limit's rates that have this mode; none where it has none."""
        rates = self.rates.get(limit) or self.rates.get(wildcard_of(limit), [])
        return [rate for rate in rates if rate.mode == mode]

    def adaptive_of(self, limit: str) -> Adaptive | None:
        """Return between which bounds a limit moves by itself; None where it does not."""
        return self.adaptive.get(limit) or self.adaptive.get(wildcard_of(limit))

    def bounds_of(self, limit: str) -> Bounds:
        """Return the bounds on waiting for a limit."""
        return self.waiting.get(limit) or self.waiting.get(wildcard_of(limit)) or Bounds()

    def max_of(self, limit: str) -> int:
        """Return a limit's maximum that is in force, paused or not; 0 is unlimited."""
        return enforced(self._max_of(limit))

    def observed_max_of(self, limit: str) -> int:
        """Return a limit's maximum that is only observed; 0 where there is none."""
        return observed(self._max_of(limit))

    def maxima(self) -> Iterator[tuple[str, int | Observed]]:
        """Yield each limit or wildcard that has its own maximum, with it."""
        for dimension, by_name in self._by_name().items():
            for name, maximum in by_name.items():
                yield f"{dimension}:{name}", maximum
        yield GLOBAL, self.global_max

    def _max_of(self, limit: str) -> int | Observed:
        dimension, name = split_limit(limit)
        if name is None:
            return self.global_max
        # Tokens may still be held in a dimension that was taken out: nothing limits it.
        by_name = self._by_name().get(dimension, {})
        return by_name.get(name, by_name.get(WILDCARD, 0))

    def _by_name(self) -> dict[str, Mapping[str, int | Observed]]:
        """Return the maxima by dimension, then by name or ``*``."""
        return {
            "platform": self.platform_max,
            "account": ChainMap({WILDCARD: self.account_max}, self.account_overrides),
            "task_type": self.task_type_max,
            **{
                name: ChainMap({WILDCARD: dimension.max}, dimension.overrides)
                for name, dimension in self.dimensions.items()
            },
        }


#: Fields that the JSON always has.
ALWAYS_SHOWN: Final = {
    "global_max", "platform_max", "account_max", "task_type_max", "enabled", "timeout",
}  # fmt: skip


def parse_json(raw: bytes | str) -> Any:
    """Return the value of a JSON text; InvalidConfig if it is not JSON, or NaN or Infinity."""
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as exc:
        raise InvalidConfig(f"this is not JSON: {exc}") from None


_TOO_LONG: Final = f"the configuration is longer than {MAX_JSON_BYTES} bytes of JSON"


def _nulled_fields(change: Mapping[Any, Any]) -> Iterator[str]:
    """Yield the fields that a change sets to null: ours, and those of a dimension."""
    yield from (field for field, value in change.items() if value is None)
    dimensions = change.get("dimensions")
    if isinstance(dimensions, Mapping):
        for name, dimension in dimensions.items():
            if isinstance(dimension, Mapping):
                nulled = (field for field, value in dimension.items() if value is None)
                yield from (f"dimensions.{name}.{field}" for field in nulled)


def _merge(old: Any, change: Any) -> Any:
    if not isinstance(change, Mapping):
        return change
    merged = dict(old) if isinstance(old, Mapping) else {}
    if change and type(old) is int:  # a maximum: what its object does not say stays
        merged = {"max": old}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged
