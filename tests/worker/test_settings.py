"""The Celery settings: which Redis, in every form Celery takes, and what is refused."""

from __future__ import annotations

import re
import signal
import ssl
import types

import pytest
from celery import Celery
from redis import SSLConnection, UnixDomainSocketConnection
from redis.connection import Connection
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from celery_concurrency.errors import ImproperlyConfigured
from celery_concurrency.limiter.cluster import ClusterConnection, ClusterSSLConnection
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.lifeline import Child
from celery_concurrency.testing.server import Server
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.settings import Settings
from tests.support.ports import free_port
from tests.support.workers import settle, wait_for


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("BROKER_URL", "BROKER_READ_URL", "BROKER_WRITE_URL", "RESULT_BACKEND"):
        monkeypatch.delenv(f"CELERY_{name}", raising=False)


def app_of(**conf):
    """Return an app with this configuration; AMQP and no backend unless it says otherwise."""
    app = Celery("settings", set_as_current=False)
    app.conf.update({"broker_url": "amqp://", "result_backend": "rpc://", **conf})
    return app


def client_of(**conf):
    """Return the Redis client of an app, not connected, and what its connections are made with."""
    client = limiter_of(app_of(**conf)).redis
    return client, client.connection_pool.connection_kwargs


def refusal(**conf):
    with pytest.raises(ImproperlyConfigured) as caught:
        limiter_of(app_of(**conf))
    return str(caught.value)


A, B, C = "redis://a:1/1", "redis://b:2/2", "redis://c:3/3"


@pytest.mark.parametrize(
    ("conf", "host", "db"),
    [
        ({"broker_url": A}, "a", 1),
        ({"broker_url": A, "result_backend": B}, "a", 1),
        ({"result_backend": B}, "b", 2),
        ({"broker_url": A, "result_backend": B, "concurrency_redis_url": C}, "c", 3),
        ({"concurrency_redis_url": C}, "c", 3),
        ({"broker_url": f"{A};{B}"}, "a", 1),
        ({"broker_url": [A, B]}, "a", 1),
        ({"broker_url": ["amqp://x", A], "result_backend": B}, "b", 2),
        ({"broker_read_url": A, "broker_url": None}, "a", 1),
        ({"broker_url": "redis://a"}, "a", 0),
        ({"broker_url": "redis://a/"}, "a", 0),
    ],
)
def test_which_redis_is_taken(conf, host, db):
    _, kwargs = client_of(**conf)
    assert (kwargs["host"], kwargs.get("db", 0)) == (host, db)


@pytest.mark.parametrize(
    ("variable", "conf", "host"),
    [
        ("CELERY_BROKER_URL", {}, "env"),
        ("CELERY_BROKER_URL", {"broker_url": A}, "env"),
        ("CELERY_RESULT_BACKEND", {}, "env"),
        ("CELERY_RESULT_BACKEND", {"broker_url": A}, "a"),
    ],
)
def test_the_environment_counts_as_it_does_for_celery(monkeypatch, variable, conf, host):
    """Also ``celery -b URL`` is kept there."""
    monkeypatch.setenv(variable, "redis://env:4/4")
    assert client_of(**conf)[1]["host"] == host


def test_user_and_password_are_kept():
    _, kwargs = client_of(broker_url="redis://user:p%40ss@a:1/1")
    assert (kwargs["username"], kwargs["password"]) == ("user", "p@ss")


@pytest.mark.parametrize(
    ("url", "path", "db"),
    [
        ("redis+socket:///tmp/redis.sock", "/tmp/redis.sock", 0),
        ("redis+socket:///tmp/redis.sock?virtual_host=3", "/tmp/redis.sock", 3),
        ("unix:///tmp/redis.sock?db=2", "/tmp/redis.sock", 2),
        ("socket:///tmp/redis.sock", "/tmp/redis.sock", 0),
    ],
)
@pytest.mark.parametrize("setting", ["broker_url", "result_backend"])
def test_a_socket(setting, url, path, db):
    client, kwargs = client_of(**{setting: url})
    assert isinstance(client.connection_pool.make_connection(), UnixDomainSocketConnection)
    assert (kwargs["path"], kwargs.get("db", 0)) == (path, db)


