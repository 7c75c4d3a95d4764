"""Each private part of Celery that we use is there, and does what we use it for."""

from __future__ import annotations

import inspect
import json
import pickle
from functools import partial
from types import SimpleNamespace
from weakref import WeakSet

import pytest
from celery import Celery, _state, current_app, signals
from celery.app.task import Context
from celery.app.trace import LOG_RECEIVED
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.worker import state as worker_state
from celery.worker import strategy
from celery.worker.consumer import Consumer
from celery.worker.request import Request

from celery_concurrency.api import create_blueprint
from celery_concurrency.errors import LimitReached
from celery_concurrency.worker import apps, celery_compat
from celery_concurrency.worker.hooks import gated

CHECKS = {}


def uses(*parts):
    """Register a check of the function of its name, under the private parts that it uses."""

    def register(check):
        CHECKS[f"{check.__name__}: {', '.join(parts)}"] = check
        return check

    return register


def work():
    """Do nothing."""


@pytest.fixture
def app():
    app = Celery("compat", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def request_(app):
    """A request, as a worker makes it of a message."""
    task = app.task(work, name="work", shared=False)
    message = SimpleNamespace(
        headers={"id": "1", "task": "work", "account": "a", "ours": 1},
        body=b'[[], {}, {"chord": null}]',
        payload=([], {}, {"chord": None}),
        properties={"app_id": "mine"},
        delivery_info={"exchange": "", "routing_key": "celery"},
        content_type="application/json",
        content_encoding="utf-8",
    )
    return Request(message, app=app, task=task)


@uses("Proxy._get_current_object")
def real_app(app, request_):
    assert type(celery_compat.real_app(current_app)) is not type(current_app)
    assert celery_compat.real_app(current_app).main == current_app.main
    assert celery_compat.real_app(app) is app


@uses("_state.connect_on_app_finalize", "_state._get_active_apps")
def on_each_app(app, request_):
    app.finalize()
    seen = []
    celery_compat.on_each_app(seen.append)
    assert app in seen
    later = Celery("later", set_as_current=False)
    assert later not in seen
    later.finalize()
    assert later in seen


@uses("app.annotations")
def watch_tasks(app, request_):
    seen = []
    assert celery_compat.watch_tasks(app, seen.append)
    assert not celery_compat.watch_tasks(app, seen.append)
    task = app.task(work, name="later", shared=False)
    assert type(app.tasks[task.name]) in seen


@uses("app.annotations")
def unwatch_tasks(app, request_):
    seen = []
    assert celery_compat.watch_tasks(app, seen.append)
    celery_compat.unwatch_tasks(app)
    task = app.task(work, name="later", shared=False)
    assert type(app.tasks[task.name]) not in seen


@uses("Request.request_dict")
def headers_of(app, request_):
    """The message's own headers stay as they are."""
    headers = celery_compat.headers_of(request_)
    assert headers["account"] == "a"
    assert headers.pop("ours") == request_.message.headers["ours"] == 1
    assert Context(request_.request_dict).headers == {"account": "a"}


@uses("Request.request_dict")
def send_along(app, request_):
    """The child has it, and no message that Celery makes of the request."""
    celery_compat.send_along(request_, {"ours": object})
    child = pickle.loads(pickle.dumps(request_.request_dict))
    assert celery_compat.ours_on(Context(child)) == {"ours": object}
    assert Context(child).properties == {"app_id": "mine"}
    options = request_.task.signature_from_request(Context(request_.request_dict)).options
    assert options["headers"] == {"account": "a", "ours": 1}
    assert "properties" not in options
    json.dumps(request_.request_dict)


@uses("Request.request_dict")
def sent_along(app, request_):
    assert celery_compat.sent_along(request_) is None
    celery_compat.send_along(request_, "ours")
    assert celery_compat.sent_along(request_) == "ours"


@uses("Context.properties")
def ours_on(app, request_):
    """Also where Celery copies the request."""
    assert celery_compat.ours_on(Context()) is None
    assert celery_compat.ours_on(Context(request_.request_dict)) is None
    celery_compat.send_along(request_, "ours")
    request_.task.request_stack.push(Context(request_.request_dict))
    request_.task.push_request(args=())
    assert celery_compat.ours_on(request_.task.request) == "ours"
    assert request_.task.request.properties == {"app_id": "mine"}
    assert request_.task.request.headers == {"account": "a", "ours": 1}


@uses("state.active_requests.data")
def active_requests(app, request_):
    assert isinstance(worker_state.active_requests, WeakSet)
    worker_state.active_requests.add(request_)
    assert request_ in celery_compat.active_requests()


@uses("Consumer.on_task_request")
def guard_pool(app, request_):
    seen = []
    consumer = SimpleNamespace(on_task_request=seen.append)
    celery_compat.guard_pool(consumer, lambda request: request == "may")
    consumer.on_task_request("may")
    consumer.on_task_request("may not")
    assert seen == ["may"]
    parameters = inspect.signature(Consumer.__init__).parameters
    assert next(iter(parameters)) == "self"
    assert "on_task_request" in parameters


@pytest.fixture
def consumer(app):
    """What Celery's strategy needs of a worker's consumer; it notes events that are sent."""
    events = []
    eventer = SimpleNamespace(
        enabled=True, send=lambda *args, **fields: events.append((args, fields))
    )
    handed_on = []
    return Sender(
        app=app, hostname="w", connection_errors=(), events=events, handed_on=handed_on,
        event_dispatcher=eventer, disable_rate_limits=False, task_buckets={"work": None},
        timer=SimpleNamespace(call_at=None), apply_eta_task=None, _limit_task=None,
        _limit_post_eta=None, on_task_request=handed_on.append,
        pool=SimpleNamespace(apply_async=None),
        controller=SimpleNamespace(state=worker_state),
    )  # fmt: skip


class Sender(SimpleNamespace):
    """A sender of signals needs a hash."""

    __hash__ = object.__hash__


def by_celery(consumer, request_):
    """Let Celery's own strategy receive a message; return its request."""
    handle = strategy.default(request_.task, consumer.app, consumer)
    handle(request_.message, None, None, None, [])
    return consumer.handed_on.pop()


def test_what_is_received_is_told_as_celery_tells_it(app, request_, consumer, caplog):
    request_.message.headers |= {"argsrepr": "()", "kwargsrepr": "{}", "retries": 2}
    request_.task.send_events = True
    signalled = []

    def note(sender, request, **_):
        signalled.append((sender, request.id))

    signals.task_received.connect(note, weak=False)
    try:
        with caplog.at_level("INFO"):
            theirs = by_celery(consumer, request_)
            ours = celery_compat.request_of(consumer, request_.message, request_.task)
            assert len(signalled) == len(consumer.events) == len(caplog.records) == 1
            celery_compat.tell_received(consumer, ours)
    finally:
        signals.task_received.disconnect(note)
    assert signalled[0] == signalled[1]
    assert consumer.events[0] == consumer.events[1]
    lines = [(line.name, line.levelname, line.getMessage(), line.data) for line in caplog.records]
    assert lines[0] == lines[1]
    for name in ("id", "name", "args", "kwargs", "hostname", "eta", "expires", "request_dict"):
        assert getattr(ours, name) == getattr(theirs, name), name


@uses("celery.worker.strategy.default")
def request_of(app, request_):
    """Nobody is told of it, and no ack is due yet."""
    dispatcher = SimpleNamespace(enabled=True, send=lambda *_, **__: pytest.fail("told"))
    consumer = SimpleNamespace(
        app=app, hostname="w", event_dispatcher=dispatcher, connection_errors=()
    )
    made = celery_compat.request_of(consumer, request_.message, request_.task)
    assert (made.id, made.hostname, made.acknowledged) == ("1", "w", False)


@uses("celery.app.trace.LOG_RECEIVED", "celery.worker.strategy.logger")
def tell_received(app, request_):
    """The test above compares it with Celery itself."""
    assert "received" in LOG_RECEIVED
    assert strategy.logger.name == "celery.worker.strategy"


@uses("Consumer.disable_rate_limits", "Consumer.task_buckets")
def is_rate_limited(app, request_):
    consumer = SimpleNamespace(disable_rate_limits=False, task_buckets={"work": object()})
    assert celery_compat.is_rate_limited(consumer, request_.task)
    consumer.disable_rate_limits = True
    assert not celery_compat.is_rate_limited(consumer, request_.task)
    made = SimpleNamespace(
        app=app, task_buckets={}, bucket_for_task=partial(Consumer.bucket_for_task, None)
    )
    Consumer.reset_rate_limits(made)
    assert made.task_buckets["work"] is None


@uses("Request._context")
def context_of(app, request_):
    assert celery_compat.context_of(request_).id == "1"


@uses("RedisBackend.connparams")
def connection_of(app, request_):
    found = celery_compat.connection_of(RedisBackend(app=app, url="redis://127.0.0.1:1/3"))
    assert (found["host"], found["port"], int(found["db"])) == ("127.0.0.1", 1, 3)
    found = celery_compat.connection_of(
        RedisBackend(app=app, url="socket:///tmp/one?virtual_host=2")
    )
    assert (found["path"], int(found["db"])) == ("/tmp/one", 2)
    found = celery_compat.connection_of(SentinelBackend(app=app, url="sentinel://127.0.0.1:1/3"))
    assert not found.get("host")


@uses("Backend._get_result_meta")
def stored_state(app, request_):
    """It is what the backend itself would have written."""
    request_.task.backend = RedisBackend(app=app, url="redis://127.0.0.1:1/3", expires=60)
    stored = celery_compat.stored_state(request_, "RETRY", LimitReached("waits"))
    assert stored["db"] == 3
    assert stored["seconds"] == 60
    assert stored["key"] == "celery-task-meta-1"
    meta = request_.task.backend.decode_result(stored["value"])
    assert (meta["status"], meta["task_id"], str(meta["result"])) == ("RETRY", "1", "waits")


@uses("Celery._tasks")
def tasks_of(app, request_):
    early = Celery("early", autofinalize=False, set_as_current=False)
    assert celery_compat.tasks_of(early) == []
    assert not early.finalized
    assert request_.task.name in {task.name for task in celery_compat.tasks_of(app)}


@pytest.mark.parametrize("part", CHECKS)
def test_the_part_is_there(part, app, request_):
    CHECKS[part](app, request_)


def test_each_function_has_its_check():
    own = {
        name
        for name, what in vars(celery_compat).items()
        if getattr(what, "__module__", "") == celery_compat.__name__
        and not name.startswith("_")
        and (inspect.isfunction(what) or inspect.isclass(what))
    }
    assert {check.__name__ for check in CHECKS.values()} == own


def test_the_current_app_is_as_good_as_the_app_itself(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a proxy, of which nobody can keep a weak reference."""
    app = Celery("proxied", broker=redis_url, set_as_current=False)
    monkeypatch.setattr(_state._tls, "current_app", app)
    assert apps.limiter_of(current_app) is apps.limiter_of(app)
    assert apps.settings_of(current_app) is apps.settings_of(app)
    create_blueprint(current_app)
    before = apps.limiter_of(app)
    apps.forget(current_app)
    assert apps.limiter_of(app) is not before


def test_gating_an_app_does_not_complete_it(redis_url: str) -> None:
    app = Celery("early", broker=redis_url, autofinalize=False, set_as_current=False)
    with gated(app):
        assert not app.finalized
