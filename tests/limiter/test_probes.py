"""Refusals and probes: calls one by one, on a server's clock that tests turn by hand."""

from __future__ import annotations

import pytest

from celery_concurrency.errors import InvalidCooldown
from celery_concurrency.limiter import Denied, Granted
from celery_concurrency.limiter.refusals import Refusal
from tests.support.floor import Floor

TAGS = {"platform": "p", "account": "a"}


@pytest.fixture
def floor(limiter, redis):
    """Many of an account at once, so that only what cools down is in the way."""
    limiter.config.update({"account_max": 0})
    return Floor(limiter, redis)


def refuse(floor, token, seconds=600, limit="account:a", **more):
    limits = ("global", "platform:p", "account:a")
    return floor.limiter.refuse(token, limits, limit, seconds, **more)


def lasts(floor, limit="account:a"):
    """Return for how many seconds a limit cools down, to the nearest hundred."""
    found = floor.limiter.cooldowns.find(limit)
    return round(found.seconds, -2) if found else None


def refused_once(floor, seconds=600):
    """The account was refused and its cool-down is over."""
    token = floor.hold(**TAGS)
    refuse(floor, token, seconds)
    floor.limiter.release(token)
    floor.age(seconds)


def is_on_probation(floor, limit="account:a"):
    found = floor.limiter.cooldowns.find(limit)
    return found is not None and found.refused


def assert_probed(answer, probe):
    assert isinstance(answer, Denied), answer
    assert (answer.limit, answer.probe) == ("account:a", probe)
    assert str(answer) == "account:a (one run goes first, after a refusal)"


def test_one_goes_first_after_a_refusal_and_its_success_opens_the_limit(floor):
    refused_once(floor)
    probe = floor.hold(**TAGS)
    assert floor.limiter.cooldowns.find("account:a").probe == probe
    assert_probed(floor.ask("two", **TAGS), probe)
    floor.limiter.release(probe, done=True, succeeded=True)
    assert floor.limiter.cooldowns.find("account:a") is None
    assert floor.redis.keys("concurrency:probes") == []
    floor.hold(**TAGS)
    floor.hold(**TAGS)


def test_a_cool_down_that_no_refusal_began_has_no_probe(floor):
    floor.limiter.cooldowns.set("account:a", 600)
    floor.age(600)
    floor.hold(**TAGS)
    floor.hold(**TAGS)


def test_those_who_wait_go_on_one_first_and_all_after_its_success(floor):
    token = floor.hold(**TAGS)
    refuse(floor, token)
    floor.limiter.release(token)
    for task in ("one", "two", "three"):
        floor.wait(task, **TAGS)
    floor.age(600)
    floor.room.meet_moments()
    [message] = floor.back()
    assert message["task"] == "one"
    probe = floor.deliver(message)
    floor.sweep()
    assert floor.back() == []
    assert_probed(floor.ask("four", **TAGS), probe.token)
    floor.limiter.release(probe.token, done=True, succeeded=True)
    assert floor.tasks_back() == ["two", "three"]


def test_the_refusal_of_the_probe_shuts_for_longer_up_to_a_bound(floor):
    refused_once(floor)
    for seconds in (1800, 5000, 5000):
        probe = floor.hold(**TAGS)
        refuse(floor, probe, grow=3, most=5000)
        assert lasts(floor) == seconds
        floor.limiter.release(probe)
        floor.age(seconds)
    # Unless the platform itself says longer.
    refuse(floor, floor.hold(**TAGS), 9000, grow=3, most=5000)
    assert lasts(floor) == 9000


def test_a_success_lets_the_next_refusal_begin_anew(floor):
    refused_once(floor)
    floor.limiter.release(floor.hold(**TAGS), succeeded=True)
    refused_once(floor)
    assert is_on_probation(floor)
    refuse(floor, floor.hold(**TAGS))
    assert lasts(floor) == 1200