TLS = {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_ca_certs": "/ca.pem"}


@pytest.mark.parametrize(
    ("conf", "reqs"),
    [
        ({"broker_url": "rediss://a:1/1"}, ssl.CERT_REQUIRED),
        ({"broker_url": "rediss://a:1/1?ssl_cert_reqs=CERT_NONE"}, ssl.CERT_NONE),
        ({"broker_url": "rediss://a:1/1?ssl_cert_reqs=CERT_OPTIONAL"}, ssl.CERT_OPTIONAL),
        ({"broker_url": "rediss://a:1/1?ssl_cert_reqs=CERT_REQUIRED"}, ssl.CERT_REQUIRED),
        ({"broker_url": "rediss://a:1/1?ssl_cert_reqs=none"}, ssl.CERT_NONE),
        ({"result_backend": "rediss://a:1/1?ssl_cert_reqs=CERT_NONE"}, ssl.CERT_NONE),
        ({"concurrency_redis_url": "rediss://a:1/1?ssl_cert_reqs=CERT_NONE"}, ssl.CERT_NONE),
        ({"broker_url": "rediss://a:1/1", "broker_use_ssl": TLS}, ssl.CERT_NONE),
        ({"broker_url": "redis://a:1/1", "broker_use_ssl": TLS}, ssl.CERT_NONE),
        ({"broker_url": "redis://a:1/1", "broker_use_ssl": True}, ssl.CERT_REQUIRED),
        (
            {"broker_url": "redis://a:1/1", "broker_use_ssl": {"ssl_cert_reqs": "CERT_OPTIONAL"}},
            ssl.CERT_OPTIONAL,
        ),
        ({"result_backend": "redis://a:1/1", "redis_backend_use_ssl": TLS}, ssl.CERT_NONE),
    ],
)
def test_tls(conf, reqs):
    client, kwargs = client_of(**conf)
    connection = client.connection_pool.make_connection()
    assert isinstance(connection, SSLConnection)
    assert connection.cert_reqs == reqs
    if TLS in conf.values():
        assert connection.ca_certs == "/ca.pem"
    assert (kwargs["host"], kwargs["db"]) == ("a", 1)


@pytest.mark.parametrize(
    "conf",
    [
        {"broker_url": A, "broker_use_ssl": False},
        {"broker_url": A, "redis_backend_use_ssl": TLS},
        {"result_backend": A, "broker_use_ssl": TLS},
        {"broker_url": A, "broker_use_ssl": TLS, "concurrency_redis_url": A},
    ],
)
def test_the_tls_of_one_url_is_not_that_of_another(conf):
    client, _ = client_of(**conf)
    assert type(client.connection_pool.make_connection()) is Connection


SENTINELS = "sentinel://s1:26379;sentinel://:pass@s2:26380"


@pytest.mark.parametrize(
    ("conf", "hosts", "db"),
    [
        (
            {"broker_url": f"{SENTINELS}/3?master_name=mymaster"},
            [("s1", 26379), ("s2", 26380)],
            3,
        ),
        (
            {
                "broker_url": f"{SENTINELS}/3",
                "broker_transport_options": {"master_name": "mymaster"},
            },
            [("s1", 26379), ("s2", 26380)],
            3,
        ),
        (
            {
                "broker_url": ["sentinel://s1", "sentinel://s2/1"],
                "broker_transport_options": {"master_name": "mymaster"},
            },
            [("s1", 26379), ("s2", 26379)],
            1,
        ),
        (
            {
                "result_backend": "sentinel://s1;s2:5",
                "result_backend_transport_options": {"master_name": "mymaster"},
            },
            [("s1", 26379), ("s2", 5)],
            0,
        ),
        ({"concurrency_redis_url": "sentinel://s1/2?master_name=mymaster"}, [("s1", 26379)], 2),
    ],
)
def test_sentinels(conf, hosts, db):
    client, kwargs = client_of(**conf)
    pool = client.connection_pool
    assert pool.service_name == "mymaster"
    asked = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in asked] == hosts
    assert kwargs["db"] == db
    assert kwargs.get("password") == ("pass" if "pass@" in str(conf) else None)
    assert isinstance(pool.make_connection(), SentinelManagedConnection)


