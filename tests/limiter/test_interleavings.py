"""Interleavings that were seen or constructed, each by its name, on the limiter's floor.

No worker: each call that one would make is made by hand, in the order in question.
"""

from __future__ import annotations

import json
import threading

import pytest

from celery_concurrency import scripts
from celery_concurrency.errors import RunEnded
from celery_concurrency.limiter import Denied, Granted, Repeated, waiting_room
from celery_concurrency.limiter.outcomes import Ticket
from tests.support.floor import Floor
from tests.support.workers import wait_for


@pytest.fixture
def floor(limiter, redis):
    limiter.config.sync()
    one = Floor(limiter, redis)
    yield one
    # Whatever happened: nobody who may run is left behind.
    one.finish()


# -- late calls, and messages that come twice


def test_a_park_that_comes_late_after_its_task_has_run(floor):
    holder = floor.hold(account="a")
    waiter = floor.wait("task", account="a")
    floor.limiter.release(holder)
    run = floor.deliver(floor.back()[0])
    floor.limiter.release(run.token)
    other = floor.hold(account="a")
    assert floor.room.park(waiter) == "again"
    assert floor.waiting() == set()
    floor.limiter.release(other)
    assert floor.back() == []


def test_a_park_that_comes_late_while_its_task_waits(floor):
    holder = floor.hold(account="a")
    waiter = floor.wait("task", account="a")
    assert floor.room.park(waiter) == "again"
    floor.limiter.release(holder)
    assert floor.tasks_back() == ["task"]
    assert floor.room.park(waiter) == "again"
    assert floor.back() == []


def test_a_park_that_comes_late_after_a_late_acquire_was_granted_and_given_up(floor):
    """Of the run that was denied, an earlier call arrives when there is room, before its park."""
    floor.limiter.config.update({"account_overrides": {"b": 2}})
    holders = [floor.hold(account="b") for _ in range(2)]
    denied = floor.ask("task", account="b")
    waiter = floor.waiter(denied, {"account": "b"})
    for holder in holders:
        floor.limiter.release(holder)
    assert isinstance(floor.limiter.try_acquire(denied.token, {"account": "b"}), Granted)
    assert floor.room.park(waiter) == "handed over"
    floor.limiter.release(denied.token)
    assert floor.room.park(waiter) == "again"
    assert floor.tasks_back() == ["task"]


def test_a_park_of_a_run_that_finds_room_by_now(floor):
    """Its limit was freed between the denial and the park."""
    holder = floor.hold(account="a")
    denied = floor.ask("task", account="a")
    floor.limiter.release(holder)
    assert floor.room.park(floor.waiter(denied, {"account": "a"})) == "handed over"
    assert floor.tasks_back() == ["task"]


def test_an_acquire_that_comes_late_after_its_run_was_parked(floor):
    """It gets nothing: neither while the message waits nor when it has gone on."""
    holder = floor.hold(account="a")
    waiter = floor.wait("task", account="a")
    late = floor.limiter.try_acquire
    assert isinstance(late(waiter.run, {"account": "a"}), Denied)
    floor.limiter.release(holder)
    assert floor.holders("account:a") == [f"{waiter.run}:reserved"]
    with pytest.raises(Exception, match="has ended"):
        late(waiter.run, {"account": "a"})


def test_a_put_back_message_that_comes_twice_waits_while_its_first_run_lives(floor):
    holder = floor.hold(account="a")
    floor.wait("task", account="a")
    floor.limiter.release(holder)
    [message] = floor.back()
    first = floor.deliver(message)
    assert floor.deliver(message) == Repeated(first.token)
    floor.limiter.release(first.token, done=True)
    assert floor.deliver(message) == Repeated(None)


def test_a_put_back_message_that_comes_twice_runs_when_its_first_run_has_died(floor):
    holder = floor.hold(account="a")
    floor.wait("task", account="a")
    floor.limiter.release(holder)
    [message] = floor.back()
    first = floor.deliver(message)
    floor.lapse(first.token)
    second = floor.deliver(message)
    if not isinstance(second, Granted):
        # Its limit's room is the sweep's to hand over.
        floor.sweep()
        second = floor.deliver(message)
    assert isinstance(second, Granted)
    floor.limiter.release(second.token, done=True)
    assert floor.deliver(message) == Repeated(None)


def test_a_put_back_message_runs_again_when_its_first_run_was_released_as_dead(floor):
    """Its worker saw that the child had died, or its client that no answer came."""
    holder = floor.hold(account="a")
    floor.wait("task", account="a")
    floor.limiter.release(holder)
    [message] = floor.back()
    first = floor.deliver(message)
    floor.limiter.release(first.token)
    second = floor.deliver(message)
    assert isinstance(second, Granted)
    floor.limiter.release(second.token, done=True)
    assert floor.deliver(message) == Repeated(None)


def test_an_acquire_of_a_copy_that_comes_late_gets_nothing_when_the_first_run_has_died(
    floor, monkeypatch
):
    """Its second try was told of the first run; nobody would give back what it got now."""
    holder = floor.hold(account="a")
    floor.wait("task", account="a")
    floor.limiter.release(holder)
    [message] = floor.back()
    first = floor.deliver(message)
    call = scripts.call
    monkeypatch.setattr(scripts, "call", lambda *args: call(*args)._replace(lost=True))
    place = Ticket(message["score"], message["as"])
    late = "task:late", {"account": "a"}
    assert floor.limiter.try_acquire(*late, ticket=place) == Repeated(first.token)
    wait_for(lambda: floor.redis.hexists("concurrency:token:task:late", "ended"))
    floor.limiter.release(first.token)
    with pytest.raises(RunEnded):
        floor.limiter.try_acquire(*late, ticket=place)


