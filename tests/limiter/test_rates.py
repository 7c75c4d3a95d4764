"""Rates and cool-downs: calls one by one, on a server's clock that tests turn by hand."""

from __future__ import annotations

import re

import pytest

from celery_concurrency.errors import InvalidConfig, InvalidCooldown
from celery_concurrency.limiter import Denied, Granted
from tests.support.floor import Floor

RATE = "concurrency:rate:account:a"


@pytest.fixture
def floor(limiter, redis):
    """Accounts have room for many at once; each may begin once in 100 s, three times in 1,000."""
    limiter.config.update(
        {
            "account_max": 0,
            "rates": {"account:*": [{"max": 1, "per": 100}, {"max": 3, "per": 1000}]},
        }
    )
    return Floor(limiter, redis)


def assert_shut(answer, limit, seconds, rate):
    assert isinstance(answer, Denied), answer
    assert answer.limit == limit
    assert answer.shut.rate == rate
    assert seconds - 30 < answer.shut.seconds <= seconds


def test_one_begins_and_the_next_waits_for_the_window(floor, redis):
    first = floor.hold(account="a")
    assert_shut(floor.ask("two", account="a"), "account:a", 100, (1, 100))
    floor.limiter.release(first)
    # The run has ended, and its start counts all the same.
    answer = floor.ask("two", account="a")
    assert_shut(answer, "account:a", 100, (1, 100))
    assert re.fullmatch(r"account:a opens in (\d\d|100) s \(1 per 100 s\)", str(answer))
    assert isinstance(floor.ask("other", account="b"), Granted)
    floor.age(60)
    assert isinstance(floor.ask("two", account="a"), Denied)
    floor.age(40)
    assert isinstance(floor.ask("two", account="a"), Granted)


def test_all_rates_of_a_limit_hold(floor, redis):
    for _ in range(3):
        floor.limiter.release(floor.hold(account="a"))
        floor.age(100)
    assert_shut(floor.ask("four", account="a"), "account:a", 700, (3, 1000))
    assert redis.zcard(RATE) == 3
    assert 0 < redis.ttl(RATE) <= 1001


def test_who_waits_for_a_moment_goes_on_at_it(floor):
    floor.limiter.release(floor.hold(account="a"))
    for task in ("one", "two"):
        floor.wait(task, account="a")
    floor.sweep()
    assert floor.back() == []
    assert 50 < floor.room.meet_moments() <= 100
    floor.age(60)
    floor.sweep()
    assert floor.back() == []
    floor.age(40)
    # Newcomers don't pass those who wait, nor is one of them let in before the next window.
    assert floor.ask("new", account="a").max is None
    assert floor.room.meet_moments() == 0
    [one] = floor.back()
    assert one["task"] == "one"
    assert isinstance(floor.deliver(one), Granted)
    assert 50 < floor.room.meet_moments() <= 100


def test_a_reservation_that_lapses_gives_its_start_back(floor, redis):
    floor.limiter.release(floor.hold(account="a"))
    floor.wait("gone", account="a")
    floor.wait("next", account="a")
    floor.age(100)
    floor.room.meet_moments()
    assert floor.tasks_back() == ["gone"]
    floor.lapse(*redis.zrange("concurrency:reservations", 0, -1))
    floor.sweep()
    assert floor.tasks_back() == ["next"]


@pytest.mark.parametrize("began", [False, True], ids=["it lapses", "a run begins on it"])
def test_a_reservation_counts_if_a_run_began_though_its_rate_was_taken_out(floor, redis, began):
    """Where the rate is put back in, its windows hold for what was kept."""
    floor.limiter.release(floor.hold(account="a"))
    floor.wait("one", account="a")
    floor.age(100)
    floor.room.meet_moments()
    floor.limiter.config.update({"rates": {"account:*": None}})
    [message] = floor.back()
    [reserved] = redis.zrange("concurrency:reservations", 0, -1)
    if began:
        assert isinstance(floor.deliver(message), Granted)
    else:
        floor.lapse(reserved)
        floor.sweep()
    floor.limiter.config.update({"rates": {"account:*": [{"max": 1, "per": 100}]}})
    assert isinstance(floor.ask("next", account="a"), Denied if began else Granted)