def test_refusals_of_runs_that_began_before_shut_for_no_longer(floor):
    tokens = [floor.hold(**TAGS) for _ in range(5)]
    for token in tokens:
        refuse(floor, token)
        floor.limiter.release(token)
    assert lasts(floor) == 600


def test_one_that_began_before_and_succeeds_opens_nothing(floor):
    before, refused = floor.hold(**TAGS), floor.hold(**TAGS)
    refuse(floor, refused)
    floor.limiter.release(before, done=True, succeeded=True)
    assert lasts(floor) == 600
    floor.age(600)
    assert_probed_by_one(floor)


def assert_probed_by_one(floor):
    probe = floor.hold(**TAGS)
    assert_probed(floor.ask("other", **TAGS), probe)
    return probe


def test_a_straggler_that_is_refused_while_one_goes_first_shuts_it_again(floor):
    straggler, refused = floor.hold(**TAGS), floor.hold(**TAGS)
    refuse(floor, refused, 900)
    floor.age(900)
    probe = floor.hold(**TAGS)
    refuse(floor, straggler, 600)
    assert lasts(floor) == 900
    # Its success is from before: another one goes first.
    floor.limiter.release(probe, done=True, succeeded=True)
    assert lasts(floor) == 900
    floor.age(900)
    assert_probed_by_one(floor)


@pytest.mark.parametrize("how", ["fails", "never began", "dies", "is cancelled"])
def test_a_probe_that_does_not_succeed_is_followed_by_another(floor, how):
    token = floor.hold(**TAGS)
    refuse(floor, token)
    floor.limiter.release(token)
    floor.wait("one", **TAGS)
    floor.wait("two", **TAGS)
    floor.age(600)
    floor.room.meet_moments()
    [message] = floor.back()
    if how == "is cancelled":
        floor.room.forgo(message["as"], message["limits"])
    else:
        probe = floor.deliver(message).token
        match how:
            case "fails":
                floor.limiter.release(probe, done=True)
            case "never began":
                floor.limiter.release(probe, began=False)
            case "dies":
                floor.lapse(probe)
                floor.sweep()
    assert floor.tasks_back() == ["two"]
    assert is_on_probation(floor)
    assert isinstance(floor.ask("three", **TAGS), Denied)


def test_a_reservation_that_lapses_is_no_probe_any_more(floor):
    refused_once(floor)
    held = floor.hold(**TAGS)
    for task in ("one", "two"):
        floor.wait(task, **TAGS)
    floor.limiter.release(held)
    assert floor.tasks_back() == ["one"]
    floor.lapse(*floor.redis.zrange("concurrency:reservations", 0, -1))
    floor.sweep()
    assert floor.tasks_back() == ["two"]


def test_who_was_handed_room_before_the_refusal_does_not_pass_the_probe(floor):
    """A reservation was made, then the limit was refused and its time is over."""
    floor.limiter.config.update({"account_max": 1})
    held = floor.hold(**TAGS)
    floor.wait("one", **TAGS)
    floor.limiter.release(held)
    [message] = floor.back()
    refuse(floor, "straggler:1")
    floor.age(600)
    floor.limiter.config.update({"account_max": 0})
    probe = floor.hold(**TAGS)
    assert_probed(floor.deliver(message), probe)


def test_two_limits_that_were_refused_are_tried_by_one_run(floor):
    for limit in ("account:a", "platform:p"):
        refuse(floor, "before:1", limit=limit)
    floor.age(600)
    probe = floor.hold(**TAGS)
    assert isinstance(floor.ask("two", platform="p", account="b"), Denied)
    # It is refused by its account: that says nothing for the platform.
    refuse(floor, probe)
    floor.limiter.release(probe, done=True, succeeded=True)
    assert is_on_probation(floor, "platform:p")
    other = floor.hold(platform="p", account="b")
    assert floor.limiter.cooldowns.find("platform:p").probe == other