def test_a_run_that_ends_while_the_data_is_lost_does_not_come_back(floor):
    """Its process says once more that it lives, as it has not heard of the end yet."""
    token = floor.hold(account="a")
    floor.limiter.leases.beat({token}, 30)
    floor.redis.flushall()
    floor.limiter.config.sync()
    floor.limiter.release(token)
    assert floor.limiter.leases.beat({token}, 30) == set()
    assert floor.holders("account:a") == []


def test_a_redelivered_message_whose_task_waits_merges(floor):
    """It is acknowledged when it has merged; the task runs once."""
    holder = floor.hold(account="a")
    floor.wait("task", account="a")
    again = floor.ask("task", account="a")
    assert floor.room.park(floor.waiter(again, {"account": "a"})) == "merged"
    assert floor.room.park(floor.waiter(again, {"account": "a"})) == "again"
    floor.limiter.release(holder)
    assert floor.tasks_back() == ["task"]
    assert floor.waiting() == set()


def test_a_redelivered_message_merges_though_its_account_is_free_by_now(floor):
    """It may not pass its own copy: an operator's DEL freed the account."""
    floor.hold(account="a")
    floor.wait("task", account="a")
    floor.redis.delete("concurrency:semaphore:account:a")
    again = floor.ask("task", account="a")
    assert isinstance(again, Denied)
    assert floor.room.park(floor.waiter(again, {"account": "a"})) == "merged"


def test_a_retry_of_a_task_is_no_copy_of_it(floor):
    """Its next run waits while a copy of its first one does: both have their place."""
    floor.hold(account="a")
    first = floor.ask("task", account="a")
    second = floor.ask("task", account="a")
    assert floor.room.park(floor.waiter(first, {"account": "a"})) == "parked"
    retried = floor.waiter(second, {"account": "a"})
    retried = type(retried)(
        **{name: getattr(retried, name) for name in retried.__slots__ if name != "retries"},
        retries=1,
    )
    assert floor.room.park(retried) == "parked"
    assert floor.waiting() == {"task", "task retry 1"}
    assert floor.room.cancel("task")
    assert floor.waiting() == set()
    assert [message.get("concurrency_discard") for message in floor.back()] == [True, True]


# -- reservations


def test_a_reservation_belongs_to_the_group(floor):
    """Who of it stands at a slot first begins on it; who comes later goes to its old place."""
    floor.limiter.config.update({"account_max": 2})
    holders = [floor.hold(account="a") for _ in range(2)]
    for name in ("first", "second", "third"):
        floor.wait(name, account="a")
    floor.limiter.release(holders[0])
    [first] = floor.back()
    floor.lapse(*[token for token in floor.holders("account:a") if "reserved" in token])
    floor.sweep()
    [second] = floor.back()
    # The second one's reservation, and the first one is quicker.
    run = floor.deliver(first)
    assert isinstance(run, Granted)
    denied = floor.deliver(second)
    assert isinstance(denied, Denied)
    assert denied.ticket == Ticket(second["score"], second["as"])
    assert floor.room.park(floor.waiter(denied, {"account": "a"}, task="second")) == "parked"
    floor.limiter.release(holders[1])
    assert floor.tasks_back() == ["second"]


def test_a_newcomer_gets_no_reservation_of_its_group(floor):
    holder = floor.hold(account="a")
    floor.wait("task", account="a")
    floor.limiter.release(holder)
    assert isinstance(floor.ask("newcomer", account="a"), Denied)
    assert isinstance(floor.deliver(floor.back()[0]), Granted)


def test_a_semaphore_deleted_while_it_is_reserved_stays_free(floor):
    floor.limiter.config.update({"platform_max": {"douyin": 1}})
    tags = {"account": "a", "platform": "douyin"}
    holder = floor.hold(**tags)
    floor.wait("task", **tags)
    floor.limiter.release(holder)
    floor.redis.delete("concurrency:semaphore:platform:douyin")
    run = floor.deliver(floor.back()[0])
    assert isinstance(run, Granted)
    assert floor.holders("account:a") == [run.token]
    assert floor.holders("platform:douyin") == []
    floor.limiter.release(run.token)
    assert floor.redis.keys("concurrency:semaphore:*") == []


def test_a_reservation_whose_message_will_not_run_goes_to_the_next(floor):
    holder = floor.hold(account="a")
    floor.wait("revoked", account="a")
    floor.wait("next", account="a")
    floor.limiter.release(holder)
    [message] = floor.back()
    assert floor.room.forgo(message["as"], message["limits"])
    assert floor.tasks_back() == ["next"]
    assert not floor.room.forgo(message["as"], message["limits"])
    assert floor.back() == []


# -- order


def test_newcomers_do_not_pass_those_who_wait_for_the_same_limits(floor):
    """The account has room that nobody was told of: an operator's DEL."""
    floor.hold(account="a")
    floor.wait("waits", account="a")
    floor.redis.delete("concurrency:semaphore:account:a")
    newcomer = floor.ask("newcomer", account="a")
    assert isinstance(newcomer, Denied)
    assert newcomer.max is None
    assert floor.room.park(floor.waiter(newcomer, {"account": "a"})) == "parked"
    floor.sweep()
    assert floor.tasks_back() == ["waits"]


def test_a_hand_over_in_steps_holds_up_nobody_who_needs_no_limit_of_it(floor):
    floor.limiter.config.update({"platform_max": {"douyin": 1}})
    floor.hold(platform="douyin", account="holder")
    for number in range(40):
        floor.wait(f"task{number:02}", platform="douyin", account=str(number))
    floor.change({"platform_max": {"douyin": 50}})
    assert floor.advance(8, changed=True)
    assert isinstance(floor.ask("other", platform="kuaishou", account="new"), Granted)
    assert isinstance(floor.ask("none"), Granted)


