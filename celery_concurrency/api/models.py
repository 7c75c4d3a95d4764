"""The API's models of queries, bodies and answers, besides those of the limiter.

The limiter's are in ``limiter/config/schema.py``, and in ``limiter/inspect/usage.py`` and its
neighbours.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from celery_concurrency.limiter.actions import Action
from celery_concurrency.limiter.adaptive import AdaptiveLimit
from celery_concurrency.limiter.config.history import Version
from celery_concurrency.limiter.config.maximum import MAX_LIMIT, Maximum, Mode
from celery_concurrency.limiter.config.schema import (
    ALWAYS_SHOWN,
    MAX_EVERY,
    Config,
    DimensionName,
    Name,
    OverrideName,
    Rates,
    Timeout,
)
from celery_concurrency.limiter.cooldowns import MAX_REASON, MAX_SECONDS, Cooldown
from celery_concurrency.limiter.inspect.holders import CURSOR, DEFAULT_COUNT, MAX_COUNT
from celery_concurrency.limiter.inspect.usage import LimitUsage, Usage
from celery_concurrency.limiter.inspect.waiting import CURSOR as TICKET
from celery_concurrency.limiter.limits import limit_problem
from celery_concurrency.limiter.stats.counters import DEFAULT_WINDOW
from celery_concurrency.limiter.stats.history import DEFAULT_RESOLUTION

T = TypeVar("T")


def _without_default(schema: dict[str, Any]) -> None:
    # The empty text stands for none: it is no value to send.
    del schema["default"]


class Success(BaseModel, Generic[T]):
    """The envelope of what went well."""

    success: Literal[True]
    data: T
    message: str = Field(default="", json_schema_extra=_without_default)
    warnings: list["Mistake"] = Field(default=[], json_schema_extra=_without_default)


class Mistake(BaseModel):
    """One thing that is wrong: where, and what."""

    field: str
    problem: str


class Problem(BaseModel):
    """What is wrong: a code that programs may rely on, in words, and in detail."""

    code: str
    message: str
    details: list[Mistake]


class Failure(BaseModel):
    """The envelope of what was refused or failed."""

    success: Literal[False]
    message: str
    error: Problem


class ConfigData(Config):
    """The configuration, as it is in JSON: the others only while they say something."""

    model_config = ConfigDict(json_schema_extra={"required": [*sorted(ALWAYS_SHOWN)]})


class DimensionChange(TypedDict, total=False):
    """A change of a dimension of the user's own."""

    max: Maximum
    overrides: dict[OverrideName, Maximum | None]


class AdaptiveChange(TypedDict, total=False):
    """A change of an adaptive limit; a new one has to say ``min`` and ``max``."""

    min: Annotated[int, Field(ge=1, le=MAX_LIMIT)]
    max: Annotated[int, Field(ge=1, le=MAX_LIMIT)]
    decrease: Annotated[float, Field(gt=0, lt=1)]
    every: Annotated[int, Field(ge=1, le=MAX_EVERY)]
    mode: Mode


class ConfigChange(TypedDict, total=False):
    """A change of the configuration: just what is to change; null takes an entry out of a map."""

    global_max: Maximum
    platform_max: dict[Name, Maximum | None]
    account_max: Maximum
    task_type_max: dict[Name, Maximum | None]
    enabled: bool
    timeout: Timeout
    account_overrides: dict[OverrideName, Maximum | None]
    dimensions: dict[DimensionName, DimensionChange | None]
    paused: list[str]
    rates: dict[str, Rates | None]
    adaptive: dict[str, AdaptiveChange | None]


class Rollback(BaseModel):
    """Which version's configuration is to be in force again."""

    model_config = ConfigDict(strict=True, extra="forbid")

    # The version is the id of a stream's entry.
    version: Annotated[int, Field(ge=0, lt=2**63)]


class History(BaseModel):
    """The versions of the configuration, the newest first, and what a reset puts in force."""

    versions: list[Version]
    defaults: ConfigData


class Actions(BaseModel):
    """What operators did to tokens and waiting tasks, the newest first."""

    actions: list[Action]


class Query(BaseModel):
    """What a query may ask for; the texts below its fields describe them to callers."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class StatsQuery(Query):
    window: Literal["1h", "6h", "24h", "total"] = DEFAULT_WINDOW
    """How far to look back."""


class HistoryQuery(Query):
    resolution: Literal["1m", "5m", "1h"] = DEFAULT_RESOLUTION
    """How long an interval is."""
    window: Literal["1h", "6h", "24h"] = DEFAULT_WINDOW
    """How far to look back."""


class MetricsQuery(Query):
    accounts: bool = False
    """With the thousand busiest accounts."""


def _check_limit(limit: str) -> str:
    problem = limit_problem(limit)
    if problem:
        raise ValueError(problem)
    return limit


class PageQuery(Query):
    """Of which limit, and which page; all, and the first, where it does not say."""

    limit: Annotated[str, AfterValidator(_check_limit)] = Field(
        default="", json_schema_extra=_without_default
    )
    """Those of this limit only, as platform:douyin."""
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = DEFAULT_COUNT
    """How many on a page."""


class TokensQuery(PageQuery):
    cursor: str = Field(default="", pattern=f"^{CURSOR}$", json_schema_extra=_without_default)
    """The next of the page before."""
    worker: str = Field(default="", json_schema_extra=_without_default)
    """Those of the worker with this name only."""
    task: str = Field(default="", json_schema_extra=_without_default)
    """Those of the task with this id only, on one page."""


class IdQuery(Query):
    id: str = Field(default="", json_schema_extra=_without_default)
    """The id of the task, in place of the one in the path: browsers and proxies take ``.``
    and ``..`` there for folders."""


class WaitingQuery(PageQuery):
    cursor: str = Field(default="", pattern=f"^{TICKET}$", json_schema_extra=_without_default)
    """The next of the page before."""


class CancelQuery(Query):
    limit: Annotated[str, AfterValidator(_check_limit)]
    """All that count in this limit, as platform:douyin."""


class CooldownChange(BaseModel):
    """Which limit is to admit nobody, for how many seconds, and why."""

    model_config = ConfigDict(strict=True, extra="forbid")

    limit: str
    seconds: Annotated[float, Field(gt=0, le=MAX_SECONDS)]
    reason: Annotated[str, Field(max_length=MAX_REASON)] = Field(
        default="", json_schema_extra=_without_default
    )


class CooldownList(BaseModel):
    """The limits that cool down.

    Attributes:
        cooldowns: the last to open first.
        total: how many there are, listed or not.
    """

    cooldowns: list[Cooldown]
    total: int


class AdaptiveList(BaseModel):
    """The adaptive limits.

    Attributes:
        limits: those that moved last first, 1,000 at most.
        total: how many there are, listed or not.
    """

    limits: list[AdaptiveLimit]
    total: int


class AdaptiveQuery(Query):
    limit: Annotated[str, AfterValidator(_check_limit)]
    """The adaptive limit, as platform:douyin."""


class LiftQuery(Query):
    limit: Annotated[str, AfterValidator(_check_limit)]
    """The limit that cools down, as account:acc123."""


class Cancelled(BaseModel):
    """How many tasks were cancelled."""

    cancelled: int


class Caller(BaseModel):
    """Who makes a request.

    Attributes:
        operator: the name that changes are remembered with; None where ``authorize``
            names nobody, and ``X-Operator`` may.
        may_change: false for those who only look.
    """

    operator: str | None
    may_change: bool


class UsageData(Usage):
    """Usage, as it is in JSON."""

    global_: LimitUsage = Field(alias="global")
