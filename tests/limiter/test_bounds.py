"""Bounds on waiting: how many wait for a limit at most, and for how long."""

from __future__ import annotations

import json
import pickle
import secrets

import pytest

from celery_concurrency import TooManyWaiting, WaitedTooLong, WeightTooHigh
from celery_concurrency.errors import ConcurrencyError, InvalidConfig
from celery_concurrency.limiter import Denied, Granted
from celery_concurrency.limiter.inspect.explanation import explain
from celery_concurrency.limiter.inspect.waiting import read_waiting
from celery_concurrency.limiter.outcomes import Ticket
from celery_concurrency.limiter.waiting_room import SWEEP_BATCH
from celery_concurrency.scripts.constants import GIVEN_UP, PARKED
from tests.support.waiting import QUEUE, hold, park, put_back, waiter_of, waiters

A = {"account": "a"}


@pytest.fixture(autouse=True)
def busy(limiter):
    """The account has no room."""
    return hold(limiter, "busy", A)


def bound(limiter, **bounds):
    limiter.config.update({"waiting": {"account:*": bounds}})


def ask(limiter, task_id, tags=A, **facts):
    return limiter.try_acquire(f"{task_id}:{secrets.token_hex(8)}", tags, task="publish", **facts)


def line(redis, limit="account:a"):
    return redis.zrange(f"concurrency:waiting:{limit}", 0, -1)


def grow_older(redis, seconds, limit="account:a"):
    """As if so many seconds had passed for who waits for a limit."""
    for waiter in line(redis, limit):
        redis.zincrby(f"concurrency:waiting:{limit}", -seconds, waiter)
    redis.zincrby("concurrency:waiting", -seconds, limit)


def given_up(redis):
    return [(one["headers"]["id"], one["headers"][GIVEN_UP]) for one in put_back(redis)]


def counters(redis):
    names = ("crowded:total", "overdue:total", "denied:total")
    return [int(redis.hget("concurrency:stats:counters", name) or 0) for name in names]


# -- how many


def test_one_too_many_is_refused_at_once(limiter, redis):
    bound(limiter, most=2)
    park(limiter, "t1", A)
    park(limiter, "t2", A)
    with pytest.raises(TooManyWaiting) as caught:
        ask(limiter, "t3")
    assert (caught.value.limit, caught.value.most, caught.value.waiting) == ("account:a", 2, 2)
    assert str(caught.value) == (
        "account:a has 2 tasks waiting, and at most 2 may: this one is refused"
    )
    assert counters(redis) == [1, 0, 2]
    assert isinstance(ask(limiter, "other", {"account": "b"}), Granted)


def test_who_leaves_makes_a_place(limiter, redis, busy):
    bound(limiter, most=1)
    park(limiter, "t1", A)
    limiter.release(busy)  # t1 is handed the room
    assert line(redis) == []
    assert not redis.exists("concurrency:waiting")
    park(limiter, "t2", A)
    assert limiter.waiting_room.cancel("t2")
    park(limiter, "t3", A)
    assert sum(limiter.waiting_room.drain()) == 1
    park(limiter, "t4", A)
    assert sum(taken for taken, _ in limiter.waiting_room.purge()) == 1
    assert line(redis) == []


def test_it_is_crowded_in_one_limit_and_another_cools_down(limiter):
    """What denies it is another limit than the one that has too many waiting."""
    limiter.config.update({"waiting": {"platform:p": {"most": 1}}})
    park(limiter, "t1", {**A, "platform": "p"})
    limiter.cooldowns.set("task_type:x", 60, "refused", "ann")
    with pytest.raises(TooManyWaiting, match="platform:p has 1 tasks waiting"):
        ask(limiter, "t2", {"platform": "p", "type": "x"})
    assert isinstance(ask(limiter, "t3", {"platform": "p", "type": "y"}), Granted)


def test_a_name_has_other_bounds_than_the_rest_or_none(limiter):
    limiter.config.update(
        {"waiting": {"account:*": {"most": 1}, "account:b": {"most": 2}, "account:c": {}}}
    )
    for name, most in (("a", 1), ("b", 2)):
        tags = {"account": name}
        if name != "a":
            hold(limiter, f"busy {name}", tags)
        for number in range(most):
            park(limiter, f"{name}{number}", tags)
        with pytest.raises(TooManyWaiting):
            ask(limiter, "more", tags)
    hold(limiter, "busy c", {"account": "c"})
    for number in range(3):
        park(limiter, f"c{number}", {"account": "c"})


