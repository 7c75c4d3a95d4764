"""The Celery settings of celery-concurrency, their defaults and valid values.

Settings that change at run time are in ``limiter/config/schema.py``.
"""

from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from celery_concurrency.errors import ImproperlyConfigured, InvalidConfig
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.limiter import DEFAULT_PREFIX
from celery_concurrency.worker.namespaces import (
    DEFAULT,
    Namespace,
    Namespaces,
    check_apart,
    chosen,
)
from celery_concurrency.worker.refusal_settings import RefusalEntries, problem_of

PREFIX: Final = "concurrency_"

#: How Celery spells a Redis URL, and how we do.
_SCHEMES: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "sentinel": "sentinel",
    "unix": "unix",
    "redis+socket": "unix",
    "socket": "unix",
}


#: Fields that are no settings.
_NOT_SET: Final = ("redis_options", "namespace")
_NAMESPACES: Final = TypeAdapter(Namespaces)


class Settings(BaseModel):
    """An app's settings, ``concurrency_…`` in its Celery configuration.

    Attributes:
        redis_url: the Redis that holds the tokens; by default the broker if that is Redis, else
            the result backend.
        redis_options: options that a broker's or result backend's URL can't express (see
            ``connection.connect``); not a setting.
        key_prefix: the prefix of all Redis keys.
        waiting: how a denied task waits: ``retry`` by countdown, ``handoff`` in the
            waiting room, ``auto`` there if the broker is the Redis that holds the tokens.
        park_on_receipt: whether the main process parks a task whose limits others wait for.
        retry_countdown: seconds until a denied task asks again.
        handoff_timeout: seconds that handed-over room stays reserved while no task begins.
        worker_timeout: seconds of silence after which a worker's tokens are taken back.
        on_lost: what happens to a living run whose tokens were taken back: ``log`` or
            ``terminate``.
        redis_unavailable: what a task does while Redis is away: ``retry`` or ``run``.
        exempt: globs of task names that are never gated.
        refusals: exceptions that mean that a platform refused the run (``refusal_settings.py``).
        namespaces: queues with limits in a Redis of their own (``namespaces.py``).
        default_config: changes to the built-in default configuration.
        namespace: the one that this process serves; not a setting.
    """

    model_config = ConfigDict(frozen=True)

    redis_url: Annotated[str, Field(min_length=1)]
    redis_options: dict[str, Any] = {}
    key_prefix: Annotated[str, Field(min_length=1)] = DEFAULT_PREFIX
    waiting: Literal["auto", "retry", "handoff"] = "auto"
    park_on_receipt: Annotated[bool, Field(strict=True)] = True
    # Strict, so that True does not count as a second.
    retry_countdown: Annotated[float, Field(strict=True, gt=0, le=86_400)] = 30
    handoff_timeout: Annotated[float, Field(strict=True, ge=1, le=86_400)] = 30
    worker_timeout: Annotated[float, Field(strict=True, ge=5, le=86_400)] = 30
    on_lost: Literal["log", "terminate"] = "log"
    redis_unavailable: Literal["retry", "run"] = "retry"
    exempt: tuple[str, ...] = ()
    refusals: RefusalEntries = {}
    namespaces: Namespaces = {}
    default_config: dict[str, Any] = {}
    namespace: str = DEFAULT

    @classmethod
    def of(cls, conf: Any, namespace: str | None = None) -> Self:
        """Read the settings of an app.

        Args:
            conf: ``app.conf``, which has no types.
            namespace: whose Redis and prefix to use; None for what the environment says.

        Raises:
            ImproperlyConfigured: names the setting and its valid values.
        """
        names = [name for name in cls.model_fields if name not in _NOT_SET]
        _refuse_others(conf, names)
        given = {name: conf[PREFIX + name] for name in names if conf.get(PREFIX + name) is not None}
        given |= _own(namespaces_in(conf), namespace)
        if "redis_url" not in given:
            given["redis_url"], given["redis_options"] = _redis_of(conf)
        try:
            settings = cls.model_validate(given)
            Config().merged(settings.default_config)
        except ValidationError as exc:
            error = exc.errors()[0]
            if error["loc"][0] == "refusals" and len(error["loc"]) > 1:
                raise ImproperlyConfigured(problem_of(error)) from None
            raise ImproperlyConfigured(_problem(PREFIX, error)) from None
        except InvalidConfig as exc:
            raise ImproperlyConfigured(f"{PREFIX}default_config: {exc}") from None
        return settings

    @property
    def redis_setting(self) -> str:
        """The setting by which ``redis_url`` is changed, for errors."""
        own = self.namespaces.get(self.namespace)
        is_own = own is not None and own.redis_url is not None
        return f"{PREFIX}namespaces.{self.namespace}.redis_url" if is_own else f"{PREFIX}redis_url"


