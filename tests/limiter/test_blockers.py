"""Every limit that blocks a waiter is named, those first that stay shut for longest."""

from __future__ import annotations

import pytest

from celery_concurrency.limiter import Denied
from celery_concurrency.limiter.config import history
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.inspect.explanation import explain
from celery_concurrency.limiter.inspect.limit_state import FEW
from celery_concurrency.limiter.inspect.waiting import read_waiting
from tests.support.waiting import hold, park

PREFIX = "concurrency"
TAGS = {"platform": "douyin", "account": "a", "type": "publish"}


def blockers(limiter, task_id="w"):
    """Return reason and limit of all that block a task; the list names the first of them."""
    config = limiter.config.sync().config
    found = explain(limiter.keyspace, config, task_id)
    [listed] = [
        one for one in read_waiting(limiter.keyspace, config).waiting if one.task_id == task_id
    ]
    assert found.blocked_by == found.blockers[0]
    named = found.blocked_by
    assert (listed.blocked_by.reason, listed.blocked_by.limit) == (named.reason, named.limit)
    return [(one.reason, one.limit) for one in found.blockers]


def first(limiter, task_id="w"):
    return explain(limiter.keyspace, limiter.config.sync().config, task_id).blockers[0]


def denied_by(limiter, tags=TAGS):
    """Return the limit that is the reason of a task's RETRY."""
    answer = limiter.try_acquire("asks:1", tags)
    assert isinstance(answer, Denied), answer
    return answer.limit


def begun_before(redis, token, seconds):
    key = f"{PREFIX}:token:{token}"
    redis.hset(key, "since", f"{float(redis.hget(key, 'since')) - seconds:.6f}")


def test_a_paused_platform_comes_before_a_full_global(limiter):
    hold(limiter, "h", {"platform": "kuaishou"})
    limiter.config.update({"global_max": 1, "paused": ["platform:douyin"]})
    park(limiter, "w", {"platform": "douyin"})
    assert blockers(limiter) == [("paused", "platform:douyin"), ("full", "global")]
    assert denied_by(limiter, {"platform": "douyin"}) == "platform:douyin"


def test_all_that_are_full_the_narrowest_first(limiter):
    hold(limiter, "h", {**TAGS, "tenant": "t"})
    dimensions = {"tenant": {"max": 1}}
    limiter.config.update({"dimensions": dimensions, "global_max": 1})
    maxima = {"platform_max": {"douyin": 1}, "task_type_max": {"publish": 1}}
    limiter.config.update(maxima)
    hold(limiter, "other", {"tenant": "t"}, begun=True)
    park(limiter, "w", {**TAGS, "tenant": "t"})
    assert blockers(limiter) == [
        ("full", "account:a"),
        ("full", "tenant:t"),
        ("full", "task_type:publish"),
        ("full", "platform:douyin"),
        ("full", "global"),
    ]
    assert denied_by(limiter, {**TAGS, "tenant": "t"}) == "account:a"
    without_account = {"platform": "douyin", "type": "publish", "tenant": "t"}
    assert denied_by(limiter, without_account) == "tenant:t"


def test_a_paused_limit_is_never_full(limiter):
    hold(limiter, "h", TAGS)
    limiter.config.pause("account:a")
    park(limiter, "w", TAGS)
    assert blockers(limiter) == [("paused", "account:a")]


def test_what_cools_down_comes_before_what_is_full(limiter):
    hold(limiter, "h", TAGS)
    limiter.cooldowns.set("platform:douyin", 600, "429", "ann")
    limiter.cooldowns.set("account:a", 600)  # full besides
    park(limiter, "w", TAGS)
    limiter.config.update({"global_max": 1, "paused": ["task_type:publish"]})
    assert blockers(limiter) == [
        ("paused", "task_type:publish"),
        ("cooling", "account:a"),
        ("cooling", "platform:douyin"),
        ("full", "global"),
    ]
    assert denied_by(limiter) == "task_type:publish"
    limiter.config.resume("task_type:publish")
    assert denied_by(limiter) == "account:a"
    limiter.cooldowns.lift("account:a")
    limiter.config.update({"global_max": 0, "account_max": 0})
    found = first(limiter)
    assert (found.reason, found.cause, found.by) == ("cooling", "429", "ann")
    assert found.since == pytest.approx(limiter.keyspace.now(), abs=60)


def test_the_run_that_goes_first_comes_before_what_is_full(limiter):
    token = hold(limiter, "h", {"platform": "douyin", "account": "b"})
    limiter.config.update({"global_max": 1})
    limiter.keyspace.redis.zadd(f"{PREFIX}:probes", {"platform:douyin": limiter.keyspace.now() - 1})
    limiter.keyspace.redis.hset(f"{PREFIX}:cooldown:platform:douyin", "probe", token)
    park(limiter, "w", TAGS)
    assert blockers(limiter) == [("probe", "platform:douyin"), ("full", "global")]
    assert denied_by(limiter) == "platform:douyin"


