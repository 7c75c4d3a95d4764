"""The client's calls of scripts: each on a connection that no other call uses meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import (
    ConnectionError,
    NoScriptError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter import client as client_module
from celery_concurrency.limiter.client import Client
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.server import Server
from tests.support.patience import impatient
from tests.support.proxies import Proxy
from tests.support.workers import wait_for

DB = 14
ECHO = "return ARGV[1]"


@pytest.fixture
def url(server: Server, redis: Redis) -> str:
    """Of a database of these tests alone: clients of others may still be connected."""
    return server.url(DB)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    client = connect(url)
    assert isinstance(client, Client)
    yield client
    client.close()


def connections(redis: Redis) -> set[str]:
    """Return the ids of those that call scripts."""
    ours = (one for one in redis.client_list() if one["db"] == str(DB))
    return {one["id"] for one in ours if one["cmd"] == "evalsha"}


@pytest.mark.parametrize(
    "part", ["can_read", "connect", "disconnect", "read_response", "send_packed_command"]
)
def test_an_undocumented_part_of_redis_py_is_there(client: Client, part: str) -> None:
    pool = client.connection_pool
    connection = pool.connection_class(**pool.connection_kwargs)
    assert callable(getattr(connection, part))


@pytest.mark.parametrize(
    "command", [("EVALSHA", "a" * 40, 1, "key", "", -7, "\u6296\u97f3", b"\0\xff"), ("PING",)]
)
def test_a_command_is_packed_as_redis_py_packs_it(client: Client, command: tuple[Any, ...]) -> None:
    theirs = client_module.new_connection(client).pack_command(*command)
    assert client_module.packed(command) == b"".join(theirs)


def test_calls_share_a_connection(client: Client, redis: Redis) -> None:
    sha = redis.script_load(ECHO)
    for number in range(20):
        assert client.evalsha(sha, 0, number) == str(number).encode()
    assert len(connections(redis)) == 1


def test_calls_at_once_have_connections_of_their_own(client: Client, redis: Redis) -> None:
    sha = redis.script_load(ECHO)
    wrong = []

    def call(name: str) -> None:
        for number in range(300):
            text = f"{name} {number}"
            if client.evalsha(sha, 0, text) != text.encode():
                wrong.append(text)

    threads = [threading.Thread(target=call, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert 1 <= len(connections(redis)) <= 4


def test_a_connection_that_the_server_closed_loses_no_call(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server's own time-out, or a proxy's: seen before anything is sent on it."""
    monkeypatch.setattr(client_module, "IDLE_SECONDS", 0)
    sha = redis.script_load(ECHO)
    client.evalsha(sha, 0, "a")
    (one,) = connections(redis)
    redis.client_kill_filter(_id=one)
    wait_for(lambda: not connections(redis))
    assert client.evalsha(sha, 0, "b") == b"b"


def test_a_call_whose_connection_goes_is_told_so_and_the_next_one_connects(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "IDLE_SECONDS", 600)
    sha = redis.script_load(ECHO)
    client.evalsha(sha, 0, "a")
    redis.client_kill_filter(_id=next(iter(connections(redis))))
    wait_for(lambda: not connections(redis))
    with pytest.raises(ConnectionError):
        client.evalsha(sha, 0, "b")
    assert client.evalsha(sha, 0, "c") == b"c"


def test_a_reply_that_came_too_late_is_nobodys(server: Server, redis: Redis) -> None:
    proxy = Proxy(server.port)
    client = connect(f"redis://127.0.0.1:{proxy.port}/{DB}")
    assert isinstance(client, Client)
    sha = redis.script_load(ECHO)
    assert client.evalsha(sha, 0, "in time") == b"in time"
    proxy.part()
    with impatient(client, 0.5), pytest.raises(TimeoutError):
        client.evalsha(sha, 0, "late")
    proxy.join()
    for number in range(3):
        assert client.evalsha(sha, 0, number) == str(number).encode()
    client.close()
    proxy.close()


