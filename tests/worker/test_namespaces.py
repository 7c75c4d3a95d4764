"""Namespaces: which Redis a process uses, by its worker's queues or by what it is told."""

from __future__ import annotations

import types

import pytest
from celery import Celery
from celery.utils.nodenames import worker_direct
from kombu import Exchange, Queue
from kombu.common import Broadcast

from celery_concurrency.api import create_app
from celery_concurrency.errors import ConcurrencyError, ImproperlyConfigured
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.worker.apps import choose, forget, limiter_of, settings_of
from celery_concurrency.worker.foreign_queues import check_queue
from celery_concurrency.worker.message import TaskMessage
from celery_concurrency.worker.namespaces import VARIABLE, consumed_by, namespace_of
from celery_concurrency.worker.settings import namespaces_in

EU = {"queues": ["eu", "eu.*"], "redis_url": "redis://eu:1/0"}
US = {"queues": ("us.*",), "redis_url": "redis://us:2/0", "key_prefix": "us"}
BOTH = {"eu": EU, "us": US}


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def app_of(namespaces=BOTH, **conf):
    app = Celery("namespaces", broker="redis://broker:1/0", set_as_current=False)
    app.conf.update({"concurrency_namespaces": namespaces, **conf})
    return app


def worker_of(app, *queues, hostname="w1@h"):
    """Return what is looked at of a worker that consumes these queues, by name or declared."""
    app.conf.task_queues = [one if isinstance(one, Queue) else Queue(one) for one in queues]
    app.amqp.__dict__.pop("queues", None)
    if app.conf.worker_direct:
        app.amqp.queues.select_add(worker_direct(hostname))
    return types.SimpleNamespace(app=app, hostname=hostname)


def place_of(app, namespace=None):
    limiter = limiter_of(app, namespace)
    return limiter.redis.get_connection_kwargs()["host"], limiter.prefix


# -- which one


def test_each_namespace_has_its_own_redis_and_prefix():
    app = app_of({**BOTH, "test": {"queues": ["t"], "key_prefix": "test"}})
    assert place_of(app, "eu") == ("eu", "concurrency")
    assert place_of(app, "us") == ("us", "us")
    assert place_of(app, "test") == ("broker", "test")
    assert place_of(app, "default") == ("broker", "concurrency")
    assert settings_of(app, "us").namespace == "us"
    assert limiter_of(app, "eu") is limiter_of(app, "eu") is not limiter_of(app, "us")


def test_the_default_one_needs_no_redis_unless_it_is_used():
    app = app_of(broker_url="amqp://", result_backend="rpc://")
    assert place_of(app, "eu") == ("eu", "concurrency")
    with pytest.raises(ImproperlyConfigured, match="set concurrency_redis_url"):
        limiter_of(app, "default")


def test_without_namespaces_nobody_has_to_say_which(monkeypatch):
    monkeypatch.setenv(VARIABLE, "eu")  # another app's
    app = app_of({})
    assert place_of(app) == place_of(app, "default") == ("broker", "concurrency")
    with pytest.raises(ImproperlyConfigured, match="has no 'eu': use default"):
        limiter_of(app, "eu")


def test_a_process_is_told_which(monkeypatch):
    app = app_of()
    with pytest.raises(ImproperlyConfigured) as caught:
        limiter_of(app)
    for remedy in ("--namespace NAME", "namespace=NAME", VARIABLE, "eu, us, default"):
        assert remedy in str(caught.value)
    monkeypatch.setenv(VARIABLE, "us")
    assert place_of(app) == ("us", "us")
    forget(app)
    choose(app, "eu")
    assert place_of(app) == ("eu", "concurrency")
    assert place_of(app, "us") == ("us", "us")
    choose(app, "ue")
    with pytest.raises(ImproperlyConfigured, match="has no 'ue': use eu"):
        limiter_of(app)


@pytest.mark.parametrize(
    ("namespaces", "problem"),
    [
        (
            {"eu": {"queues": [], "redis_url": "redis://"}},
            r"concurrency_namespaces.eu.queues is \[\]",
        ),
        ({"eu": {"redis_url": "redis://eu"}}, "concurrency_namespaces.eu.queues: .*required"),
        ({"eu": {"queues": "eu", "redis_url": "redis://eu"}}, "eu.queues is 'eu': .*tuple"),
        ({"eu": {**EU, "redis_ulr": "x"}}, "concurrency_namespaces.eu.redis_ulr is 'x': Extra"),
        ({"eu": {"queues": ["eu"]}}, "concurrency_namespaces.eu is .*redis_url or a key_prefix"),
        ({"e u": EU}, "concurrency_namespaces.e u"),
        ({"default": EU}, "can't have 'default'.*concurrency_redis_url"),
        ({"eu": EU, "e2": {**EU, "queues": ["e2"]}}, "'eu' and 'e2' have the same Redis"),
        ({"eu": {"queues": ["eu"], "key_prefix": "concurrency"}}, "'default' and 'eu' have the"),
        (["eu"], r"concurrency_namespaces is \['eu'\]: .*dictionary"),
    ],
)
def test_what_is_wrong_with_the_setting_is_said(namespaces, problem):
    app = app_of(namespaces)
    for read in (lambda: settings_of(app, "eu"), lambda: namespaces_in(app.conf)):
        with pytest.raises(ImproperlyConfigured, match=problem):
            read()


def test_the_default_one_is_apart_from_others_if_the_app_names_its_redis():
    same = {"eu": {"queues": ["eu"], "redis_url": "redis://broker:1/0"}}
    assert place_of(app_of(same), "eu") == ("broker", "concurrency")
    with pytest.raises(ImproperlyConfigured, match="'default' and 'eu' have the same Redis"):
        settings_of(app_of(same, concurrency_redis_url="redis://broker:1/0"), "eu")


