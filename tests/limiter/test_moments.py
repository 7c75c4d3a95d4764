"""What looks sees rates and cool-downs: usage, and why a task waits."""

from __future__ import annotations

import re

import pytest

from celery_concurrency.limiter.inspect import usage as usage_module
from celery_concurrency.limiter.inspect.explanation import explain
from celery_concurrency.limiter.inspect.waiting import read_waiting
from celery_concurrency.limiter.outcomes import Denied
from tests.support.floor import Floor
from tests.support.waiting import park


@pytest.fixture
def floor(limiter, redis):
    """Accounts begin once in 100 s and three times in 1,000."""
    rates = {"account:*": [{"max": 1, "per": 100}, {"max": 3, "per": 1000}]}
    limiter.config.update({"account_max": 2, "rates": rates})
    return Floor(limiter, redis)


def usage(floor):
    return floor.limiter.usage().to_dict()


def why(floor, task):
    return explain(floor.limiter.keyspace, floor.limiter.config.sync().config, task).to_dict()


def blocked(floor, task):
    return why(floor, task)["blocked_by"]


def test_the_rates_of_what_is_in_use(floor, redis):
    floor.hold(account="a")
    account = usage(floor)["accounts"]["a"]
    [first, second] = account.pop("rates")
    assert account == {"current": 1, "max": 2}
    now = redis.time()[0]
    assert now + 50 < first.pop("opens_at") <= now + 101
    assert first == {"max": 1, "per": 100, "used": 1}
    assert second == {"max": 3, "per": 1000, "used": 1, "opens_at": None}
    floor.age(100)
    assert usage(floor)["accounts"]["a"]["rates"][0] == {
        "max": 1, "per": 100, "used": 0, "opens_at": None,
    }  # fmt: skip


def test_an_account_that_somebody_waits_for_is_listed_though_nothing_runs(floor):
    floor.limiter.release(floor.hold(account="a"))
    assert usage(floor)["accounts"] == {}
    floor.wait("one", account="a")
    floor.wait("two", account="a")
    shown = usage(floor)
    assert shown["accounts"]["a"]["waiting"] == 2
    assert shown["accounts"]["a"]["rates"][0]["used"] == 1
    assert shown["waiting_for_moment"] == 2


def test_a_limit_that_rates_name_is_listed(floor):
    change = {
        "rates": {"account:vip": [{"max": 5, "per": 10}], "platform:new": [{"max": 1, "per": 9}]}
    }
    floor.limiter.config.update(change)
    shown = usage(floor)
    rates = [{"max": 5, "per": 10, "used": 0, "opens_at": None}]
    assert shown["accounts"] == {"vip": {"current": 0, "max": 2, "rates": rates}}
    assert shown["platforms"]["new"]["rates"][0]["per"] == 9
    assert "rates" not in shown["platforms"]["douyin"]


def test_a_limit_that_cools_down_is_listed(floor):
    until = floor.limiter.cooldowns.set("account:x", 600, "429", "ann")
    shown = usage(floor)
    cooldown = shown["accounts"]["x"]["cooldown"]
    assert cooldown.pop("since") == pytest.approx(until - 600, abs=1)
    assert cooldown == {"until": pytest.approx(until), "reason": "429", "by": "ann"}
    assert "waiting_for_moment" not in shown
    floor.age(600)
    assert usage(floor)["accounts"] == {}


def test_usage_is_bounded_and_says_so(floor, monkeypatch):
    monkeypatch.setattr(usage_module, "MAX_OTHERS", 3)
    for number in range(5):
        floor.limiter.cooldowns.set(f"account:x{number}", 600 + number)
    shown = floor.limiter.usage()
    assert set(shown.accounts) == {"x4", "x3", "x2"}  # the last to open
    assert shown.unlisted_limits == 2
    for number in range(5):
        floor.limiter.cooldowns.lift(f"account:x{number}")
        floor.limiter.release(floor.hold(account=f"y{number}"))
        floor.wait(f"w{number}", account=f"y{number}")
    shown = floor.limiter.usage()
    assert set(shown.accounts) == {"y0", "y1", "y2"}  # the first to open
    assert shown.unlisted_limits == 2