def test_sentinels_with_passwords_of_their_own_and_tls():
    client, _ = client_of(
        broker_url="sentinel://s1?master_name=m",
        broker_transport_options={"sentinel_kwargs": {"password": "theirs"}},
        broker_use_ssl=TLS,
    )
    [sentinel] = client.connection_pool.sentinel_manager.sentinels
    assert sentinel.connection_pool.connection_kwargs["password"] == "theirs"
    connection = client.connection_pool.make_connection()
    assert isinstance(connection, SentinelManagedSSLConnection)
    assert connection.cert_reqs == ssl.CERT_NONE


def test_a_real_sentinel_leads_to_its_master(tmp_path):
    """A server and a sentinel of one's own: tokens arrive on the server."""
    with Server() as master:
        port = free_port()
        conf = tmp_path / "sentinel.conf"
        conf.write_text(f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n")
        with SentinelServer(conf, port=port) as sentinel:
            url = f"sentinel://127.0.0.1:{sentinel.port}/2?master_name=mymaster"
            client, _ = client_of(concurrency_redis_url=url)
            assert wait_for(lambda: client.set("who", "master"))
            with connect(master.url(2)) as direct:
                assert direct.get("who") == b"master"
            client.close()


class SentinelServer(Server):
    """A sentinel: the same program, told so by an option and by a file that it rewrites."""

    def __init__(self, conf, port):
        self._conf = conf
        super().__init__(port=port)

    def _launch(self):
        command = [self._program, str(self._conf), "--sentinel", "--port", str(self.port)]
        return Child(command, self._conf.with_suffix(".log"), signal.SIGTERM)


@pytest.mark.parametrize(
    ("url", "seeds"),
    [
        ("redis+cluster://h1:7000,h2:7000,h3", [("h1", 7000), ("h2", 7000), ("h3", 6379)]),
        ("redis+cluster://h1:7000", [("h1", 7000)]),
        ("redis+cluster://h1/0", [("h1", 6379)]),
        ("redis+cluster://h1?db=0", [("h1", 6379)]),
        ("redis+cluster://[::1]:7000,h2", [("::1", 7000), ("h2", 6379)]),
        ("redis+cluster://h1:7000 , h2:7000/", [("h1", 7000), ("h2", 7000)]),
        ("redis+cluster://user:p%40ss@h1,h2:7000", [("h1", 6379), ("h2", 7000)]),
        ("rediss+cluster://:p%40ss@h1,h2?ssl_cert_reqs=CERT_NONE", [("h1", 6379), ("h2", 6379)]),
    ],
)
def test_a_cluster(url, seeds):
    client, kwargs = client_of(concurrency_redis_url=url)
    assert [*kwargs["cluster"]._seeds] == seeds
    assert kwargs.get("username") == ("user" if "user" in url else None)
    assert kwargs.get("password") == ("p@ss" if "@" in url else None)
    assert not kwargs.get("db")
    assert "host" not in kwargs
    connection = client.connection_pool.make_connection()
    assert isinstance(connection, ClusterConnection if "ss+" not in url else ClusterSSLConnection)
    if "ss+" in url:
        assert connection.cert_reqs == ssl.CERT_NONE
    assert limiter_of(app_of(concurrency_redis_url=url)).prefix == "{concurrency}"


def test_a_cluster_by_tls_whose_options_are_no_part_of_its_url():
    with connect("redis+cluster://h1", {"ssl": TLS}) as client:
        connection = client.connection_pool.make_connection()
    assert isinstance(connection, ClusterSSLConnection)
    assert connection.cert_reqs == ssl.CERT_NONE


@pytest.mark.parametrize("url", ["redis+cluster://h1,h2/1", "rediss+cluster://h1?db=1"])
def test_a_cluster_has_one_database(url):
    said = refusal(concurrency_redis_url=url)
    assert "concurrency_redis_url" in said
    assert "database 0" in said


@pytest.mark.parametrize("rest", ["a:1;b:1", "a;b", "a:1,redis://b:1", "a,", "u:p@a,u:p@b", "::1"])
def test_a_cluster_whose_nodes_are_written_otherwise_is_told_how(rest):
    said = refusal(concurrency_redis_url=f"redis+cluster://{rest}")
    assert "write it as redis+cluster://user:password@host:port,host:port" in said


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_options_of_tls_are_told_which_scheme_they_need(scheme):
    said = refusal(concurrency_redis_url=f"{scheme}://a?ssl_cert_reqs=required")
    assert "begin with rediss" in said
    assert "rediss" not in refusal(concurrency_redis_url=f"{scheme}://a?nonsense=1")


def test_nowhere_to_keep_tokens():
    """The error names the setting and shows a value for it."""
    said = refusal()
    assert "concurrency_redis_url" in said
    assert "redis://" in said


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "amqp://a",
        "memory://",
        "localhost:6379",
        "localhost",
        "redis://a:port/0",
        "redis://a:99999/0",
        "redis://a/celery",
        "redis://a:1/0;redis://b:2/0",
        "redis://a/0?nonsense=1",
        "redis://a/0?socket_timeout=soon",
        "rediss://a/0?ssl_cert_reqs=maybe",
        "sentinel://a/celery?master_name=m",
        "sentinel://a:port?master_name=m",
        "sentinel://a",
        "redis+cluster://",
        "redis+cluster://a,,b",
        "redis+cluster://a:port",
        "redis+cluster://a,b:99999",
        "redis+cluster://u:p@a,u:p@b",
        "redis+cluster://a?nonsense=1",
        "redis+cluster://a/celery",
        "",
        5,
        ["redis://a"],
    ],
)
def test_a_url_that_is_none_is_refused_by_the_settings_name(url):
    assert "concurrency_redis_url" in refusal(concurrency_redis_url=url)