@pytest.mark.parametrize("moment", ["send_packed_command", "read_response"])
def test_a_reply_is_nobodys_after_a_time_limit_struck(
    client: Client, redis: Redis, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Between any two steps of a call: what was sent is answered to nobody else."""
    sha = redis.script_load(ECHO)
    client.evalsha(sha, 0, "a")
    (one, _) = client._idle[0]
    original = getattr(one, moment)

    def struck(*args: object, **kwargs: object) -> None:
        if moment == "send_packed_command":
            original(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(one, moment, struck)
        with pytest.raises(KeyboardInterrupt):
            client.evalsha(sha, 0, "b")
    assert client.evalsha(sha, 0, "c") == b"c"


def test_a_fork_does_not_share_connections(client: Client, redis: Redis) -> None:
    sha = redis.script_load(ECHO)
    client.evalsha(sha, 0, "a")
    child = os.fork()
    if child == 0:
        right = all(client.evalsha(sha, 0, n) == str(n).encode() for n in range(300))
        os._exit(0 if right else 1)
    assert all(client.evalsha(sha, 0, -n) == str(-n).encode() for n in range(300))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.evalsha(sha, 0, "b") == b"b"


def test_what_the_server_refuses_leaves_the_connection(client: Client, redis: Redis) -> None:
    sha = redis.script_load(ECHO)
    client.evalsha(sha, 0, "a")
    before = connections(redis)
    with pytest.raises(NoScriptError):
        client.evalsha("0" * 40, 0)
    assert client.evalsha(sha, 0, "b") == b"b"
    assert connections(redis) == before


def test_a_script_that_is_refused_midway_leaves_the_connection(
    client: Client, redis: Redis
) -> None:
    sha = redis.script_load("return redis.call('NOSUCH')")
    for _ in range(2):
        with pytest.raises(ResponseError, match="Unknown"):
            client.evalsha(sha, 0)
    assert len(connections(redis)) == 1


def test_a_client_that_is_closed_leaves_no_connection(url: str, redis: Redis) -> None:
    client = connect(url)
    client.evalsha(redis.script_load(ECHO), 0, "a")
    client.ping()
    client.close()
    wait_for(lambda: not connections(redis))


@pytest.mark.parametrize(
    "name", ["can_read", "connect", "disconnect", "read_response", "send_packed_command"]
)
def test_what_the_client_uses_of_a_raw_connection_is_there(redis_url: str, name: str) -> None:
    client = connect(redis_url)
    assert callable(getattr(client_module.new_connection(client), name))


@pytest.mark.parametrize("name", ["connection_class", "connection_kwargs"])
def test_what_the_client_uses_of_a_pool_is_there(redis_url: str, name: str) -> None:
    assert hasattr(connect(redis_url).connection_pool, name)


def test_errors_of_commands_and_pipelines_are_ours(redis_url: str) -> None:
    client = connect(redis_url)
    client.set("text", "a")
    pipe = client.pipeline(transaction=False)
    pipe.zcard("text")
    for ask in (lambda: client.zcard("text"), pipe.execute):
        with pytest.raises(LimiterUnavailable, match="WRONGTYPE") as caught:
            ask()
        assert isinstance(caught.value.__cause__, ResponseError)
        assert isinstance(caught.value, RedisError), "whoever uses the client itself catches these"


def test_a_transaction_that_was_overtaken_is_tried_again(redis_url: str, redis: Redis) -> None:
    client = connect(redis_url)
    others = iter(["b"])

    def append(pipe: Pipeline) -> None:
        text = pipe.get("text")
        for other in others:
            redis.set("text", other)
        pipe.multi()
        pipe.set("text", f"{(text or b'').decode()}!")

    client.set("text", "a")
    client.transaction(append, "text")
    assert redis.get("text") == "b!"


@pytest.mark.parametrize("verb", ["eval", "evalsha"])
def test_errors_of_scripts_are_those_of_redis_py(redis_url: str, redis: Redis, verb: str) -> None:
    """``scripts.call`` tells a lost reply by them, and sends the script again."""
    script = "return redis.call('NOSUCH')"
    named = redis.script_load(script) if verb == "evalsha" else script
    with pytest.raises(ResponseError, match="Unknown") as caught:
        getattr(connect(redis_url), verb)(named, 0)
    assert not isinstance(caught.value, LimiterUnavailable)


SENTINELS = "sentinel://user:p%40ss@s1:26379;sentinel://s2:26380/3?master_name=mymaster"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://user:p%40ss@a:1/2", {}),
        ("rediss://a:1/2?ssl_cert_reqs=CERT_NONE", {}),
        ("redis://a:1/2", {"ssl": {"ssl_cert_reqs": "CERT_OPTIONAL", "ssl_ca_certs": "/ca.pem"}}),
        ("unix:///tmp/redis.sock?db=2", {}),
        (SENTINELS, {"sentinel_kwargs": {"password": "other"}}),
        (SENTINELS, {"ssl": True}),
        ("redis+cluster://user:p%40ss@a:1,b:2", {}),
        ("rediss+cluster://a:1?ssl_cert_reqs=CERT_NONE", {}),
        ("redis+cluster://a:1", {"ssl": {"ssl_cert_reqs": "CERT_OPTIONAL"}}),
    ],
)
def test_the_client_of_an_event_loop_connects_as_the_one_that_blocks(
    url: str, options: dict[str, Any]
) -> None:
    blocking = connect(url, options)
    assert isinstance(blocking, Client)
    assert blocking.connect_async
    mine, theirs = blocking.connection_pool, blocking.connect_async().connection_pool
    ways = [_way(pool.connection_class) for pool in (mine, theirs)]
    assert [way.__name__ for way in ways] == 2 * [ways[0].__name__]
    assert [way.__module__ for way in ways] == [
        f"redis.{family}{ways[0].__module__.removeprefix('redis.')}" for family in ("", "asyncio.")
    ]
    told = [
        {name: value for name, value in pool.connection_kwargs.items() if _is_told(value)}
        for pool in (mine, theirs)
    ]
    assert told[0] == told[1]
    sentinels = [_hosts(getattr(pool, "sentinel_manager", None)) for pool in (mine, theirs)]
    assert sentinels[0] == sentinels[1]


def _way(connection_class: type) -> type:
    """Return the class of redis-py's that a class of connections is, or that it extends."""
    return next(one for one in connection_class.__mro__ if one.__module__.startswith("redis."))


def _is_told(value: object) -> bool:
    # redis-py 5.2 says of one of them alone that it does not do something.
    return isinstance(value, int | float | str) and value is not False


def _hosts(manager: Any) -> list[Any]:
    pools = [one.connection_pool for one in manager.sentinels] if manager else []
    return [
        {name: value for name, value in pool.connection_kwargs.items() if _is_told(value)}
        for pool in pools
    ]
