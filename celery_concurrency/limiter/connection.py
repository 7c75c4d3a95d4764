"""Makes a client for a URL of one of four schemes. The client is in ``client.py``."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from celery_concurrency.errors import ImproperlyConfigured
from celery_concurrency.limiter.client import Client, new_connection

SCHEMES: Final = ("redis", "rediss", "unix", "sentinel")
SENTINEL_PORT: Final = 26379

#: Celery writes CERT_NONE, CERT_OPTIONAL and CERT_REQUIRED, redis-py the same words without this.
_CERT_PREFIX: Final = "CERT_"


def connect(url: str, options: Mapping[str, Any] | None = None) -> Redis:
    """Return a client for ``url``; nothing is sent yet.

    The client repeats no command: whether a lost reply matters depends on the command
    (``scripts.call`` repeats scripts).

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, or several sentinels as
            ``sentinel://host:port;sentinel://host:port/db?master_name=NAME``.
        options: ``master_name`` and ``sentinel_kwargs`` as in Celery's
            ``broker_transport_options``, ``ssl`` as in ``broker_use_ssl``.

    Raises:
        ImproperlyConfigured: the URL does not have one of these forms.
    """
    options = options or {}
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise ImproperlyConfigured(
            f"concurrency_redis_url can't be {f'{scheme}://...' if rest else 'without a scheme'}: "
            f"use one of {', '.join(f'{known}://' for known in SCHEMES)}"
        )
    common: dict[str, Any] = {
        "socket_timeout": 2,
        "socket_connect_timeout": 2,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "max_connections": 1000,
    }
    ssl = options.get("ssl")
    if ssl and scheme != "unix":
        # As in Celery, broker_use_ssl means TLS whatever the URL's scheme.
        if isinstance(ssl, Mapping):
            common.update({name: _cert_reqs(value) for name, value in ssl.items()})
        if scheme == "sentinel":
            common["ssl"] = True
        else:
            scheme = "rediss"
    try:
        if scheme == "sentinel":
            client = _sentinel(url, options, common)
        else:
            _check_database(scheme, rest)
            client = Client.from_url(_redis_py_url(f"{scheme}://{rest}"), **common)
        # redis-py refuses unknown options only when it makes a connection.
        new_connection(client)
    except (ValueError, TypeError, RedisError) as exc:
        raise ImproperlyConfigured(f"concurrency_redis_url is not understood: {exc}") from exc
    return client


def _sentinel(url: str, options: Mapping[str, Any], common: dict[str, Any]) -> Redis:
    parts = [urlsplit(part if "//" in part else f"//{part}") for part in url.split(";")]
    query = {name: values[-1] for part in parts for name, values in parse_qs(part.query).items()}
    master = query.get("master_name") or options.get("master_name")
    if not master:
        raise ImproperlyConfigured(
            "a sentinel:// URL needs the master's name: add ?master_name=NAME to "
            "concurrency_redis_url; if the URL is the broker's or the result backend's, "
            "set master_name in broker_transport_options or result_backend_transport_options"
        )
    path = next((part.path.strip("/") for part in reversed(parts) if part.path.strip("/")), "0")
    for part in parts:
        if part.username:
            common["username"] = unquote(part.username)
        if part.password:
            common["password"] = unquote(part.password)
    # redis-py's Sentinel has no types.
    sentinel_class: Any = Sentinel
    sentinel = sentinel_class(
        [(part.hostname or "localhost", part.port or SENTINEL_PORT) for part in parts],
        sentinel_kwargs={
            "socket_timeout": common["socket_timeout"],
            "socket_connect_timeout": common["socket_connect_timeout"],
            "retry": common["retry"],
            **(options.get("sentinel_kwargs") or {}),
        },
        db=int(path),
        **common,
    )
    client: Redis = sentinel.master_for(str(master), redis_class=Client)
    return client


def _check_database(scheme: str, rest: str) -> None:
    # redis-py would use database 0 if the database is not a number.
    database = urlsplit(f"//{rest}").path.strip("/")
    if scheme != "unix" and database and not database.isdecimal():
        raise ValueError(f"{database!r} is not a database number")


def _redis_py_url(url: str) -> str:
    for value in ("NONE", "OPTIONAL", "REQUIRED"):
        url = url.replace(f"={_CERT_PREFIX}{value}", f"={value.lower()}")
    return url


def _cert_reqs(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_CERT_PREFIX):
        return value.removeprefix(_CERT_PREFIX).lower()
    return value