def test_a_sentinel_without_its_masters_name_is_told_where_to_put_it():
    said = refusal(broker_url="sentinel://a:26379")
    assert "?master_name=" in said
    assert "broker_transport_options" in said


BAD = [
    ("key_prefix", ""),
    ("key_prefix", 5),
    ("waiting", "sometimes"),
    ("waiting", True),
    ("retry_countdown", 0),
    ("retry_countdown", -1),
    ("retry_countdown", 86_401),
    ("retry_countdown", float("nan")),
    ("retry_countdown", float("inf")),
    ("retry_countdown", "soon"),
    ("retry_countdown", True),
    ("handoff_timeout", 0.5),
    ("handoff_timeout", True),
    ("worker_timeout", 1),
    ("on_lost", "kill"),
    ("redis_unavailable", "stop"),
    ("exempt", "tasks.*"),
    ("exempt", [5]),
    ("exempt", 5),
    ("refusals", []),
    ("refusals", {"RiskControl": {"dimension": "account", "seconds": 600}}),
    ("refusals", {"proj.RiskControl": {"dimension": "account", "seconds": True}}),
    ("default_config", []),
    ("default_config", {"globel_max": 1}),
    ("default_config", {"global_max": -1}),
    ("default_config", {"platform_max": None}),
    ("default_config", {"platform_max": {"": 1}}),
]


@pytest.mark.parametrize(("name", "value"), BAD)
@pytest.mark.parametrize("namespace", [None, "CELERY"])
def test_a_bad_value_names_its_setting(name, value, namespace):
    app = Celery("bad", set_as_current=False)
    if namespace:
        conf = types.SimpleNamespace(
            CELERY_BROKER_URL=A, **{f"CELERY_CONCURRENCY_{name.upper()}": value}
        )
        app.config_from_object(conf, namespace=namespace)
    else:
        app.conf.update({"broker_url": A, f"concurrency_{name}": value})
    with pytest.raises(ImproperlyConfigured, match=rf"^concurrency_{name}\b") as caught:
        settings_of(app)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("retry_countdwon", "use concurrency_retry_countdown"),
        ("redis_options", "use concurrency_redis_url"),
        ("colour", "use concurrency_redis_url, concurrency_key_prefix, "),
    ],
)
@pytest.mark.parametrize("namespace", [None, "CELERY", "my"])
def test_a_misspelt_setting_is_told_which_it_may_be(name, said, namespace):
    app = Celery("bad", set_as_current=False)
    if namespace:
        conf = {
            f"{namespace}_broker_url".upper(): A,
            f"{namespace}_concurrency_{name}".upper(): 1,
        }
        app.config_from_object(types.SimpleNamespace(**conf), namespace=namespace.upper())
    else:
        app.conf.update({"broker_url": A, f"concurrency_{name}": 1})
    written = f"concurrency_{name}"
    if namespace:
        written = f"{namespace}_{written}".upper()
        said = re.sub(r"concurrency_\w+", lambda one: f"{namespace}_{one[0]}".upper(), said)
    with pytest.raises(ImproperlyConfigured, match=f"^{written} is not a setting; {said}"):
        settings_of(app)


