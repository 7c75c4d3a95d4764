"""The machine that holds the scripts against the model: steps that hypothesis chooses.

Between limiter and server stands a line that loses replies and delays calls.
Every call that reaches the server is compared with the model: its reply, whom it
handed room to and in which order, and all that it left in Redis.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    precondition,
    rule,
)
from redis import Redis
from redis.exceptions import ConnectionError

from celery_concurrency import scripts
from celery_concurrency.errors import (
    InvalidConfig,
    LimiterUnavailable,
    NotWaiting,
    RunEnded,
    WeightTooHigh,
)
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.config.flat import flat_of
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.leases import BEAT_SECONDS
from celery_concurrency.limiter.limits import limits_of
from celery_concurrency.limiter.outcomes import Denied, Granted, Repeated, Ticket
from celery_concurrency.limiter.stats.counters import copies_up_to
from celery_concurrency.limiter.stats.durations import Spans
from celery_concurrency.limiter.weights import with_weight, without_weight
from celery_concurrency.scripts.constants import (
    GIVEN_UP,
    LOOK_AHEAD,
    MESSAGE_START,
    NAMED_MOST,
    PARKED,
    RANK,
)
from tests.limiter.model.model import Group, Limits, Model, Waiting, names, places
from tests.support.waiting import QUEUE, waiter_of

PREFIX: Final = "concurrency"
#: A queue that workers look at before they receive its messages.
AHEAD: Final = "ahead"
HANDED_OVER: Final = f'{MESSAGE_START}"{PARKED}": 1}}}}'.encode()
TAGS = st.fixed_dictionaries(
    {},
    optional={
        "platform": st.sampled_from(["douyin", "bilibili", "unlisted"]),
        "account": st.sampled_from(["a", "b", "a:b"]),
        "type": st.sampled_from(["publish", "other"]),
        "tenant": st.sampled_from(["t1", "t2"]),
    },
)
LIMITS: Final = [
    "global",
    *(f"platform:{name}" for name in ("douyin", "bilibili", "unlisted")),
    *(f"account:{name}" for name in ("a", "b", "a:b")),
    *(f"task_type:{name}" for name in ("publish", "other")),
    *(f"tenant:{name}" for name in ("t1", "t2")),
]
MODE = st.sampled_from(["enforce", "enforce", "enforce", "observe"])
#: A maximum; one that is only observed turns nobody away.
COUNT = st.integers(0, 3) | st.fixed_dictionaries({"max": st.integers(1, 3), "mode": MODE})
RATE = st.fixed_dictionaries(
    {"max": st.integers(1, 3), "per": st.sampled_from([500, 1300])}, optional={"mode": MODE}
)
#: No sum of these is near the end of a window or a cool-down: a test's own seconds don't matter.
AGES = st.sampled_from([152, 456])
COOLING = st.sampled_from([600, 1900])
#: The model reads the clock before a script does: for so many seconds a machine may stand still.
STALL: Final = 30
ADAPTIVE = st.fixed_dictionaries(
    {
        "min": st.integers(1, 2),
        "max": st.integers(2, 4),
        "decrease": st.sampled_from([0.5, 0.9]),
        "every": st.sampled_from([100, 400]),
        "mode": MODE,
    }
)
#: Between the two is what a waiter ages by at a time, and far more than a test takes.
OLDER: Final = 6000
BOUNDS = st.fixed_dictionaries(
    {}, optional={"most": st.integers(1, 3), "seconds": st.sampled_from([5000, 9000])}
)
WEIGHTS = st.fixed_dictionaries(
    {}, optional={name: st.integers(1, 4) | st.none() for name in ("t1", "a", "douyin")}
)
BOUNDED = st.fixed_dictionaries(
    {},
    optional={
        limit: st.none() | BOUNDS
        for limit in ("account:*", "account:b", "platform:douyin", "task_type:*", "global")
    },
)
CHANGE = st.fixed_dictionaries(
    {},
    optional={
        "global_max": st.integers(0, 5),
        "platform_max": st.fixed_dictionaries(
            {}, optional={"douyin": COUNT, "*": COUNT | st.none()}
        ),
        "account_max": COUNT,
        "account_overrides": st.fixed_dictionaries({}, optional={"b": COUNT | st.none()}),
        "task_type_max": st.fixed_dictionaries({}, optional={"publish": COUNT}),
        "dimensions": st.fixed_dictionaries(
            {},
            optional={
                "tenant": st.none()
                | st.fixed_dictionaries(
                    {"max": COUNT, "overrides": st.just({"t2": 1})},
                    optional={"fair": st.booleans(), "weights": WEIGHTS},
                )
            },
        ),
        "fair": st.fixed_dictionaries(
            {},
            optional={
                name: st.none() | st.fixed_dictionaries({}, optional={"weights": WEIGHTS})
                for name in ("account", "platform")
            },
        ),
        "enabled": st.sampled_from([True, True, True, False]),
        "timeout": st.integers(600, 86_400),
        "rates": st.fixed_dictionaries(
            {},
            optional={
                limit: st.none() | st.lists(RATE, min_size=1, max_size=2)
                for limit in ("account:*", "account:b", "platform:douyin", "task_type:*", "global")
            },
        ),
        "adaptive": st.fixed_dictionaries(
            {},
            optional={
                limit: st.none() | ADAPTIVE
                for limit in ("account:*", "account:b", "platform:*", "task_type:publish", "global")
            },
        ),
        "waiting": BOUNDED,
        "paused": st.lists(st.sampled_from(["global", "platform:douyin", "account:a"]), max_size=1),
    },
)
WEIGHTS = st.sampled_from([1, 1, 1, 1, 2, 3, 5])
SKIPS = st.sampled_from([False, False, False, True])
FATES = st.lists(st.sampled_from(["arrives", "reply lost", "delayed"]), max_size=3)
VERBS: Final = {
    scripts._sha(verb): verb
    for verb in (
        *("acquire", "release", "park", "join", "sweep", "advance", "cancel", "drain", "forgo"),
        *("purge", "claim", "confirm", "configure", "renew", "tally", "rescue", "cool"),
        *("refuse", "reset", "snapshot", "trim"),
    )
}


def group_of(limits: Limits, weight: int) -> Group:
    """Return limits and weight as the model has them."""
    return tuple(with_weight(limits, weight))


def group_name(group: Group) -> str:
    """Return the name of a group in Redis."""
    return json.dumps(group, ensure_ascii=False)


def members_of(token: str, limit: str, group: Group) -> set[str]:
    """Return the members by which a token holds a limit."""
    return {token, *(f"{token}#{n}" for n in range(2, places(limit, group) + 1))}


def accounts_of(limits: set[str]) -> set[str]:
    return {one.removeprefix("account:") for one in limits if one.startswith("account:")}


class Line:
    """A client whose calls of scripts meet a fate: each a reply, a lost one, or a delay."""

    def __init__(self, redis: Redis, execute: Callable[[str, tuple[Any, ...]], Any]) -> None:
        self._redis = redis
        self._execute = execute
        self.fates: list[str] = []
        self.delayed: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    def evalsha(self, sha: str, numkeys: int, prefix: str, *args: Any) -> Any:
        verb = VERBS[sha]
        fate = self.fates.pop(0) if self.fates else "arrives"
        if fate == "delayed":
            self.delayed.append((verb, args))
            raise ConnectionError("no reply")
        reply = self._execute(verb, args)
        if fate == "reply lost":
            raise ConnectionError("no reply")
        return reply


class Later(set[str]):
    """What is to be released later: a step does it, and no thread."""

    def add(self, token: str, action: object = None) -> None:
        super().add(token)


#: States as a result backend in Redis writes them.
SUCCESS, FAILURE, RETRY = (
    f'{{"status": "{state}", "result": null}}'.encode() for state in ("SUCCESS", "FAILURE", "RETRY")
)


class Machine(RuleBasedStateMachine):
    """The steps; ``execute`` is where model and server meet.

    Attributes:
        url: of the server.
        steps: of a hand-over in one call; few of them bring its continuation into play.
        patience: seconds until a waiter may be collected for.
        length: steps of one example.
        change: of the configuration, with which it begins.
    """

    url: str
    steps = 64
    patience = 1e9
    length = 100
    change: dict[str, Any] = {}  # noqa: RUF012 - replaced, never changed
    runs = Bundle("runs")

    @initialize(outbox=st.booleans())
    def start(self, outbox: bool) -> None:
        self.redis = connect(self.url)
        self.redis.flushall()
        self.model = Model()
        self.line = Line(self.redis, self.execute)
        self.limiter = Limiter(self.line, deliver=self.deliver)  # type: ignore[arg-type]  # as good
        self.limiter.waiting_room.steps = self.steps
        self.limiter.waiting_room.patience = self.patience
        self.later = Later()
        self.limiter._later = self.later  # type: ignore[assignment]  # no thread
        self.outbox = outbox
        self.crowd()
        self.number = 0
        #: Denied runs whose message looks for its place: what is known of each.
        self.denied: dict[str, tuple[Denied, str]] = {}
        #: Of runs whose message came to the door: the state of each task, and whose can't be read.
        self.states: dict[str, Any] = {}
        self.unreadable: set[str] = set()
        #: Messages in the broker, and those of them that it delivers again.
        self.messages: list[dict[str, Any]] = []
        self.copies: list[dict[str, Any]] = []
        #: Waiters that a call may take out without a grant.
        self.leaving: set[str] = set()
        self.calling_back = False
        #: Runs that live in a process, which knows what they hold since its last beat.
        self.alive: set[str] = set()
        self.known: set[str] = set()
        self.limiter.config.sync()
        self.open()
        if self.change:
            self.model.configure(self.model.config.merged(self.change))
            self.limiter.config.update(self.change)

    def crowd(self) -> None:
        """Others have most of the room for names in the statistics."""
        now = self.redis.time()[0]
        others = {f"platform:crowd{n}": now for n in range(NAMED_MOST - self.model.rooms)}
        self.redis.zadd(f"{PREFIX}:stats:named", others)

    def open(self) -> None:
        """As if the time were over in which those who live say what they hold."""
        self.number += 1
        self.redis.set(f"{PREFIX}:epoch", self.number)
        self.redis.hset(f"{PREFIX}:config:flat", "opens", self.number)
        self.limiter.leases._epoch = str(self.number)
        self.model.closed = False

    def teardown(self) -> None:
        if hasattr(self, "redis"):
            self.redis.close()

    # -- where model and server meet

    def execute(self, verb: str, args: tuple[Any, ...]) -> Any:
        """Let a call reach the server, and hold it against the model."""
        dimensions = flat_of(self.model.config)["dimensions"]
        facts = {"acquire": 2, "join": 6}.get(verb)
        if facts and json.loads(args[facts])["dimensions"] != dimensions:
            # Of one that has its place already, join says that.
            if verb == "join" and (
                self.model.has_place(args[1], args[0]) or self.model.is_left(args[8])
            ):
                return self.compared(verb, args)
            assert self.raw(verb, args) == [b"dimensions", dimensions.encode()]
            return [b"dimensions", dimensions.encode()]
        return self.compared(verb, args)

    def compared(self, verb: str, args: tuple[Any, ...]) -> Any:
        self.model.now = self.clock()
        if verb == "acquire":
            self.foresee(args)
        reply = self.raw(verb, args)
        compare = getattr(self, f"compare_{verb}", None)
        if compare:
            compare(args, reply)
        if verb not in ("configure", "renew", "snapshot", "trim"):
            self.settle(verb, reply)
        return reply

    def clock(self) -> float:
        seconds, micros = self.redis.time()
        return seconds + micros / 1e6

    def raw(self, verb: str, args: tuple[Any, ...]) -> Any:
        return self.redis.eval(scripts.source(verb), 1, PREFIX, *args)

    def foresee(self, args: tuple[Any, ...]) -> None:
        """Ask the model before the server is asked."""
        freed = {limit.decode() for limit in self.redis.smembers(f"{PREFIX}:freed")}
        under_way = bool(self.redis.exists(f"{PREFIX}:open"))
        timed = self.model.config.enabled and (self.model.cooling or self.model.config.rates)
        if timed:
            due = self.redis.zrange(f"{PREFIX}:moments", "-inf", self.model.now, byscore=True)
            freed |= {
                limit.decode()
                for limit in due
                if self.model.cooling or self.model.is_rated(limit.decode())
            }
        run, limits, parked_as, group = self.read(args)
        facts = json.loads(args[2])
        skips = tuple(names(limits)[place - 1] for place in facts.get("skips", ()))
        place = int(json.loads(args[3])["place"]) if args[3] else None
        task = facts["task"] if facts.get("replaces") else None
        # Who rises with this call tells those who wait.
        freed |= {
            limit
            for limit in names(limits)
            if self.model.would_rise(limit, limits) and self.is_waited_for(limit)
        }
        useless = None
        if group:
            useless = next(iter(self.redis.zrange(f"{PREFIX}:reserved:{group}", 0, 0)), None)
        if useless:
            useless = useless.decode()
            freed |= {limit for limit in names(json.loads(group)) if self.is_waited_for(limit)}
        mine = self.redis.zrange(
            f"{PREFIX}:reserved:{group_name(limits)}", f"({self.model.now}", "+inf", byscore=True
        )
        reserved = next((token.decode() for token in mine), None)
        self.expected = self.model.acquire(
            run, limits, parked_as, freed, under_way, useless, reserved, skips, place, task
        )

    def is_waited_for(self, limit: str) -> bool:
        """Return whether anybody is filed under a limit."""
        return bool(self.redis.exists(f"{PREFIX}:shut:{limit}", f"{PREFIX}:weights:{limit}"))

    def read(self, args: tuple[Any, ...]) -> tuple[str, Group, str, str]:
        """Return an acquire's run, its group, what it was parked as, and the group it left."""
        run, group, _, waited = args
        place = json.loads(waited) if waited else {}
        return run, tuple(json.loads(group)), place.get("parked_as", ""), place.get("group", "")

    def compare_acquire(self, args: tuple[Any, ...], reply: Any) -> None:
        run, limits, parked_as, _ = self.read(args)
        match self.expected:
            case (limit, int(held), int(most)):
                assert reply[:4] == [b"denied", limit.encode(), held, most]
            case (verdict, what):
                assert reply[:2] == [verdict.encode(), what.encode()]
            case "by reservation":
                assert reply[0] == b"granted"
                before = self.model.reservations(limits)
                taken = before - self.members("leases")
                assert len(taken) == 1, "one reservation of its group is begun on"
                self.model.grant(run, limits, parked_as, taken.pop())
            case verdict:
                assert reply[0].decode() == verdict

    def compare_release(self, args: tuple[Any, ...], reply: Any) -> None:
        held = self.model.release(args[0], mark=args[1] == 1, done=args[2] != "", ending=args[3])
        assert reply[0] == held

    def compare_park(self, args: tuple[Any, ...], reply: Any) -> None:
        run, waiter, group, score, facts = args[:5]
        limits, known = tuple(json.loads(group)), json.loads(facts)
        received = known.get("newest", {}).get("received")
        other = self.model.replaceable(limits)
        parked_as = known.get("as", "")
        one = Waiting(run, limits, int(score), parked_as, received, int(score) % RANK / 1000)
        expected = self.model.park(waiter, one, returns=bool(parked_as))
        if expected == "replaced":
            self.leaving = {waiter}
        elif other and other not in self.model.waiting:
            self.leaving = {other}
        if expected == "parked":
            waits = self.redis.exists(f"{PREFIX}:waiter:{waiter}")
            expected = "parked" if waits else "handed over"
        assert reply[0].decode() == expected

    def compare_join(self, args: tuple[Any, ...], reply: Any) -> None:
        run, waiter, group = args[:3]
        score = self.redis.zscore(f"{PREFIX}:group:{group}", waiter)
        before = self.model.waiting.values()
        last = max((one.score % RANK for one in before), default=0)
        may = run not in self.unreadable
        expected = self.model.join(
            waiter, run, tuple(json.loads(group)), score, may=may, queued=args[8]
        )
        assert reply[0].decode() == expected
        if expected in ("joined", "merged") and self.states[run] != SUCCESS:
            self.states[run] = RETRY
        if may:
            assert self.redis.get(f"state:{run}") == self.states[run]
        # One that was only seen has no delivery; ``holds`` knows where it is.
        is_acked = bool(args[8]) or expected in ("joined", "merged", "again")
        assert self.redis.hexists("unacked", run) != is_acked
        assert (self.redis.zscore("unacked_index", run) is None) == is_acked
        if expected == "joined":
            assert score is not None
            assert int(score) // RANK == json.loads(args[6])["rank"]
            assert int(score) % RANK >= last, "it comes behind all that asked before"
            assert reply[1] == self.redis.lrange(AHEAD, -LOOK_AHEAD, -1)

    def compare_rescue(self, args: tuple[Any, ...], reply: Any) -> None:
        assert reply == self.model.rescue(*args)

    def compare_sweep(self, args: tuple[Any, ...], reply: Any) -> None:
        self.model.forget_cooled(self.members("cooldowns"))
        for limit in set(self.model.probes) - self.members("probes"):
            self.model.end_probation(limit)
        if not reply[2]:
            assert min(self.model.cooling.values(), default=math.inf) > self.model.now
        before = len(self.model.records)
        assert reply[:2] == [1, self.model.take_back()]
        # In which order of those that were due at once, nobody has to know.
        there = self.records()[before:]
        assert sorted(there, key=str) == sorted(self.model.records[before:], key=str)
        self.model.records[before:] = there

    def compare_purge(self, args: tuple[Any, ...], reply: Any) -> None:
        last, *groups = args
        pairs = zip(*[iter(groups)] * 2, strict=True)
        looked_at = {tuple(json.loads(group)): count for group, count in pairs}
        assert reply == [self.model.purge(looked_at, last)] * 2

    def compare_cool(self, args: tuple[Any, ...], reply: Any) -> None:
        limit, seconds, call, *_ = args
        if call in self.model.cooled:
            assert reply[0] == self.model.cooled[call]
        elif float(seconds):
            assert abs(float(reply[0]) - self.model.cool(limit, float(seconds))) < STALL
        else:
            shut = self.model.cooling.pop(limit, 0) > self.model.now or limit in self.model.probes
            assert bool(reply[0]) == shut
            self.model.end_probation(limit)
        self.model.cooled[call] = reply[0]

    def compare_refuse(self, args: tuple[Any, ...], reply: Any) -> None:
        run, group, limit, seconds, _, grow, most, *_ = args
        if (run, limit) not in self.model.told:
            until = self.model.refuse(
                run, tuple(json.loads(group)), limit, float(seconds), float(grow), float(most)
            )
            assert abs(float(reply[0] or 0) - until) < STALL

    def compare_reset(self, args: tuple[Any, ...], reply: Any) -> None:
        entry = self.model.config.adaptive_of(args[0])
        if reply[0]:
            assert entry
            self.model.move(args[0], entry.max)

    def compare_tally(self, args: tuple[Any, ...], reply: Any) -> None:
        assert reply == self.model.tally(args[0])

    def records(self) -> list[Group]:
        texts = self.redis.lrange(f"{PREFIX}:stats:ended", 0, -1)
        return [tuple(json.loads(text.split(b" ", 3)[3])) for text in texts]

    def compare_forgo(self, args: tuple[Any, ...], reply: Any) -> None:
        parked_as, group = args[0], tuple(json.loads(args[1]))
        if parked_as in self.model.begun:
            assert reply[0] == 0
            return
        self.model.begun[parked_as] = None
        mine = {token for token in self.model.reserved if self.model.held[token] == group}
        gone = mine - self.members("leases")
        gone -= {token for token in gone if not reply[0]}
        assert len(gone) == reply[0] == bool(mine)
        for token in gone:
            self.model._forget(token)

    def members(self, key: str) -> set[str]:
        return {member.decode() for member in self.redis.zrange(f"{PREFIX}:{key}", 0, -1)}

    def settle(self, verb: str, reply: Any) -> None:
        """Take note of whom the call handed room to; then all must be as the model has it."""
        self.look_what_is_kept()
        self.look_how_limits_moved(verb)
        noticed = not self.model.unnoticed | self.model.opened
        exact = self.steps >= 64 and self.patience > 1e6 and noticed
        if exact:
            self.model.compare_shares()
        else:
            self.model.lags = {}
        # Who leaves is taken out first, though its message may come behind in the queue.
        leaves = {True: 0, False: 1}
        for message in sorted(
            self.put_back(),
            key=lambda one: leaves[one["waiter"] in self.leaving or GIVEN_UP in one],
        ):
            waiter = message["waiter"]
            if GIVEN_UP in message:
                self.is_given_up(verb, reply, message)
                continue
            if waiter in self.model.waiting:
                assert message[PARKED] == self.model.waiting[waiter].place
            self.messages.append(message)
            if message.get("concurrency_discard") or verb == "drain":
                assert waiter in self.leaving
                if verb == "park":
                    self.leaving = set()
                else:
                    self.model.take_out(waiter)
                continue
            heads = list(self.model.heads())
            assert waiter in heads, "handed over before others of its group"
            assert self.model.has_room(self.model.waiting[waiter].limits), "no room for it"
            if exact:
                assert waiter in self.model.next_ones(), "others came before, and have room"
            if self.model.too_heavy(self.model.waiting[waiter].limits):
                self.model.take_out(waiter)  # it asks, and fails
                continue
            if exact:
                self.model.compare_shares(self.model.waiting[waiter])
            reserved = f"{self.model.waiting[waiter].run}:reserved"
            self.model.hand_over(waiter, self.redis.zscore(f"{PREFIX}:leases", reserved))
        more = self.more(verb, reply)
        if verb == "sweep" and not more and self.model.config.enabled:
            self.lines_hold()
            for limit, line in self.lines.items():
                seconds = self.model.config.bounds_of(limit).seconds
                first = min(line.values(), default=math.inf)
                assert not seconds or first + seconds > self.model.now, "it waits for too long"
        if exact and not more:
            assert not self.model.runnable(), "a lost wake-up"
        self.model.compare_shares()
        self.holds()

    def is_given_up(self, verb: str, reply: Any, message: dict[str, Any]) -> None:
        """A message was put back to fail: it was one too many, or has waited for too long."""
        why, limit, bound, number = message[GIVEN_UP]
        bounds = self.model.config.bounds_of(limit)
        if why == "crowded":
            assert verb == "park"
            assert reply[0] == b"crowded"
            assert number >= bound == bounds.most
            return
        assert verb == "sweep"
        seconds = bounds.seconds
        assert number >= bound == seconds
        one = self.model.waiting[message["waiter"]]
        # The sweep may have entered it just before.
        asked = self.lines[limit].get(message["waiter"], min(self.asked_by(one)))
        assert asked + seconds <= self.model.now, "it may wait on"
        self.model._tell("overdue", one.limits)
        self.model.take_out(message["waiter"])

    def more(self, verb: str, reply: Any) -> bool:
        if verb in ("release", "park", "cancel", "forgo", "cool", "refuse", "reset"):
            return bool(reply[1])
        if verb == "advance":
            return bool(reply[0])
        return verb != "sweep" or bool(reply[2])

    def look_what_is_kept(self) -> None:
        group, token = self.redis.hmget(f"{PREFIX}:collecting", "group", "token")
        self.model.kept = Counter()
        if group is None:
            return
        group = tuple(json.loads(group))
        for limit in names(group):
            mine = members_of(token.decode(), limit, group)
            self.model.kept[limit] = len(mine & self.members(f"semaphore:{limit}"))

    def look_how_limits_moved(self, verb: str) -> None:
        """Calls may find an adaptive limit used in full, and let it rise by one."""
        entries = {limit: self.model.config.adaptive_of(limit) for limit in LIMITS}
        pipe = self.redis.pipeline(transaction=False)
        adaptive = [limit for limit, entry in entries.items() if entry]
        for limit in adaptive:
            pipe.hgetall(f"{PREFIX}:adaptive:{limit}")
            pipe.hmget(f"{PREFIX}:config:adaptive", limit, f"{limit.partition(':')[0]}:*")
        replies = iter(pipe.execute())
        for limit in adaptive:
            entry = entries[limit]
            assert entry
            state, (own, all_names) = next(replies), next(replies)
            its = (own or all_names).split()[-1] + (b" own" if own else b" all")
            if state.get(b"entry") != its:
                state = {}
            there = max(entry.min, min(entry.max, int(state.get(b"max", entry.max))))
            before = self.model.own_max(limit)
            if there != before:
                assert verb not in ("acquire", "refuse", "reset"), "the model knows better"
                assert there == before + 1
                assert self.model.may_rise(limit), "too early"
                self.model.move(limit, there)
            assert entry.min <= there <= entry.max
            for field, known in (("since", self.model.since), ("fell", self.model.fell)):
                stored = float(state.get(field.encode(), 0))
                assert abs(stored - self.model.moved_at(limit, known)) < STALL, (limit, field)

    def put_back(self) -> list[dict[str, Any]]:
        """Return what came back to the broker since the last time, in its order there."""
        if self.outbox:
            numbers = sorted(int(n) for n in self.redis.zrange(f"{PREFIX}:outbox", 0, -1))
            new = [number for number in numbers if number > self.sent_last]
            self.sent_last = max([self.sent_last, *new])
            texts = [self.redis.get(f"{PREFIX}:outbox:{number}") for number in new]
        else:
            texts = list(reversed(self.redis.lrange(QUEUE, 0, -1)))
            self.redis.delete(QUEUE)
        return [self.headers(text) for text in texts if text]

    def headers(self, text: bytes) -> dict[str, Any]:
        """Return a message's headers, and beside them its place, which a script put in."""
        headers: dict[str, Any] = json.loads(text)["headers"]
        place = headers[PARKED]
        return {**headers, **place, "parked_as": place["as"]}

    sent_last = 0

    def deliver(self) -> None:
        """The outbox has messages: they stay there until a step sends them."""
        assert self.outbox

    def holds(self) -> None:
        """What is in Redis is what the model has."""
        pipe = self.redis.pipeline(transaction=False)
        for limit in LIMITS:
            pipe.zrange(f"{PREFIX}:semaphore:{limit}", 0, -1)
        pipe.zrange(f"{PREFIX}:leases", 0, -1)
        pipe.hgetall(f"{PREFIX}:stats:counters")
        pipe.zrange(f"{PREFIX}:groups", 0, -1)
        pipe.hgetall(f"{PREFIX}:stats:times")
        pipe.hgetall(f"{PREFIX}:newest")
        *semaphores, leases, counters, groups, times, newest = pipe.execute()
        for limit, tokens in zip(LIMITS, semaphores, strict=True):
            there = {token.decode() for token in tokens}
            kept = {token for token in there if ":collecting" in token}
            assert len(kept) == self.model.kept[limit]
            held = {token: self.model.held[token] for token in self.model.members(limit)}
            expected = {one for item in held.items() for one in members_of(item[0], limit, item[1])}
            assert there - kept == expected, limit
        assert {token.decode() for token in leases} == set(self.model.held)
        ahead = Counter(self.redis.lrange(AHEAD, 0, -1))
        del ahead[HANDED_OVER]
        assert ahead == self.model.queued
        self.starts_hold()
        self.lines_hold()
        assert {name.decode(): int(count) for name, count in counters.items()} == dict(
            +self.model.counters
        )
        assert {group.decode() for group in groups} == {
            group_name(one.limits) for one in self.model.waiting.values()
        }
        assert {waiter.decode() for waiter in newest.values()} == {
            waiter for waiter, one in self.model.waiting.items() if one.received is not None
        }
        assert self.records() == self.model.records
        spans = Spans.of(times)
        for kind in (spans.wait, spans.hold):
            assert {limit: one.count for limit, one in kind.items()} == self.model.counted, kind

    def starts_hold(self) -> None:
        """What begins counts, what did not begin does not, and no more than may matter is kept."""
        pipe = self.redis.pipeline(transaction=False)
        for limit in LIMITS:
            pipe.zrange(f"{PREFIX}:rate:{limit}", 0, -1)
        pipe.zrange(f"{PREFIX}:cooldowns", 0, -1)
        *rates, cooldowns = pipe.execute()
        for limit, there in zip(LIMITS, rates, strict=True):
            starts = self.model.starts.get(limit, {})
            assert {member.decode() for member in there} == set(starts), limit
        assert {limit.decode() for limit in cooldowns} == set(self.model.cooling)

    #: As last seen: limit to its waiters, and since when each of them waits.
    lines: dict[str, dict[str, float]] = {}  # noqa: RUF012 - replaced by each machine

    def asked_by(self, one: Waiting) -> tuple[float, float]:
        """Return when one asked, and when the one asked whose place it may have taken."""
        return one.asked, one.score % RANK / 1000

    def lines_hold(self) -> None:
        """Who waits for a limit with bounds is in its line, unless a walk is to enter it yet."""
        pipe = self.redis.pipeline(transaction=False)
        pipe.exists(f"{PREFIX}:waiting:walk")
        for key in ("waiting", *(f"waiting:{limit}" for limit in LIMITS)):
            pipe.zrange(f"{PREFIX}:{key}", 0, -1, withscores=True)
        walks, all_due, *lines = pipe.execute()
        due = dict(all_due)
        self.model.unlined, self.lines = set(), {}
        for limit, there in zip(LIMITS, lines, strict=True):
            assert (limit.encode() in due) == bool(there)
            self.lines[limit] = {name.decode(): asked for name, asked in there}
            names = self.lines[limit].keys()
            for waiter, asked in self.lines[limit].items():
                ages = [one - asked for one in self.asked_by(self.model.waiting[waiter])]
                assert any(abs(age - OLDER * round(age / OLDER)) < 0.01 for age in ages)
            bounds = self.model.config.bounds_of(limit)
            line = self.model.line(limit)
            assert names <= line
            if walks:
                self.model.unlined |= {(waiter, limit) for waiter in line - names}
            elif bounds.most or bounds.seconds:
                assert names == line, limit
                first = there[0][1] if there else math.inf
                last = first + bounds.seconds if bounds.seconds else math.inf
                assert due.get(limit.encode(), 0) <= last + 0.01, "the sweep would look too late"
            else:
                assert not names, limit

    # -- runs

    @rule(
        target=runs,
        tags=TAGS,
        fates=FATES,
        rank=st.sampled_from([0, 0, 0, 3]),
        task=st.integers(0, 5),
        skips=SKIPS,
        weight=WEIGHTS,
    )
    def acquire(
        self, tags: dict[str, str], fates: list[str], rank: int, task: int, skips: bool, weight: int
    ) -> Any:
        self.number += 1
        return self.ask(f"task{task}.{self.number}", tags, fates, rank, None, skips, weight)

    def ask(
        self,
        task: str,
        tags: dict[str, str],
        fates: list[str],
        rank: int,
        place: Ticket | None,
        skips: bool,
        weight: int,
        replaces: bool = False,
    ) -> Any:
        """A run stands at a worker's slot."""
        self.number += 1
        run = f"{task}:{self.number}"
        self.line.fates = list(fates)
        try:
            answer = self.limiter.try_acquire(
                run, tags, task="publish", worker="w@h", rank=rank, ticket=place, skips=skips,
                replaces=replaces,
                weight=weight,
            )  # fmt: skip
        except LimiterUnavailable:
            assert run in self.later
            return run
        except RunEnded:
            return multiple()
        except (NotWaiting, WeightTooHigh):
            return run if run in self.later else multiple()
        finally:
            used = fates[: len(fates) - len(self.line.fates)]
            self.line.fates = []
        if isinstance(answer, Repeated):
            return multiple()
        limits = limits_of(tags, self.model.config.dimensions)
        assert answer.limits == limits
        if isinstance(answer, Granted):
            assert self.model.held[run] == group_of(limits, weight)
            seconds, _ = self.redis.time()
            timeout = self.model.config.timeout
            assert seconds + timeout - 60 <= answer.expiry <= seconds + timeout + 1
            assert answer.fence > self.fence, "a fencing number only grows"
            self.fence = answer.fence
            self.alive.add(run)
            return run
        assert run in self.later or set(used) <= {"arrives"}
        if isinstance(answer, Denied):
            self.denied[run] = (answer, task)
        # What may still be under way must have somebody who ends it.
        return run if run in self.later else multiple()

    @rule(
        run=consumes(runs),
        fates=FATES,
        done=st.booleans(),
        began=st.booleans(),
        succeeded=st.booleans(),
    )
    def release(self, run: str, fates: list[str], done: bool, began: bool, succeeded: bool) -> None:
        """It has ended, or its process has died, maybe before its body began."""
        self.line.fates = fates
        self.alive.discard(run)
        try:
            self.limiter.release(run, done=done, began=began, succeeded=succeeded)
        except LimiterUnavailable:
            assert run in self.later
        else:
            self.later.discard(run)
            assert run not in self.model.held
        finally:
            self.line.fates = []

    @precondition(lambda self: set(self.model.held) - self.model.reserved)
    @rule(
        data=st.data(),
        seconds=st.sampled_from([0, 600, 600, 1900]),
        grow=st.sampled_from([1, 2]),
        fates=FATES,
    )
    def a_platform_refuses_a_run(
        self, data: st.DataObject, seconds: int, grow: int, fates: list[str]
    ) -> None:
        run = data.draw(st.sampled_from(sorted(set(self.model.held) - self.model.reserved)))
        limits = names(self.model.held[run])
        limit = data.draw(st.sampled_from(limits))
        if self.model.config.limit_problem(limit):
            return  # its dimension was taken out
        self.line.fates = fates
        try:
            until = self.limiter.refuse(run, limits, limit, seconds, grow=grow, most=3_000)
        except LimiterUnavailable:
            # A thread of the limiter would tell it again.
            self.later.discard(f"{run} refused {limit}")
            return
        finally:
            self.line.fates = []
        assert bool(until) == bool(seconds) or (run, limit) in self.model.told

    @precondition(lambda self: self.model.own)
    @rule(data=st.data())
    def an_adaptive_limit_is_reset(self, data: st.DataObject) -> None:
        limit = data.draw(st.sampled_from(sorted(self.model.own)))
        entry = self.model.config.adaptive_of(limit)
        lower = entry is not None and self.model.own_max(limit) < entry.max
        assert self.limiter.adaptive.reset(limit) == lower
        self.finish()

    @rule(run=consumes(runs))
    def release_again(self, run: str) -> None:
        self.alive.discard(run)
        self.limiter.release(run)
        assert self.limiter.release(run) is False
        self.later.discard(run)

    @precondition(lambda self: self.later)
    @rule()
    def what_could_not_be_released_is_released_later(self) -> None:
        run = sorted(self.later)[0]
        self.limiter._release(run, began=False)
        self.later.discard(run)
        assert run not in self.model.held

    @precondition(lambda self: self.line.delayed)
    @rule(data=st.data())
    def a_delayed_call_arrives(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.line.delayed) - 1))
        verb, args = self.line.delayed.pop(index)
        # Room that an operator's DEL left would be handed over by any call: not by this one.
        self.finish()
        run = args[0]
        settled = run not in self.later and (run not in self.denied or verb not in ("park", "join"))
        # Its message still is in its queue: this call may take it, or the next worker.
        settled = settled and not (verb == "join" and self.model.queued[args[8]])
        settled = settled and verb != "purge"  # who asked before it is meant all the same
        before = (dict(self.model.held), dict(self.model.waiting))
        self.execute(verb, args)
        self.finish()
        if settled:
            after = (dict(self.model.held), dict(self.model.waiting))
            assert after == before, f"a late {verb} of {run} changed something"

    # -- those who wait

    @precondition(lambda self: self.denied)
    @rule(
        data=st.data(),
        fates=FATES,
        expires=st.sampled_from([None, None, 1e10]),
        received=st.sampled_from([None, None, 0, 1, 2]),
    )
    def park(
        self, data: st.DataObject, fates: list[str], expires: float | None, received: int | None
    ) -> None:
        self.place(data.draw(st.sampled_from(sorted(self.denied))), fates, expires, received)

    @precondition(lambda self: self.model.waiting)
    @rule(
        target=runs,
        data=st.data(),
        fates=FATES,
        rank=st.sampled_from([0, 0, 0, 3]),
        skips=SKIPS,
        received=st.sampled_from([0, 1, 2]),
        weight=WEIGHTS | st.none(),
    )
    def one_asks_for_what_others_wait_for(
        self,
        data: st.DataObject,
        fates: list[str],
        rank: int,
        skips: bool,
        received: int,
        weight: int | None,
    ) -> Any:
        """Another task with the same limits: it is skipped, or replaces them, or is replaced."""
        other = self.model.waiting[data.draw(st.sampled_from(sorted(self.model.waiting)))]
        self.number += 1
        weight = weight or without_weight(other.limits)[1]
        tags = self.tags_of(other.limits)
        asked = self.ask(
            f"task{self.number}", tags, fates, rank, None, skips, weight, replaces=True
        )
        run = f"task{self.number - 1}:{self.number}"
        if run in self.denied:
            self.place(run, fates, None, received)
        return asked

    def tags_of(self, group: Group) -> dict[str, str]:
        """Return tags that need these limits."""
        return {
            "type" if dimension == "task_type" else dimension: name
            for dimension, _, name in (limit.partition(":") for limit in names(group))
            if name
        }

    def place(
        self, run: str, fates: list[str], expires: float | None, received: int | None
    ) -> None:
        """The message of a denied run is parked."""
        answer, task = self.denied[run]
        message = self.message(task)
        queue = None if self.outbox else QUEUE
        waiter = waiter_of(answer, task, message, hold=3600, expires=expires, queue=queue)
        if received is not None:
            waiter = replace(waiter, replaces="publish", received=received)
        self.line.fates = fates
        try:
            self.limiter.waiting_room.park(waiter)
        except LimiterUnavailable:
            return  # its worker keeps the slot and tries on
        finally:
            self.line.fates = []
        del self.denied[run]

    @precondition(lambda self: self.model.waiting)
    @rule(
        data=st.data(),
        fates=FATES,
        rank=st.sampled_from([0, 0, 0, 3]),
        expires=st.sampled_from([None, None, 1e10]),
        queued=st.sampled_from(["", "", "there", "behind", "gone"]),
    )
    def a_message_arrives_at_the_door(
        self, data: st.DataObject, fates: list[str], rank: int, expires: float | None, queued: str
    ) -> None:
        """Its worker takes its group for one that waits; where it can't know, it parks it.

        Or it has only seen it in its queue, where it may be no longer, or behind one that was
        handed over; then it parks nothing.
        """
        self.number += 1
        other = data.draw(st.sampled_from([*sorted(self.model.waiting), None]))
        is_copy = other is not None and data.draw(st.sampled_from([False, False, False, True]))
        task = other if is_copy else f"task{self.number}"
        run = f"{task}:{self.number}"
        # Nobody needs what nobody waits for.
        group = self.model.waiting[other].limits if other else ("global", "account:nobody")
        limits, weight = names(group), without_weight(group)[1]
        ticket = Ticket(rank * RANK + int(self.clock() * 1000))
        denied = Denied(run, limits, limits[-1], None, None, ticket, weight=weight)
        text = self.message(task)
        queue = None if self.outbox else QUEUE
        waiter = waiter_of(denied, task, text, hold=3600, expires=expires, queue=queue)
        here = self.stored_here(run, data.draw(st.sampled_from([None, SUCCESS, FAILURE, ...])))
        here["next"] = {"key": AHEAD, "most": LOOK_AHEAD}
        if queued:
            here["queued"] = {"key": AHEAD}
            del here["unacked"]
            self.redis.hdel("unacked", run)
            self.redis.zrem("unacked_index", run)
        if queued in ("there", "behind"):
            self.redis.lpush(AHEAD, text)
            self.model.queued[text] += 1
        if queued == "behind":
            self.redis.rpush(AHEAD, HANDED_OVER)
            self.model.is_behind = True
        self.line.fates = fates
        try:
            self.limiter.join(replace(waiter, ticket=None), rank, here, text if queued else b"")
        except LimiterUnavailable:
            if not queued:
                self.denied[run] = (denied, task)
        finally:
            self.line.fates = []
        if queued == "behind":
            assert self.redis.rpop(AHEAD) == HANDED_OVER
            self.model.is_behind = False
        if self.model.queued[text] and data.draw(st.booleans()):
            # Its worker, or another one, receives it as always: a late copy takes nothing more.
            assert self.redis.lrem(AHEAD, -1, text) == 1
            self.model.leave_queue(text)

    def stored_here(self, run: str, state: Any) -> dict[str, dict[str, Any]]:
        """Keep beside the message of a run: its delivery, and its state; ``...`` can't be read."""
        self.redis.hset("unacked", run, "delivered")
        self.redis.zadd("unacked_index", {run: self.number})
        if state is ...:
            self.unreadable.add(run)
            self.redis.rpush(f"state:{run}", "no state")
        elif state:
            self.redis.set(f"state:{run}", state)
        self.states[run] = state
        return {
            "unacked": {"key": "unacked", "index": "unacked_index", "tag": run},
            "result": {"key": f"state:{run}", "value": RETRY.decode(), "seconds": 0},
        }

    @precondition(lambda self: self.denied)
    @rule(data=st.data(), fates=FATES)
    def its_process_is_killed_before_it_parks(self, data: st.DataObject, fates: list[str]) -> None:
        """The main process puts its message back, unless it has a place; a park comes too late."""
        run = data.draw(st.sampled_from(sorted(self.denied)))
        answer, task = self.denied[run]
        self.line.fates = fates
        try:
            has_place = self.limiter.waiting_room.rescue(run, task)
        except LimiterUnavailable:
            return  # the main process tries on
        finally:
            self.line.fates = []
        del self.denied[run]
        if not has_place:
            place = answer.ticket
            group = group_of(answer.limits, answer.weight)
            headers = {"parked_as": place.parked_as, "score": place.number, "limits": group}
            self.messages.append({"waiter": task, **headers})

    fence = 0

    def message(self, task: str) -> bytes:
        text = json.dumps({"headers": {"waiter": task}}, ensure_ascii=False)
        assert text.startswith(MESSAGE_START)
        return text.encode()

    @precondition(lambda self: self.messages or self.copies)
    @rule(
        target=runs,
        data=st.data(),
        fates=FATES,
        again=st.booleans(),
        skips=SKIPS,
        is_old=st.sampled_from([False, False, True]),
    )
    def a_message_stands_at_a_slot(
        self, data: st.DataObject, fates: list[str], again: bool, skips: bool, is_old: bool
    ) -> Any:
        """The broker delivers a message that was put back, or one of them a second time."""
        source = self.messages or self.copies
        message = source.pop(data.draw(st.integers(0, len(source) - 1)))
        if message.get("concurrency_discard"):
            return multiple()
        if again:
            self.copies.append(message)
        limits, weight = without_weight(message["limits"])
        tags = self.tags_of(tuple(limits))
        # One that was rescued and never parked asks as for the first time.
        parked_as = message["parked_as"]
        score = message["score"] - (1000 * OLDER if is_old else 0)
        place = Ticket(score, parked_as, tuple(limits), weight) if parked_as else None
        return self.ask(message["waiter"], tags, fates, 0, place, skips, weight)

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def a_message_is_discarded(self, data: st.DataObject) -> None:
        """Its task was revoked while the message was on its way."""
        index = data.draw(st.integers(0, len(self.messages) - 1))
        message = self.messages.pop(index)
        if message["parked_as"] and not message.get("concurrency_discard"):
            limits, weight = without_weight(message["limits"])
            self.limiter.waiting_room.forgo(message["parked_as"], limits, weight)
            self.finish()

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(sorted(self.model.waiting)))
        self.leaving = {waiter}
        self.model.counters["cancelled:total"] += 1
        assert self.limiter.waiting_room.cancel(waiter) is True
        assert self.limiter.waiting_room.cancel(waiter) is False
        assert waiter not in self.model.waiting
        self.leaving = set()

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def a_waiter_has_waited_for_long(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(sorted(self.model.waiting)))
        one = self.model.waiting[waiter]
        for limit in names(one.limits):
            if self.redis.zscore(f"{PREFIX}:waiting:{limit}", waiter) is not None:
                self.redis.zincrby(f"{PREFIX}:waiting:{limit}", -OLDER, waiter)
                self.redis.zincrby(f"{PREFIX}:waiting", -OLDER, limit)
        self.lines_hold()

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def a_waiter_expires(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(sorted(self.model.waiting)))
        if self.redis.zadd(f"{PREFIX}:expiring", {waiter: 1}, xx=True, ch=True):
            self.leaving.add(waiter)
            self.sweep()
            assert waiter not in self.model.waiting
            self.leaving = set()

    @rule(often=st.integers(0, 15))
    def drain(self, often: int) -> None:
        if often:
            return  # rarely: nobody would be left to wait
        self.leaving = set(self.model.waiting)
        count = sum(self.limiter.waiting_room.drain())
        assert count == len(self.leaving)
        assert not self.model.waiting
        self.leaving = set()

    @rule(often=st.integers(0, 15), fates=FATES)
    def purge(self, often: int, fates: list[str]) -> None:
        if often:
            return
        self.line.fates = fates
        try:
            for _ in self.limiter.waiting_room.purge():
                pass
        except LimiterUnavailable:
            return  # some wait on
        finally:
            self.line.fates = []
        assert not self.model.waiting

    @precondition(lambda self: self.outbox)
    @rule(killed=st.booleans())
    def the_outbox_is_sent(self, killed: bool) -> None:
        """A sender that is killed before it could confirm sends all of it twice."""
        for number, text in self.limiter.waiting_room.claim():
            assert text.startswith(MESSAGE_START.encode())
            if killed:
                self.copies.append(self.headers(text))
                self.redis.zadd(f"{PREFIX}:outbox", {str(number): 0})
            else:
                self.limiter.waiting_room.confirm(number)

    # -- operators, and time

    @rule(change=CHANGE)
    def configure(self, change: dict[str, Any]) -> None:
        holders = {limit: self.model.members(limit) for limit in LIMITS}
        before = self.model.config
        try:
            self.model.configure(before.merged(change))
        except InvalidConfig:
            assert len(change.get("fair", ())) or before.fair  # two dimensions would be fair
            return
        if before == self.model.config:
            return
        assert self.limiter.config.update(change).config == self.model.config
        self.finish()
        flat, rates, adaptive, observed, bounds, shares = (
            {k.decode(): v.decode() for k, v in self.redis.hgetall(f"{PREFIX}:{name}").items()}
            for name in (
                *("config:flat", "config:rates", "config:adaptive", "config:observed"),
                *("config:bounds", "config:shares"),
            )
        )
        expected = flat_of(self.model.config)
        assert rates == json.loads(expected.pop("rates", "{}"))
        adaptive = {limit: text.rpartition(" ")[0] for limit, text in adaptive.items()}
        assert adaptive == json.loads(expected.pop("adaptive", "{}"))
        assert observed == json.loads(expected.pop("observed", "{}"))
        assert bounds == json.loads(expected.pop("bounds", "{}"))
        assert shares == json.loads(expected.pop("shares", "{}"))
        assert {name: flat.get(name) for name in expected} == expected
        for limit, runs in holders.items():
            there = self.members(f"semaphore:{limit}")
            assert runs <= there, "a change of the limits touched what runs"

    @rule(data=st.data())
    def time_passes_for(self, data: st.DataObject) -> None:
        """The time of a token is over: as if the server's clock had gone on for it alone."""
        living = sorted(set(self.model.held) - self.model.lapsed)
        if not living:
            return
        token = data.draw(st.sampled_from(living))
        over = self.redis.time()[0] - 1
        group = self.model.held[token]
        for limit in names(group):
            mine = dict.fromkeys(members_of(token, limit, group), over)
            self.redis.zadd(f"{PREFIX}:semaphore:{limit}", mine, xx=True)
        self.redis.zadd(f"{PREFIX}:leases", {token: over}, xx=True)
        if token in self.model.reserved:
            self.redis.zadd(f"{PREFIX}:reserved:{group_name(group)}", {token: over}, xx=True)
        self.model.lapsed.add(token)

    @precondition(lambda self: self.model.starts or self.model.cooling or self.model.since)
    @rule(seconds=AGES)
    def time_goes_on(self, seconds: int) -> None:
        """As if the clock had gone on for starts, moments, cool-downs and moves."""
        keys = self.redis.keys(f"{PREFIX}:rate:*")
        keys += [f"{PREFIX}:{name}".encode() for name in ("moments", "cooldowns", "probes")]
        for key in keys:
            for member, moment in self.redis.zrange(key, 0, -1, withscores=True):
                self.redis.zadd(key, {member: moment - seconds})
        for limit in LIMITS:
            state = self.redis.hmget(f"{PREFIX}:adaptive:{limit}", "since", "fell")
            for field, moment in zip(("since", "fell"), state, strict=True):
                if moment is not None:
                    older = f"{float(moment) - seconds:.6f}"
                    self.redis.hset(f"{PREFIX}:adaptive:{limit}", field, older)
        self.model.now = self.clock()
        self.model.age(seconds)

    @precondition(lambda self: self.model.opened)
    @rule()
    def moments_are_met(self) -> None:
        """A worker that watches hands over what has opened: nobody waits on who can go on."""
        for _ in range(100):
            if self.limiter.waiting_room.meet_moments() != 0:
                break
        self.finish()
        self.model.opened = set()
        if self.patience > 1e6 and not self.model.unnoticed:
            assert not self.model.runnable(), "a moment that nobody met"

    @rule(limit=st.sampled_from(LIMITS), seconds=COOLING, fates=FATES)
    def a_limit_cools_down(self, limit: str, seconds: int, fates: list[str]) -> None:
        if self.model.config.limit_problem(limit):
            return  # its dimension was taken out
        self.line.fates = fates
        try:
            until = self.limiter.cooldowns.set(limit, seconds, "refused", "ann")
        except LimiterUnavailable:
            return
        finally:
            self.line.fates = []
        assert abs(until - self.model.cooling[limit]) < STALL

    @precondition(lambda self: self.model.cooling)
    @rule(data=st.data(), fates=FATES)
    def a_cool_down_is_lifted(self, data: st.DataObject, fates: list[str]) -> None:
        limit = data.draw(st.sampled_from(sorted(self.model.cooling)))
        self.line.fates = fates
        try:
            self.limiter.cooldowns.lift(limit)
        except LimiterUnavailable:
            return
        finally:
            self.line.fates = []
        self.finish()
        assert limit not in self.model.cooling

    @precondition(lambda self: set(self.model.held) - self.model.lapsed - self.model.reserved)
    @rule(data=st.data())
    def a_worker_falls_silent(self, data: st.DataObject) -> None:
        """Nobody renews one of its tokens, whose own time is not over."""
        runs = set(self.model.held) - self.model.lapsed - self.model.reserved
        token = data.draw(st.sampled_from(sorted(runs)))
        self.redis.zadd(f"{PREFIX}:leases", {token: self.redis.time()[0] - 1}, xx=True)
        self.model.lapsed.add(token)
        self.model.silent.add(token)

    @rule()
    def sweep(self) -> None:
        """It takes back what is due, and finds all room there is."""
        due = len(self.model.lapsed)
        # Every limit is looked at again, whenever it was looked at last.
        for key in ("blocked:shared", "blocked:own"):
            for limit in self.redis.zrange(f"{PREFIX}:{key}", 0, -1):
                self.redis.zadd(f"{PREFIX}:{key}", {limit: 0})
        assert self.limiter.waiting_room.sweep(now=True) == due
        self.model.unnoticed, self.model.opened = set(), set()
        self.finish()
        if self.patience > 1e6:
            assert not self.model.runnable(), "a lost wake-up"

    @rule(fates=FATES)
    def a_worker_counts_who_ended(self, fates: list[str]) -> None:
        self.line.fates = fates
        try:
            self.limiter.durations.tally()
        except LimiterUnavailable:
            return  # with the next tick
        finally:
            self.line.fates = []
        assert not self.model.records

    @rule(fates=FATES)
    def a_minute_is_over(self, fates: list[str]) -> None:
        """The copies tell what was counted; all that has a name keeps it."""
        stream = f"{PREFIX}:stats:history"
        copies = self.redis.xrange(stream)
        self.redis.delete(stream)
        for entry_id, copy in copies:
            self.redis.xadd(stream, copy, id=f"{int(entry_id.partition(b'-')[0]) - 61_000}-0")
        self.line.fates = fates
        try:
            if not self.limiter.stats.snapshot():
                return  # a first copy of the call has stored it
        except LimiterUnavailable:
            return
        finally:
            self.line.fates = []
        told: dict[str, int] = {}
        for one in copies_up_to(self.limiter.keyspace, "+"):
            one.apply_to(told)
        assert +Counter(told) == +self.model.counters
        self.holds()

    @rule(limit=st.sampled_from(LIMITS))
    def an_operator_deletes_a_semaphore(self, limit: str) -> None:
        self.redis.delete(f"{PREFIX}:semaphore:{limit}")
        self.model.delete_semaphore(limit)

    # -- the process that runs live in

    @rule()
    def a_beat(self) -> None:
        """It renews what lives, brings back what was lost, and tells who was taken back."""
        gone = self.alive - set(self.model.held)
        back = gone & self.known if self.forgotten else set()
        lost = self.limiter.leases.beat(self.alive, 600)
        if self.forgotten:
            for run in back:
                self.model.held[run] = self.forgotten[run]
            assert not lost
        else:
            assert lost == {run for run in gone if run in self.model.ended}
            self.model.counters["lost:total"] += len(lost)
        self.forgotten = {}
        # What lapsed and was not swept yet lives on.
        self.model.lapsed -= self.alive
        self.model.silent -= self.alive
        self.known = self.alive & set(self.model.held)
        self.alive &= self.known
        self.holds()

    #: What those held whom a loss of data took everything from.
    forgotten: dict[str, Group] = {}  # noqa: RUF012 - replaced, never changed

    @precondition(lambda self: not self.line.delayed and not self.later)
    @rule(often=st.integers(0, 7))
    def the_data_is_lost(self, often: int) -> None:
        """With it go the broker's messages: what remains are the runs that live."""
        if often:
            return
        self.a_beat()
        held = {run: limits for run, limits in self.model.held.items() if run in self.alive}
        self.redis.flushall()
        self.model = Model(closed=True)
        self.crowd()
        self.forgotten, self.sent_last = held, 0
        self.messages, self.copies, self.denied = [], [], {}
        self.limiter.config.sync()
        opens = float(self.redis.hget(f"{PREFIX}:config:flat", "opens"))
        closed = opens - float(self.redis.get(f"{PREFIX}:epoch"))
        assert closed >= 2 * BEAT_SECONDS, "two beats report what those who live hold"
        # A slow machine has not got there yet, either.
        self.redis.hset(f"{PREFIX}:config:flat", "opens", opens + 600)
        self.ask("newcomer", {"account": "a"}, [], 0, None, False, 1)
        assert not self.model.held, "admitted before those who live said what they hold"
        self.a_beat()
        assert self.model.held == held
        self.open()

    @rule()
    def usage_says_so(self) -> None:
        usage = self.limiter.usage()
        in_accounts = {name for name, limit in usage.accounts.items() if limit.current}
        in_accounts &= accounts_of(set(LIMITS))  # who came to the door in vain may hold another
        held = {limit for limit in LIMITS if self.model.members(limit, living=True)}
        # One in which room is kept alone is listed while an expired token is known there.
        assert accounts_of(held) <= in_accounts <= accounts_of(held | set(+self.model.kept))

    def finish(self) -> None:
        """Go on with a hand-over that took more than one call, to its end."""
        for _ in range(1000):
            if not self.limiter.waiting_room.advance(1):
                return
        raise AssertionError("a hand-over without end")