def test_a_message_that_will_not_run_gives_its_start_back(floor):
    floor.limiter.release(floor.hold(account="a"))
    floor.wait("revoked", account="a")
    floor.wait("next", account="a")
    floor.age(100)
    floor.room.meet_moments()
    [message] = floor.back()
    floor.room.forgo(message["as"], message["limits"])
    assert floor.tasks_back() == ["next"]


def test_a_run_whose_body_never_began_gives_its_start_back(floor):
    floor.limiter.release(floor.hold(account="a"), began=False)
    floor.limiter.release(floor.hold(account="a"), began=True)
    assert isinstance(floor.ask("next", account="a"), Denied)


def test_a_window_counts_from_the_moment_at_which_a_reservation_is_begun_on(floor):
    floor.limiter.release(floor.hold(account="a"))
    floor.wait("late", account="a")
    floor.wait("next", account="a")
    floor.age(100)
    floor.room.meet_moments()
    [late] = floor.back()
    floor.age(20)
    assert isinstance(floor.deliver(late), Granted)
    floor.age(60)
    floor.room.meet_moments()
    assert floor.back() == []
    floor.age(40)
    floor.room.meet_moments()
    assert floor.tasks_back() == ["next"]


def test_a_raised_rate_lets_those_go_on_who_wait(floor):
    floor.limiter.release(floor.hold(account="a"))
    floor.wait("one", account="a")
    floor.limiter.config.update({"rates": {"account:a": [{"max": 2, "per": 100}]}})
    assert floor.tasks_back() == ["one"]
    floor.wait("two", account="a")
    floor.limiter.config.update({"rates": {"account:a": None, "account:*": None}})
    assert floor.tasks_back() == ["two"]


def test_a_rate_of_a_platform_is_shared_and_in_order(floor):
    floor.limiter.config.update({"rates": {"platform:p": [{"max": 2, "per": 50}]}})
    for account in "xy":
        floor.hold(platform="p", account=account)
    for account in "abc":
        floor.wait(account, platform="p", account=account)
    floor.age(50)
    floor.room.meet_moments()
    assert floor.tasks_back() == ["a", "b"]
    assert_shut(floor.ask("new", platform="p", account="z"), "platform:p", 81, (2, 50))


def test_with_the_limiter_disabled_everybody_begins_and_is_counted(floor, redis):
    floor.limiter.config.update({"enabled": False})
    for _ in range(4):
        floor.hold(account="a")
    assert redis.zcard(RATE) == 3
    floor.limiter.config.update({"enabled": True})
    assert isinstance(floor.ask("next", account="a"), Denied)


def test_starts_come_back_with_the_beats_after_a_loss_of_data(floor, redis):
    token = floor.hold(account="a")
    floor.limiter.leases.beat([token], 30)
    config = redis.get("concurrency:config")
    redis.flushall()
    redis.set("concurrency:config", config)
    floor.limiter.config.sync()
    floor.limiter.leases.beat([token], 30)
    redis.hset("concurrency:config:flat", "opens", 0)
    assert_shut(floor.ask("next", account="a"), "account:a", 100, (1, 100))


def test_a_cool_down_admits_nobody_until_its_end(floor):
    holder = floor.hold(account="c")
    floor.limiter.config.update({"rates": {"account:*": None}})
    until = floor.limiter.cooldowns.set("account:c", 600, "429", "ann")
    answer = floor.ask("one", account="c")
    assert_shut(answer, "account:c", 600, None)
    assert answer.shut.until == pytest.approx(until)
    assert str(answer).endswith(" s (it cools down)")
    floor.wait("one", account="c")
    floor.limiter.release(holder)
    floor.sweep()
    assert floor.back() == []
    [shown], total = floor.limiter.cooldowns.read()
    assert total == 1
    assert floor.limiter.cooldowns.find("account:c").until == shown.until
    assert (shown.limit, shown.reason, shown.by) == ("account:c", "429", "ann")
    assert 550 < shown.seconds <= 600
    floor.age(600)
    assert floor.limiter.cooldowns.read() == ([], 0)
    floor.room.meet_moments()
    assert floor.tasks_back() == ["one"]


