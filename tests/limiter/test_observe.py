"""Observed limits: whom they would have turned away, held against a queue in plain Python."""

from __future__ import annotations

import heapq
import json
import math
from bisect import insort
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_concurrency import scripts
from celery_concurrency.errors import InvalidConfig
from celery_concurrency.limiter import Denied, Granted
from celery_concurrency.limiter.config.maximum import Observed
from celery_concurrency.limiter.config.schema import Config, Rate
from celery_concurrency.limiter.inspect.observed import read_observed
from tests.support.floor import Floor

PREFIX = "concurrency"
#: The clock of the scripts, in the place of the server's.
CLOCK = "local clock = redis.call('TIME')"


@pytest.fixture
def floor(limiter, redis):
    limiter.config.update({"account_max": 0})
    return Floor(limiter, redis)


@pytest.fixture
def turned(limiter, redis, monkeypatch):
    """Return a function that sets the scripts' time, in seconds from a moment an hour from now.

    It is ahead of the server's own, so that nothing expires meanwhile.
    """
    begin = redis.time()[0] + 3600

    def turn(seconds: float) -> None:
        whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
        redis.mset({"clock:seconds": begin + whole, "clock:micros": micros})

    def evalsha(sha, numkeys, prefix, *args):
        verb = next(verb for verb in VERBS if scripts._sha(verb) == sha)
        return limiter.redis.eval(source(verb), 1, prefix, *args)

    monkeypatch.setattr(limiter.redis, "evalsha", evalsha)
    turn(0)
    return turn


def source(verb: str) -> str:
    """Return a script that reads the time that ``turned`` has set."""
    text = scripts.source(verb)
    assert text.count(CLOCK) == 1
    return text.replace(CLOCK, "local clock = redis.call('MGET', 'clock:seconds', 'clock:micros')")


VERBS = ("acquire", "release", "configure", "advance", "sweep", "renew", "park", "cool", "refuse")


def counted(redis, entry: str) -> dict[str, float]:
    """Return what was counted of an entry, without since when."""
    counts = {
        name: float(text) for name, text in redis.hgetall(f"{PREFIX}:observed:{entry}").items()
    }
    counts.pop("since", None)
    return counts


def begin_anew(floor: Floor, redis, turned, change: object) -> None:
    redis.flushall()
    turned(0)
    floor.limiter.config.update(change)
    # Of one that is new, nobody has to say what lives.
    redis.hset(f"{PREFIX}:config:flat", "opens", 0)


# -- a queue in plain Python


def waits_by_maximum(runs: Iterable[tuple[float, float]], most: int) -> list[float]:
    """Return how long each run waits, first come, first served; runs are (arrival, hold)."""
    free = [-math.inf] * most
    waits = []
    for arrival, hold in runs:
        start = max(arrival, heapq.heappop(free))
        heapq.heappush(free, start + hold)
        waits.append(start - arrival)
    return waits


def waits_by_rates(arrivals: Iterable[float], rates: list[tuple[int, int]]) -> list[float]:
    starts: list[float] = []
    waits = []
    for arrival in arrivals:
        bounds = [starts[-most] + per for most, per in rates if len(starts) >= most]
        start = max(arrival, *bounds, arrival)
        insort(starts, start)
        waits.append(start - arrival)
    return waits


def summary(waits: list[float]) -> dict[str, float]:
    """Return what is to be counted of these waits."""
    some = [wait for wait in waits if wait > 1e-6]
    counts = {"runs": float(len(waits))}
    if some:
        counts |= {"denied": len(some), "seconds": sum(some), "longest": max(some)}
    return counts


# -- held against it


#: Milliseconds, so that many moments fall together.
gaps = st.integers(0, 20).map(lambda number: number / 1000)
holds = st.integers(1, 60).map(lambda number: number / 1000)
some_runs = st.lists(st.tuples(gaps, holds), min_size=1, max_size=24)