def test_no_error_shows_a_password():
    with pytest.raises(ImproperlyConfigured) as caught:
        settings_of(app_of({"eu": {"redis_url": "redis://u:secret@h"}}), "eu")
    assert str(caught.value) == "concurrency_namespaces.eu.queues: Field required"


def test_an_error_names_the_setting_that_is_wrong():
    app = app_of({"eu": {"queues": ["eu"], "redis_url": "eu:6379"}}, concurrency_redis_url="b:1")
    for name, setting in (
        ("eu", r"concurrency_namespaces\.eu\.redis_url"),
        ("default", "concurrency_redis_url"),
    ):
        with pytest.raises(ImproperlyConfigured, match=f"^{setting} can't be without a scheme"):
            limiter_of(app, name)


# -- of queues


def test_a_queue_is_of_one_namespace():
    namespaces = namespaces_in(app_of().conf)
    found = {name: namespace_of(name, namespaces) for name in ("eu", "eu.a", "us.a", "us", "eux")}
    assert found == {"eu": "eu", "eu.a": "eu", "us.a": "us", "us": "default", "eux": "default"}
    both = namespaces_in(app_of({"eu": EU, "all": {**US, "queues": ["*"]}}).conf)
    with pytest.raises(ImproperlyConfigured, match=r"'eu.a' is in several .*: eu, all; narrow"):
        namespace_of("eu.a", both)


def test_a_worker_serves_that_of_its_queues():
    app = app_of()
    namespaces = namespaces_in(app.conf)
    assert consumed_by(worker_of(app, "eu", "eu.a"), namespaces) == "eu"
    assert consumed_by(worker_of(app, "us.a", Broadcast("all")), namespaces) == "us"
    assert consumed_by(worker_of(app, "celery"), namespaces) == "default"
    with pytest.raises(ImproperlyConfigured) as caught:
        consumed_by(worker_of(app, "eu.a", "celery", "us.a"), namespaces)
    assert "'eu.a' (eu), 'celery' (default), 'us.a' (us)" in str(caught.value)
    assert "start a worker for each, with -Q" in str(caught.value)


def test_a_worker_s_very_own_queue_goes_with_any():
    app = app_of(worker_direct=True)
    assert consumed_by(worker_of(app, "us.a"), namespaces_in(app.conf)) == "us"


def message(exchange="", routing_key="eu.a"):
    return TaskMessage(b"", "", "", None, {}, {}, None, exchange, routing_key)


@pytest.fixture
def europe():
    """An app whose worker here consumes a queue of Europe, and is told to consume others later."""
    app = app_of(worker_direct=True)
    topics = Exchange("topics", type="topic")
    queues = [Queue(f"{name}.t", topics, routing_key=f"posts.{name}.#") for name in ("eu", "us")]
    worker_of(app, *queues, "us.a")
    app.amqp.queues.select(["eu.t"])
    choose(app, "eu")
    yield app
    forget(app)


DELAY = ".".join("0" * 28)


@pytest.mark.parametrize(
    ("exchange", "routing_key", "other"),
    [
        ("", "eu.a", None),
        ("", "us.a", "us"),
        ("", "celery", "default"),
        ("", "w1@h.dq2", None),
        ("topics", "posts.eu.1", None),
        ("topics", "posts.us.1", "us"),
        ("celery_delayed_delivery", f"{DELAY}.posts.eu.1", None),
        ("celery_delayed_delivery", f"{DELAY}.posts.us.1", "us"),
    ],
)
def test_a_message_of_another_namespace_is_refused(europe, exchange, routing_key, other):
    """Also where the worker consumes that queue no more, or it comes back after its countdown."""

    def check():
        check_queue(europe, message(exchange, routing_key), "w1@h")

    if other is None:
        check()
    else:
        with pytest.raises(ConcurrencyError, match=f"for a worker of the namespace '{other}'"):
            check()


def test_a_message_that_may_be_of_another_namespace_is_refused(europe):
    """By a headers exchange, say: nothing tells from which queue it came."""
    unknown = message("headers", "")
    check_queue(europe, unknown, "w1@h")
    europe.amqp.queues.select_add("us.a")
    with pytest.raises(ConcurrencyError, match=r"namespace 'us'.*cancel_consumer us\.a"):
        check_queue(europe, unknown, "w1@h")
    check_queue(europe, message("topics", "posts.eu.1"), "w1@h")
    europe.amqp.queues.deselect("us.a")
    with pytest.raises(ConcurrencyError, match="namespace 'us'"):
        check_queue(europe, unknown, "w1@h")  # more of them may have been on their way


# -- faces


def test_the_api_is_that_of_one_namespace(server, redis):
    url = server.url()
    app = app_of(
        {name: {"queues": [name], "redis_url": url, "key_prefix": name} for name in ("eu", "us")}
    )
    with connect(url) as client:
        for name in ("eu", "us"):
            Limiter(client, name).config.update({"global_max": 5 if name == "eu" else 7})
    with pytest.raises(ImproperlyConfigured, match="say which one"):
        create_app(app)
    for name, most in (("eu", 5), ("us", 7)):
        web = create_app(app, namespace=name).test_client()
        config = web.get("/api/v1/concurrency/config").json["data"]
        assert config["global_max"] == most
        page = web.get("/", headers={"Accept-Language": "en"}).text
        assert f"<title>Concurrency: {name}</title>" in page
        assert web.get("/metrics").status_code == 200