def test_a_platform_too(floor):
    floor.limiter.config.update({"rates": {"platform:*": [{"max": 2, "per": 60}]}})
    for account in "ab":
        floor.hold(platform="p", account=account)
    assert usage(floor)["platforms"]["p"]["rates"][0]["used"] == 2


def test_why_one_waits_for_a_rate(floor, redis):
    floor.limiter.release(floor.hold(account="a"))
    park(floor.limiter, "w1", {"account": "a"})
    reason = blocked(floor, "w1")
    assert reason.pop("opens_at") == pytest.approx(redis.time()[0] + 100, abs=50)
    assert re.fullmatch(r"account:a opens in (\d\d|100) s \(1 per 100 s\)", reason.pop("text"))
    assert reason.pop("rate") == {"max": 1, "per": 100}
    assert reason == {"reason": "rate", "limit": "account:a", "current": 0, "max": 2}
    [_, account] = why(floor, "w1")["limits"]
    assert account["full"] is True
    assert account["rates"][0]["used"] == 1
    assert account["holders"] == []
    [listed] = read_waiting(floor.limiter.keyspace, floor.limiter.config.sync().config).to_dict()[
        "waiting"
    ]
    assert listed["blocked_by"]["reason"] == "rate"


def test_why_one_waits_for_the_end_of_a_cool_down(floor):
    floor.limiter.cooldowns.set("account:a", 540, "429")
    park(floor.limiter, "w1", {"account": "a"})
    reason = blocked(floor, "w1")
    assert (reason["reason"], reason["cause"]) == ("cooling", "429")
    assert re.fullmatch(r"account:a opens in 5\d\d s \(it cools down: 429\)", reason["text"])
    assert why(floor, "w1")["limits"][1]["cooldown"]["reason"] == "429"


def test_the_later_of_two_moments_is_said(floor):
    floor.limiter.release(floor.hold(account="a"))
    floor.limiter.cooldowns.set("account:a", 50)
    park(floor.limiter, "w1", {"account": "a"})
    assert blocked(floor, "w1")["reason"] == "rate"
    floor.limiter.cooldowns.set("account:a", 500)
    assert blocked(floor, "w1")["text"].endswith(" s (it cools down)")


def test_what_is_full_or_paused_besides_says_that(floor):
    floor.hold(account="a")
    floor.limiter.config.update({"account_max": 1})
    park(floor.limiter, "w1", {"account": "a"})
    reason = blocked(floor, "w1")
    assert reason == {"reason": "full", "limit": "account:a", "current": 1, "max": 1}
    floor.limiter.config.pause("account:a")
    assert blocked(floor, "w1")["reason"] == "paused"


def test_nothing_is_shut_while_everybody_is_admitted(floor):
    floor.limiter.release(floor.hold(account="a"))
    park(floor.limiter, "w1", {"account": "a"})
    floor.change({"enabled": False})
    assert blocked(floor, "w1")["reason"] == "next"


def test_it_says_what_the_limiter_says(floor):
    """Of each moment and state: what is shown is by what the next is denied."""
    floor.limiter.config.update({"rates": {"platform:p": [{"max": 2, "per": 50}]}})
    floor.hold(platform="p", account="a")
    floor.hold(platform="p", account="b")
    for account in "abc":
        denied = floor.ask("asks", platform="p", account=account)
        assert isinstance(denied, Denied)
        shown = park(floor.limiter, f"w-{account}", {"platform": "p", "account": account})
        assert shown
        reason = blocked(floor, f"w-{account}")
        assert reason["text"].split(" opens")[0] == denied.limit
        assert reason["opens_at"] == pytest.approx(denied.shut.until, abs=0.01)


def test_without_any_the_json_is_as_before(floor):
    floor.limiter.config.reset()
    floor.hold(account="a")
    park(floor.limiter, "w1", {"account": "a"})
    shown = usage(floor)["accounts"]["a"]
    assert shown.pop("waiting_since") == pytest.approx(floor.redis.time()[0], abs=60)
    assert shown == {"current": 1, "max": 1, "waiting": 1}
    found = why(floor, "w1")
    assert set(found["blocked_by"]) == {"reason", "limit", "current", "max"}
    assert set(found["limits"][0]) == {
        "limit", "current", "max", "paused", "full", "kept", "holders",
    }  # fmt: skip
