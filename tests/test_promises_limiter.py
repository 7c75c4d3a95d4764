"""Promises 1, 2 and 6 of the limiter, by a model and steps that hypothesis chooses.

1. No limit is ever exceeded by living tokens; a run gets all its limits or none.
2. A script that arrives again, or late, changes nothing.
6. Times are the server's; a lowered limit never touches what runs.

Between limiter and server stands a line that loses replies and delays calls.
Every call that reaches the server is compared with the model, its reply and
all that it left in Redis.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis
from redis.exceptions import ConnectionError

from celery_concurrency import scripts
from celery_concurrency.connection import connect
from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter import Denied, Granted, Limiter
from celery_concurrency.limits import limits_of
from tests.model import Model

TAGS = st.fixed_dictionaries(
    {},
    optional={
        "platform": st.sampled_from(["douyin", "bilibili", "unlisted"]),
        "account": st.sampled_from(["a", "b", "a:b"]),
        "type": st.sampled_from(["publish", "other"]),
        "tenant": st.sampled_from(["t1", "t2"]),
    },
)
LIMITS = ["global", "platform:douyin", "account:a", "task_type:publish", "tenant:t1"]
COUNT = st.integers(0, 3)
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
                | st.fixed_dictionaries({"max": COUNT, "overrides": st.just({"t2": 1})})
            },
        ),
        "enabled": st.booleans(),
        "timeout": st.integers(600, 86_400),
        "paused": st.lists(st.sampled_from(LIMITS[:-1]), max_size=1),
    },
)
FLAT = "concurrency:config:flat"
FATES = st.lists(st.sampled_from(["arrives", "reply lost", "delayed"]), max_size=3)


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


VERBS = {scripts._sha(verb): verb for verb in ("acquire", "release", "expire", "configure")}


class LimiterMachine(RuleBasedStateMachine):
    """The steps; ``execute`` is where model and server meet."""

    url: str
    runs = Bundle("runs")

    @initialize()
    def start(self) -> None:
        self.redis = connect(self.url)
        self.redis.flushall()
        self.model = Model()
        self.line = Line(self.redis, self.execute)
        self.limiter = Limiter(self.line)  # type: ignore[arg-type]  # as good as a client
        self.later: set[str] = set()
        self.limiter._later = self.later  # type: ignore[assignment]  # a set, no thread
        self.limiter.config.sync()
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "redis"):
            self.redis.close()

    def execute(self, verb: str, args: tuple[Any, ...]) -> Any:
        """Let a call reach the server, and hold it against the model."""
        if verb == "configure":
            return self.raw(verb, args)
        dimensions = self.model.config.flat()["dimensions"]
        if verb == "acquire" and args[1] != dimensions:
            before = self.dump()
            assert self.raw(verb, args) == [b"dimensions", dimensions.encode()]
            assert self.dump() == before
            return [b"dimensions", dimensions.encode()]
        reply = self.raw(verb, args)
        self.compare(verb, args, reply)
        self.holds()
        return reply

    def raw(self, verb: str, args: tuple[Any, ...]) -> Any:
        return self.redis.eval(scripts.source(verb), 1, "concurrency", *args)

    def compare(self, verb: str, args: tuple[Any, ...], reply: Any) -> None:
        if verb == "acquire":
            run, limits = args[0], tuple(json.loads(args[2]))
            expected = self.model.acquire(run, limits)
            if isinstance(expected, tuple):
                assert reply == [b"denied", expected[0].encode(), *expected[1:]]
            else:
                assert reply[0].decode() == expected
        elif verb == "release":
            assert reply == self.model.release(args[0], mark=int(args[1]) > 0)
        else:
            assert reply == self.model.expire()

    # -- the steps

    @rule(target=runs, tags=TAGS, fates=FATES)
    def acquire(self, tags: dict[str, str], fates: list[str]) -> Any:
        self.number += 1
        run = f"task{self.number % 3}:{self.number}"
        self.line.fates = fates
        try:
            answer = self.limiter.try_acquire(run, tags, task="publish", worker="w@h")
        except LimiterUnavailable:
            assert run in self.later
            return run
        finally:
            self.line.fates = []
        limits = limits_of(tags, self.model.config.dimensions)
        assert answer.limits == limits
        if isinstance(answer, Granted):
            assert self.model.held[run] == limits
            seconds, _ = self.redis.time()
            timeout = self.model.config.timeout
            assert seconds + timeout - 60 <= answer.expiry <= seconds + timeout + 1
            return run
        assert isinstance(answer, Denied)
        # What may still be under way must have somebody who ends it.
        return run if run in self.later else multiple()

    @rule(run=consumes(runs), fates=FATES)
    def release(self, run: str, fates: list[str]) -> None:
        self.line.fates = fates
        held = run in self.model.held
        try:
            self.limiter.release(run)
        except LimiterUnavailable:
            assert run in self.later
        else:
            self.later.discard(run)
            assert run not in self.model.held
            assert held or run not in self.model.lapsed
        finally:
            self.line.fates = []

    @rule(run=consumes(runs))
    def release_again(self, run: str) -> None:
        self.limiter.release(run)
        before = self.dump()
        assert self.limiter.release(run) is False
        assert self.dump() == before
        self.later.discard(run)

    @precondition(lambda self: self.later)
    @rule()
    def what_could_not_be_released_is_released_later(self) -> None:
        run = sorted(self.later)[0]
        self.limiter._release(run)
        self.later.discard(run)
        assert run not in self.model.held

    @precondition(lambda self: self.line.delayed)
    @rule(data=st.data())
    def a_delayed_call_arrives(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.line.delayed) - 1))
        verb, args = self.line.delayed.pop(index)
        run = args[0]
        settled = run not in self.later
        before = self.dump()
        self.execute(verb, args)
        if settled:
            assert self.dump() == before, f"a late {verb} of {run} changed something"

    @rule(change=CHANGE)
    def configure(self, change: dict[str, Any]) -> None:
        holders = {limit: self.model.members(limit) for limit in LIMITS}
        expected = self.model.config.merged(change)
        assert self.limiter.config.update(change).config == expected
        self.model.config = expected
        flat = {k.decode(): v.decode() for k, v in self.redis.hgetall(FLAT).items()}
        assert {name: flat.get(name) for name in expected.flat()} == expected.flat()
        assert flat.keys() == {*expected.flat(), "source", "json"}
        for limit, runs in holders.items():
            assert self.semaphore(limit) == runs, "a change of the limits touched what runs"

    @rule(run=runs)
    def time_passes_for(self, run: str) -> None:
        """The time of a holder is over: as if the server's clock had gone on for it alone."""
        if run not in self.model.held or run in self.model.lapsed:
            return
        over = self.redis.time()[0] - 1
        for limit in self.model.held[run]:
            self.redis.zadd(f"concurrency:semaphore:{limit}", {run: over}, xx=True)
        self.redis.zadd("concurrency:leases", {run: over}, xx=True)
        self.model.lapsed.add(run)

    @rule()
    def sweep(self) -> None:
        due = len(self.model.lapsed)
        assert self.limiter.expire() == due

    @rule(limit=st.sampled_from(LIMITS))
    def an_operator_deletes_a_semaphore(self, limit: str) -> None:
        self.redis.delete(f"concurrency:semaphore:{limit}")
        self.model.delete_semaphore(limit)

    # -- what holds at any time

    def semaphore(self, limit: str) -> set[str]:
        return {run.decode() for run in self.redis.zrange(f"concurrency:semaphore:{limit}", 0, -1)}

    def dump(self) -> dict[bytes, Any]:
        return {
            key: self.redis.dump(key)
            for key in sorted(self.redis.scan_iter("concurrency:*"))
            if b":config" not in key
        }

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "model"):
            return
        limits = {limit for held in self.model.held.values() for limit in held}
        for limit in limits | set(LIMITS):
            assert self.semaphore(limit) == self.model.members(limit)
        leases = {run.decode() for run in self.redis.zrange("concurrency:leases", 0, -1)}
        assert leases == set(self.model.held)
        counters = self.redis.hgetall("concurrency:stats:counters")
        assert {name.decode(): int(count) for name, count in counters.items()} == dict(
            +self.model.counters
        )

    @invariant()
    def usage_says_so(self) -> None:
        if not hasattr(self, "model"):
            return
        usage = self.limiter.usage()
        assert usage.global_.current == len(self.model.members("global", living=True))
        assert {name for name, limit in usage.accounts.items() if limit.current} == {
            limit.removeprefix("account:")
            for held in self.model.held.values()
            for limit in held
            if limit.startswith("account:") and self.model.members(limit, living=True)
        }


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "PAUSE", 0)


@pytest.mark.usefixtures("no_pauses")
def test_promises_1_2_and_6_hold_whatever_happens(redis_url: str) -> None:
    """The machine above, on a real server."""
    LimiterMachine.url = redis_url
    run_state_machine_as_test(
        LimiterMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
