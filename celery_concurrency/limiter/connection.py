"""The limiter's way to Redis: from a URL (of four schemes) to a client that suits it.

Commands go by redis-py's pool, the scripts by connections of the client's own; whatever
goes wrong with the former is said in our terms by ``asking``, with the latter by
``scripts.call``.

What is called, and called again, is in ``scripts/__init__.py``.
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
    """A client whose scripts go straight to a connection that is kept for them.

    Of what redis-py does around each command (the pool's look at the connection, retries,
    observability) the scripts need nothing, and half of a call's time in the client went there.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Connections with no call under way, and since when. A list's push and pop are atomic.
        self._idle: list[tuple[Any, float]] = []
        self._pid = os.getpid()

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Call a script; another thread's call takes another connection.

        Raises:
            RedisError: as of ``Redis.evalsha``.
        """
        if self._pid != os.getpid():
            # The parent's connections, whose replies it would take from us and we from it.
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
        """Return a connection that nobody else uses, connected to where the master is now.

        Raises:
            ConnectionError, TimeoutError: the server can't be reached.
        """
        try:
            connection, since = self._idle.pop()
        except IndexError:
            connection = _new_connection(self)
        else:
            if time.monotonic() - since > IDLE_SECONDS:
                _drop_if_closed(connection)
        # Left to send_command, redis-py would connect to where the master was before.
        connection.connect()
        return connection

    def close(self) -> None:
        """Close the connections of the scripts, too."""
        super().close()
        while self._idle:
            self._idle.pop()[0].disconnect()


def _new_connection(client: Redis) -> Any:
    """Return a connection like those of a client's pool, but not counted there: it keeps none."""
    pool = client.connection_pool
    return pool.connection_class(**pool.connection_kwargs)


def _drop_if_closed(connection: Any) -> None:
    """Close a connection that the server has closed: what is sent on it would be lost."""
    try:
        stale = connection.can_read(timeout=0)
    except (RedisError, OSError):
        stale = True
    if stale:
        connection.disconnect()


def connect(url: str, options: Mapping[str, Any] | None = None) -> Redis:
    """Return a client for ``url``; nothing is sent yet.

    The client repeats no command by itself: only who knows what a command does
    can say whether a lost reply matters (``scripts.call`` does).

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


@contextmanager
def asking() -> Iterator[None]:
    """Around commands: say in our terms that Redis can't be asked.

    Raises:
        LimiterUnavailable: for any of redis-py's errors.
    """
    try:
        yield
    except RedisError as exc:
        raise LimiterUnavailable(
            f"Redis can't be asked ({exc}); check that it runs "
            "and that concurrency_redis_url is right"
        ) from exc


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
            "retry": common["retry"],
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