def test_of_different_limits_the_one_that_waits_the_longest_goes_on(floor):
    floor.limiter.config.update({"global_max": 1})
    holder = floor.hold()
    for name in ("first", "second", "third"):
        floor.wait(name, account=name, platform=name)
    order = []
    for _ in range(3):
        floor.limiter.release(holder)
        [message] = floor.back()
        order.append(message["task"])
        holder = floor.deliver(message).token
    assert order == ["first", "second", "third"]


def test_higher_priority_goes_first(floor):
    holder = floor.hold(account="a")
    for name, rank in (("low", 9), ("high", 0), ("middle", 5)):
        floor.wait(name, rank=rank, account="a")
    order = []
    for _ in range(3):
        floor.limiter.release(holder)
        [message] = floor.back()
        order.append(message["task"])
        holder = floor.deliver(message).token
    assert order == ["high", "middle", "low"]


def test_a_full_limit_holds_up_nobody_who_does_not_need_it(floor):
    floor.limiter.config.update({"platform_max": {"douyin": 1, "kuaishou": 1}})
    floor.hold(platform="douyin")
    other = floor.hold(platform="kuaishou")
    for number in range(30):
        floor.wait(f"douyin{number}", platform="douyin", account=str(number))
    floor.wait("kuaishou", platform="kuaishou", account="k")
    floor.limiter.release(other)
    assert floor.tasks_back() == ["kuaishou"]


@pytest.mark.parametrize(
    ("limit", "full", "raised"),
    [
        ("global", {"global_max": 1}, {"global_max": 50}),
        (
            "platform:douyin",
            {"platform_max": {"douyin": 1}},
            {"platform_max": {"douyin": 50}},
        ),
    ],
)
def test_newcomers_do_not_pass_a_hand_over_still_in_steps(floor, monkeypatch, limit, full, raised):
    """Forty wait, of an account each; a call hands over to a few of them."""
    floor.limiter.config.update(full)
    floor.hold(platform="douyin", account="holder")
    for number in range(40):
        floor.wait(f"task{number:02}", platform="douyin", account=str(number))
    floor.change(raised)
    assert floor.advance(8, changed=True)
    newcomer = floor.ask("newcomer", platform="douyin", account="new")
    assert isinstance(newcomer, Denied), "it passed those who wait"
    assert newcomer.limit == limit
    monkeypatch.setattr(waiting_room, "RELEASE_SECONDS", 0)
    floor.room.steps = 8
    order = floor.tasks_back()
    floor.room.park(floor.waiter(newcomer, {"platform": "douyin", "account": "new"}))
    order += floor.tasks_back() + floor.finish(8)
    assert order == [*(f"task{number:02}" for number in range(40)), "newcomer"]


# -- room that nobody tells of


def test_the_room_of_holders_that_have_expired_is_found(floor):
    """By the release if nothing else is free, and by the sweep that takes them back else."""
    floor.limiter.config.update({"account_max": 2})
    dead = floor.hold(account="a")
    living = floor.hold(account="a")
    floor.wait("one", account="a")
    floor.wait("two", account="a")
    floor.lapse(dead)
    floor.limiter.release(living)
    floor.sweep()
    assert sorted(floor.tasks_back()) == ["one", "two"]
    assert floor.limiter.usage().accounts["a"].current == 2


def test_two_limits_full_by_turns_leave_nobody_behind(floor):
    floor.limiter.config.update({"dimensions": {"tenant": {"max": 1}}})
    first = floor.hold(account="a")
    second = floor.hold(tenant="t")
    floor.wait("both", account="a", tenant="t")
    floor.limiter.release(first)
    assert floor.back() == []
    first = floor.hold(account="a")
    floor.limiter.release(second)
    assert floor.back() == []
    second = floor.hold(tenant="t")
    floor.limiter.release(first)
    floor.limiter.release(second)
    assert floor.tasks_back() == ["both"]


def test_a_sweep_comes_to_the_last_limit_too(floor):
    """More of them than it looks at in one call."""
    for number in range(600):
        floor.hold(account=str(number))
        floor.wait(f"task{number}", account=str(number))
    floor.redis.delete(*floor.redis.keys("concurrency:semaphore:account:*"))
    for key in ("concurrency:blocked:own",):
        for limit in floor.redis.zrange(key, 0, -1):
            floor.redis.zadd(key, {limit: 0})
    for _ in range(20):
        floor.room.sweep(now=True)
    assert floor.waiting() == set()


def test_those_who_can_not_go_on_do_not_use_up_the_steps(floor):
    """A small budget, and in front of who can go on many who can't."""
    floor.limiter.config.update({"dimensions": {"tenant": {"max": 1}}})
    floor.hold(account="busy")
    holder = floor.hold(tenant="t")
    for number in range(30):
        floor.wait(f"task{number:02}", account="busy", tenant="t", platform=str(number))
    floor.wait("last", account="free", tenant="t")
    floor.room.steps = 2
    floor.limiter.release(holder)
    assert [*floor.tasks_back(), *floor.finish(2)] == ["last"]


def test_a_limit_resumed_and_paused_again_keeps_those_who_wait(floor):
    floor.limiter.config.update({"paused": ["platform:douyin"]})
    floor.wait("task", platform="douyin")
    floor.limiter.config.update({"paused": ["platform:kuaishou"]})
    assert floor.tasks_back() == ["task"]
    floor.limiter.config.update({"paused": ["platform:douyin"]})
    floor.wait("next", platform="douyin")
    floor.sweep()
    assert floor.back() == []
    floor.limiter.config.update({"enabled": False})
    assert floor.tasks_back() == ["next"]