def test_of_many_denied_at_once_the_rest_is_put_back_to_fail(limiter, redis):
    bound(limiter, most=2)
    denied = [ask(limiter, f"t{number}") for number in range(4)]
    room = limiter.waiting_room
    message = b'{"headers": {"id": "t%d"}}'
    parked = [
        room.park(waiter_of(one, f"t{number}", message % number))
        for number, one in enumerate(denied)
    ]
    assert parked == ["parked", "parked", "crowded", "crowded"]
    refusal = ["crowded", "account:a", 2, 2]
    assert given_up(redis) == [("t3", refusal), ("t2", refusal)]
    assert waiters(redis) == {"t0", "t1"}
    assert counters(redis) == [2, 0, 4]
    assert room.park(waiter_of(denied[3], "t3", message % 3)) == "again", "a late copy"


def test_one_that_waited_before_is_not_new(limiter, redis):
    """Its reservation lapsed, or its message was delivered again."""
    bound(limiter, most=1)
    ticket = park(limiter, "t1", A)
    again = ask(limiter, "t2", ticket=Ticket(ticket.number - 1, "t2:parked"))
    assert isinstance(again, Denied)
    waiter = waiter_of(again, "t2", b'{"headers": {}}')
    assert limiter.waiting_room.park(waiter) == "parked"
    assert len(line(redis)) == 2


def test_one_that_has_begun_before_is_not_new(limiter, redis):
    """It retries by itself, or its worker died; it had found room at once."""
    bound(limiter, most=1)
    park(limiter, "t1", A)
    again = ask(limiter, "t2", has_begun=True)
    assert isinstance(again, Denied)
    waiter = waiter_of(again, "t2", b'{"headers": {}}', has_begun=True)
    assert limiter.waiting_room.park(waiter) == "parked"
    assert len(line(redis)) == 2
    with pytest.raises(TooManyWaiting):
        ask(limiter, "t3")


def test_one_that_replaces_another_adds_nobody(limiter, redis):
    bound(limiter, most=1)
    for number in range(3):
        denied = ask(limiter, f"t{number}", replaces=True)
        waiter = waiter_of(
            denied, f"t{number}", b'{"headers": {"id": "t"}}', replaces="publish", received=number
        )
        assert limiter.waiting_room.park(waiter) == "parked"
    assert line(redis) == ["t2"]
    with pytest.raises(TooManyWaiting):
        ask(limiter, "t3")


def test_what_arrives_at_the_door_is_left_for_acquire(limiter, redis):
    bound(limiter, most=1)
    park(limiter, "t1", A)
    denied = Denied("t2:1", ("global", "account:a"), "account:a", 1, 1, Ticket(1))
    waiter = waiter_of(denied, "t2", b'{"headers": {}}')
    here = {"unacked": {"key": "unacked", "index": "unacked_index", "tag": "t2"}}
    redis.hset("unacked", "t2", "")
    assert limiter.join(waiter, 0, here) is None
    assert redis.hexists("unacked", "t2")
    assert waiters(redis) == {"t1"}


def test_a_run_that_was_killed_before_it_parked_takes_no_place(limiter, redis):
    bound(limiter, most=1)
    denied = ask(limiter, "t1")
    assert not limiter.waiting_room.rescue(denied.token, "t1")
    waiter = waiter_of(denied, "t1", b'{"headers": {}}')
    assert limiter.waiting_room.park(waiter) == "again"
    assert line(redis) == []
    park(limiter, "t1", A)


# -- for how long


def test_who_has_waited_for_too_long_is_given_up(limiter, redis):
    bound(limiter, seconds=600)
    park(limiter, "t1", A, rank=3)
    grow_older(redis, 500)
    limiter.waiting_room.sweep(now=True)
    assert waiters(redis) == {"t1"}
    grow_older(redis, 200)
    park(limiter, "t2", A)
    limiter.waiting_room.sweep(now=True)
    [(task_id, (why, limit, seconds, waited))] = given_up(redis)
    assert (task_id, why, limit, seconds) == ("t1", "overdue", "account:a", 600)
    assert 700 <= waited < 760
    assert waiters(redis) == {"t2"}
    assert counters(redis) == [0, 1, 2]


