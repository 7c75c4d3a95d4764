"""The limiter's way to Redis: from a URL (of four schemes) to a client that suits it.

Commands go through redis-py's pool, scripts through connections of the client's own.

How a script is called, and called again, is in ``scripts/__init__.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel

from celery_concurrency.errors import ImproperlyConfigured, LimiterUnavailable

SCHEMES: Final = ("redis", "rediss", "unix", "sentinel")
SENTINEL_PORT: Final = 26379
#: A connection that lay idle for longer is looked at before it is used.
IDLE_SECONDS: Final = 1.0

#: Celery writes CERT_NONE, CERT_OPTIONAL or CERT_REQUIRED where redis-py takes these.
_CERT_PREFIX: Final = "CERT_"


class Client(Redis):
    """A client whose errors are ours, and whose scripts have connections of their own.

    redis-py does much around each command (the pool's look at the connection, retries,
    observability). The scripts need none of it, and half of a call's time went there.

    Raises:
        LimiterUnavailable: from each command, and each pipeline's ``execute``, where Redis
            can't be asked. ``evalsha`` alone raises redis-py's own errors.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Idle connections of the scripts, and since when. A list's push and pop are atomic.
        self._idle: list[tuple[Any, float]] = []
        self._pid = os.getpid()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command; see the class for what it raises."""
        with _our_errors():
            # redis-py has no types here.
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Return a pipeline; see the class for what it raises."""
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Call a script; another thread's call takes another connection.

        ``Connection.send_command``, ``read_response``, ``connect`` and ``disconnect``, which
        redis-py does not document: 5.2 to 8.1. Without them no script can be called.

        Raises:
            RedisError: as of ``Redis.evalsha``.
        """
        if self._pid != os.getpid():
            # After a fork the parent's connections would give us its replies.
            self._idle, self._pid = [], os.getpid()
        connection = self._connection()
        try:
            connection.send_command("EVALSHA", sha, numkeys, *keys_and_args, check_health=False)
            reply = connection.read_response()
        except ResponseError:
            self._idle.append((connection, time.monotonic()))
            raise
        except BaseException:
            # Also a time limit, which strikes anywhere: no other call may read this reply.
            connection.disconnect()
            raise
        self._idle.append((connection, time.monotonic()))
        return reply

    def _connection(self) -> Any:
        """Return a connection that nobody else uses, connected to the current master."""
        try:
            connection, since = self._idle.pop()
        except IndexError:
            connection = _new_connection(self)
        else:
            if time.monotonic() - since > IDLE_SECONDS:
                _drop_if_closed(connection)
        # send_command alone would connect to the former master.
        connection.connect()
        return connection

    def close(self) -> None:
        """Close the connections of the scripts, too."""
        super().close()
        while self._idle:
            self._idle.pop()[0].disconnect()


class _Pipeline(Pipeline):
    """A pipeline of ``Client``: its errors are ours."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        with _our_errors():
            return super().execute(raise_on_error)


@contextmanager
def _our_errors() -> Iterator[None]:
    """Raise ``LimiterUnavailable`` for any of redis-py's errors."""
    try:
        yield
    except RedisError as exc:
        raise LimiterUnavailable(
            f"Redis can't be asked ({exc}); check that it runs "
            "and that concurrency_redis_url is right"
        ) from exc


def _new_connection(client: Redis) -> Any:
    """Return a connection like those of the client's pool, outside of it.

    ``connection_class`` and ``connection_kwargs`` of the pool, which redis-py does not document:
    5.2 to 8.1. Without them no client can be made.
    """
    pool = client.connection_pool
    return pool.connection_class(**pool.connection_kwargs)


def _drop_if_closed(connection: Any) -> None:
    """Close a connection that the server has closed: what is sent on it would be lost.

    ``Connection.can_read``, which redis-py does not document: 5.2 to 8.1. Without it no script
    can be called.
    """
    try:
        stale = connection.can_read(timeout=0)
    except (RedisError, OSError):
        stale = True
    if stale:
        connection.disconnect()


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
        ImproperlyConfigured: the URL is of no such form.
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
        # As in Celery, broker_use_ssl means TLS whatever the URL's scheme says.
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
        # What redis-py does not know it says when it makes a connection, not before.
        _new_connection(client)
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
            "concurrency_redis_url, or, where the URL is the broker's or the result backend's, "
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
            **(options.get("sentinel_kwargs") or {}),
        },
        db=int(path),
        **common,
    )
    client: Redis = sentinel.master_for(str(master), redis_class=Client)
    return client


def _check_database(scheme: str, rest: str) -> None:
    # redis-py takes a database that is no number for number 0.
    database = urlsplit(f"//{rest}").path.strip("/")
    if scheme != "unix" and database and not database.isdecimal():
        raise ValueError(f"{database!r} is no database number")


def _redis_py_url(url: str) -> str:
    for value in ("NONE", "OPTIONAL", "REQUIRED"):
        url = url.replace(f"={_CERT_PREFIX}{value}", f"={value.lower()}")
    return url


def _cert_reqs(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_CERT_PREFIX):
        return value.removeprefix(_CERT_PREFIX).lower()
    return value