# -- a configuration that changes the limits of those who wait


@pytest.mark.parametrize("change", ["added", "removed"])
def test_a_dimension_that_changes_while_somebody_waits(floor, change):
    """A message that is put back asks with other limits than it waited with; all the
    same its own reservation does not keep it waiting."""
    dimension = {"dimensions": {"tenant": {"max": 5}}}
    none = {"dimensions": {"tenant": None}}
    if change == "removed":
        floor.limiter.config.update(dimension)
    tags = {"account": "a", "tenant": "t"}
    holder = floor.hold(**tags)
    for number in range(3):
        floor.wait(f"task{number}", **tags)
    floor.limiter.config.update(dimension if change == "added" else none)
    order = []
    for _ in range(3):
        floor.limiter.release(holder)
        for _ in range(3):
            [message] = floor.back()
            answer = floor.deliver(message)
            if isinstance(answer, Granted):
                break
            floor.room.park(floor.waiter(answer, tags, task=message["task"]))
        assert isinstance(answer, Granted), f"{message['task']} has no turn"
        order.append(message["task"])
        holder = answer.token
    assert order == ["task0", "task1", "task2"]
    floor.limiter.release(holder)
    assert floor.waiting() == set()
    assert floor.redis.keys("concurrency:semaphore:*") == []


def test_a_run_that_died_and_is_given_up_late_takes_no_mark_of_the_copy_that_lives(floor):
    floor.limiter.config.update({"account_overrides": {"a": 2}})
    holders = [floor.hold(account="a") for _ in range(2)]
    floor.wait("task", account="a")
    floor.limiter.release(holders[0])
    [message] = floor.back()
    died = floor.deliver(message)
    floor.limiter.release(holders[1])
    floor.lapse(died.token)
    copy = floor.deliver(message)
    assert isinstance(copy, Granted)
    floor.limiter.release(died.token)
    assert floor.deliver(message) == Repeated(copy.token)


# -- what operators do by hand


def test_a_waiter_whose_key_is_deleted_by_hand_is_passed_over(floor):
    holder = floor.hold(account="a")
    floor.wait("gone", account="a")
    floor.wait("next", account="a")
    floor.redis.delete("concurrency:waiter:gone")
    floor.limiter.release(holder)
    assert floor.tasks_back() == ["next"]
    assert len(floor.holders("account:a")) == 1


def test_a_second_copy_of_a_cancel_takes_nobody_who_came_after_it(floor, monkeypatch):
    floor.hold(account="a")
    for task in ("meant", "meant too"):
        floor.wait(task, account="a")
    call, calls = floor.room.call_and_hand_over, []
    monkeypatch.setattr(
        floor.room, "call_and_hand_over", lambda *args: calls.append(args) or call(*args)
    )
    assert sum(floor.room.cancel_limit("account:a")) == 2
    floor.wait("newcomer", account="a")
    for args in calls:
        call(*args)
    assert floor.waiting() == {"newcomer"}


def test_a_drain_gives_back_all_who_wait_in_their_order(floor):
    floor.hold(account="a")
    floor.hold(account="b")
    names = [f"task{number:03}" for number in range(150)]
    for number, name in enumerate(names):
        floor.wait(name, account="ab"[number % 2])
    assert sum(floor.room.drain()) == 150
    assert floor.tasks_back() == names
    assert not floor.redis.exists("concurrency:groups")


def purge(floor):
    """Throw all away who wait; return how many were."""
    return sum(thrown for _, thrown in floor.room.purge())


def test_a_purge_throws_all_away_and_leaves_nothing_behind(floor):
    holders = [floor.hold(account=str(number)) for number in range(3)]
    for number in range(150):
        floor.wait(f"task{number}", account=str(number % 3), rank=number % 2)
    assert purge(floor) == 150
    for holder in holders:
        floor.limiter.release(holder)
    assert floor.back() == []
    floor.sweep()
    start = "concurrency:"
    left = {key.removeprefix(start) for key in floor.redis.keys(f"{start}*")}
    assert not [name for name in left if name.startswith(("waiter", "group", "bucket", "shut"))]
    assert not left & {"open", "freed", "blocked:own", "blocked:shared", "expiring"}
    assert floor.limiter.stats.window("total")["cancelled:total"] == 150


def test_a_purge_takes_nobody_who_came_after_it(floor, monkeypatch):
    """Also of those that come before others by their priority; nor does a late copy of it."""
    monkeypatch.setattr(waiting_room, "PURGE_BATCH", 2)
    floor.hold(account="a")
    for number in range(4):
        floor.wait(f"task{number}", account="a", rank=3)
    steps = floor.room.purge()
    assert next(steps) == (2, 2)
    floor.wait("later", account="a", rank=3)
    floor.wait("urgent", account="a")
    copies = []
    call = scripts.call
    monkeypatch.setattr(scripts, "call", lambda *args: copies.append(args) or call(*args))
    assert list(steps) == [(1, 1)]
    assert floor.waiting() == {"task3", "later", "urgent"}
    assert purge(floor) == 3
    floor.wait("last", account="a")
    for copy in copies[:1]:
        assert call(*copy).reply == [0, 0]
    assert floor.waiting() == {"last"}


def test_a_park_that_comes_late_after_a_purge_brings_nothing_back(floor):
    holder = floor.hold(account="a")
    waiter = floor.wait("task", account="a")
    assert purge(floor) == 1
    assert floor.room.park(waiter) == "again"
    assert floor.waiting() == set()
    floor.limiter.release(holder)