def play(floor: Floor, turned, runs: list[tuple[float, float]]) -> None:
    """Runs come and go at their moments; at the same one who goes is first."""
    events: list[tuple[float, int, int]] = []
    for number, (arrival, hold) in enumerate(runs):
        events += [(arrival, 1, number), (arrival + hold, 0, number)]
    for moment, begins, number in sorted(events):
        turned(moment)
        token = f"run{number:04}:1"
        if begins:
            answer = floor.limiter.try_acquire(token, {"account": "a", "platform": "p"})
            assert isinstance(answer, Granted)
        else:
            assert floor.limiter.release(token)


def arriving(runs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    moment, found = 1.0, []
    for gap, hold in runs:
        moment = round(moment + gap, 6)
        found.append((moment, hold))
    return found


@settings(
    max_examples=50, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(runs=some_runs, most=st.integers(1, 4))
def test_a_maximum_is_counted_as_a_queue_would_have_it(floor, redis, turned, runs, most):
    begin_anew(floor, redis, turned, {"account_max": {"max": most, "mode": "observe"}})
    runs = arriving(runs)
    play(floor, turned, runs)
    expected = summary(waits_by_maximum(runs, most))
    assert counted(redis, "max account:*") == pytest.approx(expected, abs=1e-4)
    for state in ("undecided", "ended", "running"):
        assert not redis.exists(f"{PREFIX}:observed:{state}:account:a")
    assert redis.zcard(f"{PREFIX}:observed:places:account:a") <= most


@settings(
    max_examples=50, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(
    runs=some_runs,
    rates=st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=3, unique=True
    ),
)
def test_rates_are_counted_as_a_queue_would_have_them(floor, redis, turned, runs, rates):
    observed = [{"max": most, "per": per, "mode": "observe"} for most, per in rates]
    begin_anew(floor, redis, turned, {"account_max": 0, "rates": {"account:*": observed}})
    runs = arriving([(40 * gap, hold) for gap, hold in runs])
    play(floor, turned, runs)
    expected = summary(waits_by_rates([arrival for arrival, _ in runs], rates))
    assert counted(redis, "rates account:*") == pytest.approx(expected, abs=1e-4)
    assert redis.zcard(f"{PREFIX}:observed:starts:account:a") <= max(most for most, _ in rates)


# -- one by one


MAX_2 = {"account_max": {"max": 2, "mode": "observe"}}
RATES = [{"max": 1, "per": 30, "mode": "observe"}, {"max": 3, "per": 100}]


def listed(limiter):
    return {
        (one.limit, one.kind): one for one in read_observed(limiter.keyspace, config(limiter))[0]
    }


def config(limiter):
    return limiter.config.sync().config


def test_nobody_is_turned_away_and_what_would_be_is_told(floor, redis, turned):
    begin_anew(floor, redis, turned, MAX_2)
    tokens = [floor.hold(account="a") for _ in range(4)]
    turned(10)
    for token in tokens[:2]:
        floor.limiter.release(token)
    # The other two would have begun now, and so end 10 s later than they do.
    turned(12)
    for token in tokens[2:]:
        floor.limiter.release(token)
    one = listed(floor.limiter)["account:*", "max"]
    assert (one.max, one.runs, one.would_deny) == (2, 4, 2)
    assert (one.would_wait.total, one.would_wait.longest) == pytest.approx((20, 10), abs=1e-3)
    assert one.would_wait.mean == pytest.approx(10, abs=1e-3)
    last = floor.hold(account="a")
    assert listed(floor.limiter)["account:*", "max"].would_wait.longest == pytest.approx(
        10, abs=1e-3
    )
    floor.limiter.release(last)
    assert listed(floor.limiter)["account:*", "max"].runs == 5


def test_each_name_has_a_queue_of_its_own(floor, redis, turned):
    begin_anew(floor, redis, turned, MAX_2)
    for account in ("a", "a", "b", "b", "c"):
        floor.hold(account=account)
    assert counted(redis, "max account:*") == {"runs": 5}


def test_in_force_it_turns_away_as_ever(floor, redis):
    floor.limiter.config.update({"account_max": {"max": 1, "mode": "observe"}})
    floor.hold(account="a")
    floor.hold(account="a")
    assert floor.limiter.config.enforce("account:*").config.account_max == 1
    assert isinstance(floor.ask("next", account="a"), Denied)
    assert "observing" not in redis.hgetall(f"{PREFIX}:config:flat")
    assert not redis.exists(f"{PREFIX}:config:observed", f"{PREFIX}:observed:max account:*")


def test_one_rate_is_in_force_and_one_observed(floor, redis, turned):
    begin_anew(floor, redis, turned, {"account_max": 0, "rates": {"account:*": RATES}})
    for _ in range(3):
        floor.hold(account="a")
    denied = floor.ask("next", account="a")
    assert isinstance(denied, Denied)
    assert denied.shut.rate == (3, 100)
    # Turned away by the one that is in force, it has not begun.
    one = listed(floor.limiter)["account:*", "rates"]
    assert (one.runs, one.would_deny) == (3, 2)
    assert one.would_wait.total == pytest.approx(30 + 60)
    assert [str(rate) for rate in one.rates] == ["1 per 30 s"]
    assert config(floor.limiter).rates["account:*"] == [Rate(**rate) for rate in RATES]
    rates = floor.limiter.config.enforce("account:*").config.to_dict()["rates"]
    assert rates == {"account:*": [{"max": 1, "per": 30}, {"max": 3, "per": 100}]}


@pytest.mark.parametrize(
    ("change", "enforced", "entry"),
    [
        ({"platform_max": {"*": {"max": 1, "mode": "observe"}, "p": 2}}, 2, None),
        ({"platform_max": {"*": 2, "p": {"max": 1, "mode": "observe"}}}, 0, "max platform:p"),
        ({"platform_max": {"*": {"max": 1, "mode": "observe"}}}, 0, "max platform:*"),
        ({"global_max": {"max": 1, "mode": "observe"}}, 0, "max global"),
        ({"rates": {"platform:*": RATES[:1], "platform:p": RATES[1:]}}, 0, None),
        ({"rates": {"platform:*": RATES[1:], "platform:p": RATES[:1]}}, 0, "rates platform:p"),
    ],
)
def test_a_name_s_own_entry_takes_the_place_of_its_wildcard(floor, redis, change, enforced, entry):
    floor.limiter.config.update(change)
    for _ in range(2):
        floor.hold(platform="p")
    assert config(floor.limiter).max_of("platform:p") == enforced
    assert redis.hget(f"{PREFIX}:config:flat", "platform:p") in (str(enforced), None)
    seen = [key for key in redis.keys(f"{PREFIX}:observed:*") if ":max " in key or ":rates " in key]
    assert seen == ([f"{PREFIX}:observed:{entry}"] if entry else [])
    rates = config(floor.limiter).rates_of("platform:p")
    assert rates == (
        [Rate(**RATES[1])] if change.get("rates", {}).get("platform:p") == RATES[1:] else []
    )
    assert redis.exists(f"{PREFIX}:rate:platform:p") == bool(rates)


def test_a_second_copy_of_a_call_counts_nothing(floor, redis, turned):
    begin_anew(floor, redis, turned, {**MAX_2, "rates": {"account:*": RATES[:1]}})
    tags = {"account": "a"}
    for _ in range(3):
        assert isinstance(floor.limiter.try_acquire("run:1", tags), Granted)
    turned(5)
    assert floor.limiter.release("run:1")
    for _ in range(3):
        assert not floor.limiter.release("run:1")
    assert counted(redis, "max account:*") == counted(redis, "rates account:*") == {"runs": 1}


@pytest.mark.parametrize("decided", [True, False])
def test_a_run_that_never_began_holds_nobody_up(floor, redis, turned, decided):
    """What was counted of it stays: what people plot must not go down."""
    change = {"account_max": {"max": 1, "mode": "observe"}, "rates": {"account:*": RATES[:1]}}
    begin_anew(floor, redis, turned, change)
    first = floor.hold(account="a")
    turned(10)
    second = floor.hold(account="a")
    turned(11)
    if decided:
        floor.limiter.release(first)
    assert counted(redis, "rates account:*")["seconds"] == pytest.approx(20)
    floor.limiter.release(second, began=False)
    if not decided:
        floor.limiter.release(first)
    turned(31)
    floor.limiter.release(floor.hold(account="a"))
    by_rates, by_maximum = counted(redis, "rates account:*"), counted(redis, "max account:*")
    assert by_rates == pytest.approx({"runs": 3, "denied": 1, "seconds": 20, "longest": 20})
    if decided:
        assert by_maximum == pytest.approx({"runs": 3, "denied": 1, "seconds": 1, "longest": 1})
    else:
        assert by_maximum == {"runs": 2}


def test_an_adaptive_maximum_is_counted_as_it_stands(floor, redis, turned):
    entry = {"min": 1, "max": 2, "mode": "observe"}
    begin_anew(floor, redis, turned, {"adaptive": {"platform:*": entry}, "account_max": 0})
    tags = {"platform": "p"}
    for _ in range(2):
        floor.limiter.release(floor.hold(**tags))
    floor.limiter.refuse("before:1", ("global", "platform:p"), "global", 0)
    tokens = [floor.hold(**tags) for _ in range(2)]
    turned(10)
    for token in tokens:
        floor.limiter.release(token)
    counts = counted(redis, "adaptive platform:*")
    assert counts == pytest.approx({"runs": 4, "denied": 1, "seconds": 10, "longest": 10})
    [found], total = read_observed(floor.limiter.keyspace, floor.limiter.config.sync().config)
    assert (found.limit, found.kind, found.max, found.would_deny) == (
        "platform:*",
        "adaptive",
        2,
        1,
    )
    assert total == 1
    floor.limiter.config.enforce("platform:*")
    assert floor.limiter.config.sync().config.adaptive["platform:*"].mode == "enforce"
    assert read_observed(floor.limiter.keyspace, floor.limiter.config.sync().config) == ([], 0)


def test_a_run_whose_time_was_over_held_its_place_until_then(floor, redis, turned):
    begin_anew(floor, redis, turned, {"account_max": {"max": 1, "mode": "observe"}})
    floor.hold(account="a")
    turned(100)
    floor.hold(account="a")
    turned(400)  # the first one's 300 s are over
    floor.sweep()
    floor.sweep()
    counts = counted(redis, "max account:*")
    assert counts == pytest.approx({"runs": 2, "denied": 1, "seconds": 300, "longest": 300}, abs=1)


def test_another_value_is_counted_anew_and_the_others_go_on(floor, redis):
    floor.limiter.config.update({**MAX_2, "global_max": {"max": 9, "mode": "observe"}})
    floor.hold(account="a")
    floor.limiter.config.update({"account_max": {"max": 3}})
    assert config(floor.limiter).account_max == Observed(max=3, mode="observe")
    assert listed(floor.limiter)["account:*", "max"].runs == 0
    assert listed(floor.limiter)["account:*", "max"].since is None
    assert listed(floor.limiter)["global", "max"].runs == 1


def test_what_was_deleted_by_hand_holds_no_place_for_ever(floor, redis, turned):
    begin_anew(floor, redis, turned, {"account_max": {"max": 1, "mode": "observe"}})
    lost = floor.hold(account="a")
    redis.delete(f"{PREFIX}:token:{lost}")
    redis.zrem(f"{PREFIX}:leases", lost)
    turned(10)
    floor.limiter.release(floor.hold(account="a"))
    assert counted(redis, "max account:*") == {"runs": 2}


def test_behind_one_that_runs_for_very_long_no_more_than_so_many_are_undecided(
    floor, redis, turned
):
    begin_anew(floor, redis, turned, {"account_max": {"max": 1, "mode": "observe"}})
    long = floor.hold(account="a")
    for number in range(1100):
        turned(1 + number / 1000)
        floor.limiter.release(floor.hold(account="a"))
    assert redis.zcard(f"{PREFIX}:observed:undecided:account:a") <= 1000
    assert redis.hlen(f"{PREFIX}:observed:ended:account:a") <= 1000
    assert redis.zcard(f"{PREFIX}:observed:places:account:a") <= 1
    assert counted(redis, "max account:*")["denied"] >= 99
    floor.limiter.release(long)


def test_of_more_the_places_are_those_that_come_free_beside_it(floor, redis, turned):
    begin_anew(floor, redis, turned, {"account_max": {"max": 2, "mode": "observe"}})
    turned(0.5)
    floor.hold(account="a")
    runs = [(1 + number / 1000, 0.0025) for number in range(2000)]
    play(floor, turned, runs)
    assert redis.zcard(f"{PREFIX}:observed:undecided:account:a") <= 1000
    counts = counted(redis, "max account:*")
    decided = int(counts["runs"]) - 1
    expected = summary(waits_by_maximum(runs[:decided], 1))
    assert decided > 900  # by 3 s, 800 places would have come free
    assert counts == pytest.approx(expected | {"runs": decided + 1}, abs=1e-3)


def test_nothing_observed_costs_no_key(floor, redis):
    floor.limiter.release(floor.hold(account="a", platform="p"))
    assert redis.keys(f"{PREFIX}:*observed*") == []


@pytest.mark.parametrize("maximum", [{"max": 0, "mode": "observe"}, {"mode": "observe"}])
def test_what_is_unlimited_can_not_be_observed(floor, maximum):
    with pytest.raises(InvalidConfig, match=r"kuaishou.*0 is unlimited: give it a max"):
        floor.limiter.config.update({"platform_max": {"kuaishou": maximum}})


def test_of_what_is_observed_no_more_nothing_stays(floor, redis):
    change = {"account_max": {"max": 1, "mode": "observe"}}
    floor.limiter.config.update(change)
    tokens = [floor.hold(account="a") for _ in range(2)]
    floor.limiter.config.update({"account_max": 0})
    for token in tokens:
        floor.limiter.release(token)
    for key in redis.scan_iter(f"{PREFIX}:observed:*"):
        assert redis.ttl(key) > 0, key


def test_what_is_not_observed_can_not_be_put_in_force(floor):
    floor.limiter.config.update(MAX_2)
    with pytest.raises(InvalidConfig, match=r"global has nothing .*; observed are: account:\*"):
        floor.limiter.config.enforce("global")


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"global_max": 3}, "global"),
        ({"platform_max": {"x:y": 3}}, "platform:x:y"),
        ({"task_type_max": {"*": 3}}, "task_type:*"),
        ({"account_max": 3}, "account:*"),
        ({"account_overrides": {"vip": 3}}, "account:vip"),
        ({"dimensions": {"tenant": {"max": 3, "overrides": {}}}}, "tenant:*"),
        ({"dimensions": {"tenant": {"max": 0, "overrides": {"t": 3}}}}, "tenant:t"),
    ],
)
def test_each_maximum_can_be_observed_and_put_in_force(floor, change, limit):
    text = json.dumps(change).replace("3", '{"max": 3, "mode": "observe"}')
    floor.limiter.config.update(json.loads(text))
    assert [(one.limit, one.max) for one in listed(floor.limiter).values()] == [(limit, 3)]
    stored = floor.limiter.config.enforce(limit)
    assert stored.config == Config().merged({"account_max": 0}).merged(change)
    assert listed(floor.limiter) == {}
