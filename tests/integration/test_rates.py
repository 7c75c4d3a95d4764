"""Promises 15 to 18 with real workers: tasks note their starts, by the server's clock and theirs.

``RATES_FULL=1`` has the first test take its full size, which is a minute and a half.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, nullcontext
from itertools import pairwise
from statistics import median

import pytest

from tests.support import waiting
from tests.support.rabbit import rabbit_site
from tests.support.sites import site
from tests.support.starts import FILE, exceeded, lateness, read_starts, soonest
from tests.support.workers import wait_for

FULL = os.environ.get("RATES_FULL") == "1"
ACCOUNTS = 10
#: Tasks, the rates of each account, and that of the platform.
SIZE = (300, ((1, 2), (10, 30)), ((20, 5),)) if FULL else (80, ((1, 1), (4, 6)), ((14, 2),))
#: Between its grant and its body a run has a way to go, in microseconds; on a busy machine longer.
USUAL_LAG = 1_000_000
#: Seconds for which the machine may stand still.
STILL = 10


def rated(*rates):
    """Return rates as the configuration has them."""
    return [{"max": most, "per": per} for most, per in rates]


@pytest.fixture(scope="module")
def room(server, tmp_path_factory):
    """A project with two workers; each test has accounts of its own."""
    directory = tmp_path_factory.mktemp("rates")
    with site(server, directory, "rates", **{FILE: str(directory / "starts")}) as one:
        for _ in range(2):
            one.start(concurrency=3, arguments=("--prefetch-multiplier", "2"))
        yield one


@pytest.fixture(autouse=True)
def nothing_left(request):
    yield
    if "room" in request.fixturenames:
        room = request.getfixturevalue("room")
        room.limiter.config.reset()
        for one in room.limiter.cooldowns.read()[0]:
            room.limiter.cooldowns.lift(one.limit)
        room.wait_until_free()
        assert room.waiting() == set()


def starts_of(room, results=None):
    """Return the starts of these tasks, or of all, in the order of their grants."""
    starts = read_starts(room.directory / "starts")
    ids = {result.id for result in results or ()}
    return starts if results is None else [one for one in starts if one.task_id in ids]


def wait_for_starts(room, results, timeout=60):
    """Wait until each of these has begun; return their starts, of which each has one."""
    starts = wait_for(
        lambda: (found := starts_of(room, results)) and len(found) >= len(results) and found,
        timeout=timeout,
        what=f"{len(results)} starts",
    )
    assert sorted(one.task_id for one in starts) == sorted(result.id for result in results)
    return starts


def send(room, count, **tags):
    return [room.tasks.begin.apply_async(headers=tags) for _ in range(count)]


def charged(room, limit):
    """Return the tokens whose start counts in a limit."""
    return room.redis.zrange(f"concurrency:rate:{limit}", 0, -1)


def now(room):
    seconds, micros = room.redis.time()
    return seconds + micros / 1e6


def assert_in_bounds(starts, rates):
    """Assert that no window has more than its rate allows, by either clock.

    By the body's own clock two starts may be nearer to each other than their grants were, by
    the difference of the ways that they had to go.
    """
    lags = [one.begun - one.granted for one in starts]
    assert min(lags) >= -1000, "the fence is the server's time of the grant"
    assert median(lags) <= USUAL_LAG, "bodies began long after their grants"
    for rate in rates:
        assert exceeded((one.granted for one in starts), rate) == []
        assert exceeded((one.begun for one in starts), rate, max(lags)) == []


# -- rates


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_no_window_has_more_starts_and_nobody_waits_longer_than_it_must(room):
    """Nor polls. 300 tasks with the rates of the issue if asked for, and 80 in a tenth of it."""
    tasks, own, shared = SIZE
    room.limiter.config.update(
        {
            "account_max": 0,
            "rates": {"account:*": rated(*own), "platform:rated": rated(*shared)},
        }
    )
    before = room.limiter.stats.window("total")
    accounts = [f"rated{number % ACCOUNTS}" for number in range(tasks)]
    results = [
        room.tasks.begin.apply_async(headers={"account": one, "platform": "rated"})
        for one in accounts
    ]
    ideal = soonest(accounts, own, shared)
    starts = wait_for_starts(room, results, timeout=3 * ideal + 30)
    assert_in_bounds(starts, shared)
    last = {}
    for account in set(accounts):
        mine = [one for one in starts if one.headers["account"] == account]
        assert_in_bounds(mine, own)
        last[account] = (mine[-1].granted - starts[0].granted) / 1e6
    after = room.limiter.stats.window("total")
    asked = sum(after[name] - before.get(name, 0) for name in ("acquired:total", "denied:total"))
    late = sorted(lateness(starts, own, shared))
    most = late[len(late) * 3 // 4]
    print(f"soonest {ideal:.2f} s, took {max(last.values()):.2f} s, asked {asked / tasks:.3f}")
    print(f"late by {median(late):.3f} s, most by at most {most:.3f} s, at most {late[-1]:.3f} s")
    assert most <= 0.1
    assert max(last.values()) <= 1.1 * ideal + STILL
    assert asked <= 2.1 * tasks


@pytest.mark.alone
def test_a_moment_is_met_within_a_tenth_of_a_second(room):
    """The median: the machine may be busy with something else."""
    room.limiter.config.update({"account_max": 0, "rates": {"account:*": rated((1, 1))}})
    names = [f"met{number}" for number in range(4)]
    results = [one for name in names for one in send(room, 4, account=name)]
    starts = wait_for_starts(room, results)
    late = []
    for name in names:
        mine = [one.granted for one in starts if one.headers["account"] == name]
        assert exceeded(mine, (1, 1)) == []
        late += [(later - one) / 1e6 - 1 for one, later in pairwise(mine)]
    print(f"late by {median(late):.3f} s, at most {max(late):.3f} s")
    assert median(late) <= 0.1
    # But for one moment of each, if the machine stands still.
    assert sorted(late)[: -len(names)][-1] <= 1.0


@pytest.mark.alone
def test_a_thousand_that_wait_for_a_moment_hold_up_no_free_account(room):
    """Half of them behind a cool-down, the others each for an account of its own."""
    room.limiter.config.update({"account_max": 0, "rates": {"account:*": rated((1, 3600))}})

    def delays():
        """Return how long after it was sent each of ten tasks was granted its limits."""
        found = []
        for _ in range(10):
            sent = now(room)
            [start] = wait_for_starts(room, send(room, 1, platform="free"))
            found.append(start.granted / 1e6 - sent)
        return found

    without = delays()
    room.limiter.cooldowns.set("account:cold", 3600)
    for number in range(1000):
        tags = {"account": "cold" if number % 2 else f"own{number}"}
        if "own" in tags["account"]:
            room.limiter.release(waiting.hold(room.limiter, f"before{number}", tags))
        waiting.park(room.limiter, f"parked{number}", tags)
    assert len(room.waiting()) == 1000
    among = delays()
    print(f"without {median(without):.4f} s, among a thousand {median(among):.4f} s")
    assert median(among) <= max(0.05, 2 * median(without))
    assert sum(thrown for _, thrown in room.limiter.waiting_room.purge()) == 1000


def test_a_rate_that_is_raised_lets_go_on_who_waits(room):
    room.limiter.config.update({"account_max": 0, "rates": {"account:raised": rated((1, 3600))}})
    results = send(room, 5, account="raised")
    wait_for(lambda: len(room.waiting()) == 4)
    room.limiter.config.update({"rates": {"account:raised": rated((3, 3600))}})
    wait_for(lambda: len(starts_of(room, results)) == 3 and len(room.waiting()) == 2)
    room.limiter.config.update({"rates": {"account:raised": None}})
    wait_for_starts(room, results)


# -- cool-downs


def cooled(room, count, seconds, held=1, hold=0.0):
    """Let the middle one of so many tasks, which waited behind ``held``, shut their account.

    Those that come ten places after it or later hold what they need for ``hold`` seconds.

    Returns their results in the order in which they asked, and until when it is shut.
    """
    account = f"cooled{seconds}"
    results = []
    with ExitStack() as stack:
        for _ in range(held):
            stack.enter_context(room.held(account=account))
        for number in range(count):
            task = room.tasks.refused if number == count // 2 else room.tasks.begin
            args = (seconds,) if number == count // 2 else (hold * (number >= count // 2 + 10),)
            results.append(task.apply_async(args, headers={"account": account}))
            room.wait_until_parked(results[-1])
    return results, results[count // 2].get(timeout=60)


def test_a_cool_down_of_a_task_lets_none_begin_and_then_all_in_their_order(room):
    results, until = cooled(room, 50, 5)
    starts = wait_for_starts(room, results)
    assert [one.task_id for one in starts] == [one.id for one in results]
    moments = [one.granted / 1e6 for one in starts]
    assert moments[25] < until - 5
    assert until <= moments[26] < until + STILL, "none inside, and the first soon after it"


def test_a_cool_down_lets_none_begin_whose_room_was_reserved_before(room):
    """Four run at once, so that others have been handed room when it is set."""
    room.limiter.config.update({"account_max": 4})
    # The three others may go on for more than a second before it is set.
    results, until = cooled(room, 80, 2, held=4, hold=0.1)
    moments = [one.granted / 1e6 for one in wait_for_starts(room, results)]
    assert [one for one in moments if until - 2 < one < until] == []
    after = [one for one in moments if one >= until]
    assert len(after) >= 4, "as many as had been handed room"
    assert after[0] < until + STILL


def test_a_cool_down_that_is_lifted_early_lets_go_on_at_once(room):
    results, until = cooled(room, 10, 600)
    wait_for(lambda: len(starts_of(room, results)) == 6 and len(room.waiting()) == 4)
    lifted = now(room)
    assert room.limiter.cooldowns.lift("account:cooled600")
    starts = wait_for_starts(room, results)
    assert [one.task_id for one in starts] == [one.id for one in results]
    assert lifted <= starts[6].granted / 1e6 < lifted + STILL
    assert starts[-1].granted / 1e6 < until - 500


# -- who began, and who did not


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "handed over"])
def test_a_run_that_is_killed_before_its_body_gives_its_start_back(room, waits):
    """It is rescued, and begins at once; the window would be open in an hour."""
    account = f"before{waits}"
    rates = {"account:*": rated((1 + waits, 3600))}
    room.limiter.config.update({"account_max": 1, "rates": rates})
    with room.held(account=account) if waits else nullcontext():
        result = room.tasks.killed_before.apply_async(headers={"account": account})
        if waits:
            room.wait_until_parked(result)
    wait_for_starts(room, [result])
    assert f"killed {result.id}" in room.ran()
    assert result.get(timeout=30) == result.id
    assert len(charged(room, f"account:{account}")) == 1 + waits


def test_a_run_that_is_killed_in_its_body_has_begun(room):
    room.limiter.config.update({"account_max": 0, "rates": {"account:*": rated((1, 3600))}})
    result = room.tasks.killed_inside.apply_async(headers={"account": "inside"})
    wait_for(lambda: result.state == "FAILURE")
    room.wait_until_free()
    assert len(charged(room, "account:inside")) == 1
    [after] = send(room, 1, account="inside")
    room.wait_until_parked(after)
    assert "account:inside opens in" in str(after.info)
    assert room.limiter.waiting_room.cancel(after.id)


@pytest.mark.parametrize("how", ["cancelled", "revoked", "expired"])
def test_who_leaves_while_it_waits_is_charged_no_start(room, how):
    room.limiter.config.update({"account_max": 0, "rates": {"account:*": rated((1, 3600))}})
    wait_for_starts(room, send(room, 1, account=how))
    gone = room.tasks.begin.apply_async(
        headers={"account": how}, expires=1 if how == "expired" else None
    )
    if how == "cancelled":
        room.wait_until_parked(gone)
        assert room.limiter.waiting_room.cancel(gone.id)
    elif how == "revoked":
        room.wait_until_parked(gone)
        gone.revoke()
    wait_for(lambda: gone.state == "REVOKED")
    assert len(charged(room, f"account:{how}")) == 1
    assert starts_of(room, [gone]) == []


def test_a_message_that_is_revoked_after_its_grant_gives_its_start_back(room):
    """It was handed over, and no slot was free to begin it."""
    room.limiter.config.update({"account_max": 1, "rates": {"account:*": rated((2, 3600))}})
    room.start(concurrency=1, arguments=("-Q", "narrow"))
    gate = room.directory / "open"
    with room.held(account="late"):
        gone, following = (
            room.tasks.begin.apply_async(headers={"account": "late"}, queue="narrow")
            for _ in range(2)
        )
        room.wait_until_parked(gone, following)
        blocking = room.tasks.until.apply_async((str(gate),), queue="narrow")
        wait_for(lambda: blocking.id in room.ran())
    assert len(charged(room, "account:late")) == 2
    [handed] = {gone.id, following.id} - room.waiting()
    gone, following = sorted((gone, following), key=lambda one: one.id != handed)
    gone.revoke()
    log = room.workers[-1].output
    wait_for(lambda: f"Tasks flagged as revoked: {gone.id}" in log())
    gate.touch()
    # The window has room for two, and the holder was one: no other start is charged.
    wait_for_starts(room, [following])
    assert starts_of(room, [gone]) == []
    assert len(charged(room, "account:late")) == 2


# -- other ways to wait


def test_in_retry_mode_no_window_has_more(server, tmp_path):
    env = {"WAITING": "retry", "COUNTDOWN": "0.2", FILE: str(tmp_path / "starts")}
    with site(server, tmp_path, "rates", db=1, **env) as one:
        one.limiter.config.update({"account_max": 0, "rates": {"account:*": rated((2, 1), (4, 4))}})
        one.start(concurrency=3)
        results = send(one, 6, account="a")
        starts = wait_for_starts(one, results)
        assert_in_bounds(starts, ((2, 1), (4, 4)))
        assert (starts[-1].granted - starts[0].granted) / 1e6 < 4 + STILL
        until = one.limiter.cooldowns.set("account:a", 1)
        [start] = wait_for_starts(one, send(one, 1, account="a"))
        assert start.granted / 1e6 >= until


def test_on_rabbitmq_moments_are_met(server, tmp_path):
    with rabbit_site(server, tmp_path, "handoff", db=1, **{FILE: str(tmp_path / "starts")}) as one:
        one.limiter.config.update({"account_max": 0, "rates": {"account:*": rated((1, 1))}})
        one.start(concurrency=3)
        results = send(one, 4, account="a")
        starts = wait_for_starts(one, results)
        assert_in_bounds(starts, ((1, 1),))
        assert (starts[-1].granted - starts[0].granted) / 1e6 < 3 + STILL
        wait_for(lambda: one.limiter.stats.window("total").get("handed_over:total") == 3)
        until = one.limiter.cooldowns.set("account:b", 1)
        [start] = wait_for_starts(one, send(one, 1, account="b"))
        assert until <= start.granted / 1e6 < until + STILL


# -- many workers


def looks(redis, db, seconds):
    """Return how often a second somebody looked for the next moment in this database."""
    ends, count = time.monotonic() + seconds, 0
    with redis.monitor() as monitor:
        for command in monitor.listen():
            if time.monotonic() > ends:
                return count / seconds
            is_look = command["command"].startswith("ZRANGE concurrency:moments ")
            count += is_look and command["db"] == db
    return 0


def test_of_many_workers_one_watches_and_when_it_is_killed_another_does(server, tmp_path):
    env = {"WATCH": "6", FILE: str(tmp_path / "starts")}
    with site(server, tmp_path, "rates", db=2, **env) as one:
        one.limiter.config.update({"account_max": 0, "rates": {"account:*": rated((1, 3))}})
        watching = one.start(concurrency=1, arguments=("-Q", "nothing"))
        key = "concurrency:moments:watched"
        watcher = wait_for(lambda: one.redis.get(key))
        for _ in range(2):
            one.start(concurrency=1)
        each = 1 / 0.1
        assert looks(one.redis, 2, 3) <= 1.5 * each, "more than one watches"
        assert one.redis.get(key) == watcher
        results = send(one, 4, account="a")
        wait_for(lambda: len(one.waiting()) == 3)
        watching.kill()
        starts = wait_for_starts(one, results)
        wait_for(lambda: one.redis.get(key) not in (None, watcher))
        assert exceeded((start.granted for start in starts), (1, 3)) == []
        # The sweeps of those that live meet moments too, if a second later.
        assert (starts[-1].granted - starts[0].granted) / 1e6 < 9 + 3 + STILL
