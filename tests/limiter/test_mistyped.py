"""Mistyped names: what is taken all the same, and which name is meant."""

from __future__ import annotations

import pytest

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.config.problems import MAX_DETAILS
from celery_concurrency.limiter.mistyped import MAX_LOOKED_AT
from celery_concurrency.text import closest
from tests.support.waiting import park


def doubts(stored):
    return [(one.field, one.limit, one.meant) for one in stored.doubts]


def of_limit(limiter, limit):
    return [one.meant for one in limiter.cooldowns.check(limit)]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("douyn", "douyin"),
        ("Douyin", "douyin"),
        ("doyuin", "douyin"),
        ("xiaohongsu", "xiaohongshu"),
        ("抖音平", "抖音平台"),
        ("shop11", None),  # that is another shop
        ("weibo", None),
        ("", None),
    ],
)
def test_closest(name, meant):
    assert closest(name, ["douyin", "xiaohongshu", "抖音平台", "shop12"]) == meant


def test_closest_looks_at_so_many():
    assert closest("douyn", [*(f"crowd {one}" for one in "abc" * 1000), "douyin"]) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"platform_max": {"douyn": 2}}, ("platform_max.douyn", "platform:douyn")),
        ({"paused": ["platform:douyn"]}, ("paused", "platform:douyn")),
        (
            {"rates": {"platform:douyn": [{"max": 1, "per": 1}]}},
            ("rates.platform:douyn", "platform:douyn"),
        ),
        (
            {"adaptive": {"platform:douyn": {"min": 1, "max": 2}}},
            ("adaptive.platform:douyn", "platform:douyn"),
        ),
    ],
)
def test_a_name_that_is_new_is_doubted_wherever_it_stands(limiter: Limiter, change, expected):
    stored = limiter.config.update(change)
    assert doubts(stored) == [(*expected, "platform:douyin")]
    assert limiter.config.update(change).doubts == ()  # it is listed by now
    assert limiter.config.rollback(stored.version - 1).doubts == ()


def test_pausing_a_name_that_is_new_is_doubted(limiter: Limiter):
    assert doubts(limiter.config.pause("task_type:publsh")) == [
        ("paused", "task_type:publsh", "task_type:publish")
    ]
    assert limiter.config.pause("global").doubts == ()
    assert limiter.config.pause("platform:douyin").doubts == ()


def test_a_name_that_nobody_has_is_doubted_without_another(limiter: Limiter):
    assert doubts(limiter.config.update({"platform_max": {"weibo": 1, "*": 2}})) == [
        ("platform_max.weibo", "platform:weibo", None)
    ]


def test_a_name_in_the_wrong_dimension(limiter: Limiter):
    assert of_limit(limiter, "task_type:douyin") == ["platform:douyin"]
    assert of_limit(limiter, "account:douyin") == ["platform:douyin"]


def test_own_dimensions(limiter: Limiter):
    first = {"dimensions": {"tenant": {"max": 2, "overrides": {"acme": 5}}}}
    assert limiter.config.update(first).doubts == ()  # of a new dimension all names are new
    second = {"dimensions": {"tenant": {"overrides": {"acmee": 5, "zoo": 1}}}}
    assert doubts(limiter.config.update(second)) == [
        ("dimensions.tenant.overrides.acmee", "tenant:acmee", "tenant:acme"),
        ("dimensions.tenant.overrides.zoo", "tenant:zoo", None),
    ]


def test_an_account_that_is_new_is_doubted_where_another_is_close(limiter: Limiter):
    limiter.config.update({"account_overrides": {"studio": 2, "acc12": 1}})
    change = {"account_overrides": {"studoi": 2, "other": 3, "acc13": 1}}
    assert doubts(limiter.config.update(change)) == [
        ("account_overrides.studoi", "account:studoi", "account:studio")
    ]


def test_what_runs_use_is_known(limiter: Limiter, redis):
    limiter.config.sync()
    assert of_limit(limiter, "platform:weibo") == [None]
    limiter.try_acquire("ended", {"platform": "weibo"})
    limiter.release("ended")
    assert of_limit(limiter, "platform:weibo") == []
    assert of_limit(limiter, "platform:weibbo") == ["platform:weibo"]
    limiter.try_acquire("runs", {"account": "studio"})
    assert of_limit(limiter, "account:studoi") == ["account:studio"]
    limiter.release("runs")
    assert of_limit(limiter, "account:studoi") == []
    limiter.config.pause("global")
    park(limiter, "waits", {"account": "studio"})
    assert of_limit(limiter, "account:studoi") == ["account:studio"]


def test_a_change_of_thousands_of_names_is_not_looked_at_whole(limiter: Limiter):
    many = {f"weibo{number}": 1 for number in range(5 * MAX_LOOKED_AT)}
    assert len(limiter.config.update({"platform_max": many}).doubts) == MAX_DETAILS