def test_what_is_no_setting_of_ours_is_passed_over():
    """Other packages' settings beside the namespace; functions of a module of settings."""
    theirs = types.SimpleNamespace(CELERY_BROKER_URL=A, CONCURRENCY_ENABLED=True)
    app = Celery("django", set_as_current=False)
    app.config_from_object(theirs, namespace="CELERY")
    assert settings_of(app).redis_url == A
    app = Celery("module", set_as_current=False)
    app.config_from_object(types.SimpleNamespace(broker_url=A, concurrency_of=lambda name: 1))
    assert settings_of(app).redis_url == A


def test_a_misspelt_setting_is_told_beside_a_namespace_too():
    app = Celery("both", set_as_current=False)
    app.config_from_object(types.SimpleNamespace(CELERY_BROKER_URL=A), namespace="CELERY")
    app.conf.concurrency_exemt = ("a",)
    with pytest.raises(ImproperlyConfigured, match=r"^concurrency_exemt .* concurrency_exempt$"):
        settings_of(app)


def test_the_defaults():
    assert settings_of(app_of(broker_url=A)) == Settings(
        redis_url=A,
        redis_options={"ssl": False},
        key_prefix="concurrency",
        waiting="auto",
        retry_countdown=30,
        handoff_timeout=30,
        worker_timeout=30,
        on_lost="log",
        redis_unavailable="retry",
        exempt=(),
        refusals={},
        namespaces={},
        default_config={},
    )


GOOD = {
    "redis_url": C,
    "key_prefix": "{mine}",
    "waiting": "retry",
    "retry_countdown": 0.5,
    "park_on_receipt": False,
    "handoff_timeout": 5,
    "worker_timeout": 10,
    "on_lost": "terminate",
    "redis_unavailable": "run",
    "exempt": ["tasks.*", "other"],
    # Not imported: who only sends tasks may not have it.
    "refusals": {
        "nowhere.errors.RiskControl": {
            "dimension": "account",
            "seconds": "retry_after",
            "default": 60,
            "grow": 3,
            "most": 900,
        }
    },
    "namespaces": {"eu": {"queues": ("eu.*",), "redis_url": A, "key_prefix": None}},
    "default_config": {"account_max": 2},
}


@pytest.mark.parametrize("namespace", [None, "CELERY", "MY"])
def test_every_setting_arrives_under_any_namespace(namespace):
    app = Celery("good", set_as_current=False)
    if namespace:
        conf = {f"{namespace}_CONCURRENCY_{name.upper()}": value for name, value in GOOD.items()}
        app.config_from_object(types.SimpleNamespace(**conf), namespace=namespace)
    else:
        app.conf.update({f"concurrency_{name}": value for name, value in GOOD.items()})
    assert settings_of(app, "default").model_dump() == {
        **GOOD,
        "redis_options": {},
        "namespace": "default",
        "exempt": ("tasks.*", "other"),
    }
    limiter = limiter_of(app, "default")
    assert limiter.prefix == "{mine}"


def test_the_prefix_and_the_defaults_are_those_of_the_keys(redis_url, redis):
    app = app_of(
        broker_url=redis_url,
        concurrency_key_prefix="{mine}",
        concurrency_default_config={"account_max": 2},
    )
    limiter = limiter_of(app)
    redis.delete("concurrency:epoch")
    settle(redis, "{mine}")
    assert limiter.config.sync().config == Config().merged({"account_max": 2})
    limiter.try_acquire("t", {"account": "a"})
    assert redis.zcard("{mine}:semaphore:account:a") == 1
    keys = redis.keys()
    assert keys == [key for key in keys if key.startswith("{mine}:")]


def test_the_limiter_of_an_app_is_one(redis_url):
    app = app_of(broker_url=redis_url)
    assert limiter_of(app) is limiter_of(app)
    assert limiter_of(app) is not limiter_of(app_of(broker_url=redis_url))