def test_it_is_given_up_for_any_of_its_limits(limiter, redis):
    limiter.config.update({"waiting": {"global": {"seconds": 10}, "account:*": {"seconds": 600}}})
    park(limiter, "t1", {**A, "platform": "p"})
    grow_older(redis, 20, "global")
    limiter.waiting_room.sweep(now=True)
    assert [why[1] for _, why in given_up(redis)] == ["global"]
    assert not redis.keys("concurrency:waiting*")


def test_a_pause_and_a_cool_down_are_waited_for_as_well(limiter, redis, busy):
    bound(limiter, seconds=600)
    limiter.config.update({"paused": ["account:a"]})
    limiter.cooldowns.set("account:a", 3600, "refused", "ann")
    limiter.release(busy)
    park(limiter, "t1", A)
    grow_older(redis, 601)
    limiter.waiting_room.sweep(now=True)
    assert [task_id for task_id, _ in given_up(redis)] == ["t1"]


def test_nobody_is_given_up_while_all_are_admitted(limiter, redis):
    bound(limiter, seconds=600)
    park(limiter, "t1", A)
    grow_older(redis, 601)
    limiter.config.update({"enabled": False})
    limiter.waiting_room.sweep(now=True)
    assert [GIVEN_UP in one["headers"] for one in put_back(redis)] == [False]


def test_who_asks_again_after_too_long_is_given_up_unless_there_is_room(limiter, redis, busy):
    bound(limiter, seconds=600)
    ticket = park(limiter, "t1", A)
    old = Ticket(ticket.number - 700_000, "t1:1")
    with pytest.raises(WaitedTooLong) as caught:
        ask(limiter, "t1", ticket=old)
    assert (caught.value.limit, caught.value.seconds) == ("account:a", 600)
    assert 700 <= caught.value.waited < 760
    assert counters(redis) == [0, 1, 1]
    limiter.waiting_room.cancel("t1")
    limiter.release(busy)
    assert isinstance(ask(limiter, "t1", ticket=old), Granted)


def sweep_once(limiter):
    verb, args = limiter.waiting_room._sweep(0)
    return limiter.keyspace.call(verb, *args).reply


def test_many_are_given_up_in_bounded_steps(limiter, redis):
    bound(limiter, seconds=600)
    for number in range(SWEEP_BATCH + 10):
        park(limiter, f"t{number}", A)
    grow_older(redis, 601)
    _, _, more, _ = sweep_once(limiter)
    assert more == 1
    assert len(given_up(redis)) == SWEEP_BATCH
    _, _, more, _ = sweep_once(limiter)
    assert more == 0
    assert len(given_up(redis)) == 10


def test_one_that_replaced_another_has_waited_since_it_came_itself(limiter, redis):
    bound(limiter, seconds=600)
    for number, ticket in ((1, Ticket(int(redis.time()[0]) * 1000 - 500_000, "x")), (2, None)):
        denied = ask(limiter, f"t{number}", ticket=ticket, replaces=True)
        waiter = waiter_of(
            denied, f"t{number}", b'{"headers": {"id": "t"}}', replaces="publish", received=number
        )
        assert limiter.waiting_room.park(waiter) == "parked"
    assert redis.zscore("concurrency:waiting:account:a", "t2") > redis.time()[0] - 60


def test_one_that_replaced_another_and_finds_no_room_waits_on(limiter, redis, busy):
    """What was reserved for it lapsed; its place is that of one which asked long ago."""
    bound(limiter, seconds=600)
    now = redis.time()[0]
    place = Ticket((now - 700) * 1000, "x", received=(now - 5) * 1_000_000)
    denied = ask(limiter, "t1", ticket=place, replaces=True)
    assert isinstance(denied, Denied)
    waiter = waiter_of(denied, "t1", b"{}", replaces="publish", received=place.received)
    assert limiter.waiting_room.park(waiter) == "parked"
    assert redis.zscore("concurrency:waiting:account:a", "t1") == now - 5


# -- changes


