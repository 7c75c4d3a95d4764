"""The gate at its rare moments, which no worker can be brought to at will.

A task's own tracer runs it here, as a worker's pool does.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
from celery import Celery, signals
from celery.exceptions import SoftTimeLimitExceeded
from kombu import Exchange, Queue
from kombu.utils.uuid import uuid
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from celery_concurrency import current_lease
from celery_concurrency.errors import InvalidTag, LimiterUnavailable
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.outcomes import Ticket
from celery_concurrency.worker import tracing
from celery_concurrency.worker.apps import limiter_of
from celery_concurrency.worker.hooks import connect_hooks, gate_all_tasks
from celery_concurrency.worker.message import TaskMessage
from celery_concurrency.worker.progress import Stage, note
from tests.support.tracing import Message, trace
from tests.support.workers import settle, wait_for


@pytest.fixture
def app(redis, redis_url):
    settle(redis)
    app = Celery("gate", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.concurrency_redis_url = redis_url
    app.conf.concurrency_exempt = ("free",)
    connect_hooks()
    gate_all_tasks()
    app.finalize()
    yield app
    app.close()


@pytest.fixture
def run(app):
    """Runs a task's body as a worker would: ``run(body, **headers)`` is its result."""
    return partial(trace, app)


@pytest.fixture
def held(limiter):
    """The account of which another run has the one token."""
    limiter.try_acquire("other:1", {"account": "held"})
    return "held"


def done():
    return "done"


def forbidden():
    raise AssertionError("the body must not run")


def test_a_denied_task_is_sent_on_once_and_says_retry(run, held):
    message = Message()
    assert run(forbidden, message, account=held).state == "RETRY"
    assert message.sent == [30]


@pytest.mark.parametrize("account", ["held", "free"])
def test_a_run_that_was_taken_from_its_process_neither_begins_nor_waits(run, held, redis, account):
    """The process is about to be killed, and the main one gives its message a place."""
    message = Message()
    token = f"task:{uuid()}"

    def take(**_):
        note(token, Stage.TAKEN)

    signals.task_prerun.connect(take)  # after the gate's own
    try:
        run(forbidden, message, token=token, account=account)
    finally:
        signals.task_prerun.disconnect(take)
    assert message.sent == []
    assert redis.zscore("concurrency:leases", token) is None


def test_a_run_that_was_taken_after_its_grant_has_not_begun(run, limiter, redis):
    """Its message, which the main process puts back, is no copy of one that has run."""
    limiter.config.update({"rates": {"account:*": [{"max": 1, "per": 1000}]}})
    token, parked_as = f"task:{uuid()}", f"task:{uuid()}"
    parked = {"as": parked_as, "score": 7, "limits": ["global", "account:a"]}

    def take(**_):
        note(token, Stage.TAKEN)

    signals.task_prerun.connect(take)
    try:
        run(forbidden, Message(), token=token, parked=parked, account="a")
    finally:
        signals.task_prerun.disconnect(take)
    assert redis.zscore("concurrency:leases", token) is None
    assert redis.zcard("concurrency:rate:account:a") == 0
    assert not redis.exists(f"concurrency:begun:{parked_as}")


@pytest.mark.parametrize("dropped", [False, True], ids=["acknowledged", "dead-lettered"])
def test_a_failed_task_that_the_broker_kept_for_later_runs_again(run, dropped):
    """As from a dead letter queue: where a failure rejects the message, its copy is no repeat."""
    ran = []
    options = {"acks_late": True, "acks_on_failure_or_timeout": not dropped}
    parked = {"as": "task:1", "score": 7, "limits": ["global"]}

    def fails():
        ran.append(1)
        raise ValueError

    for number in range(2):
        run(fails, Message(), token=f"task:{number + 2}", parked=parked, options=options)
    assert len(ran) == 1 + dropped


def test_what_fails_while_sending_on_is_tried_again(run, held):
    """Also a soft time limit, which may strike at any moment."""
    message = Message(OSError("away"), SoftTimeLimitExceeded())
    assert run(forbidden, message, account=held).state == "RETRY"
    assert message.sent == [30]


def test_a_task_that_calls_itself_sees_no_header_of_ours(run, app):
    """Celery copies its request then, and would send on as a header what it doesn't know."""
    seen = []

    class Calls(app.Task):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    def look(self):
        seen.append((self.request.headers, self.request.properties, current_lease().limits))

    run(look, Message(), options={"base": Calls, "bind": True})
    assert seen == [(None, {}, ("global",))]


def test_a_denied_task_without_a_message_fails_instead_of_being_lost(run, held):
    result = run(forbidden, account=held)
    assert result.state == "FAILURE"
    assert "celery_concurrency.signals to imports" in str(result.result)


def test_a_soft_time_limit_before_the_answer_leaves_no_token(run, redis, monkeypatch):
    """The script was executed, and its reply never read."""
    ask = Limiter.try_acquire

    def interrupted(*args, **options):
        ask(*args, **options)
        raise SoftTimeLimitExceeded()

    monkeypatch.setattr(Limiter, "try_acquire", interrupted)
    message = Message()
    assert run(forbidden, message, account="a").state == "RETRY"
    assert message.sent == [30]
    wait_for(lambda: redis.keys("concurrency:semaphore:*") == [], what="the token back")


