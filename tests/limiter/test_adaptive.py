"""Adaptive limits: calls one by one, on a server's clock that tests turn by hand."""

from __future__ import annotations

import pytest

from celery_concurrency.limiter import Denied, Granted, adaptive
from celery_concurrency.scripts.constants import PAUSED
from tests.support.floor import Floor

LIMIT = "platform:p"
ENTRY = {"min": 1, "max": 8, "decrease": 0.5, "every": 60}


@pytest.fixture
def floor(limiter, redis):
    limiter.config.update({"adaptive": {LIMIT: ENTRY}})
    return Floor(limiter, redis)


def configure(floor, **change):
    floor.limiter.config.update({"adaptive": {LIMIT: change}})


def hold(floor, count=1):
    return [floor.hold(platform="p") for _ in range(count)]


def is_full(floor):
    return isinstance(floor.ask("another", platform="p"), Denied)


def refuse(floor, times=1):
    """So many runs are refused, that began before."""
    for _ in range(times):
        floor.refused = getattr(floor, "refused", 0) + 1
        token = f"refused:{floor.refused}"
        floor.limiter.refuse(token, ("global", LIMIT), LIMIT, 0, reason="429")


def current(floor):
    return floor.limiter.adaptive.find(LIMIT).current


def test_it_begins_at_its_highest(floor):
    hold(floor, 8)
    answer = floor.ask("another", platform="p")
    assert (answer.limit, answer.held, answer.max) == (LIMIT, 8, 8)


def test_a_refusal_lowers_it_and_what_runs_goes_on(floor):
    tokens = hold(floor, 6)
    refuse(floor)
    assert current(floor) == 4
    assert floor.holders(LIMIT) == sorted(tokens)
    for token in tokens[:2]:
        assert is_full(floor)
        floor.limiter.release(token)
    assert is_full(floor)
    floor.limiter.release(tokens[2])
    assert isinstance(floor.ask("another", platform="p"), Granted)


def test_it_falls_once_in_every_however_many_refusals_come(floor):
    refuse(floor, 500)
    assert current(floor) == 4
    floor.age(40)
    refuse(floor, 3)
    assert current(floor) == 4
    floor.age(20)
    refuse(floor)
    assert current(floor) == 2


def test_it_stays_between_its_bounds(floor):
    configure(floor, min=3)
    for _ in range(5):
        refuse(floor)
        floor.age(60)
    assert current(floor) == 3
    configure(floor, min=5)
    assert current(floor) == 5
    configure(floor, min=1, max=2)
    assert current(floor) == 2


def test_used_in_full_it_rises_by_one_each_every_seconds_without_a_refusal(floor):
    refuse(floor)
    hold(floor, 4)
    assert is_full(floor)
    floor.age(30)
    assert is_full(floor)
    # Too early for it to fall again, and it puts off that it rises.
    refuse(floor)
    floor.age(30)
    assert is_full(floor)
    floor.age(30)
    hold(floor)
    assert current(floor) == 5
    for more in (6, 7, 8):
        floor.age(60)
        hold(floor)
        assert current(floor) == more
    floor.age(60)
    assert is_full(floor)
    assert floor.redis.hget(f"concurrency:adaptive:{LIMIT}", "max") is None


def test_not_used_in_full_it_does_not_rise(floor):
    refuse(floor)
    [token, *_] = hold(floor, 3)
    for _ in range(5):
        floor.age(60)
        floor.limiter.release(token)
        [token] = hold(floor)
        floor.sweep()
    assert current(floor) == 4


def test_what_runs_since_before_it_fell_does_not_let_it_rise(floor):
    hold(floor, 8)
    refuse(floor)
    for _ in range(3):
        floor.age(60)
        assert is_full(floor)
    assert current(floor) == 4


def test_those_who_wait_go_on_when_it_rises(floor):
    hold(floor, 8)
    floor.wait("one", platform="p")
    floor.wait("two", platform="p")
    refuse(floor)
    assert current(floor) == 4
    for token in floor.holders(LIMIT)[:4]:
        floor.limiter.release(token)
    assert floor.back() == []
    floor.age(60)
    floor.sweep()
    assert floor.tasks_back() == ["one"]
    assert current(floor) == 5