def test_who_waited_before_a_bound_was_set_counts_as_well(limiter, redis):
    for number in range(10 * SWEEP_BATCH):
        park(limiter, f"t{number}", A)
    assert not redis.keys("concurrency:waiting*")
    bound(limiter, most=5, seconds=600)
    limiter.waiting_room.sweep(now=True)
    assert len(line(redis)) == 10 * SWEEP_BATCH
    assert not redis.exists("concurrency:waiting:walk")
    with pytest.raises(TooManyWaiting, match="640 tasks waiting"):
        ask(limiter, "more")
    grow_older(redis, 601)
    limiter.waiting_room.sweep(now=True)
    assert not waiters(redis)
    assert redis.llen(QUEUE) == 10 * SWEEP_BATCH


def test_one_that_replaced_another_has_waited_since_it_came_when_a_bound_is_set(limiter, redis):
    """Its place is that of one which asked long ago."""
    now = redis.time()[0]
    for number, received, ticket in (
        (1, now - 700, Ticket((now - 700) * 1000, "x")),
        (2, now - 5, None),
    ):
        denied = ask(limiter, f"t{number}", ticket=ticket, replaces=True)
        waiter = waiter_of(
            denied,
            f"t{number}",
            b'{"headers": {"id": "t"}}',
            replaces="publish",
            received=received * 1_000_000,
        )
        assert limiter.waiting_room.park(waiter) == "parked"
    bound(limiter, seconds=600)
    limiter.waiting_room.sweep(now=True)
    assert redis.zrange("concurrency:waiting:account:a", 0, -1, withscores=True) == [
        ("t2", now - 5)
    ]


@pytest.mark.parametrize(
    ("before", "after", "left"), [(9000, 600, 0), (600, 9000, 1), (600, None, 1)]
)
def test_other_seconds_hold_for_who_waits(limiter, redis, before, after, left):
    bound(limiter, seconds=before)
    park(limiter, "t1", A)
    grow_older(redis, 700)
    bound(limiter, most=9, seconds=after)
    limiter.waiting_room.sweep(now=True)
    assert len(waiters(redis)) == left
    limiter.waiting_room.sweep(now=True)
    assert len(given_up(redis)) == 1 - left


def test_without_bounds_nothing_of_them_is_left(limiter, redis):
    bound(limiter, most=5, seconds=600)
    park(limiter, "t1", A)
    limiter.config.update({"waiting": {"account:*": None}})
    limiter.waiting_room.sweep(now=True)
    assert not redis.keys("concurrency:waiting*")
    assert not redis.exists("concurrency:config:bounds")
    assert not redis.hexists("concurrency:config:flat", "bounded")
    assert waiters(redis) == {"t1"}


def test_a_copy_of_the_configuration_deleted_by_hand_takes_no_bound_away(limiter, redis):
    bound(limiter, most=5, seconds=600)
    park(limiter, "t1", A)
    park(limiter, "t2", A)
    limiter.waiting_room.sweep(now=True)
    redis.zadd("concurrency:waiting:account:a", {"t1": 1})
    redis.zadd("concurrency:waiting", {"account:a": 601})
    redis.delete("concurrency:config:flat")
    limiter.waiting_room.sweep(now=True)
    limiter.config.sync()
    limiter.waiting_room.sweep(now=True)
    assert [task_id for task_id, _ in given_up(redis)] == ["t1"]
    assert line(redis) == ["t2"]


def test_without_the_key_that_lists_its_limit_a_waiter_leaves_all_the_same(limiter, redis):
    """An operator deleted it: who had left would count for ever, and all others be refused."""
    bound(limiter, most=1)
    park(limiter, "t1", A)
    redis.delete("concurrency:waiting", "concurrency:waiting:walk")
    assert limiter.waiting_room.cancel("t1")
    assert line(redis) == []
    park(limiter, "t2", A)


def test_deleted_by_hand_it_leaves_no_place_behind(limiter, redis, busy):
    bound(limiter, most=5, seconds=600)
    for name in ("t1", "t2", "t3"):
        park(limiter, name, A)
    redis.delete("concurrency:waiter:t1", "concurrency:waiter:t3")
    limiter.release(busy)
    grow_older(redis, 601)
    limiter.waiting_room.sweep(now=True)
    limiter.waiting_room.sweep(now=True)
    assert not redis.keys("concurrency:waiting*")


# -- what is shown


def test_usage_shows_how_many_may_wait(limiter):
    bound(limiter, most=5, seconds=600)
    limiter.config.update({"waiting": {"account:a": {"most": 3}}})
    park(limiter, "t1", A)
    shown = limiter.usage().accounts["a"]
    assert (shown.waiting, shown.model_dump()["bounds"]) == (1, {"most": 3})
    assert "bounds" not in limiter.usage().to_dict()["global"]


