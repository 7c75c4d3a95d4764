"""Groups with one own limit at most: the index works out their names (``lib/index.lua``)."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.waiters import group_of
from tests.support.floor import Floor

NAMES = [
    "a",
    "a:b",
    "豆瓣/電影",
    'a", "b',
    "\\",
    "\\/",
    '\\"',
    "%0 %1",
    "é\u202f😀",
    "\u0301",
    "[]",
]
#: What a task is tagged with: at most one of its limits is its own.
TAGS = [
    set(shared) | own
    for shared in ((), ("platform",), ("type",), ("platform", "type"))
    for own in (set(), {"account"}, {"tenant"})
]


@pytest.fixture
def floor(limiter: Limiter, redis: Redis) -> Floor:
    limiter.config.update({"dimensions": {"tenant": {"max": 1}, "editor": {"max": 1}}})
    return Floor(limiter, redis)


def buckets(redis: Redis) -> list[Any]:
    return redis.keys("concurrency:bucket:*")


@pytest.mark.parametrize("tags", TAGS, ids=lambda tags: "-".join(sorted(tags)) or "none")
def test_whatever_they_are_called(floor: Floor, tags: set[str]) -> None:
    named = [dict.fromkeys(tags, name) for name in NAMES]
    floor.limiter.config.update({"global_max": 1})
    holder = floor.hold()
    for number, one in enumerate(named):
        floor.wait(f"task{number}", **one)
    assert not buckets(floor.redis)
    floor.limiter.config.update({"global_max": 0, "platform_max": {"*": 0}, "task_type_max": {}})
    floor.limiter.release(holder)
    floor.sweep()
    back = [floor.deliver(message) for message in floor.back()]
    if "account" not in tags and "tenant" not in tags:
        assert len(back) == len(NAMES)
    while back:
        floor.limiter.release(back.pop().token)
        back += [floor.deliver(message) for message in floor.back()]
    assert not floor.waiting()
    assert not floor.redis.exists("concurrency:open", "concurrency:groups")


@pytest.mark.parametrize("name", NAMES)
def test_in_the_order_of_their_tickets_with_groups_that_share_their_limit(
    floor: Floor, name: str
) -> None:
    holder = floor.hold(account=name)
    waiting = [{}, {"tenant": name}, {"tenant": "t"}, {}, {"editor": name, "tenant": "t"}, {}]
    for number, more in enumerate(waiting):
        floor.wait(f"task{number}", account=name, **more)
    assert len(buckets(floor.redis)) == 1
    order = []
    for _ in waiting:
        floor.limiter.release(holder)
        [message] = floor.back()
        order.append(message["task"])
        holder = floor.deliver(message).token
    assert order == ["task0", "task1", "task2", "task3", "task4", "task5"]
    assert not buckets(floor.redis)


@pytest.mark.parametrize("own", [{}, {"account": "a"}])
@pytest.mark.parametrize("ticket", [-1, 0, 1])
def test_what_an_older_version_filed_goes_on(
    floor: Floor, own: dict[str, str], ticket: int
) -> None:
    """It had each group in a bucket; that entry's ticket may be out of date, as ever."""
    holder = floor.hold(platform="p", **own)
    floor.limiter.config.update({"platform_max": {"p": 1}})
    floor.wait("task", platform="p", **own)
    group = group_of(("global", "platform:p", *(f"account:{name}" for name in own.values())))
    [(_, score)] = floor.redis.zrange("concurrency:groups", 0, -1, withscores=True)
    bucket = f'concurrency:bucket:["platform:p"]{"account:a" if own else ""}'
    floor.redis.zadd(bucket, {group: score + ticket})
    floor.limiter.release(holder)
    assert floor.tasks_back() == ["task"]
    assert not buckets(floor.redis)


@pytest.mark.parametrize("tags", [{"account": "a"}, {"account": "a", "tenant": "t"}])
def test_what_the_index_leads_to_no_more_is_filed_again(floor: Floor, tags: dict[str, str]) -> None:
    """As a worker of an older version leaves it, which finds no bucket; or an operator."""
    floor.room.patience = -1.0
    holder = floor.hold(**tags)
    floor.wait("task", **tags)
    for name in ("open", "shut:*", "ready:*", "blocked:*", "bucket:*"):
        for key in floor.redis.keys(f"concurrency:{name}"):
            floor.redis.delete(key)
    floor.limiter.release(holder)
    assert floor.tasks_back() == []
    floor.sweep()
    assert floor.tasks_back() == ["task"]


def test_what_an_older_version_filed_and_others_left_is_forgotten(floor: Floor) -> None:
    floor.hold(account="a")
    floor.wait("task", account="a")
    floor.redis.zadd("concurrency:bucket:{}account:a", {group_of(("global", "account:a")): 1})
    floor.room.cancel("task")
    assert not buckets(floor.redis)
    assert not floor.redis.exists("concurrency:shut:account:a", "concurrency:groups")


@pytest.mark.parametrize("fair", ["account", "platform", "tenant"])
def test_one_that_waits_as_a_dimension_becomes_fair_goes_on(floor: Floor, fair: str) -> None:
    """It is in no bucket, so its bucket alone does not lead to it any more."""
    own = {"fair": {fair: {}}} if fair != "tenant" else {"dimensions": {"tenant": {"fair": True}}}
    off = (
        {"fair": {fair: None}} if fair != "tenant" else {"dimensions": {"tenant": {"fair": False}}}
    )
    tags = {"platform": "p", "account": "a"}
    floor.limiter.config.update({"platform_max": {"p": 1}, "global_max": 2})
    for change in (own, off):
        holder, other = floor.hold(**tags), floor.hold()
        floor.wait("one", **tags)
        floor.wait("two", tenant="t")
        floor.wait("three")
        floor.limiter.config.update(change)
        back: list[str] = []
        for token in (holder, other):
            floor.limiter.release(token)
        for _ in range(4):
            floor.sweep()
            for message in floor.back():
                back.append(message["task"])
                floor.limiter.release(floor.deliver(message).token)
        assert sorted(back) == ["one", "three", "two"]