def test_a_caller_outside_of_tasks_outlives_a_purge_in_its_place(floor):
    holder = floor.hold(account="a")
    entered = threading.Event()

    def call():
        with floor.limiter.acquire(account="a", timeout=170):
            entered.set()

    caller = threading.Thread(target=call)
    caller.start()
    wait_for(lambda: floor.redis.zcard("concurrency:expiring") == 1)
    floor.wait("task", account="a")
    [before] = floor.redis.zrange('concurrency:group:["global", "account:a"]', 0, 0)
    assert list(floor.room.purge()) == [(2, 1)]
    wait_for(lambda: floor.waiting() == {before})
    floor.limiter.release(holder)
    caller.join(60)
    assert entered.is_set()


def test_a_group_deleted_by_hand_stops_neither_sweep_nor_drain(floor):
    floor.room.patience = -1
    floor.limiter.config.update({"platform_max": {"p": 1}})
    holder = floor.hold(account="a")
    floor.wait("gone", account="a", platform="p")
    floor.later()
    floor.hold(account="b", platform="p")
    floor.wait("other", account="b", platform="p")
    floor.limiter.release(holder)
    floor.hold(account="a")
    floor.redis.delete(*floor.redis.keys('concurrency:group:*"account:a"*'))
    floor.sweep()
    for steps, _ in enumerate(floor.room.drain()):
        assert steps < 10, "a drain without end"
    assert floor.tasks_back() == ["other"]
    assert not floor.redis.exists("concurrency:groups")


def test_room_of_a_token_that_a_limit_alone_knows_goes_to_who_waits(floor):
    """Whoever finds it out asked later, and has other limits: it is handed over all the same."""
    floor.limiter.config.update({"platform_max": {"p": 1}})
    holder = floor.hold(platform="p")
    floor.wait("first", account="a", platform="p")
    floor.lapse(holder)
    floor.redis.delete("concurrency:leases", f"concurrency:token:{holder}")
    floor.wait("later", account="b", platform="p")
    assert floor.tasks_back() == ["first"]
    assert floor.waiting() == {"later"}


# -- collecting


def collecting(floor):
    """Let a senior that needs two scarce limits be collected for; return the two holders."""
    floor.limiter.config.update({"platform_max": {"p": 1}})
    first = floor.hold(account="a")
    floor.wait("senior", account="a", platform="p")
    floor.later()
    junior = floor.hold(platform="p")
    floor.limiter.release(first)
    newer = floor.ask("newer", account="a")
    assert isinstance(newer, Granted)
    floor.room.patience = -1
    floor.sweep()
    assert floor.redis.exists("concurrency:collecting")
    floor.room.patience = 1e9
    return junior, newer.token


def test_one_that_is_collected_for_gets_each_limit_as_it_is_freed(floor):
    junior, newer = collecting(floor)
    floor.limiter.release(junior)
    assert floor.holders("platform:p") == ["senior:collecting"]
    assert isinstance(floor.ask("junior", platform="p"), Denied)
    floor.limiter.release(newer)
    assert floor.tasks_back() == ["senior"]
    assert not floor.redis.exists("concurrency:collecting")


def test_what_is_kept_in_a_limit_that_was_lowered_does_not_count(floor):
    junior, newer = collecting(floor)
    floor.limiter.release(junior)
    floor.limiter.config.update({"platform_max": {"p": 2}})
    other = floor.hold(platform="p")
    floor.limiter.config.update({"platform_max": {"p": 1}})
    floor.limiter.release(newer)
    assert floor.back() == []
    assert floor.holders("platform:p") == [other]
    floor.limiter.release(other)
    assert floor.tasks_back() == ["senior"]


def test_collecting_ends_when_its_time_is_over(floor):
    junior, _ = collecting(floor)
    floor.limiter.release(junior)
    floor.wait("junior", platform="p")
    floor.redis.hset("concurrency:collecting", "until", 1)
    floor.sweep()
    assert floor.tasks_back() == ["junior"]
    assert floor.waiting() == {"senior"}


@pytest.mark.parametrize("how", ["cancelled", "drained", "expired"])
def test_who_leaves_while_it_is_collected_for_leaves_nothing_kept(floor, how):
    """Nobody else waits: the room kept for it is free at once."""
    junior, _ = collecting(floor)
    floor.limiter.release(junior)
    assert floor.holders("platform:p") == ["senior:collecting"]
    if how == "cancelled":
        floor.room.cancel("senior")
    elif how == "drained":
        list(floor.room.drain())
        floor.sweep()
    else:
        floor.redis.zadd("concurrency:expiring", {"senior": 1})
        floor.sweep()
    assert floor.tasks_back() == ["senior"]
    assert floor.holders("platform:p") == []
    assert isinstance(floor.ask("junior", platform="p"), Granted)


# -- killed between two steps


def test_killed_between_denial_and_park_its_message_comes_again(floor):
    """Nothing of the first run is left; the broker delivers the message again."""
    holder = floor.hold(account="a")
    floor.ask("task", account="a")
    floor.limiter.release(holder)
    assert isinstance(floor.ask("task", account="a"), Granted)


def test_a_park_that_comes_late_after_its_run_was_rescued(floor):
    """Its message is back in the broker: a second one would run too."""
    holder = floor.hold(account="a")
    denied = floor.ask("task", account="a")
    waiter = floor.waiter(denied, {"account": "a"})
    # The answer to the first call was lost.
    assert [floor.room.rescue(waiter.run, waiter.name) for _ in range(2)] == [False, False]
    assert floor.room.park(waiter) == "again"
    floor.limiter.release(holder)
    assert (floor.waiting(), floor.back()) == (set(), [])


