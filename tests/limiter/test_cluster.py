"""Which node of a Redis Cluster is asked, by what other nodes say; no server is needed."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import ConnectionError, RedisError

from celery_concurrency.errors import ImproperlyConfigured
from celery_concurrency.limiter import Limiter, async_cluster, cluster
from celery_concurrency.limiter.client import Client, new_connection
from celery_concurrency.limiter.cluster import Address, Cluster, Elsewhere
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.steps import run

A, B, C, D = (Address(f"10.0.0.{number}", 7000) for number in range(1, 5))


@pytest.fixture(autouse=True)
def long_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call ends because it took too long."""
    monkeypatch.setattr(cluster, "ASK_SECONDS", 60)
    monkeypatch.setattr(async_cluster, "SERVED_SECONDS", 60)


def ranges(master: Address, host: Any = None) -> list[list[Any]]:
    """Return a reply to CLUSTER SLOTS: ``master`` has slot 0, C the others, D is a replica."""

    def node(one: Address) -> list[Any]:
        return [one.host.encode() if host is None else host or None, one.port, b"id", []]

    return [[0, 0, node(master), node(D)], [1, 16_383, node(C)]]


class Nodes:
    """Answers for the nodes, and notes who was asked."""

    def __init__(self, **replies: Any) -> None:
        self.replies = {A: ranges(B), B: ranges(B), C: ranges(B), D: ranges(B), **replies}
        self.asked: list[Address] = []

    def __call__(self, node: Address) -> Any:
        self.asked.append(node)
        reply = self.replies[node]
        if isinstance(reply, Exception):
            raise reply
        return reply


def found(known: Cluster, nodes: Nodes) -> tuple[Address, Address]:
    return run(known.finding(), nodes)


def test_the_first_node_that_answers_names_the_master() -> None:
    nodes = Nodes()
    nodes.replies[A] = ConnectionError("refused")
    known = Cluster([A, B])
    assert found(known, nodes) == (B, B)
    assert nodes.asked == [A, B]
    assert found(known, nodes) == (B, B)
    assert nodes.asked == [A, B, B], "who answered is asked first"


def test_nodes_that_others_name_are_asked_when_the_seeds_are_gone() -> None:
    nodes = Nodes()
    known = Cluster([A])
    found(known, nodes)
    nodes.replies[A] = nodes.replies[B] = ConnectionError("refused")
    nodes.replies[D] = ranges(D)
    assert found(known, nodes) == (D, D)


def test_seeds_are_asked_when_all_others_are_gone() -> None:
    """They may be names, behind which other machines stand by now."""
    nodes = Nodes()
    known = Cluster([A, B])
    found(known, nodes)
    nodes.replies[A] = ConnectionError("refused")
    nodes.replies[B] = ranges(B)
    nodes.replies[C] = nodes.replies[D] = ConnectionError("refused")
    assert found(known, nodes)[1] == B


def test_a_node_that_knows_nobody_with_the_slot_is_passed_over() -> None:
    nodes = Nodes()
    nodes.replies[A] = ranges(B)[1:]
    assert found(Cluster([A, B]), nodes) == (B, B)


def test_without_a_node_that_knows_the_problem_is_said() -> None:
    nodes = Nodes()
    nodes.replies[A] = RedisError("This instance has cluster support disabled")
    with pytest.raises(ConnectionError, match="cluster support disabled"):
        found(Cluster([A]), nodes)


def test_what_one_node_says_is_not_hidden_by_one_that_is_down() -> None:
    nodes = Nodes()
    nodes.replies[A] = ConnectionError("certificate verify failed")
    nodes.replies[B] = ConnectionError("Connection refused.")
    with pytest.raises(ConnectionError, match=r"certificate verify failed; Connection refused\."):
        found(Cluster([A, B]), nodes)


def test_a_connection_asks_no_more_nodes_once_it_took_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "ASK_SECONDS", -1)
    nodes = Nodes()
    nodes.replies[A] = ConnectionError("timed out")
    known = Cluster([A, B])
    with pytest.raises(ConnectionError):
        found(known, nodes)
    assert found(known, nodes) == (B, B), "the next one asks others first"


def test_a_node_whose_word_is_in_doubt_is_asked_last() -> None:
    nodes = Nodes()
    known = Cluster([A, B])
    found(known, nodes)
    known.ask_last(A)
    found(known, nodes)
    known.ask_first(D)
    found(known, nodes)
    assert nodes.asked == [A, B, D]


@pytest.mark.parametrize("host", [b"", b"?", False])
def test_a_node_that_does_not_say_its_address_is_where_it_was_asked(host: Any) -> None:
    nodes = Nodes()
    nodes.replies[A] = ranges(B, host)
    assert found(Cluster([A]), nodes) == (A, Address(A.host, B.port))