def test_a_lower_configured_maximum_holds_beside_it_and_is_where_it_falls_from(floor):
    floor.limiter.config.update({"platform_max": {"p": 3}})
    tokens = hold(floor, 3)
    assert is_full(floor)
    assert floor.limiter.adaptive.find(LIMIT).in_force == 3
    refuse(floor)
    assert current(floor) == 1
    floor.age(60)
    floor.limiter.release(tokens[0])
    floor.limiter.release(tokens[1])
    for more in (2, 3):
        hold(floor)
        assert current(floor) == more
        floor.age(60)
    # Used as far as it may be it goes on to its highest, which nobody sees.
    for more in (4, 5):
        assert is_full(floor)
        assert current(floor) == more
        floor.age(60)
    moves = floor.limiter.adaptive.moves(LIMIT)
    assert [(move.before, move.after) for move in moves] == [(3, 1), (1, 2), (2, 3)]


def test_a_pause_holds_beside_it_and_it_stays_where_it_is(floor):
    refuse(floor)
    hold(floor, 4)
    floor.limiter.config.update({"paused": [LIMIT]})
    floor.age(60)
    assert is_full(floor)
    assert current(floor) == 4
    assert floor.limiter.adaptive.find(LIMIT).in_force == PAUSED


def test_an_entry_that_is_set_anew_begins_anew(floor):
    refuse(floor)
    configure(floor, every=30)
    assert current(floor) == 4
    floor.limiter.config.update({"adaptive": {LIMIT: None}})
    floor.limiter.config.update({"adaptive": {LIMIT: ENTRY}})
    assert current(floor) == 8
    hold(floor, 8)
    assert is_full(floor)
    refuse(floor)
    assert current(floor) == 4


def test_a_name_that_goes_back_to_its_wildcard_begins_anew(floor):
    """Though one change has set both entries."""
    both = {"account:*": ENTRY, "account:a": {**ENTRY, "max": 6}}
    floor.limiter.config.update({"adaptive": both, "account_max": 0})
    floor.limiter.refuse("one:1", ("global", "account:a"), "global", 0)
    assert floor.limiter.adaptive.find("account:a").current == 3
    floor.limiter.config.update({"adaptive": {"account:a": None}})
    assert floor.limiter.adaptive.find("account:a").current == 8


def test_how_many_there_are_is_said_beyond_those_that_are_listed(floor, monkeypatch):
    monkeypatch.setattr(adaptive, "MAX_LISTED", 2)
    floor.limiter.config.update({"adaptive": {"account:*": ENTRY}, "account_max": 0})
    for name in "abcd":
        limits = ("global", f"account:{name}")
        floor.limiter.refuse(f"{name}:1", limits, "global", 0)
    found, total = floor.limiter.adaptive.read()
    assert ([one.limit for one in found], total) == (["account:d", "account:c"], 5)


def test_a_run_that_is_refused_in_two_limits_is_counted_once(floor, redis):
    configure(floor, every=1)
    limits = ("global", LIMIT, "account:a")
    floor.limiter.refuse("one:1", limits, "account:a", 60)
    floor.age(60)
    floor.limiter.refuse("one:1", limits, LIMIT, 60)
    assert current(floor) == 4
    assert redis.hget("concurrency:stats:counters", "refused:total") == "1"
    assert floor.limiter.cooldowns.find(LIMIT).refused


def test_with_a_wildcard_each_name_moves_by_itself(floor):
    floor.limiter.config.update({"adaptive": {LIMIT: None, "account:*": ENTRY}, "account_max": 0})
    floor.limiter.refuse("one:1", ("global", "account:a"), "global", 0)
    found, total = floor.limiter.adaptive.read()
    assert [(one.limit, one.current) for one in found] == [("account:a", 4)]
    assert total == 1
    assert floor.limiter.adaptive.find("account:b").current == 8
    assert floor.limiter.adaptive.find("platform:p") is None


def test_to_observe_it_moves_and_turns_nobody_away(floor):
    configure(floor, mode="observe")
    hold(floor, 8)
    refuse(floor)
    assert current(floor) == 4
    hold(floor, 4)
    assert floor.limiter.adaptive.find(LIMIT).in_force == 0
    floor.age(60)
    hold(floor)
    assert current(floor) == 5


