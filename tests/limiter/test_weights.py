"""Weights: calls one by one. The model tries them in any order (``model/test_promises.py``)."""

from __future__ import annotations

import json
import pickle
import threading
from contextlib import suppress
from dataclasses import replace

import pytest

from celery_concurrency.errors import InvalidTag, WeightTooHigh
from celery_concurrency.limiter import Denied, Granted
from celery_concurrency.limiter.inspect.explanation import explain
from celery_concurrency.limiter.inspect.holders import read_tokens
from celery_concurrency.limiter.inspect.waiting import read_waiting
from celery_concurrency.limiter.inspect.workers import read_workers
from celery_concurrency.limiter.weights import weight_value
from tests.support.floor import Floor
from tests.support.waiting import QUEUE
from tests.support.workers import wait_for

P = "platform:p"


@pytest.fixture
def floor(limiter, redis):
    """A platform of 7 places."""
    limiter.config.update({"platform_max": {"p": 7}, "account_max": 2})
    one = Floor(limiter, redis)
    one.room.patience = 1e9
    return one


def limit_to(floor, places):
    floor.limiter.config.update({"platform_max": {"p": places}})


def places(floor, limit=P):
    return floor.redis.zcard(f"concurrency:semaphore:{limit}")


def test_it_takes_its_places_in_shared_limits_and_one_in_its_own(floor):
    token = floor.hold(weight=3, platform="p", account="a", type="t")
    assert floor.holders(P) == [token, f"{token}#2", f"{token}#3"]
    assert [places(floor, one) for one in ("global", "task_type:t", "account:a")] == [3, 3, 1]
    assert floor.limiter.release(token)
    assert not floor.redis.keys("concurrency:semaphore:*")


def test_all_places_or_none(floor):
    floor.hold(weight=5, platform="p")
    denied = floor.ask("heavy", weight=3, platform="p")
    assert isinstance(denied, Denied)
    assert str(denied) == "platform:p (5 of 7, it takes 3)"
    assert places(floor) == 5
    assert isinstance(floor.ask("fits", weight=2, platform="p"), Granted)


@pytest.mark.parametrize("value", [0, -1, 101, 1.0, "1", True, None])
def test_a_weight_is_an_integer_from_1_to_100(value):
    with pytest.raises(InvalidTag, match=r"'concurrency_weight' is .*integer from 1 to 100"):
        weight_value("concurrency_weight", value)


def test_one_that_never_has_room_is_told_so_at_once(floor):
    with pytest.raises(WeightTooHigh) as raised:
        floor.ask("heavy", weight=8, platform="p")
    error = pickle.loads(pickle.dumps(raised.value))
    assert (error.limit, error.max, error.weight) == (P, 7, 8)
    assert "takes 8 places, and platform:p has 7 places" in str(error)
    assert not floor.holders("global")
    with (
        pytest.raises(WeightTooHigh),
        floor.limiter.acquire(weight=8, platform="p", timeout=1),
    ):
        pass


def test_outside_of_tasks_a_heavy_block_waits_for_all_of_its_places(floor):
    holder = floor.hold(weight=5, platform="p")
    held = []

    def block() -> None:
        with floor.limiter.acquire(platform="p", weight=3, timeout=170):
            held.append(places(floor))

    thread = threading.Thread(target=block)
    thread.start()
    wait_for(lambda: floor.redis.exists("concurrency:groups"))
    floor.limiter.release(holder)
    thread.join(60)
    assert held == [3]
    assert places(floor) == 0


def test_a_heavy_block_that_waits_ends_with_the_error_if_its_limit_becomes_too_low(floor):
    floor.hold(weight=2, platform="p")
    raised = []

    def block() -> None:
        with suppress(WeightTooHigh), floor.limiter.acquire(platform="p", weight=6, timeout=170):
            raised.append("never")
        raised.append("too heavy")

    thread = threading.Thread(target=block)
    thread.start()
    wait_for(lambda: floor.redis.exists("concurrency:groups"))
    limit_to(floor, 4)
    thread.join(60)
    assert raised == ["too heavy"]


def test_a_paused_limit_or_an_adaptive_one_that_fell_lets_it_wait(floor):
    entry = {"min": 1, "max": 5, "decrease": 0.1, "every": 60}
    floor.limiter.config.update({"adaptive": {P: entry}})
    with pytest.raises(WeightTooHigh, match="has 5 places"):
        floor.ask("heavy", weight=6, platform="p")
    refused = floor.hold(platform="p")
    floor.limiter.refuse(refused, ("global", P), P, 0)
    floor.limiter.release(refused)
    floor.wait("heavy", weight=3, platform="p")
    for _ in range(2):
        # It finds no room where nobody is: that is what an adaptive limit rises for.
        floor.age(61)
        floor.sweep()
    assert floor.tasks_back() == ["heavy"]
    floor.limiter.config.update({"paused": [P]})
    assert isinstance(floor.ask("heavier", weight=50, platform="p"), Denied)


