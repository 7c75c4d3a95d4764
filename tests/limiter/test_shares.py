"""Fair shares: where names of one dimension wait for a shared limit, they go on in turn."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from celery_concurrency.errors import InvalidConfig
from tests.support.waiting import hold, park, put_back, waiters

TENANT = {"dimensions": {"tenant": {"fair": True}}, "account_max": 0}
DOUYIN = {"platform": "douyin"}
numbers = itertools.count()


def wait(limiter, name, count=1, dimension="tenant", rank=0, **tags):
    """Let tasks of a name wait, each with an account of its own unless that is given."""
    for _ in range(count):
        number = next(numbers)
        own = {"account": f"a{number}"} if dimension != "account" else {}
        named = {dimension: name} if name else {}
        park(limiter, f"{name} {number}", {**DOUYIN, **own, **named, **tags}, rank=rank)


def starts(limiter, redis, count=10**9):
    """Let one after the other end, and the next go on; return the names of those who go on."""
    names = []
    while len(names) < count and (tokens := redis.zrange("concurrency:reservations", 0, -1)):
        for token in tokens:
            limiter.release(token)
        names += names_of(put_back(redis))
    return names


def names_of(messages):
    return [message["headers"]["id"].rpartition(" ")[0] for message in messages]


def began(limiter, redis, holder):
    """End the run that holds the place, and all that follow; return the names in their order."""
    limiter.release(holder)
    return names_of(put_back(redis)) + starts(limiter, redis)


@pytest.fixture
def holder(limiter):
    limiter.config.update({**TENANT, "platform_max": {"douyin": 1}})
    return hold(limiter, "holder", DOUYIN)


def jain(values):
    return sum(values) ** 2 / (len(values) * sum(value**2 for value in values))


def test_a_flood_keeps_nobody_waiting_for_longer_than_a_round(limiter, redis, holder):
    light = [f"light{number:02}" for number in range(20)]
    wait(limiter, "flood", 600)
    for name in light:
        wait(limiter, name, 10)
    order = began(limiter, redis, holder)
    assert len(order) == 800
    assert max(order.index(name) for name in light) < 42
    assert jain(Counter(order[:210]).values()) >= 0.99
    # A light one has only ten: the rest goes to the flood.
    fair = dict.fromkeys(light, 10) | {"flood": 200}
    got = Counter(order[:400])
    assert jain([got[name] / fair[name] for name in fair]) >= 0.99


def test_weights_are_shares(limiter, redis, holder):
    limiter.config.update({"dimensions": {"tenant": {"weights": {"heavy": 3, "slow": 2}}}})
    for name in ("light", "heavy", "slow"):
        wait(limiter, name, 300)
    got = Counter(began(limiter, redis, holder)[:300])
    assert got["heavy"] == pytest.approx(150, abs=2)
    assert got["slow"] == pytest.approx(100, abs=2)


def test_who_has_no_name_is_one_of_them(limiter, redis, holder):
    wait(limiter, "flood", 20)
    wait(limiter, "", 4)
    assert began(limiter, redis, holder)[:8].count("") == 4


def test_who_sends_task_by_task_is_not_always_first(limiter, redis, holder):
    """Not even if its name comes first among equals."""
    wait(limiter, "flood", 30)
    wait(limiter, "a single", 1)
    limiter.release(holder)
    order = names_of(put_back(redis))
    while len(order) < 30:
        if order[-1] == "a single":
            wait(limiter, "a single", 1)
        order += starts(limiter, redis, 1)
    assert order.count("a single") == pytest.approx(15, abs=1)


def test_who_comes_late_has_saved_up_nothing(limiter, redis, holder):
    wait(limiter, "early", 100)
    limiter.release(holder)
    put_back(redis)
    assert starts(limiter, redis, 50) == ["early"] * 50
    wait(limiter, "late", 20)
    assert starts(limiter, redis, 20).count("late") == pytest.approx(10, abs=1)


def test_who_was_cancelled_owes_nothing(limiter, redis, holder):
    wait(limiter, "cancelled", 50)
    wait(limiter, "other", 20)
    for waiter in waiters(redis):
        if waiter.startswith("cancelled"):
            limiter.waiting_room.cancel(waiter)
    put_back(redis)
    wait(limiter, "cancelled", 5)
    assert began(limiter, redis, holder)[:10].count("cancelled") == 5


def test_what_its_own_limits_kept_is_not_made_up_for(limiter, redis, holder):
    """Its accounts cool down, and open again after others had many turns."""
    limiter.cooldowns.set("account:x", 600, "", "")
    wait(limiter, "blocked", 30, account="x")
    wait(limiter, "other", 60)
    limiter.release(holder)
    put_back(redis)
    assert starts(limiter, redis, 20) == ["other"] * 20
    limiter.cooldowns.lift("account:x")
    assert starts(limiter, redis, 20).count("blocked") == pytest.approx(10, abs=1)


def test_within_a_name_the_order_is_that_in_which_they_asked(limiter, redis, holder):
    wait(limiter, "other", 5)
    asked = []
    for number in range(6):
        park(limiter, f"mine {number}", {**DOUYIN, "tenant": "mine", "account": f"x{number % 2}"})
        asked.append(f"mine {number}")
    limiter.release(holder)
    order = []
    while ids := [message["headers"]["id"] for message in put_back(redis)]:
        order += ids
        for token in redis.zrange("concurrency:reservations", 0, -1):
            limiter.release(token)
    assert [one for one in order if one in asked] == asked


def test_priority_goes_first(limiter, redis, holder):
    wait(limiter, "low", 5, rank=3)
    wait(limiter, "high", 5, rank=0)
    wait(limiter, "low", 2, rank=0)
    order = began(limiter, redis, holder)
    assert sorted(order[:7]) == ["high"] * 5 + ["low"] * 2
    assert order[7:] == ["low"] * 5


def test_who_can_run_does_not_wait_for_whose_turn_it_is(limiter, redis, holder):
    limiter.config.update({"dimensions": {"tenant": {"overrides": {"capped": 1}}}})
    capped = hold(limiter, "capped", {"tenant": "capped"})
    wait(limiter, "capped", 5)
    wait(limiter, "other", 5)
    assert began(limiter, redis, holder) == ["other"] * 5
    limiter.release(capped)
    put_back(redis)
    assert len(starts(limiter, redis)) == 4


@pytest.mark.parametrize("dimension", ["account", "platform"])
def test_account_and_platform_may_be_fair(limiter, redis, dimension):
    limiter.config.update(
        {"fair": {dimension: {"weights": {"three": 3}}}, "account_max": 0, "global_max": 1}
    )
    holder = hold(limiter, "holder", {})
    wait(limiter, "one", 40, dimension)
    wait(limiter, "three", 40, dimension)
    assert Counter(began(limiter, redis, holder)[:40])["three"] == pytest.approx(30, abs=1)


def test_a_limit_that_several_platforms_share_is_shared_fairly(limiter, redis):
    limiter.config.update({**TENANT, "global_max": 1})
    holder = hold(limiter, "holder", {})
    wait(limiter, "flood", 50, platform="douyin")
    wait(limiter, "light", 10, platform="bilibili")
    assert began(limiter, redis, holder)[:20].count("light") == pytest.approx(10, abs=1)


def test_it_can_be_turned_on_and_off_while_they_wait(limiter, redis, holder):
    limiter.config.update({"dimensions": {"tenant": {"fair": False}}})
    wait(limiter, "flood", 20)
    wait(limiter, "light", 10)
    limiter.release(holder)
    put_back(redis)
    assert starts(limiter, redis, 5) == ["flood"] * 5
    limiter.config.update({"dimensions": {"tenant": {"fair": True}}})
    assert starts(limiter, redis, 10).count("light") == pytest.approx(5, abs=1)
    limiter.config.update({"dimensions": {"tenant": {"fair": False}}})
    wait(limiter, "late", 3)
    limiter.config.update({"fair": {"platform": {}}})
    limiter.config.update({"fair": {"platform": None}})
    order = starts(limiter, redis)
    assert len(order) == 17
    assert order[-3:] == ["late"] * 3
    limiter.waiting_room.advance(60)
    left = {key.partition(":")[2] for key in redis.scan_iter("concurrency:*")}
    assert not {
        one for one in left if one.startswith(("flows", "served", "turns", "open", "ready"))
    }


def test_room_is_collected_for_whose_turn_it_is(limiter, redis):
    """One who asked early, and whose name goes on in its turn, was not passed over."""
    limiter.waiting_room.patience = -1.0
    limiter.config.update({**TENANT, "account_max": 1, "platform_max": {"douyin": 1}})
    holder = hold(limiter, "holder", DOUYIN)
    wait(limiter, "flood", 40)
    for number in range(9):
        wait(limiter, f"light{number}", 2)
    limiter.release(holder)
    order = names_of(put_back(redis))
    while len(order) < 20:
        # It runs for longer than a sweep.
        limiter.waiting_room.sweep(now=True)
        order += starts(limiter, redis, 1)
    assert Counter(order)["flood"] <= 4


def test_only_one_dimension_is_fair(limiter):
    limiter.config.update({"dimensions": {"tenant": {"fair": True}}})
    with pytest.raises(
        InvalidConfig, match="only one dimension can be fair, not account and tenant"
    ):
        limiter.config.update({"fair": {"account": {}}})
    with pytest.raises(InvalidConfig, match="fair"):
        limiter.config.update({"fair": {"tenant": {}}})
    for weight in (0, 101, 1.5, "3", True):
        with pytest.raises(InvalidConfig, match="weights"):
            limiter.config.update({"dimensions": {"tenant": {"weights": {"acme": weight}}}})
    limiter.config.update({"dimensions": {"tenant": {"weights": {"acme": 3, "beta": 2}}}})
    config = limiter.config.update({"dimensions": {"tenant": {"weights": {"beta": None}}}}).config
    assert config.to_dict()["dimensions"] == {
        "tenant": {"max": 0, "overrides": {}, "fair": True, "weights": {"acme": 3}}
    }


def test_names_take_memory_only_while_they_wait(limiter, redis, holder):
    for number in range(50):
        wait(limiter, f"name{number}")
    assert redis.zcard('concurrency:flows:["tenant","platform:douyin"]') == 50
    assert len(began(limiter, redis, holder)) == 50
    limiter.waiting_room.sweep(now=True)
    left = {key.partition(":")[2] for key in redis.scan_iter("concurrency:*")}
    assert not {one for one in left if one.startswith(("flows", "served", "turns"))}