def test_its_moves_are_kept_and_each_is_logged_once(floor):
    refuse(floor)
    hold(floor, 4)
    floor.age(60)
    hold(floor)
    moves = floor.limiter.adaptive.moves(LIMIT)
    assert [(move.before, move.after, move.reason) for move in moves] == [
        (8, 4, "429"),
        (4, 5, "used in full"),
    ]
    [found], _ = floor.limiter.adaptive.read()
    assert found.moved == pytest.approx(moves[1].at, abs=0.01)
    assert [(move.limit, move.after) for move in floor.limiter.adaptive.take_unlogged()] == [
        (LIMIT, 4),
        (LIMIT, 5),
    ]
    assert floor.limiter.adaptive.take_unlogged() == []


def test_reset_it_is_at_its_highest_and_those_who_wait_go_on(floor):
    refuse(floor)
    hold(floor, 4)
    floor.wait("one", platform="p")
    assert floor.limiter.adaptive.reset(LIMIT, "ann") is True
    assert floor.tasks_back() == ["one"]
    assert floor.limiter.adaptive.reset(LIMIT) is False
    move = floor.limiter.adaptive.moves(LIMIT)[-1]
    assert (move.before, move.after, move.reason) == (4, 8, "reset by ann")


def test_each_minute_its_state_is_kept(floor):
    hold(floor, 3)
    refuse(floor)
    assert floor.limiter.stats.snapshot()
    [sample] = floor.limiter.adaptive.samples(LIMIT)
    assert (sample.current, sample.running) == (4, 3)
    assert floor.limiter.adaptive.samples("platform:q") == []


def test_a_late_copy_of_a_reset_does_nothing(floor):
    refuse(floor)
    since = floor.redis.hget(f"concurrency:adaptive:{LIMIT}", "since")
    assert floor.limiter.adaptive.reset(LIMIT)
    floor.age(60)
    refuse(floor)
    assert floor.limiter.keyspace.call("reset", LIMIT, since, "again", 64).reply[0] == 0
    assert current(floor) == 4


def test_by_releases_alone_it_rises_while_others_wait(floor):
    """Nobody new asks, and no sweep looks: each release hands its place to the next."""
    configure(floor, min=1, max=4)
    refuse(floor, 1)
    floor.age(60)
    refuse(floor, 1)
    [token] = hold(floor)
    for number in range(8):
        floor.wait(f"w{number}", platform="p")
    for most in (2, 3, 4):
        floor.age(60)
        floor.limiter.release(token)
        messages = floor.back()
        assert len(messages) == 2, "its place, and one more"
        assert current(floor) == most
        [token, *_] = [floor.deliver(message).token for message in messages]


def test_a_clock_that_was_ahead_keeps_it_from_nothing(floor, redis):
    refuse(floor)
    ahead = redis.time()[0] + 86_400
    redis.hset(f"concurrency:adaptive:{LIMIT}", mapping={"since": ahead, "fell": ahead})
    refuse(floor)
    assert current(floor) == 2
    redis.hset(f"concurrency:adaptive:{LIMIT}", mapping={"since": ahead})
    hold(floor, 2)
    assert is_full(floor)
    assert current(floor) == 2


def test_a_product_that_a_double_has_a_little_too_low_is_not_rounded_down(floor):
    configure(floor, max=100, decrease=0.29)
    refuse(floor)
    assert current(floor) == 29


@pytest.mark.parametrize("field", ["max", "since", "fell"])
def test_what_somebody_wrote_by_hand_stops_nobody(floor, redis, field):
    refuse(floor)
    redis.hset(f"concurrency:adaptive:{LIMIT}", field, "junk")
    hold(floor)
    refuse(floor)
    assert 1 <= current(floor) <= 8
    redis.hdel(f"concurrency:adaptive:{LIMIT}", field)
    hold(floor)
    assert floor.limiter.adaptive.read()[1] == 1
    floor.limiter.adaptive.reset(LIMIT)
    assert current(floor) == 8
