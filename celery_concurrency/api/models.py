"""The API's own models of queries, bodies and answers.

The limiter's models are in ``limiter/config/schema.py``, ``limiter/inspect/usage.py`` and its
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
    MAX_PERIOD,
    Config,
    DimensionName,
    Name,
    OverrideName,
    Rates,
    Timeout,
    Weight,
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
    # The empty text stands for none; clients don't send it.
    del schema["default"]


class Success(BaseModel, Generic[T]):
    """The envelope of a success."""

    success: Literal[True]
    data: T
    message: str = Field(default="", json_schema_extra=_without_default)
    warnings: list["Mistake"] = Field(default=[], json_schema_extra=_without_default)


class Mistake(BaseModel):
    """One mistake: where it is and what it is."""

    field: str
    problem: str


class Problem(BaseModel):
    """What is wrong: a stable code for programs, a message for people, and details."""

    code: str
    message: str
    details: list[Mistake]


class Failure(BaseModel):
    """The envelope of a refusal or a failure."""

    success: Literal[False]
    message: str
    error: Problem


class ConfigData(Config):
    """The configuration in JSON; fields beyond the first six are there only if they are set."""

    model_config = ConfigDict(json_schema_extra={"required": [*sorted(ALWAYS_SHOWN)]})


class DimensionChange(TypedDict, total=False):
    """A change of one of the user's own dimensions."""

    max: Maximum
    overrides: dict[OverrideName, Maximum | None]
    fair: bool
    weights: dict[OverrideName, Weight | None]


class FairChange(TypedDict, total=False):
    """A change of ``account`` or ``platform`` as the fair dimension."""

    weights: dict[OverrideName, Weight | None]


class AdaptiveChange(TypedDict, total=False):
    """A change of an adaptive limit; a new one needs ``min`` and ``max``."""

    min: Annotated[int, Field(ge=1, le=MAX_LIMIT)]
    max: Annotated[int, Field(ge=1, le=MAX_LIMIT)]
    decrease: Annotated[float, Field(gt=0, lt=1)]
    every: Annotated[int, Field(ge=1, le=MAX_EVERY)]
    mode: Mode


class BoundsChange(TypedDict, total=False):
    """A change of the bounds on waiting for a limit; null removes one."""

    most: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None
    seconds: Annotated[int, Field(ge=1, le=MAX_PERIOD)] | None


class ConfigChange(TypedDict, total=False):
    """A change of the configuration: only what to change; null removes an entry from a map."""

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
    waiting: dict[str, BoundsChange | None]
    fair: dict[Literal["account", "platform"], FairChange | None]


class Rollback(BaseModel):
    """The version whose configuration to put in force again."""

    model_config = ConfigDict(strict=True, extra="forbid")

    # The version is the id of an entry in a stream.
    version: Annotated[int, Field(ge=0, lt=2**63)]


class History(BaseModel):
    """The versions of the configuration, the newest first, and the defaults for a reset."""

    versions: list[Version]
    defaults: ConfigData


class Actions(BaseModel):
    """What operators did to tokens and waiting tasks, the newest first."""

    actions: list[Action]


class Query(BaseModel):
    """A query's parameters; the texts below the fields describe them to callers."""

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
    """Include the thousand busiest accounts."""


def _check_limit(limit: str) -> str:
    problem = limit_problem(limit)
    if problem:
        raise ValueError(problem)
    return limit


class PageQuery(Query):
    """Which limit and which page; by default all limits and the first page."""

    limit: Annotated[str, AfterValidator(_check_limit)] = Field(
        default="", json_schema_extra=_without_default
    )
    """Only those of this limit, such as platform:douyin."""
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = DEFAULT_COUNT
    """How many per page."""


class TokensQuery(PageQuery):
    cursor: str = Field(default="", pattern=f"^{CURSOR}$", json_schema_extra=_without_default)
    """The next of the page before."""
    worker: str = Field(default="", json_schema_extra=_without_default)
    """Those of the worker with this name only."""
    task: str = Field(default="", json_schema_extra=_without_default)
    """Only those of the task with this id, on one page."""


class IdQuery(Query):
    id: str = Field(default="", json_schema_extra=_without_default)
    """The id of the task, in place of the one in the path: browsers and proxies take ``.``
    and ``..`` there for folders."""


class WaitingQuery(PageQuery):
    cursor: str = Field(default="", pattern=f"^{TICKET}$", json_schema_extra=_without_default)
    """The next of the page before."""


class CancelQuery(Query):
    limit: Annotated[str, AfterValidator(_check_limit)]
    """All tasks that count in this limit, such as platform:douyin."""


class CooldownChange(BaseModel):
    """The limit to cool down, for how many seconds, and why."""

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
        limits: the latest to move first, 1,000 at most.
        total: how many there are, listed or not.
    """

    limits: list[AdaptiveLimit]
    total: int


class AdaptiveQuery(Query):
    limit: Annotated[str, AfterValidator(_check_limit)]
    """The adaptive limit, such as platform:douyin."""


class LiftQuery(Query):
    limit: Annotated[str, AfterValidator(_check_limit)]
    """The limit that cools down, such as account:acc123."""


class Cancelled(BaseModel):
    """How many tasks were cancelled."""

    cancelled: int


class Caller(BaseModel):
    """Who makes a request.

    Attributes:
        operator: the name recorded with changes; None if ``authorize`` names nobody, so that
            ``X-Operator`` may.
        may_change: false for callers who may only look.
    """

    operator: str | None
    may_change: bool


class UsageData(Usage):
    """Usage in JSON."""

    global_: LimitUsage = Field(alias="global")