def test_the_longer_of_two_cool_downs_stands_and_a_lifted_one_lets_go_on(floor):
    until = floor.limiter.cooldowns.set("platform:p", 600, "long")
    assert floor.limiter.cooldowns.set("platform:p", 60, "short") == until
    assert [one.reason for one in floor.limiter.cooldowns.read()[0]] == ["long"]
    for task in ("one", "two"):
        floor.wait(task, platform="p", account=task)
    assert floor.limiter.cooldowns.lift("platform:p") is True
    assert floor.tasks_back() == ["one", "two"]
    assert floor.limiter.cooldowns.lift("platform:p") is False


def test_a_second_copy_of_a_cool_down_does_not_bring_it_back(floor, redis):
    call = ("cool", "platform:p", "600", "a-name", "", "")
    floor.room.call_and_hand_over(*call)
    floor.limiter.cooldowns.lift("platform:p")
    floor.room.call_and_hand_over(*call)
    assert floor.limiter.cooldowns.read() == ([], 0)


def test_a_late_copy_does_not_bring_a_cool_down_back_though_another_was_set_meanwhile(floor):
    call = ("cool", "platform:p", "600", "a-name", "", "")
    until = floor.room.call_and_hand_over(*call)
    floor.limiter.cooldowns.set("platform:p", 900)
    floor.limiter.cooldowns.lift("platform:p")
    assert floor.room.call_and_hand_over(*call) == until
    assert floor.limiter.cooldowns.read() == ([], 0)


def test_a_late_copy_of_a_lift_does_not_lift_what_was_set_meanwhile(floor):
    until = floor.limiter.cooldowns.set("platform:p", 600)
    call = ("cool", "platform:p", 0, "a-name", "", "")
    assert float(floor.room.call_and_hand_over(*call)) == until
    floor.limiter.cooldowns.set("platform:p", 60)
    assert float(floor.room.call_and_hand_over(*call)) == until
    assert [one.limit for one in floor.limiter.cooldowns.read()[0]] == ["platform:p"]


def test_a_task_cools_its_own_limit_down(floor):
    lease = floor.limiter.acquire(account="x", platform="p")
    with lease as held:
        held.cool_down(60, "account", reason="429")
        with pytest.raises(
            InvalidCooldown, match="dimension 'tenant' is not one of global, platform"
        ):
            held.cool_down(60, "tenant")
        assert isinstance(floor.ask("other", account="y", platform="p"), Granted)
        assert isinstance(floor.ask("next", account="x", platform="p"), Denied)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("account:*", 60), "limit 'account:\\*' is a wildcard"),
        (("nonsense", 60), "limit 'nonsense' is not a limit"),
        (("account:a", 0), "seconds must be more than 0"),
        (("account:a", float("nan")), "seconds"),
        (("account:a", 604_801), "at most 604800"),
        (("account:a", 60, "x\ny"), "reason must be one line"),
        (("account:a", 60, "", "x" * 201), "by must be"),
    ],
)
def test_a_cool_down_that_can_not_be(limiter, given, said):
    with pytest.raises(InvalidCooldown, match=said):
        limiter.cooldowns.set(*given)