@pytest.mark.parametrize("when", ["waits", "was put back"])
def test_the_message_of_a_killed_run_that_has_a_place_keeps_it(floor, when):
    holder = floor.hold(account="a")
    waiter = floor.wait("task", account="a")
    if when == "was put back":
        floor.limiter.release(holder)
    assert floor.room.rescue(waiter.run, waiter.name) is True


def test_killed_between_hand_over_and_begin_its_room_goes_to_the_next(floor):
    holder = floor.hold(account="a")
    floor.wait("killed", account="a")
    floor.wait("next", account="a")
    floor.limiter.release(holder)
    [killed] = floor.back()
    floor.lapse(*floor.holders("account:a"))
    floor.sweep()
    [following] = floor.back()
    run = floor.deliver(following)
    assert isinstance(run, Granted)
    # The broker delivers the first one's message again, later: it waits at its old place.
    denied = floor.deliver(killed)
    assert isinstance(denied, Denied)
    floor.room.park(floor.waiter(denied, {"account": "a"}, task="killed"))
    floor.wait("newer", account="a")
    floor.limiter.release(run.token)
    assert floor.tasks_back() == ["killed"]


def test_killed_while_it_runs_its_room_goes_to_the_next(floor):
    holder = floor.hold(account="a")
    floor.wait("next", account="a")
    floor.lapse(holder)
    floor.sweep()
    assert floor.tasks_back() == ["next"]


def test_killed_with_a_hand_over_in_steps_others_go_on_with_it(floor):
    """Each call that hands over does; here the park of another."""
    floor.limiter.config.update({"platform_max": {"p": 1}})
    floor.hold(platform="p")
    for number in range(30):
        floor.wait(f"task{number:02}", platform="p", account=str(number))
    floor.hold(account="other")
    floor.change({"platform_max": {"p": 0}})
    assert floor.advance(8, changed=True)
    first = floor.tasks_back()
    floor.wait("another", account="other")
    assert len(first) < 30
    assert first + floor.tasks_back() == [f"task{number:02}" for number in range(30)]


# -- the outbox


@pytest.fixture
def by_outbox(limiter, redis):
    limiter.config.sync()
    return Floor(limiter, redis, queue=None)


def test_what_was_claimed_by_one_that_was_killed_comes_again(by_outbox, monkeypatch):
    holder = by_outbox.hold(account="a")
    by_outbox.wait("task", account="a")
    by_outbox.limiter.release(holder)
    [(number, message)] = by_outbox.room.claim()
    assert json.loads(message)["headers"]["task"] == "task"
    assert by_outbox.room.claim() == []
    by_outbox.redis.zadd("concurrency:outbox", {str(number): 1})
    assert by_outbox.room.claim() == [(number, message)]
    by_outbox.room.confirm(number)
    by_outbox.redis.zadd("concurrency:outbox", {str(number): 1}, xx=True)
    assert by_outbox.room.claim() == []
    assert by_outbox.redis.keys("concurrency:outbox*") == ["concurrency:outbox:number"]


# -- where slots are scarce


def test_many_reservations_put_the_next_messages_behind_those_who_came_before(floor):
    """In front, they would keep out of the slots whoever waits in the queue already."""
    floor.limiter.config.update({"global_max": 1})
    holder = floor.hold()
    for number in range(40):
        floor.wait(f"w{number}", account=str(number))
    floor.redis.lpush(floor.queue, '{"headers": {"task": "came before"}}')
    floor.limiter.config.update({"global_max": 0})
    order = floor.tasks_back()
    assert order[:32] == [f"w{number}" for number in range(32)]
    assert order[32] == "came before"
    assert order[33:] == [f"w{number}" for number in range(32, 40)]
    floor.limiter.release(holder)


def test_a_reservation_that_an_operator_released_admits_nobody(floor):
    """Its message asks as any other, and counts in what it holds."""
    holder = floor.hold(account="a")
    waiter = floor.wait("w", account="a")
    floor.limiter.release(holder)
    assert floor.limiter.release(f"{waiter.run}:reserved") is True
    floor.hold("newcomer", account="a")
    (message,) = floor.back()
    assert isinstance(floor.deliver(message), Denied)
    assert not floor.redis.exists("concurrency:reservations")


def test_no_room_is_kept_for_one_whose_limit_is_paused(floor):
    """It could not use it, however long that takes; others can."""
    floor.limiter.config.update({"dimensions": {"tenant": {"max": 1}}, "account_max": 1})
    first, second = floor.hold("a", account="a"), floor.hold("b", tenant="t")
    floor.wait("senior", account="a", tenant="t")
    floor.limiter.release(first)
    floor.later()
    junior = floor.hold("junior", account="a")
    floor.limiter.config.update({"paused": ["tenant:t"]})
    floor.room.patience = -1.0
    floor.sweep()
    floor.limiter.release(junior)
    floor.sweep()
    floor.hold("newcomer", account="a")
    floor.limiter.release(second)


def test_a_holder_whose_record_is_deleted_by_hand_lowers_no_limit_for_good(floor):
    token = floor.hold("gone", account="a")
    floor.lapse(token)
    floor.redis.delete(f"concurrency:token:{token}")
    floor.redis.zrem("concurrency:leases", token)
    floor.hold("newcomer", account="a")


def test_an_operators_release_of_a_reservation_is_no_run_that_ended(floor):
    holder = floor.hold(account="a")
    waiter = floor.wait("w", account="a")
    floor.limiter.release(holder)
    floor.limiter.release(f"{waiter.run}:reserved")
    assert floor.limiter.stats.window("total")["released:total"] == 1


# -- limits in time


def rate(floor, limit, *rates):
    floor.limiter.config.update(
        {"rates": {limit: [{"max": most, "per": per} for most, per in rates] or None}}
    )


