"""The Celery settings of celery-concurrency: their defaults, and what may be in them.

What changes at run time is in ``limiter/config/schema.py``.
"""

from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from celery_concurrency.errors import ImproperlyConfigured, InvalidConfig
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.limiter import DEFAULT_PREFIX
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


class Settings(BaseModel):
    """An app's settings, ``concurrency_…`` in its Celery configuration.

    Attributes:
        redis_url: where tokens live; the broker's if that is Redis, else the
            result backend's.
        redis_options: what a broker's or result backend's URL can't say (see
            ``connection.connect``); no setting of its own.
        key_prefix: of all Redis keys.
        waiting: how a denied task waits: ``retry`` by countdown, ``handoff`` in the
            waiting room, ``auto`` there if the broker is the Redis that holds the tokens.
        park_on_receipt: the main process parks a task whose limits others wait for already.
        retry_countdown: seconds until a denied task asks again.
        handoff_timeout: seconds for which a hand-over stays reserved while no task begins.
        worker_timeout: seconds of silence after which a worker's tokens are taken back.
        on_lost: what happens to a run whose tokens were taken back all the same.
        redis_unavailable: what a task does while Redis is away: ``retry`` or ``run``.
        exempt: task-name globs that are never gated.
        refusals: exceptions that say that a platform refused the run (``refusal_settings.py``).
        default_config: changes to the built-in default configuration.
    """

    model_config = ConfigDict(frozen=True)

    redis_url: Annotated[str, Field(min_length=1)]
    redis_options: dict[str, Any] = {}
    key_prefix: Annotated[str, Field(min_length=1)] = DEFAULT_PREFIX
    waiting: Literal["auto", "retry", "handoff"] = "auto"
    park_on_receipt: Annotated[bool, Field(strict=True)] = True
    # Strict, so that True is no second.
    retry_countdown: Annotated[float, Field(strict=True, gt=0, le=86_400)] = 30
    handoff_timeout: Annotated[float, Field(strict=True, ge=1, le=86_400)] = 30
    worker_timeout: Annotated[float, Field(strict=True, ge=5, le=86_400)] = 30
    on_lost: Literal["log", "terminate"] = "log"
    redis_unavailable: Literal["retry", "run"] = "retry"
    exempt: tuple[str, ...] = ()
    refusals: RefusalEntries = {}
    default_config: dict[str, Any] = {}

    @classmethod
    def of(cls, conf: Any) -> Self:
        """Read the settings of an app.

        Args:
            conf: ``app.conf``, which has no types.

        Raises:
            ImproperlyConfigured: names the setting, and what may be in it.
        """
        names = [name for name in cls.model_fields if name != "redis_options"]
        _refuse_others(conf, names)
        given = {name: conf[PREFIX + name] for name in names if conf.get(PREFIX + name) is not None}
        if "redis_url" not in given:
            given["redis_url"], given["redis_options"] = _redis_of(conf)
        try:
            settings = cls.model_validate(given)
            Config().merged(settings.default_config)
        except ValidationError as exc:
            error = exc.errors()[0]
            if error["loc"][0] == "refusals" and len(error["loc"]) > 1:
                raise ImproperlyConfigured(problem_of(error)) from None
            name = PREFIX + ".".join(map(str, error["loc"]))
            raise ImproperlyConfigured(f"{name} is {error['input']!r}: {error['msg']}") from None
        except InvalidConfig as exc:
            raise ImproperlyConfigured(f"{PREFIX}default_config: {exc}") from None
        return settings


def _refuse_others(conf: Any, known: list[str]) -> None:
    """Refuse unknown settings that begin as ours do: a misspelt one would do nothing.

    Where there is a namespace, a name without its prefix is another package's, unless it was
    set on ``app.conf`` itself. Functions and classes in a settings module are no settings.
    """
    keys = list(conf)  # before it is read, the configuration knows no prefix
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
            raise ImproperlyConfigured(f"{key} is no setting; there is {meant}")


def _redis_of(conf: Any) -> tuple[str, dict[str, Any]]:
    """Return the URL of the broker or the result backend, and what goes with it."""
    # Attributes and not keys: these also know CELERY_BROKER_URL and the like, in
    # which `celery -b URL` is kept.
    for url, options, ssl in (
        ("broker_read_url", "broker_transport_options", "broker_use_ssl"),
        ("result_backend", "result_backend_transport_options", "redis_backend_use_ssl"),
    ):
        value = getattr(conf, url)
        text = ";".join(value) if isinstance(value, list | tuple) else str(value or "")
        scheme, colon, rest = text.partition("://")
        if colon and scheme in _SCHEMES:
            if scheme != "sentinel":
                rest = rest.partition(";")[0]  # the others are where the broker fails over to
            if _SCHEMES[scheme] == "unix":
                rest = rest.replace("virtual_host=", "db=")
            return f"{_SCHEMES[scheme]}://{rest}", {
                **(conf.get(options) or {}),
                "ssl": conf.get(ssl),
            }
    raise ImproperlyConfigured(
        "neither the broker nor the result backend is Redis, so set concurrency_redis_url "
        "to the Redis that is to hold the tokens, as 'redis://localhost:6379/0'"
    )
