"""Redis at its maxmemory: who looks and who frees is answered, the others change nothing."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from celery_concurrency import scripts
from celery_concurrency.errors import LimiterUnavailable, OutOfMemory, TooManyWaiting
from celery_concurrency.limiter import Granted, Limiter, connect
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.inspect.explanation import explain
from celery_concurrency.limiter.inspect.health import is_out_of_memory, read_health
from celery_concurrency.limiter.inspect.holders import find_token, read_tokens
from celery_concurrency.limiter.inspect.usage import read_usage
from celery_concurrency.limiter.inspect.waiting import read_waiting
from celery_concurrency.limiter.later import Later
from celery_concurrency.limiter.refusals import Refusal
from celery_concurrency.limiter.stats.history import read_stats_history
from tests.support.floor import Floor, headers_of
from tests.support.memory import PROGRAMS, out_of_memory, server_of
from tests.support.workers import settle, wait_for

VERBS = {path.stem for path in Path(scripts.__file__).parent.glob("*.lua")}


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda path: Path(path).name)
def server(request):
    with server_of(request.param) as server:
        yield server


@pytest.fixture
def floor(limiter, redis):
    limiter.config.sync()
    return Floor(limiter, redis)


@pytest.fixture
def outbox(limiter, redis):
    """A floor whose broker is another server."""
    limiter.config.sync()
    return Floor(limiter, redis, queue=None)


def contents(redis):
    """Return all that Redis holds."""
    return {key: redis.dump(key) for key in redis.keys("*")}


# -- each verb


class Scene:
    """One of everything: a run, three that wait behind it, a reservation, a message in the outbox.

    And a run whose lease is over.
    """

    def __init__(self, floor):
        self.floor, self.limiter, self.room = floor, floor.limiter, floor.room
        self.limiter.config.update({"adaptive": {"account:x": {"min": 1, "max": 9}}})
        self.limiter.refuse("before:1", ("global", "account:x"), "account:x", 0)
        self.holder = floor.hold(account="a")
        self.waiters = [floor.wait(f"w{number}", account="a") for number in range(3)]
        reserving = floor.hold(account="r")
        floor.wait("reserved", account="r")
        self.limiter.release(reserving)
        self.reserved = floor.back()[0]
        elsewhere = Floor(self.limiter, floor.redis, queue=None)
        sending = elsewhere.hold("before", account="o")
        elsewhere.wait("sent", account="o")
        self.limiter.release(sending)
        self.limiter.leases.beat([self.holder], 30)
        floor.lapse(floor.hold("dead", account="d"))

    def joined(self):
        waiter = self.floor.waiter(self.asked, {"account": "a"})
        return self.limiter.join(replace(waiter, ticket=None), 0, {})

    def parked(self):
        return self.room.park(self.floor.waiter(self.asked, {"account": "a"}))


#: Verb to a call that is refused; nothing is changed by it.
REFUSED = {
    "acquire": lambda scene: scene.floor.ask("new", account="x"),
    "cool": lambda scene: scene.limiter.cooldowns.set("account:x", 60),
    "join": lambda scene: scene.joined(),
    "park": lambda scene: scene.parked(),
    # Not by the limiter, whose thread would tell it later: to the server of the next test.
    "refuse": lambda scene: scene.limiter.keyspace.run(
        Refusal("x:1", ("global", "account:x"), "account:x", 60).telling(scene.room)
    ),
    "reset": lambda scene: scene.limiter.adaptive.reset("account:x"),
}
#: Verb to a call that is done, and what it answers.
DONE = {
    "advance": (lambda scene: scene.floor.advance(), False),
    "cancel": (lambda scene: scene.room.cancel("w1"), True),
    "cancel_first": (lambda scene: sum(scene.room.cancel_limit("account:a")), 3),
    "claim": (lambda scene: len(scene.room.claim()), 1),
    "configure": (lambda scene: scene.limiter.config.update({"global_max": 7}).version, 3),
    "confirm": (lambda scene: scene.room.confirm(1), None),
    "drain": (lambda scene: sum(scene.room.drain()), 3),
    "forgo": (
        lambda scene: scene.room.forgo(scene.reserved["as"], scene.reserved["limits"]),
        True,
    ),
    "purge": (lambda scene: [thrown for _, thrown in scene.room.purge()], [3]),
    "release": (lambda scene: scene.limiter.release(scene.holder), True),
    "renew": (lambda scene: scene.limiter.leases.beat([scene.holder], 30), set()),
    "rescue": (lambda scene: scene.room.rescue("killed:1", "killed"), False),
    "snapshot": (lambda scene: scene.limiter.stats.snapshot(), True),
    "sweep": (lambda scene: scene.room.sweep(now=True), 1),
    "tally": (lambda scene: scene.limiter.durations.tally(), 2),
    "trim": (lambda scene: scene.limiter.keyspace.call("trim", 500).reply, 0),
    "tokens": (lambda scene: read_tokens(scene.limiter.keyspace).total, 3),
}


def test_each_verb_is_known_to_be_refused_or_done():
    assert REFUSED.keys() | DONE.keys() == VERBS
    assert not REFUSED.keys() & DONE.keys()
    for verb in VERBS:
        said = scripts.source(verb).partition("\n-- OOM    ")[2]
        assert said.startswith("refused") == (verb in REFUSED), verb


@pytest.mark.parametrize("verb", REFUSED)
def test_what_would_take_memory_is_refused_and_changes_nothing(floor, redis, verb):
    scene = Scene(floor)
    scene.asked = floor.ask("late", account="a")
    with out_of_memory(redis):
        before = contents(redis)
        with pytest.raises(OutOfMemory, match="out of memory"):
            REFUSED[verb](scene)
        assert contents(redis) == before
    REFUSED[verb](scene)


@pytest.mark.parametrize("verb", DONE)
def test_what_frees_memory_or_looks_is_done(floor, redis, verb):
    scene = Scene(floor)
    call, answer = DONE[verb]
    with out_of_memory(redis):
        assert call(scene) == answer
        assert find_token(floor.limiter.keyspace, "nobody:1") is None


# -- who looks


def test_all_reads_answer(floor, redis):
    scene = Scene(floor)
    limiter, keyspace = floor.limiter, floor.limiter.keyspace
    reads = {
        "usage": lambda: read_usage(keyspace, limiter.config.sync()).to_dict(),
        "waiting": lambda: read_waiting(keyspace, Config()).to_dict(),
        "why": lambda: explain(keyspace, Config(), "w1"),
        "why, handed over": lambda: explain(keyspace, Config(), "reserved"),
        "token": lambda: find_token(keyspace, scene.holder),
        "tokens": lambda: read_tokens(keyspace),
        "stats": lambda: limiter.stats.window("1h"),
        "durations": lambda: limiter.durations.total(["platform:douyin"]),
        "history": lambda: len(read_stats_history(keyspace).points),
        "config": limiter.config.sync,
        "versions": limiter.config.history,
        "closed": limiter.leases.closed_for,
    }
    before = {name: read() for name, read in reads.items()}
    with out_of_memory(redis):
        assert {name: read() for name, read in reads.items()} == before


@pytest.mark.parametrize("changes", [None, {"global_max": 3}])
def test_the_configuration_is_read_where_there_was_none(redis_url, redis, changes):
    """By a process that has not been here before; with the defaults of its own, too."""
    settle(redis)
    with out_of_memory(redis):
        limiter = Limiter(connect(redis_url), default_config=changes)
        assert limiter.config.sync().config.global_max == (changes or {}).get("global_max", 0)
    assert redis.get("concurrency:config:defaults") is None
    limiter.config.reset()
    assert bool(redis.get("concurrency:config:defaults")) == bool(changes)


def test_a_configuration_written_by_hand_comes_in_force(floor, redis):
    redis.set("concurrency:config", '{"global_max": 5}')
    with out_of_memory(redis):
        assert floor.limiter.config.sync().config.global_max == 5


def test_health_says_that_nobody_is_admitted(limiter, redis):
    keys = contents(redis)
    assert read_health(limiter.keyspace).config_version == 0
    assert not is_out_of_memory(limiter.keyspace)
    with out_of_memory(redis):
        assert is_out_of_memory(limiter.keyspace)
        with pytest.raises(OutOfMemory):
            read_health(limiter.keyspace)
    assert contents(redis) == keys


def test_health_says_that_redis_takes_no_writes(limiter, redis):
    redis.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(LimiterUnavailable):
            read_health(limiter.keyspace)
    finally:
        redis.replicaof("NO", "ONE")


# -- nothing is lost


def test_those_who_wait_stay_until_there_is_memory(floor, redis):
    """Kombu needs memory to take a message out of its queue, and would lose it."""
    holder = floor.hold(account="a")
    for task in ("w1", "w2"):
        floor.wait(task, account="a")
    with out_of_memory(redis):
        assert floor.limiter.release(holder)
        floor.room.sweep(now=True)
        assert not floor.advance()
        assert floor.back() == []
        assert floor.waiting() == {"w1", "w2"}
    floor.sweep()
    first = floor.back()
    assert [message["task"] for message in first] == ["w1"]
    run = floor.deliver(first[0])
    assert isinstance(run, Granted)
    floor.limiter.release(run.token)
    assert floor.tasks_back() == ["w2"]


def test_a_cool_down_is_lifted_and_those_who_wait_for_it_go_on_when_there_is_memory(floor, redis):
    floor.limiter.cooldowns.set("account:a", 600)
    floor.wait("w1", account="a")
    with out_of_memory(redis):
        assert floor.limiter.cooldowns.lift("account:a")
        floor.room.sweep(now=True)
        assert (floor.back(), floor.waiting()) == ([], {"w1"})
    floor.sweep()
    assert floor.tasks_back() == ["w1"]


@pytest.mark.parametrize("waits", ["for a rate", "for a cool-down", "for global"])
def test_a_moment_that_comes_while_there_is_no_memory_is_met_when_there_is_some(
    floor, redis, waits
):
    if waits == "for a rate":
        floor.limiter.config.update({"rates": {"account:a": [{"max": 1, "per": 100}]}})
        floor.limiter.release(floor.hold(account="a"))
    else:
        floor.limiter.cooldowns.set("global" if "global" in waits else "account:a", 100)
    floor.wait("w1", account="a")
    assert floor.room.meet_moments() > 50
    floor.age(100)
    with out_of_memory(redis):
        for _ in range(3):
            floor.room.meet_moments()
        floor.room.sweep(now=True)
        assert (floor.back(), floor.waiting()) == ([], {"w1"})
    floor.sweep()
    assert floor.tasks_back() == ["w1"]
    assert floor.room.meet_moments() in (None, 0)


def test_starts_are_given_back_without_memory(floor, redis):
    """Also of one that began, its body not, and of one whose message will not run."""
    floor.limiter.config.update({"rates": {"account:*": [{"max": 2, "per": 100}]}})
    killed, holder = floor.hold(account="a"), floor.hold(account="b")
    floor.wait("revoked", account="b")
    floor.limiter.release(holder)
    [message] = floor.back()
    with out_of_memory(redis):
        assert floor.limiter.release(killed, began=False)
        assert floor.room.forgo(message["as"], message["limits"])
    assert redis.zcard("concurrency:rate:account:a") == 0
    assert redis.zrange("concurrency:rate:account:b", 0, -1) == [holder]


def test_one_that_is_collected_for_stays_too(floor, redis):
    floor.room.patience = 0
    floor.limiter.config.update({"account_max": 1, "dimensions": {"tenant": {"max": 1}}})
    one, other = floor.hold(account="a"), floor.hold(tenant="t")
    floor.wait("both", account="a", tenant="t")
    floor.later()
    floor.limiter.release(one)
    junior = floor.hold(account="a")
    with out_of_memory(redis):
        floor.limiter.release(junior)
        floor.limiter.release(other)
        for _ in range(3):
            floor.room.sweep(now=True)
        assert floor.waiting() == {"both"}
        assert floor.back() == []
    floor.sweep()
    assert [*floor.tasks_back(), *floor.finish()] == ["both"]


def test_what_has_expired_stays_until_there_is_memory(floor, redis):
    floor.hold(account="a")
    denied = floor.ask("gone", account="a")
    floor.room.park(floor.waiter(denied, {"account": "a"}, expires=1))
    with out_of_memory(redis):
        floor.room.sweep(now=True)
        assert floor.back() == []
    floor.sweep()
    assert floor.tasks_back() == ["gone"]


def test_one_too_many_is_refused_and_who_is_overdue_stays_until_there_is_memory(floor, redis):
    floor.limiter.config.update({"waiting": {"account:a": {"most": 1, "seconds": 600}}})
    floor.hold(account="a")
    floor.wait("w1", account="a")
    redis.zadd("concurrency:waiting:account:a", {"w1": 1})
    redis.zadd("concurrency:waiting", {"account:a": 601})
    with out_of_memory(redis):
        with pytest.raises(TooManyWaiting):
            floor.ask("w2", account="a")
        floor.room.sweep(now=True)
        assert (floor.back(), floor.waiting()) == ([], {"w1"})
    floor.sweep()
    assert floor.tasks_back() == ["w1"]


def test_the_outbox_goes_on_and_frees_memory(outbox, redis):
    """Where the broker is another server, the next ones go on: their messages leave Redis."""
    holder = outbox.hold(account="a")
    outbox.wait("w1", account="a")
    with out_of_memory(redis):
        outbox.limiter.release(holder)
        [(number, message)] = outbox.room.claim()
        outbox.room.confirm(number)
        run = outbox.deliver(headers_of(message))
        assert isinstance(run, Granted)
        assert outbox.limiter.release(run.token, done=True)
    assert outbox.waiting() == set()
    assert redis.keys("concurrency:outbox*") == ["concurrency:outbox:number"]


def test_one_that_was_handed_over_before_begins(floor, redis):
    holder = floor.hold(account="a")
    floor.wait("w1", account="a")
    floor.limiter.release(holder)
    with out_of_memory(redis):
        run = floor.deliver(floor.back()[0])
        assert isinstance(run, Granted)
        assert floor.limiter.release(run.token)
    assert floor.holders("account:a") == []


def test_living_runs_keep_their_tokens_and_dead_ones_lose_theirs(floor, redis):
    alive, dead = floor.hold(account="a"), floor.hold(account="b")
    floor.lapse(dead)
    redis.zadd("concurrency:leases", {alive: redis.time()[0] + 3}, xx=True)
    with out_of_memory(redis):
        assert floor.limiter.leases.beat([alive], 600) == set()
        assert floor.room.sweep(now=True) == 1
        assert redis.zscore("concurrency:leases", alive) > redis.time()[0] + 100
        assert floor.holders("account:b") == []
        assert floor.holders("account:a") == [alive]


def test_what_was_refused_leaves_no_mark_and_no_work(floor, redis, monkeypatch):
    """A mark for each refusal would take the memory that is missing."""
    later = []
    monkeypatch.setattr(Later, "add", lambda self, token, action=None: later.append(token))
    with out_of_memory(redis):
        for _ in range(3):
            with pytest.raises(OutOfMemory):
                floor.ask("new", account="x")
    assert later == []
    assert redis.keys("concurrency:token:*") == []


def test_a_park_that_is_refused_is_tried_again(floor, redis):
    floor.hold(account="a")
    waiter = floor.waiter(floor.ask("late", account="a"), {"account": "a"})
    with out_of_memory(redis):
        for _ in range(2):
            with pytest.raises(OutOfMemory):
                floor.room.park(waiter)
        assert floor.waiting() == set()
    assert floor.room.park(waiter) == "parked"
    with out_of_memory(redis):
        assert floor.room.park(waiter) == "again"


def test_a_caller_who_waits_goes_on_when_there_is_memory(floor, redis):
    holder, had = floor.hold(account="a"), []

    def call():
        with floor.limiter.acquire(account="a"):
            had.append(True)

    caller = threading.Thread(target=call)
    caller.start()
    wait_for(floor.waiting)
    with out_of_memory(redis):
        floor.limiter.release(holder)
        floor.room.sweep(now=True)
        assert not had
    caller.join(60)
    assert had == [True]


def test_messages_cancelled_or_given_back_are_all_in_the_queue(floor, redis):
    floor.hold(account="a")
    tasks = {f"w{number}" for number in range(70)}
    for task in sorted(tasks):
        floor.wait(task, account="a")
    with out_of_memory(redis):
        assert sum(floor.room.drain()) == 70
        assert floor.waiting() == set()
    assert set(floor.tasks_back()) == tasks


def test_an_error_of_an_older_server_is_known():
    """Redis 6.2 wraps what a command of a script said."""
    text = (
        "Error running script (call to f_1): @user_script:1: @user_script: 1: "
        "-OOM command not allowed when used memory > 'maxmemory'."
    )
    assert scripts.is_out_of_memory(scripts.RedisError(text))
