"""At which ends of a run the limiter is told of a refusal, and that tokens come back at all.

A task's own tracer runs it here, as a worker's pool does.
"""

from __future__ import annotations

from functools import partial

import pytest
from celery import Celery, current_task
from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded

from celery_concurrency import current_lease
from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.worker import refusal_telling
from celery_concurrency.worker.apps import forget, limiter_of
from celery_concurrency.worker.gate import on_postrun
from celery_concurrency.worker.hooks import connect_hooks, gate_all_tasks
from tests.support.floor import Floor
from tests.support.tracing import Message, trace
from tests.support.workers import settle


class RiskControl(Exception):
    pass


ACCOUNT = {"account": "a"}
RISK_CONTROL = f"{__name__}.RiskControl"


@pytest.fixture
def app(redis, redis_url, monkeypatch):
    settle(redis)
    monkeypatch.setattr(refusal_telling, "_without_limit", set())
    app = Celery("telling", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.concurrency_redis_url = redis_url
    app.conf.concurrency_refusals = {RISK_CONTROL: {"dimension": "account", "seconds": 60}}
    connect_hooks()
    gate_all_tasks()
    app.finalize()
    yield app
    app.close()


@pytest.fixture
def run(app):
    """Runs a task's body as a worker would: ``run(body, **headers)`` is its result."""

    def run(body, **headers):
        return trace(app, body, Message(), **headers)

    return run


@pytest.fixture
def calls(app, monkeypatch):
    """What the limiter is told of refusals and releases, in this order."""
    calls = []
    limiter = limiter_of(app)
    for method, verb in (("refusing", "refuse"), ("release", "release")):
        original = getattr(limiter, method)

        def call(*args, verb=verb, original=original, **named):
            calls.append((verb, args, named))
            return original(*args, **named)

        monkeypatch.setattr(limiter, method, call)
    return calls


def verbs(calls):
    return [verb for verb, _, _ in calls]


def refused(redis, name="total"):
    return int(redis.hget("concurrency:stats:counters", f"refused:{name}") or 0)


def fails():
    raise RiskControl("captcha")


def test_a_refusal_is_told_before_the_tokens_come_back(run, calls, redis, limiter):
    assert run(fails, account="a", type="publish").state == "FAILURE"
    [(_, args, named), (_, _, ended)] = calls
    token, limits, limit, seconds = args
    assert (limits, limit, seconds) == (
        ("global", "account:a", "task_type:publish"), "account:a", 60
    )  # fmt: skip
    assert named == {
        "grow": 2, "most": 7200, "reason": "RiskControl: captcha",
        "by": f"task {token.partition(':')[0]}",
    }  # fmt: skip
    assert verbs(calls) == ["refuse", "release"]
    assert ended["succeeded"] is False
    assert refused(redis) == refused(redis, "task_type:publish") == 1
    found = limiter.cooldowns.find("account:a")
    assert found.seconds == pytest.approx(60, abs=20)
    assert found.refused


def returns_one():
    return RiskControl("a value")


def other():
    raise ValueError


def killed():
    raise SystemExit(1)


def ignored():
    """As a task ends that was replaced."""
    raise Ignore


def polls_on():
    raise Retry("not yet")


def retries_an_error():
    try:
        other()
    except ValueError as exc:
        raise Retry(exc=exc)  # noqa: B904 - as Celery does


@pytest.mark.parametrize(
    ("body", "succeeded"),
    [
        (returns_one, True),
        (ignored, True),
        (polls_on, True),
        (other, False),
        (retries_an_error, False),
    ],
)
def test_what_is_no_refusal_is_one_call_less(run, calls, body, succeeded):
    run(body, options={"ignore_result": True}, **ACCOUNT)
    [(verb, _, ended)] = calls
    assert (verb, ended["succeeded"]) == ("release", succeeded)


def test_a_run_that_is_cut_off_tells_nothing(run, calls):
    with pytest.raises(SystemExit):
        run(killed, **ACCOUNT)
    [(verb, _, ended)] = calls
    assert (verb, ended["succeeded"]) == ("release", False)


def test_what_keeps_a_run_from_its_body_is_no_refusal(app, run, calls, limiter):
    """Though every exception is one here, and Retry and InvalidTag are exceptions."""
    app.conf.concurrency_refusals = {"builtins.Exception": {"dimension": "global", "seconds": 60}}
    forget(app)
    limiter.try_acquire("other:1", {"account": "held"})
    assert run(fails, account="held").state == "RETRY"
    assert run(fails, account="").state == "FAILURE"
    assert "refuse" not in verbs(calls)


def test_a_call_of_the_task_itself_and_an_eager_run_tell_nothing(app, redis):
    task = app.task(fails, name="called", concurrency=ACCOUNT)
    with pytest.raises(RiskControl):
        task()
    assert task.apply().state == "FAILURE"
    assert refused(redis) == 0


def test_a_second_end_of_a_run_tells_nothing_new(run, redis, limiter):
    """As when a soft time limit strikes in between, or a worker's signal comes twice."""
    ends = []

    def ends_twice():
        ends.append(partial(on_postrun, task=current_task._get_current_object(), state="FAILURE"))
        ends[0](retval=RiskControl("first"))
        raise RiskControl("second")

    run(ends_twice, **ACCOUNT)
    assert refused(redis) == 1
    assert limiter.cooldowns.find("account:a").reason == "RiskControl: first"


def test_without_such_a_limit_it_counts_and_nothing_cools_down(run, calls, redis, limiter, caplog):
    for _ in range(3):
        run(fails, platform="douyin")
    assert {args[2:] for verb, args, _ in calls if verb == "refuse"} == {("global", 0)}
    assert refused(redis) == refused(redis, "platform:douyin") == 3
    assert limiter.cooldowns.read() == ([], 0)
    said = [one.getMessage() for one in caplog.records if "has no account" in one.getMessage()]
    assert len(said) == 1
    assert f"concurrency_refusals['{RISK_CONTROL}']: task work has no account" in said[0]


@pytest.mark.parametrize("error", [ValueError("a mistake"), LimiterUnavailable("away")])
def test_tokens_come_back_whatever_goes_wrong_with_telling(app, run, redis, monkeypatch, error):
    def refuse(*args, **named):
        raise error

    monkeypatch.setattr(limiter_of(app), "refuse", refuse)
    assert run(fails, **ACCOUNT).state == "FAILURE"
    assert redis.zcard("concurrency:leases") == 0


def test_a_soft_time_limit_while_telling_is_survived(app, run, redis, monkeypatch):
    limiter = limiter_of(app)
    original, strikes = limiter.refuse, [SoftTimeLimitExceeded()]

    def refuse(*args, **named):
        until = original(*args, **named)
        if strikes:
            raise strikes.pop()
        return until

    monkeypatch.setattr(limiter, "refuse", refuse)
    run(fails, **ACCOUNT)
    assert refused(redis) == 1
    assert redis.zcard("concurrency:leases") == 0


def done():
    return "done"


@pytest.mark.parametrize(
    ("body", "opens"), [(done, True), (other, False), (fails, False)],
    ids=["succeeds", "fails", "is refused"],
)  # fmt: skip
def test_only_its_success_opens_the_limit_in_which_a_run_goes_first(
    run, redis, limiter, body, opens
):
    run(fails, **ACCOUNT)
    Floor(limiter, redis).age(60)
    run(body, name="second", **ACCOUNT)
    found = limiter.cooldowns.find("account:a")
    assert (found is None) is opens
    if body is fails:
        assert found.seconds == pytest.approx(120, abs=20)


# -- a task that tells itself


def tells():
    current_lease().refused("account", seconds=30, reason="429")


def tells_and_fails():
    tells()
    fails()


@pytest.mark.parametrize("body", [tells, tells_and_fails])
def test_a_task_that_tells_itself_has_not_succeeded_and_is_told_once(
    run, calls, redis, limiter, body
):
    run(body, account="a")
    assert verbs(calls) == ["refuse", "release"]
    assert refused(redis) == 1
    found = limiter.cooldowns.find("account:a")
    assert (found.reason, found.refused) == ("429", True)
    assert found.seconds == pytest.approx(30, abs=20)
    assert found.by.startswith("task ")
    [ended] = [named for verb, _, named in calls if verb == "release"]
    assert ended["succeeded"] is False


def test_a_refusal_of_another_limit_cools_that_too_and_counts_once(run, redis, limiter):
    def tells_of_its_platform():
        current_lease().refused("platform", seconds=30, grow=3, most=90)
        fails()

    run(tells_of_its_platform, account="a", platform="douyin")
    assert refused(redis) == 1
    assert {one.limit for one in limiter.cooldowns.read()[0]} == {"account:a", "platform:douyin"}


def test_while_redis_is_away_a_task_that_tells_goes_on(app, run, calls, monkeypatch):
    """The limiter tells it later; the run does not open what it was let into first."""
    limiter = limiter_of(app)

    def refuse(*args, **named):
        raise LimiterUnavailable("away")

    monkeypatch.setattr(limiter, "refusing", refuse)

    def tells_and_returns():
        return current_lease().refused("account", seconds=30)

    result = run(tells_and_returns, **ACCOUNT)
    assert (result.state, result.result) == ("SUCCESS", 0.0)
    [(_, _, ended)] = calls
    assert ended["succeeded"] is False