def test_lifted_it_is_open(floor):
    refused_once(floor)
    assert_probed_by_one(floor)
    assert floor.limiter.cooldowns.lift("account:a") is True
    floor.hold(**TAGS)
    assert floor.limiter.cooldowns.lift("account:a") is False


def test_a_longer_cool_down_by_hand_keeps_it_on_probation(floor):
    refused_once(floor)
    floor.limiter.cooldowns.set("account:a", 900, by="ann")
    assert lasts(floor) == 900
    floor.age(900)
    assert_probed_by_one(floor)


def test_a_run_tells_one_refusal_of_a_limit(floor, redis):
    token = floor.hold(**TAGS)
    first = refuse(floor, token)
    floor.age(300)
    assert refuse(floor, token) == first
    assert lasts(floor) == 300
    counters = redis.hgetall("concurrency:stats:counters")
    assert counters["refused:total"] == counters["refused:platform:p"] == "1"
    assert "refused:account:a" not in counters


def test_without_seconds_it_is_counted_alone(floor, redis):
    token = floor.hold(**TAGS)
    assert refuse(floor, token, 0) == 0
    assert redis.hget("concurrency:stats:counters", "refused:total") == "1"
    assert isinstance(floor.ask("two", **TAGS), Granted)


def test_one_that_nobody_uses_opens_after_a_day(floor, redis):
    refused_once(floor)
    floor.age(86_400)
    floor.sweep()
    assert redis.keys("concurrency:probes") + redis.keys("concurrency:cooldown:*") == []
    floor.hold(**TAGS)
    floor.hold(**TAGS)


def test_with_the_limiter_disabled_nobody_goes_first(floor):
    refused_once(floor)
    floor.limiter.config.update({"enabled": False})
    floor.hold(**TAGS)
    floor.hold(**TAGS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"limit": "account:b"}, "limit 'account:b' is not one of global, platform:p, account:a"),
        ({"seconds": -1}, "seconds must be a number from 0 to 604800"),
        ({"seconds": float("nan")}, "seconds must be a number"),
        ({"seconds": "600"}, "seconds must be a number"),
        ({"seconds": True}, "seconds must be a number"),
        ({"grow": 0.5}, "grow must be a number from 1 to 100"),
        ({"most": 604_801}, "most must be a number from 0 to 604800"),
        ({"reason": "a\nb"}, "reason must be one line"),
    ],
)
def test_a_refusal_that_can_not_be(floor, given, said):
    with pytest.raises(InvalidCooldown, match=said):
        refuse(floor, "one:1", **given)


def told_later(floor, token, ago, seconds, **more):
    """Redis was away when the run was refused."""
    limits = ("global", "platform:p", "account:a")
    refusal = Refusal(token, limits, "account:a", seconds, **more)
    return floor.limiter.keyspace.run(refusal.after(ago).telling(floor.room))


def test_a_refusal_that_is_told_later_counts_from_its_moment(floor):
    told_later(floor, floor.hold(**TAGS), 100, 600)
    assert lasts(floor) == 500


def test_a_refusal_of_the_probe_that_is_told_later_grows_all_the_same(floor):
    refused_once(floor)
    told_later(floor, floor.hold(**TAGS), 601, 600, grow=3)
    assert lasts(floor) == 1200
    floor.age(1200)
    refuse(floor, floor.hold(**TAGS), grow=2)
    assert lasts(floor) == 3600


def test_one_that_is_told_after_its_time_lets_one_go_first(floor):
    token = floor.hold(**TAGS)
    told_later(floor, token, 500, 400)
    assert lasts(floor) == 0
    assert_probed_by_one(floor)


def test_one_that_went_first_in_two_limits_and_is_refused_in_one_lets_another_try_at_once(floor):
    for limit in ("account:a", "platform:p"):
        refuse(floor, "before:1", limit=limit)
    floor.age(600)
    probe = floor.hold(**TAGS)
    floor.wait("other", platform="p", account="b")
    # It runs on.
    refuse(floor, probe)
    assert floor.tasks_back() == ["other"]