def namespaces_in(conf: Any) -> Namespaces:
    """Read one setting alone: a worker has to know it before it knows which are its others.

    Raises:
        ImproperlyConfigured: it is wrong.
    """
    try:
        namespaces = _NAMESPACES.validate_python(conf.get(f"{PREFIX}namespaces") or {})
    except ValidationError as exc:
        error = exc.errors()[0]
        raise ImproperlyConfigured(_problem(f"{PREFIX}namespaces.", error)) from None
    check_apart(namespaces, _default_of(conf))
    return namespaces


def _default_of(conf: Any) -> Namespace:
    """Return the namespace of all other queues; its Redis only if the app names it."""
    url = conf.get(f"{PREFIX}redis_url") or ""
    prefix = conf.get(f"{PREFIX}key_prefix") or DEFAULT_PREFIX
    # Not checked yet: what is no text is told later.
    return Namespace.model_construct(queues=(), redis_url=str(url), key_prefix=str(prefix))


def _own(namespaces: Namespaces, name: str | None) -> dict[str, str]:
    """Return the settings that a process has by its namespace."""
    name = chosen(namespaces, name)
    own = (
        namespaces[name].model_dump(exclude={"queues"}, exclude_none=True)
        if name in namespaces
        else {}
    )
    return {**own, "namespace": name}


def _problem(start: str, error: Any) -> str:
    name = start + ".".join(str(part) for part in error["loc"])
    problem, value = error["msg"].removeprefix("Value error, "), repr(error["input"])
    # A URL may have a password in it.
    shown = "" if "://" in value else f" is {value}"
    return f"{name.removesuffix('.')}{shown}: {problem}"


def _refuse_others(conf: Any, known: list[str]) -> None:
    """Refuse unknown settings that begin with our prefix: a misspelt one would have no effect.

    With a namespace, a name without the namespace's prefix belongs to another package, unless it
    was set on ``app.conf`` itself. Functions and classes in a settings module are not settings.
    """
    keys = list(conf)  # reads the configuration; before that its prefix is unknown
    namespace = (conf.prefix or "").lower()
    for key in keys:
        prefix = namespace if key.lower().startswith(namespace) else ""
        name = key.lower().removeprefix(prefix)
        if not name.startswith(PREFIX) or name.removeprefix(PREFIX) in known:
            continue
        if prefix == namespace or key in conf.changes:
            if callable(conf[key]):
                continue
            close = get_close_matches(name.removeprefix(PREFIX), known, n=1) or known
            names = [f"{prefix}{PREFIX}{one}" for one in close]
            meant = ", ".join(one.upper() if prefix else one for one in names)
            raise ImproperlyConfigured(f"{key} is not a setting; use {meant}")


def _redis_of(conf: Any) -> tuple[str, dict[str, Any]]:
    """Return the URL of the broker or the result backend, and its connection options."""
    # Attributes, not keys: only attributes also read CELERY_BROKER_URL and the like, where
    # `celery -b URL` is kept.
    for url, options, ssl in (
        ("broker_read_url", "broker_transport_options", "broker_use_ssl"),
        ("result_backend", "result_backend_transport_options", "redis_backend_use_ssl"),
    ):
        value = getattr(conf, url)
        text = ";".join(value) if isinstance(value, list | tuple) else str(value or "")
        scheme, colon, rest = text.partition("://")
        if colon and scheme in _SCHEMES:
            if scheme != "sentinel":
                rest = rest.partition(";")[0]  # the rest are the broker's fail-over URLs
            if _SCHEMES[scheme] == "unix":
                rest = rest.replace("virtual_host=", "db=")
            return f"{_SCHEMES[scheme]}://{rest}", {
                **(conf.get(options) or {}),
                "ssl": conf.get(ssl),
            }
    raise ImproperlyConfigured(
        "neither the broker nor the result backend is Redis, so set concurrency_redis_url "
        "to the Redis that will hold the tokens, such as 'redis://localhost:6379/0'"
    )