def test_one_that_waits_and_becomes_too_heavy_is_put_back_and_told(floor):
    floor.hold(weight=2, platform="p")
    for name in ("first", "second"):
        floor.wait(name, weight=6, platform="p")
    limit_to(floor, 5)
    back = floor.back()
    assert [one["task"] for one in back] == ["first", "second"]
    assert not floor.redis.exists("concurrency:reservations")
    with pytest.raises(WeightTooHigh):
        floor.deliver(back[0])
    assert not floor.redis.keys("concurrency:heavy:*")
    floor.sweep()
    assert not floor.redis.keys("concurrency:weights:*")


def test_lowering_a_limit_below_the_weight_of_one_that_runs_changes_nothing(floor):
    token = floor.hold(weight=6, platform="p")
    limit_to(floor, 2)
    floor.sweep()
    assert places(floor) == 6
    assert isinstance(floor.ask("light", platform="p"), Denied)
    assert floor.limiter.release(token)
    assert isinstance(floor.ask("light", platform="p"), Granted)


def test_light_ones_pass_a_heavy_one_that_does_not_fit_yet(floor):
    first, second = floor.hold(weight=4, platform="p"), floor.hold(weight=3, platform="p")
    floor.wait("heavy", weight=4, platform="p")
    floor.wait("light", weight=2, platform="p")
    floor.limiter.release(second)
    assert floor.tasks_back() == ["light"]
    assert isinstance(floor.ask("newcomer", platform="p"), Granted)
    floor.limiter.release(first)
    assert floor.tasks_back() == ["heavy"]


def test_a_call_looks_at_nobody_who_needs_more_places_than_there_are(floor, redis):
    """However many classes of heavy ones wait, a light one behind them goes on."""
    holder, other = floor.hold(weight=6, platform="p"), floor.hold(platform="p")
    for number in range(40):
        floor.wait(f"heavy{number}", weight=2 + number % 5, platform="p", type=f"t{number}")
    floor.wait("light", platform="p")
    redis.config_resetstat()
    floor.limiter.release(other)
    calls = redis.info("commandstats")
    assert floor.tasks_back() == ["light"]
    assert sum(one["calls"] for one in calls.values()) < 100
    floor.limiter.release(holder)
    assert floor.tasks_back()


def collecting(floor):
    """Let one of weight 3 be collected for; return a senior of weight 7, and a junior."""
    senior = floor.hold("senior", weight=7, platform="p")
    floor.wait("heavy", weight=3, platform="p")
    limit_to(floor, 8)
    junior = floor.hold("junior", platform="p")
    floor.room.patience = -1
    floor.sweep()
    return senior, junior


def test_places_are_kept_one_by_one_for_one_that_light_ones_passed(floor):
    senior, junior = collecting(floor)
    assert floor.redis.hget("concurrency:collecting", "token") == "heavy:collecting"
    floor.limiter.release(junior)
    assert "heavy:collecting" in floor.holders(P)
    assert isinstance(floor.ask("newcomer", platform="p"), Denied)
    limit_to(floor, 9)
    assert "heavy:collecting#2" in floor.holders(P)
    found = explain(floor.limiter.keyspace, floor.limiter.config.sync().config, "heavy")
    assert (found.blocked_by.reason, found.blocked_by.takes, found.weight) == ("kept", 3, 3)
    floor.limiter.release(senior)
    assert floor.tasks_back() == ["heavy"]
    assert floor.redis.zcard("concurrency:semaphore:platform:p") == 3


def test_it_gives_back_what_is_too_much_when_the_limit_is_lowered_meanwhile(floor):
    senior, junior = collecting(floor)
    floor.limiter.release(junior)
    limit_to(floor, 9)
    assert places(floor) == 7 + 2
    limit_to(floor, 8)
    assert places(floor) == 7 + 1
    limit_to(floor, 2)
    # It is too heavy by now: what was kept is free, and it is told.
    assert places(floor) == 7
    assert not floor.redis.exists("concurrency:collecting")
    floor.limiter.release(senior)
    assert floor.tasks_back() == ["heavy"]


def test_two_heavy_ones_are_collected_for_in_turn(floor):
    senior, junior = collecting(floor)
    floor.wait("other", weight=4, platform="p")
    floor.limiter.release(junior)
    floor.sweep()
    assert floor.redis.hget("concurrency:collecting", "token") == "heavy:collecting"
    floor.limiter.release(senior)
    assert set(floor.tasks_back()) == {"heavy", "other"}
    assert places(floor) == 7


def test_a_deleted_semaphore_is_free_for_good(floor):
    token = floor.hold(weight=5, platform="p")
    floor.redis.delete(f"concurrency:semaphore:{P}")
    floor.limiter.leases.beat({token}, 30)
    assert places(floor) == 0
    other = floor.hold("other", weight=7, platform="p")
    assert floor.limiter.release(token)
    assert places(floor) == 7
    assert floor.limiter.release(other)


def test_a_reservation_begins_with_all_of_its_places(floor):
    holder = floor.hold(weight=7, platform="p", account="a")
    floor.wait("heavy", weight=4, platform="p", account="b")
    floor.limiter.release(holder)
    (message,) = floor.back()
    assert json.dumps(message["limits"]) == '["global", "platform:p", "account:b", 4]'
    granted = floor.deliver(message)
    assert isinstance(granted, Granted)
    assert floor.holders(P) == [granted.token, *(f"{granted.token}#{n}" for n in (2, 3, 4))]