@pytest.mark.parametrize(
    ("rates", "field"),
    [
        ({"account:*": []}, "rates.account:*"),
        ({"account:*": [{"max": 0, "per": 1}]}, "rates.account:*.0.max"),
        ({"account:*": [{"max": 1, "per": 0}]}, "rates.account:*.0.per"),
        ({"account:*": [{"max": 10_001, "per": 1}]}, "rates.account:*.0.max"),
        ({"account:*": [{"max": 1, "per": 604_801}]}, "rates.account:*.0.per"),
        ({"account:*": [{"max": 1, "per": 1.5}]}, "rates.account:*.0.per"),
        ({"account:*": [{"max": 1}]}, "rates.account:*.0.per"),
        ({"account:*": [{"max": 1, "per": 1, "x": 1}]}, "rates.account:*.0.x"),
        ({"account:*": [{"max": 1, "per": 1}] * 5}, "rates.account:*"),
        ({"acount:*": [{"max": 1, "per": 1}]}, "rates"),
        ({"account": [{"max": 1, "per": 1}]}, "rates"),
    ],
)
def test_rates_that_can_not_be(limiter, rates, field):
    with pytest.raises(InvalidConfig) as refused:
        limiter.config.update({"rates": rates})
    text = f"{refused.value} {[one['field'] for one in refused.value.details]}"
    assert field in text


@pytest.mark.parametrize("by", ["rate", "cool-down"])
def test_who_waits_for_the_moment_of_global_is_known_to_wait_for_it(floor, by):
    """Nothing is filed under ``global``, but its moment is."""
    if by == "rate":
        floor.limiter.config.update({"rates": {"global": [{"max": 1, "per": 50}]}})
        floor.hold()
    else:
        floor.limiter.cooldowns.set("global", 50)
    for task in ("one", "two"):
        floor.wait(task, account=task)
    assert 20 < floor.room.meet_moments() <= 50
    floor.age(50)
    floor.room.meet_moments()
    assert floor.tasks_back() == (["one"] if by == "rate" else ["one", "two"])


def test_after_a_lifted_cool_down_the_rates_moment_counts(floor):
    floor.limiter.release(floor.hold(account="a"))
    floor.limiter.cooldowns.set("account:a", 600)
    floor.wait("one", account="a")
    assert floor.room.meet_moments() > 550
    floor.limiter.cooldowns.lift("account:a")
    assert floor.back() == []
    assert 50 < floor.room.meet_moments() <= 100


def test_a_shorter_window_moves_the_moment_of_those_who_wait(floor):
    floor.limiter.release(floor.hold(account="a"))
    floor.wait("one", account="a")
    floor.limiter.config.update({"rates": {"account:*": [{"max": 1, "per": 50}]}})
    assert floor.back() == []
    assert 20 < floor.room.meet_moments() <= 50


def test_a_moment_that_nobody_waits_for_any_more_holds_up_no_newcomer(floor, redis):
    floor.limiter.release(floor.hold(account="a"))
    floor.wait("one", account="a")
    assert floor.room.cancel("one")
    floor.limiter.cooldowns.set("platform:other", 600)
    floor.age(100)
    floor.sweep()
    assert not redis.exists("concurrency:moments")
    assert isinstance(floor.ask("new", account="a"), Granted)


def test_a_moment_left_behind_by_a_lifted_cool_down_holds_up_no_newcomer(floor):
    """Nobody waits, and another limit cools down: only then it is looked at."""
    floor.limiter.cooldowns.set("account:c", 600)
    floor.wait("one", account="c")
    floor.limiter.cooldowns.lift("account:c")
    [message] = floor.back()
    floor.limiter.release(floor.deliver(message).token)
    floor.limiter.cooldowns.set("account:other", 9_000)
    floor.age(601)
    assert isinstance(floor.ask("two", account="c"), Granted)


@pytest.mark.parametrize("shut", ["by a rate", "by a cool-down"])
def test_a_newcomer_does_not_pass_those_whose_moment_has_come(floor, shut):
    """They have another account: nobody of the newcomer's own group waits."""
    if shut == "by a rate":
        floor.limiter.config.update({"rates": {"platform:p": [{"max": 1, "per": 50}]}})
        floor.hold(platform="p", account="x")
    else:
        floor.limiter.cooldowns.set("platform:p", 50)
    floor.wait("first", platform="p", account="y")
    floor.age(50)
    answer = floor.ask("new", platform="p", account="z")
    assert (answer.limit, answer.max, answer.shut) == ("platform:p", None, None)
    floor.room.meet_moments()
    assert floor.tasks_back() == ["first"]