def test_until_when_one_waits_is_shown(limiter, redis):
    limiter.config.update({"waiting": {"global": {"seconds": 900}, "account:*": {"seconds": 600}}})
    ticket = park(limiter, "t1", A)
    config = limiter.config.sync().config
    [one] = read_waiting(limiter.keyspace, config).waiting
    why = explain(limiter.keyspace, config, "t1")
    for found in (one, why):
        assert found.to_dict()["given_up_at"] == pytest.approx(ticket.asked + 600)
    assert why.limits[1].model_dump()["bounds"] == {"seconds": 600}
    limiter.config.update({"waiting": {"account:*": None, "global": {"seconds": None, "most": 3}}})
    [one] = read_waiting(limiter.keyspace, limiter.config.sync().config).waiting
    assert "given_up_at" not in one.to_dict()


# -- outside of tasks


def test_a_caller_outside_of_tasks_is_refused(limiter):
    bound(limiter, most=1)
    park(limiter, "t1", A)
    with pytest.raises(TooManyWaiting), limiter.acquire(account="a", timeout=60):
        pass


def test_a_caller_outside_of_tasks_is_given_up(limiter, redis):
    bound(limiter, seconds=1)
    with pytest.raises(WaitedTooLong) as caught, limiter.acquire(account="a", timeout=60):
        pass
    assert caught.value.waited >= 1
    assert not waiters(redis)
    assert not redis.exists("concurrency:reservations")


# -- the configuration and the errors


def test_the_configuration_merges_by_limit_and_by_bound(limiter):
    bound(limiter, most=5, seconds=600)
    bound(limiter, seconds=30)
    config = limiter.config.sync().config
    assert config.to_dict()["waiting"] == {"account:*": {"most": 5, "seconds": 30}}
    bound(limiter, most=None)
    assert json.loads(limiter.config.sync().config.to_json())["waiting"] == {
        "account:*": {"seconds": 30}
    }


@pytest.mark.parametrize(
    "bounds",
    [{"most": 0}, {"most": 1_000_001}, {"most": True}, {"seconds": 0}, {"seconds": 604_801},
     {"seconds": 1.5}, {"max": 5}, 5],
)  # fmt: skip
def test_a_bound_that_is_none_is_refused(limiter, bounds):
    with pytest.raises(InvalidConfig, match="waiting"):
        limiter.config.update({"waiting": {"account:*": bounds}})


@pytest.mark.parametrize("limit", ["acount:*", "account", "*"])
def test_what_is_no_limit_has_no_bounds(limiter, limit):
    with pytest.raises(InvalidConfig, match="not a limit"):
        limiter.config.update({"waiting": {limit: {"most": 1}}})


@pytest.mark.parametrize(
    "error", [TooManyWaiting("account:a", 100, 101), WaitedTooLong("global", 600, 601)]
)
def test_an_error_can_be_pickled_and_made_of_its_arguments(error):
    for copy in (pickle.loads(pickle.dumps(error)), type(error)(*error.args)):
        assert isinstance(copy, ConcurrencyError)
        assert vars(copy) == vars(error)
        assert str(copy) == str(error)


def test_its_place_stays_in_its_header(limiter, redis):
    """By its header the worker knows that it has waited: nothing is reserved for it."""
    bound(limiter, most=1)
    denied = [ask(limiter, name) for name in ("t1", "t2")]
    for one, name in zip(denied, ("t1", "t2"), strict=True):
        text = json.dumps({"headers": {PARKED: {"as": one.token}, "id": name}})
        limiter.waiting_room.park(waiter_of(one, name, text.encode()))
    [message] = put_back(redis)
    assert list(message["headers"]) == [GIVEN_UP, PARKED, "id"]


@pytest.mark.parametrize(
    "error",
    [
        TooManyWaiting("account:a", 100, 101),
        WaitedTooLong("global", 600, 601),
        WeightTooHigh("platform:p", 7, 8),
    ],
)
def test_a_sender_that_imports_nothing_of_ours_can_read_it(error):
    """Celery then makes up a class of that name, whose text is that of its arguments."""
    assert str(error) in str(Exception(*error.args))