def test_a_cool_down_set_while_a_hand_over_is_in_steps_lets_nobody_go_on_after_it(floor):
    floor.limiter.config.update({"platform_max": {"p": 1}})
    floor.hold(platform="p")
    names = [f"task{number:02}" for number in range(30)]
    for name in names:
        floor.wait(name, platform="p", account=name)
    floor.change({"platform_max": {"p": 0}})
    assert floor.advance(8, changed=True)
    first = floor.tasks_back()
    assert 0 < len(first) < 30
    floor.limiter.cooldowns.set("platform:p", 100)
    while floor.advance(8):
        pass
    floor.sweep()
    assert floor.back() == []
    assert isinstance(floor.ask("new", platform="p"), Denied)
    assert 50 < floor.room.meet_moments() <= 100
    floor.age(100)
    floor.room.meet_moments()
    assert first + floor.tasks_back() == names


def test_a_cool_down_elsewhere_makes_nobody_wait_who_needs_no_scarce_limit(floor):
    """Though a hand-over is under way: of a platform without a limit it takes nothing."""
    floor.limiter.config.update({"global_max": 0, "platform_max": {"p": 1}})
    floor.hold(platform="p")
    for number in range(30):
        floor.wait(f"task{number:02}", platform="p", account=f"a{number}")
    floor.limiter.cooldowns.set("account:other", 100)
    floor.change({"platform_max": {"p": 20}})
    assert floor.advance(8, changed=True)
    assert floor.redis.exists("concurrency:open")
    assert isinstance(floor.ask("new", platform="free", account="b"), Granted)
    assert isinstance(floor.ask("new", platform="p", account="c"), Denied)


def test_who_was_handed_room_before_its_limit_was_shut_waits_again_at_its_place(floor):
    """A cool-down admits nobody while it lasts, whatever was reserved before."""
    floor.limiter.config.update({"account_max": 2})
    holders = [floor.hold(account="a") for _ in range(2)]
    for task in ("first", "second"):
        floor.wait(task, account="a")
    floor.limiter.release(holders[0])
    [message] = floor.back()
    floor.limiter.cooldowns.set("account:a", 100)
    denied = floor.deliver(message)
    assert isinstance(denied, Denied), "it began while its limit cools down"
    assert denied.shut
    assert floor.holders("account:a") == [holders[1]]
    assert floor.room.park(floor.waiter(denied, {"account": "a"}, task="first")) == "parked"
    floor.limiter.release(holders[1])
    assert floor.back() == []
    floor.age(100)
    floor.room.meet_moments()
    assert floor.tasks_back() == ["first", "second"]


def test_a_rate_that_is_lowered_counts_for_what_is_reserved_too(floor, redis):
    """One has begun, and room for two more was handed over: the window has no place for them."""
    floor.limiter.config.update({"account_max": 0})
    rate(floor, "account:a", (1, 100))
    floor.limiter.release(floor.hold(account="a"))
    waiting = ("one", "two")
    for task in waiting:
        floor.wait(task, account="a")
    rate(floor, "account:a", (3, 100))
    messages = floor.back()
    assert [message["task"] for message in messages] == ["one", "two"]
    rate(floor, "account:a", (2, 100))
    denied = floor.deliver(messages[0])
    assert isinstance(denied, Denied)
    assert denied.shut.rate == (2, 100)
    floor.room.park(floor.waiter(denied, {"account": "a"}, task="one"))
    # Its start was given back, so that the window has one place, which the other has.
    assert isinstance(floor.deliver(messages[1]), Granted)
    assert redis.zcard("concurrency:rate:account:a") == 2
    floor.sweep()
    assert floor.back() == []
    floor.age(100)
    floor.room.meet_moments()
    assert floor.tasks_back() == ["one"]


def test_a_reservation_begins_with_the_limits_off_whatever_shuts_them(floor):
    holder = floor.hold(account="a")
    floor.wait("task", account="a")
    floor.limiter.release(holder)
    floor.limiter.cooldowns.set("account:a", 100)
    floor.limiter.config.update({"enabled": False})
    [message] = floor.back()
    assert isinstance(floor.deliver(message), Granted)


def test_a_reservation_that_lapses_while_its_limit_cools_down_goes_on_after_it(floor, redis):
    rate(floor, "account:a", (2, 1000))
    holder = floor.hold(account="a")
    for task in ("gone", "next"):
        floor.wait(task, account="a")
    floor.limiter.release(holder)
    assert floor.tasks_back() == ["gone"]
    floor.limiter.cooldowns.set("account:a", 100)
    floor.lapse(*redis.zrange("concurrency:reservations", 0, -1))
    floor.sweep()
    assert redis.zrange("concurrency:rate:account:a", 0, -1) == [holder]
    assert floor.back() == []
    assert 50 < floor.room.meet_moments() <= 100
    floor.age(100)
    floor.room.meet_moments()
    assert floor.tasks_back() == ["next"]


def test_of_two_limits_that_are_shut_the_one_that_opens_last_counts(floor):
    floor.limiter.config.update({"account_max": 0})
    rate(floor, "account:a", (1, 200))
    floor.limiter.release(floor.hold(account="a"))
    floor.limiter.cooldowns.set("platform:p", 100)
    floor.limiter.cooldowns.set("task_type:t", 300)
    floor.wait("task", account="a", platform="p", type="t")
    # First that of its own limit: nobody looks at the others before that is open.
    for seconds in (200, 100):
        assert floor.back() == []
        assert seconds - 50 < floor.room.meet_moments() <= seconds
        floor.age(seconds)
        floor.room.meet_moments()
    assert floor.tasks_back() == ["task"]