def test_what_a_heavy_run_holds_comes_back_after_a_loss_of_data(floor):
    token = floor.hold(weight=3, platform="p")
    floor.limiter.leases.beat({token}, 30)
    floor.redis.flushall()
    floor.limiter.config.sync()
    floor.limiter.leases.beat({token}, 30)
    assert [places(floor, one) for one in ("global", P)] == [3, 3]


def test_orphans_of_a_heavy_token_make_room(floor):
    token = floor.hold(weight=7, platform="p")
    floor.redis.delete(f"concurrency:token:{token}")
    floor.redis.zrem("concurrency:leases", token)
    for member in floor.holders(P):
        floor.redis.zadd(f"concurrency:semaphore:{P}", {member: 1})
    assert isinstance(floor.ask("heavy", weight=7, platform="p"), Granted)


def test_a_newer_one_replaces_an_older_one_of_another_weight(floor):
    floor.hold(weight=7, platform="p")
    tags = {"platform": "p", "account": "a"}
    for number, weight in enumerate((2, 3)):
        denied = floor.ask(f"task{number}", weight=weight, **tags)
        waiter = replace(floor.waiter(denied, tags), replaces="work", received=number)
        assert floor.room.park(waiter) == "parked"
    assert floor.waiting() == {"task1"}


def test_listings_show_each_heavy_token_once_with_its_weight(floor, monkeypatch):
    heavy = floor.hold("heavy", weight=3, platform="p")
    light = floor.hold("light", platform="p")
    keyspace, config = floor.limiter.keyspace, floor.limiter.config.sync().config
    for sorted_most in (5_000, 0):
        monkeypatch.setattr("celery_concurrency.limiter.inspect.holders.SORTED", sorted_most)
        first = read_tokens(keyspace, P, 1)
        rest = read_tokens(keyspace, P, 1, first.next)
        assert [one.token for one in (*first.tokens, *rest.tokens)] == [heavy, light]
        assert first.tokens[0].model_dump()["weight"] == 3
        assert "weight" not in rest.tokens[0].model_dump()
        assert rest.tokens[0].limits == ["global", P]
    floor.wait("waits", weight=4, platform="p")
    (waiting,) = read_waiting(keyspace, config, P).waiting
    assert waiting.to_dict()["weight"] == 4
    assert (waiting.blocked_by.reason, waiting.blocked_by.takes) == ("full", 4)
    assert waiting.limits == ["global", P]
    found = explain(keyspace, config, "waits")
    assert {one.token for one in found.limits[1].holders} == {heavy, light}
    assert floor.limiter.usage().platforms["p"].current == 4
    assert read_workers(keyspace).workers == []
    assert floor.redis.llen(QUEUE) == 0


@pytest.mark.parametrize("fair", ["account", "platform"])
def test_where_a_dimension_is_fair_heavy_ones_pay_for_their_places(floor, fair):
    """Names take turns, and who takes two places a turn gets half as many."""
    floor.limiter.config.update({"fair": {fair: {}}, "account_max": 0, "global_max": 2})
    limit_to(floor, 0)
    holder = floor.hold(weight=2, platform="p", account="h")
    heavy = {"platform": "p", "account": "a"}
    light = {"platform": "q" if fair == "platform" else "p", "account": "b"}
    for number in range(6):
        floor.wait(f"heavy{number}", weight=2, **heavy)
        floor.wait(f"light{number}", **light)
    begun = []
    running = [holder]
    while floor.waiting():
        floor.limiter.release(running.pop(0))
        for message in floor.back():
            granted = floor.deliver(message)
            running.append(granted.token)
            begun.append(message["task"].rstrip("0123456789"))
    assert 3 <= begun[:9].count("heavy") <= 4, begun


def test_a_platform_that_is_fair_is_an_own_limit_and_takes_the_weight_all_the_same(floor):
    floor.limiter.config.update({"fair": {"platform": {}}})
    first, second = floor.hold(weight=4, platform="p"), floor.hold(weight=2, platform="p")
    floor.wait("heavy", weight=3, platform="p")
    floor.wait("lighter", weight=2, platform="p")
    floor.limiter.release(second)
    back = floor.tasks_back()
    assert len(back) == 1, "3 places are left"
    floor.limiter.release(first)
    assert {*back, *floor.tasks_back()} == {"heavy", "lighter"}
    assert not floor.redis.keys("concurrency:heavy:*")


def test_nothing_stays_of_a_heavy_one_that_was_cancelled(floor):
    floor.hold(weight=5, platform="p")
    floor.wait("heavy", weight=3, platform="p", account="a")
    assert floor.redis.exists(f"concurrency:heavy:3:{P}", f"concurrency:weights:{P}") == 2
    assert floor.room.cancel("heavy")
    floor.sweep()
    floor.sweep()
    left = [floor.redis.keys(f"concurrency:{name}*") for name in ("heavy", "weights", "blocked")]
    assert left == [[], [], []]
