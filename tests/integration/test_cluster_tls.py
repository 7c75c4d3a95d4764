"""A Redis Cluster by TLS alone, whose nodes are known by name: the limiter follows a failover.

``test_cluster.py`` has the rest of what a cluster does.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

import pytest

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.outcomes import Granted
from tests.support.certificates import certificates
from tests.support.clusters import Cluster
from tests.support.recording import highest_overlap, read_records
from tests.support.sites import site
from tests.support.workers import settle, wait_for

KEY = "{concurrency}"
HEADERS = {"account": "a"}
#: As ``docs/howto/servers.md`` has it.
RIGHTS = (f"~{KEY}*", "&*", "+@all", "-@dangerous", "+info")


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(scope="module")
def nodes(tls):
    with Cluster(tls) as nodes:
        yield nodes


@pytest.fixture
def home(nodes):
    """The cluster, whole and empty, with a user for the limiter."""
    nodes.empty()
    for one in nodes.nodes:
        one.ask("ACL", "SETUSER", "limiter", "on", ">sec/ret", *RIGHTS)
    with nodes.master_of(KEY).client() as client:
        settle(client, KEY)
    return nodes


@pytest.fixture
def url(home):
    return home.url.replace("://", "://limiter:sec%2Fret@")


@contextmanager
def configured(home, name, value, after):
    """Set a setting of all nodes for a while, and ``after`` it to what it was."""
    for one in home.nodes:
        one.ask("CONFIG", "SET", name, value)
    yield
    for one in home.nodes:
        one.ask("CONFIG", "SET", name, after)


def assert_refused(url, remedy):
    # Before redis-py 6.0, names are only checked on demand.
    client = connect(f"{url}&ssl_check_hostname=true")
    with client, pytest.raises(LimiterUnavailable, match=remedy):
        client.ping()


def test_a_worker_goes_on_after_a_failover(home, url, server, tmp_path):
    """What runs keeps its token, and the next task waits for its end."""
    with site(server, tmp_path, "crashes", db=6, LIMITER_URL=url, WORKER_TIMEOUT="5") as one:
        one.start(concurrency=2)
        running = one.tasks.stay.apply_async(headers=HEADERS)
        wait_for(one.ran)
        home.kill(KEY)
        waiting = one.tasks.work.apply_async(headers=HEADERS)
        with home.master_of(KEY).client() as client:
            one.wait_until_waiting(waiting)
            one.redis.rpush("go on", "1")
            assert running.get(timeout=60) is False
            assert waiting.get(timeout=60) == "done"
            wait_for(lambda: not client.keys(f"{KEY}:semaphore:*"))
        ids = {running.id, waiting.id}
        runs = [run for run in read_records(one.url) if run.task_id in ids]
        assert len(runs) == 2
        assert highest_overlap(runs) == 1
        assert "keeps running without its tokens" not in one.output()


def test_who_waits_in_a_thread_goes_on_after_a_failover(home, url):
    with connect(url) as client:
        limiter = Limiter(client)
        assert isinstance(limiter.try_acquire("first", HEADERS, lease=60), Granted)
        holds = threading.Event()

        def wait_and_hold():
            with limiter.acquire(account="a", timeout=60):
                holds.set()

        thread = threading.Thread(target=wait_and_hold)
        thread.start()
        with home.master_of(KEY).client() as direct:
            wait_for(lambda: direct.info("clients")["blocked_clients"], what="it waits")
        home.fail_over(KEY)
        assert not holds.is_set()
        limiter.release("first")
        thread.join(60)
        assert holds.is_set()


def test_an_event_loop_goes_on_after_a_failover(home, url):
    async def main():
        async with Limiter(client).acquire(account="a", timeout=60) as lease:
            await asyncio.to_thread(home.fail_over, KEY)
            assert await lease.lost is False
        with home.master_of(KEY).client() as direct:
            assert not direct.keys(f"{KEY}:semaphore:*")

    with connect(url) as client:
        asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (("ssl_ca_certs=", "ssl_ca_path=/"), r"\?ssl_ca_certs="),
        (("ssl_ca_certs=", "ssl_ca_certs=/nowhere"), "check that all files are there"),
        (("localhost", "127.0.0.1"), "cluster-announce-hostname"),
    ],
)
def test_a_url_that_does_not_fit_is_told_what_to_change(home, change, remedy):
    assert_refused(home.url.replace(*change), remedy)


def test_a_node_that_announces_no_name_of_its_certificate_is_told_to(home):
    with configured(home, "cluster-preferred-endpoint-type", "ip", "hostname"):
        assert_refused(home.url, "cluster-announce-hostname")


def test_a_node_that_wants_a_certificate_gets_one(home, tls):
    with configured(home, "tls-auth-clients", "yes", "no"):
        assert_refused(home.url, "ssl_certfile=")
        with connect(f"{home.url}&ssl_certfile={tls.cert}&ssl_keyfile={tls.key}") as client:
            assert isinstance(Limiter(client).try_acquire("task:1", HEADERS), Granted)