def test_nothing_is_collected_for_one_whose_limit_is_shut(floor):
    """It could not use what is kept, for however long; others can."""
    junior, newer = collecting(floor)
    floor.limiter.cooldowns.set("account:a", 100)
    floor.limiter.release(junior)
    assert floor.holders("platform:p") == []
    assert not floor.redis.exists("concurrency:collecting")
    assert isinstance(floor.ask("other", platform="p"), Granted)
    floor.room.patience = -1
    floor.sweep()
    assert not floor.redis.exists("concurrency:collecting"), "nor chosen anew"
    floor.limiter.release(newer)
    assert floor.back() == []


def test_one_that_is_collected_for_is_charged_one_start(floor, redis):
    """And none while room is kept for it."""
    rate(floor, "account:a", (3, 1000))
    junior, newer = collecting(floor)
    floor.limiter.release(junior)
    starts = "concurrency:rate:account:a"
    before = redis.zcard(starts)
    assert floor.holders("platform:p") == ["senior:collecting"]
    floor.limiter.release(newer)
    [message] = floor.back()
    assert isinstance(floor.deliver(message), Granted)
    assert redis.zcard(starts) == before + 1


def test_of_a_cool_down_nothing_is_left_after_a_loss_of_data_and_starts_come_back(floor, redis):
    """Nobody is admitted before the living have told; what nobody knows any more is lost."""
    floor.limiter.config.update({"account_max": 0})
    rate(floor, "account:*", (1, 1000))
    token = floor.hold(account="a")
    floor.limiter.leases.beat([token], 30)
    floor.limiter.cooldowns.set("account:b", 100)
    floor.wait("lost", account="b")
    config = redis.get("concurrency:config")
    redis.flushall()
    redis.set("concurrency:config", config)
    floor.limiter.config.sync()
    assert floor.room.meet_moments() is None
    redis.hset("concurrency:config:flat", "opens", redis.time()[0] + 600)
    assert isinstance(floor.ask("early", account="c"), Denied)
    floor.limiter.leases.beat([token], 30)
    redis.hset("concurrency:config:flat", "opens", 0)
    assert floor.ask("next", account="a").shut.rate == (1, 1000)
    assert floor.limiter.cooldowns.read() == ([], 0)
    assert isinstance(floor.ask("next", account="b"), Granted)
    floor.limiter.release(token)


def test_a_newcomer_gets_no_start_that_a_reservation_may_yet_use(floor):
    """It counts as one that begins when it lapses: later than any other."""
    floor.limiter.config.update({"account_max": 0})
    rate(floor, "account:a", (1, 20))
    floor.limiter.release(floor.hold(account="a"))
    floor.wait("task", account="a")
    floor.age(20)
    floor.room.meet_moments()
    [message] = floor.back()
    floor.age(20)
    # The reservation is for thirty seconds; its window would be over by now.
    assert isinstance(floor.ask("new", account="a"), Denied)
    assert isinstance(floor.deliver(message), Granted)
    assert isinstance(floor.ask("new", account="a"), Denied)


def test_a_late_copy_of_an_acquire_charges_no_second_start(floor, redis):
    rate(floor, "account:a", (5, 1000))
    granted = floor.ask("task", account="a")
    late = floor.limiter.try_acquire(granted.token, {"account": "a"})
    assert late.fence == granted.fence
    floor.limiter.release(granted.token, began=False)
    assert redis.zcard("concurrency:rate:account:a") == 0
    floor.limiter.release(granted.token)
    with pytest.raises(RunEnded):
        floor.limiter.try_acquire(granted.token, {"account": "a"})
    assert redis.zcard("concurrency:rate:account:a") == 0


def test_what_is_given_up_as_its_limit_was_shut_goes_to_who_can_use_it(floor):
    floor.limiter.config.update({"account_max": 0, "platform_max": {"p": 1}})
    holder = floor.hold(platform="p")
    for account in ("shut", "open"):
        floor.wait(account, account=account, platform="p")
    floor.limiter.release(holder)
    [message] = floor.back()
    floor.limiter.cooldowns.set("account:shut", 100)
    denied = floor.deliver(message)
    assert isinstance(denied, Denied)
    tags = {"account": "shut", "platform": "p"}
    assert floor.room.park(floor.waiter(denied, tags, task="shut")) == "parked"
    assert floor.tasks_back() == ["open"]


def test_nothing_is_collected_for_one_in_whose_limit_another_goes_first(floor):
    """What is collected is no run: it would keep the room of the one that is to go first."""
    junior, newer = collecting(floor)
    floor.limiter.config.update({"platform_max": {"p": 0}})
    refused = ("global", "platform:p")
    floor.limiter.refuse("before:1", refused, "platform:p", 100)
    floor.age(100)
    floor.sweep()
    assert not floor.redis.exists("concurrency:collecting")
    floor.room.patience = -1
    floor.sweep()
    assert not floor.redis.exists("concurrency:collecting"), "nor chosen anew"
    probe = floor.hold(platform="p")
    floor.limiter.release(newer)
    assert floor.back() == []
    floor.limiter.release(probe, succeeded=True)
    assert floor.tasks_back() == ["senior"]
    floor.limiter.release(junior)


def test_a_newcomer_by_whom_a_limit_rises_does_not_pass_those_who_wait(floor):
    entry = {"min": 1, "max": 4, "every": 60}
    floor.limiter.config.update({"adaptive": {"platform:p": entry}})
    floor.limiter.refuse("before:1", ("global", "platform:p"), "global", 0)
    for _ in range(2):
        floor.hold(platform="p")
    floor.wait("first", platform="p", account="a")
    floor.age(60)
    newcomer = floor.ask("newcomer", platform="p", account="b")
    assert (newcomer.limit, newcomer.max) == ("platform:p", None)
    assert floor.finish() == ["first"]
