"""Makes a client for a URL: of a server, of one behind sentinels, or of a cluster's node.

The clients are in ``client.py``, ``cluster.py`` and ``async_cluster.py``.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from redis import Redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from celery_concurrency.errors import ImproperlyConfigured
from celery_concurrency.limiter.async_cluster import (
    AsyncClusterClient,
    AsyncClusterConnection,
    AsyncClusterSSLConnection,
)
from celery_concurrency.limiter.client import AsyncClient, Client, new_connection
from celery_concurrency.limiter.cluster import (
    Address,
    Cluster,
    ClusterClient,
    ClusterConnection,
    ClusterSSLConnection,
)

SCHEMES: Final = ("redis", "rediss", "unix", "sentinel", "redis+cluster", "rediss+cluster")
PORT: Final = 6379
SENTINEL_PORT: Final = 26379

#: Celery writes CERT_NONE, CERT_OPTIONAL and CERT_REQUIRED, redis-py the same words without this.
_CERT_PREFIX: Final = "CERT_"


class _Family(NamedTuple):
    """The classes for one way to ask, redis-py's and ours; they are made alike."""

    # redis-py has few types.
    client: Any
    sentinel: Any
    retry: Any
    cluster_client: Any
    #: By scheme.
    cluster_connections: dict[str, Any]


_BLOCKING: Final = _Family(
    Client,
    Sentinel,
    Retry,
    ClusterClient,
    {"redis": ClusterConnection, "rediss": ClusterSSLConnection},
)
_ASYNCIO: Final = _Family(
    AsyncClient,
    AsyncSentinel,
    AsyncRetry,
    AsyncClusterClient,
    {"redis": AsyncClusterConnection, "rediss": AsyncClusterSSLConnection},
)


def connect(url: str, options: Mapping[str, Any] | None = None) -> Redis:
    """Return a client for ``url``; nothing is sent yet.

    The client repeats no command: whether a lost reply matters depends on the command
    (``scripts.call`` repeats scripts).

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, several sentinels as
            ``sentinel://host:port;sentinel://host:port/db?master_name=NAME``, or nodes of a
            Redis Cluster as ``redis+cluster://host:port,host:port`` (``rediss+cluster://``).
        options: ``master_name`` and ``sentinel_kwargs`` as in Celery's
            ``broker_transport_options``, ``ssl`` as in ``broker_use_ssl``.

    Raises:
        ImproperlyConfigured: the URL does not have one of these forms.
    """
    client: Client = _connect(url, options or {}, _BLOCKING)
    # An event loop's client asks for the same slot, and knows of the nodes what this one does.
    cluster = client.get_connection_kwargs().get("cluster")
    client.connect_async = lambda: _connect(url, options or {}, _ASYNCIO, cluster)
    return client


def _connect(
    url: str, options: Mapping[str, Any], of: _Family, cluster: Cluster | None = None
) -> Any:
    """Return a client of a family; ``cluster`` is what is known of the nodes."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise ImproperlyConfigured(
            f"concurrency_redis_url can't be {f'{scheme}://...' if rest else 'without a scheme'}: "
            f"use one of {', '.join(f'{known}://' for known in SCHEMES)}"
        )
    common: dict[str, Any] = {
        "socket_timeout": 2,
        "socket_connect_timeout": 2,
        "retry": of.retry(NoBackoff(), 0),
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
            scheme = scheme.replace("redis+", "rediss+") if "+" in scheme else "rediss"
    try:
        if scheme == "sentinel":
            client = _sentinel(url, options, common, of)
        elif scheme.endswith("+cluster"):
            client = _cluster(scheme.removesuffix("+cluster"), rest, common, of, cluster)
        else:
            _check_database(scheme, rest)
            client = of.client.from_url(_redis_py_url(f"{scheme}://{rest}"), **common)
        # redis-py refuses unknown options only when it makes a connection.
        new_connection(client)
    except (ValueError, TypeError, RedisError) as exc:
        hint = ""
        if "'ssl_" in str(exc) and not scheme.startswith("rediss"):
            hint = "; with ssl_ options it has to begin with rediss"
        raise ImproperlyConfigured(f"concurrency_redis_url is not understood: {exc}{hint}") from exc
    return client


def _sentinel(url: str, options: Mapping[str, Any], common: dict[str, Any], of: _Family) -> Any:
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
    sentinel = of.sentinel(
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
    return sentinel.master_for(str(master), redis_class=of.client)


def _cluster(
    scheme: str, rest: str, common: dict[str, Any], of: _Family, cluster: Cluster | None
) -> Any:
    parts = urlsplit(f"//{rest}")
    login, at, nodes = parts.netloc.rpartition("@")
    hosts = [urlsplit(f"//{node.strip()}") for node in nodes.split(",")]
    odd = "," in login or ";" in nodes or "//" in parts.path
    if odd or not all(host.hostname for host in hosts):
        raise ValueError("write it as redis+cluster://user:password@host:port,host:port")
    if parts.path.strip("/") not in ("", "0") or parse_qs(parts.query).get("db", ["0"]) != ["0"]:
        raise ImproperlyConfigured(
            "concurrency_redis_url names a database, and a Redis Cluster has only database 0: "
            f"leave {parts.path or 'db'} out"
        )
    query = f"?{parts.query}" if parts.query else ""
    seeds = [Address(str(host.hostname), host.port or PORT) for host in hosts]
    client = of.cluster_client.from_url(
        # Not rediss://: for that, redis.asyncio would use its own class of connections.
        _redis_py_url(f"redis://{login}{at}{hosts[0].netloc}{query}"),
        connection_class=of.cluster_connections[scheme],
        cluster=cluster or Cluster(seeds),
        **common,
    )
    # The connections look for their node themselves.
    for name in ("host", "port"):
        client.get_connection_kwargs().pop(name, None)
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