def test_a_run_that_is_terminated_before_its_answer_was_read_leaves_no_token(
    run, app, redis, monkeypatch
):
    """As by a SIGTERM, which is no error that Celery catches."""
    ask = Limiter.try_acquire

    def terminated(*args, **options):
        ask(*args, **options)
        raise SystemExit

    limiter_of(app).config.update({"rates": {"account:*": [{"max": 1, "per": 100}]}})
    monkeypatch.setattr(Limiter, "try_acquire", terminated)
    with pytest.raises(SystemExit):
        run(forbidden, Message(), account="a")
    assert redis.keys("concurrency:semaphore:*") == []
    assert redis.keys("concurrency:rate:*") == [], "its body never began"


def test_a_soft_time_limit_before_the_release_leaves_no_token(run, redis, monkeypatch):
    release, strikes = Limiter.release, [SoftTimeLimitExceeded()]

    def interrupted(*args, **done):
        if strikes:
            raise strikes.pop()
        return release(*args, **done)

    monkeypatch.setattr(Limiter, "release", interrupted)
    assert run(done, Message(), account="a").get() == "done"
    assert strikes == []
    assert redis.keys("concurrency:semaphore:*") == []


def test_a_run_that_has_ended_waits_even_where_tasks_run_without_redis(run, app, limiter, redis):
    """Redis is there and says no: that is no reason to run ungated."""
    app.conf.concurrency_redis_unavailable = "run"
    message = Message()
    limiter.try_acquire("ended:1", {"account": "a"})
    redis.zadd("concurrency:leases", {"ended:1": 1})
    assert run(forbidden, message, token="ended:1", account="a").state == "RETRY"
    assert message.sent == [30]


def test_a_run_that_begins_without_redis_is_counted_later_as_what_it_is(run, app, monkeypatch):
    """At the place where it waited, with its priority."""

    def away(*_, **__):
        raise LimiterUnavailable("away")

    counted = {}
    app.conf.concurrency_redis_unavailable = "run"
    monkeypatch.setattr(Limiter, "try_acquire", away)
    monkeypatch.setattr(Limiter, "count_later", lambda *_, **facts: counted.update(facts))
    message = Message()
    message.properties = {"priority": 3}
    parked = {"as": "task:1", "score": 7, "limits": ["global"]}
    assert run(done, message, parked=parked).get() == "done"
    assert counted["ticket"] == Ticket(7, "task:1", ("global",))
    assert counted["rank"] == 255 - 3


def test_the_span_of_a_hold_ends_even_if_redis_is_away_at_its_end(run, app, monkeypatch):
    provider, spans = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(tracing.trace, "get_tracer", provider.get_tracer)

    def away(*args, **kwargs):
        raise LimiterUnavailable("away")

    monkeypatch.setattr(limiter_of(app), "release", away)
    with provider.get_tracer("celery").start_as_current_span("run"):
        assert run(done, Message(), account="a").result == "done"
    hold, _ = spans.get_finished_spans()
    assert hold.name == "concurrency hold"
    assert "concurrency.expired" not in hold.attributes, "nobody could say"


def test_a_mistagged_task_holds_nothing_and_releases_nothing(run, caplog):
    caplog.set_level("INFO")
    assert run(forbidden, Message(), account="").state == "FAILURE"
    assert "released" not in caplog.text


def test_a_broadcast_task_with_tags_is_refused_and_one_without_runs(run, held):
    """Sent on, it would reach every worker again."""
    message = Message(broadcast=True)
    result = run(forbidden, message, account=held)
    assert result.state == "FAILURE"
    assert "broadcast queue, and can't be limited there" in str(result.result)
    assert run(done, message, name="untagged").get() == "done"
    assert message.sent == []


def test_a_broadcast_task_tagged_with_an_own_dimension_is_refused(run, limiter):
    limiter.config.update({"dimensions": {"tenant": {"max": 1}}})
    assert run(forbidden, Message(broadcast=True), tenant="t1").state == "FAILURE"


@pytest.mark.parametrize("value", ["a\nTask x granted", "\0", "\x9b2J", "a\u2028", "\ud800"])
def test_a_tag_that_cant_be_printed_fails_its_task(run, value):
    result = run(done, Message(), account=value)
    assert isinstance(result.result, InvalidTag)
    assert "which can't be printed" in str(result.result)
    assert str(result.result).isprintable()


def test_a_header_named_as_the_gate_names_things_does_no_harm(run, caplog):
    assert run(done, name="free", concurrency="mine").get() == "done"
    assert "Signal handler" not in caplog.text


@pytest.mark.parametrize(
    ("pattern", "key", "routed"),
    [
        ("a.#", "a.b.c", True), ("a.#", "a", True), ("a.#", "ab", False), ("#", "x.y", True),
        ("#.a", "a", True), ("#.a", "x.y.a", True), ("*.a", "x.a", True), ("*.a", "x.y.a", False),
        ("a.#.b", "a.b", True), ("a.#.b", "ab", False), ("a+", "aa", False),
    ],
)  # fmt: skip
def test_a_message_copied_by_a_topic_exchange_goes_on_to_its_queue_alone(pattern, key, routed):
    """Only where another queue got a copy too."""
    copies = Exchange("copies", "topic")
    one, other = Queue("one", copies, pattern), Queue("other", copies, key)
    assert address_of(key, one, other) == (("", "one") if routed else ("copies", key))
    assert address_of(key, one) == ("copies", key)


def address_of(key, *queues):
    """Return where a message is sent on that came by the exchange, in an app with these queues."""
    app = Celery("address", broker="memory://", set_as_current=False)
    app.conf.task_queues = queues
    message = SimpleNamespace(
        headers={"task": "t"},
        properties={},
        content_type="application/json",
        content_encoding="utf-8",
        delivery_info={"exchange": "copies", "routing_key": key},
    )
    kept = TaskMessage.of(SimpleNamespace(message=message, body=b"", app=app))
    return kept.exchange, kept.routing_key