@pytest.mark.parametrize(
    ("prefix", "tagged"),
    [
        ("concurrency", "{concurrency}"),
        ("{concurrency}", "{concurrency}"),
        ("shop:{concurrency}", "shop:{concurrency}"),
        ("a{}b", "{a{}b}"),
    ],
)
def test_all_keys_are_in_one_slot(prefix: str, tagged: str) -> None:
    with connect("redis+cluster://a") as client:
        limiter = Limiter(client, prefix)
        assert limiter.prefix == limiter.keyspace.prefix == tagged
        keys = limiter.keyspace.keys
        names = [tagged, keys.config, keys.semaphore("account:{a}"), keys.token("}{")]
        slots = {key_slot(name.encode()) for name in names}
        assert slots == {client.get_connection_kwargs()["cluster"].slot}


def test_elsewhere_a_prefix_stays_as_it_is() -> None:
    with connect("redis://a") as client:
        assert Limiter(client, "concurrency").prefix == "concurrency"


def test_a_prefix_that_makes_no_hash_tag_is_refused() -> None:
    with connect("redis+cluster://a") as client, pytest.raises(ImproperlyConfigured, match="}x"):
        Limiter(client, "}x")


def test_a_client_has_keys_of_one_slot_only() -> None:
    with connect("redis+cluster://a") as client:
        Limiter(client, "a")
        Limiter(client, "{a}")
        with pytest.raises(ImproperlyConfigured, match="connect again"):
            Limiter(client, "b")


@pytest.mark.parametrize("url", ["redis+cluster://a", "rediss+cluster://a"])
def test_what_a_connection_uses_of_redis_py_is_there(url: str) -> None:
    with connect(url) as client:
        connection = new_connection(client)
        assert callable(super(cluster.ToMaster, connection)._connect)
        assert {"host", "port"} <= set(dir(connection))


@pytest.mark.parametrize("url", ["redis+cluster://a", "rediss+cluster://a"])
def test_what_a_connection_of_an_event_loop_uses_of_redis_py_is_there(url: str) -> None:
    connection = new_connection(connect_async(connect(url)))
    theirs = super(cluster.ToMaster, connection)
    for part in ("_connect", "connect", "disconnect", "read_response", "send_command"):
        assert inspect.iscoroutinefunction(getattr(theirs, part)), part
    assert "nowait" in inspect.signature(theirs.disconnect).parameters
    assert {"host", "port"} <= set(dir(connection))


def test_an_event_loop_reads_the_trusted_certificates_once() -> None:
    """That takes long enough to hold up the others in the loop."""
    client = connect_async(connect("rediss+cluster://a"))
    first, second = new_connection(client), new_connection(client)
    contexts = {one.ssl_context.get() for one in (first, second, first.plain_to(A))}
    assert len(contexts) == 1


def connect_async(client: Any) -> Any:
    """Return a client for an event loop."""
    assert isinstance(client, Client)
    assert client.connect_async
    return client.connect_async()


def test_an_event_loop_knows_of_the_nodes_what_the_limiter_does() -> None:
    with connect("redis+cluster://a") as client:
        first = connect_async(client)
        limiter = Limiter(client)
        known = client.get_connection_kwargs()["cluster"]
        assert known.slot == key_slot(limiter.prefix.encode())
        for one in (first, connect_async(client)):
            assert one.get_connection_kwargs()["cluster"] is known


def test_an_event_loop_goes_on_while_a_call_waits_for_a_node_that_serves_it() -> None:
    async def main() -> None:
        served = asyncio.Event()

        async def call() -> str:
            if not served.is_set():
                raise Elsewhere
            return "served"

        waits = asyncio.create_task(async_cluster.when_served(call))
        await asyncio.sleep(0)
        served.set()
        assert await waits == "served"

    asyncio.run(main())


def test_a_call_whose_cancellation_was_lost_is_not_made_again() -> None:
    """Before Python 3.12, asyncio.wait_for may lose one, and redis-py sends with it."""
    called = []

    async def call() -> None:
        called.append(1)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        raise Elsewhere

    async def main() -> None:
        waits = asyncio.create_task(async_cluster.when_served(call))
        await asyncio.sleep(0)
        waits.cancel()
        async with asyncio.timeout(60):
            with pytest.raises(Elsewhere):
                await waits
        assert len(called) == 1

    asyncio.run(main())


def test_a_call_that_no_node_serves_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    async def call() -> None:
        called.append(1)
        if len(called) == 3:
            time_is_up()
        raise Elsewhere

    # The clock stands still until the third call.
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr(async_cluster, "time", clock)

    def time_is_up() -> None:
        clock.monotonic = lambda: async_cluster.SERVED_SECONDS + 1.0

    with pytest.raises(Elsewhere):
        asyncio.run(async_cluster.when_served(call))
    assert len(called) == 3