def test_where_no_run_has_begun_for_long_comes_before_others_that_are_full(limiter, redis):
    stuck = hold(limiter, "stuck", {"platform": "douyin", "account": "b"})
    hold(limiter, "h", {"account": "a"})
    limiter.config.update({"platform_max": {"douyin": 1}, "global_max": 2})
    park(limiter, "w", TAGS)
    narrowest = [("full", "account:a"), ("full", "platform:douyin"), ("full", "global")]
    assert blockers(limiter) == narrowest
    begun_before(redis, stuck, 7200)
    assert blockers(limiter) == [narrowest[1], narrowest[0], narrowest[2]]
    assert first(limiter).since == pytest.approx(limiter.keyspace.now() - 7200, abs=60)


def test_a_limit_of_which_one_holder_is_stuck_and_others_come_and_go_is_not_still(limiter, redis):
    stuck = hold(limiter, "stuck", {"platform": "douyin", "account": "b"})
    hold(limiter, "moves", {"platform": "douyin", "account": "c"})
    hold(limiter, "h", {"account": "a"})
    limiter.config.update({"platform_max": {"douyin": 2}})
    park(limiter, "w", TAGS)
    begun_before(redis, stuck, 7200)
    assert blockers(limiter) == [("full", "account:a"), ("full", "platform:douyin")]


def test_holders_of_a_wide_limit_are_not_read(limiter, redis):
    limiter.config.update({"platform_max": {"douyin": FEW + 1}})
    for number in range(FEW + 1):
        begun_before(redis, hold(limiter, f"h{number}", {"platform": "douyin"}), 7200)
    hold(limiter, "h", {"account": "a"})
    park(limiter, "w", TAGS)
    assert blockers(limiter) == [("full", "account:a"), ("full", "platform:douyin")]


def test_a_rate_and_an_adaptive_limit(limiter, redis):
    rates = {"account:*": [{"max": 1, "per": 100}]}
    limiter.config.update({"rates": rates, "account_max": 0})
    limiter.config.update({"adaptive": {"platform:douyin": {"min": 1, "max": 1}}})
    hold(limiter, "h", TAGS)
    park(limiter, "w", TAGS)
    assert blockers(limiter) == [("rate", "account:a"), ("full", "platform:douyin")]


def test_what_is_only_observed_blocks_nobody(limiter):
    observed = {"max": 1, "mode": "observe"}
    limiter.config.update(
        {
            "platform_max": {"douyin": observed},
            "rates": {"platform:douyin": [{"max": 1, "per": 99, "mode": "observe"}]},
        }
    )
    limiter.config.update(
        {"adaptive": {"task_type:publish": {"min": 1, "max": 1, "mode": "observe"}}}
    )
    hold(limiter, "h", TAGS)
    park(limiter, "w", TAGS)
    assert blockers(limiter) == [("full", "account:a")]


# -- who paused it


def test_who_paused_it_and_when(limiter, monkeypatch):
    monkeypatch.setattr(history, "READ_AT_ONCE", 2)
    limiter.config.pause("account:a", Author("api", "eve"))
    limiter.config.resume("account:a", Author("api", "eve"))
    limiter.config.pause("account:a", Author("cli", "ann"))
    [paused, *_] = limiter.config.history()
    for number in range(3):
        limiter.config.update({"global_max": number + 1}, Author("api", "bob"))
    park(limiter, "w", TAGS)
    found = first(limiter)
    assert (found.by, found.source, found.since) == ("ann", "cli", paused.at)
    assert found.model_dump()["by"] == "ann"


def test_two_paused_by_two_people(limiter):
    limiter.config.pause("account:a", Author("cli", "ann"))
    limiter.config.pause("platform:douyin", Author("api"))
    park(limiter, "w", TAGS)
    found = explain(limiter.keyspace, limiter.config.sync().config, "w").blockers
    assert [(one.limit, one.by, one.source) for one in found] == [
        ("account:a", "ann", "cli"),
        ("platform:douyin", "", "api"),
    ]


def test_paused_before_the_history_begins(limiter, redis):
    limiter.config.pause("account:a", Author("cli", "ann"))
    [newest, *_] = limiter.config.history()
    limiter.config.update({"global_max": 9})
    park(limiter, "w", TAGS)
    for version in range(1, newest.version + 1):
        redis.xdel(f"{PREFIX}:config:history", f"{version}-0")
    assert first(limiter).model_dump() == {
        "reason": "paused", "limit": "account:a", "current": 0, "max": 1,
    }  # fmt: skip


def test_paused_by_the_first_version(limiter, redis):
    redis.flushdb()
    redis.set(f"{PREFIX}:config", '{"paused": ["account:a"]}')
    park(limiter, "w", TAGS)
    assert first(limiter).source == "hand-written"
