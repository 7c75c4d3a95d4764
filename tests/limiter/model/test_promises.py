"""Promises 1, 2, 6, 9, 11, 12 and 14 to 20 by a model, and steps that hypothesis chooses.

1. No limit is ever exceeded by living tokens; a run gets all its limits or none.
2. A script that arrives again, or late, changes nothing.
6. Times are the server's; a lowered limit never touches what runs.
9. No lost wake-up: nobody waits whose limits all have room.
11. Those with the same limits go on in the order in which they asked; of the
    others the one that waits the longest, or whose turn it is among the names of a
    fair dimension.
12. A full limit holds up nobody who doesn't need it.
14. What takes many steps is done in bounded calls.
15. No window of a rate has more starts than it allows.
16. Who did not begin is charged no start.
17. Who waits for a moment goes on when somebody meets it.
18. A cool-down admits nobody; after one that a refusal began, one goes first.
19. An adaptive limit stays between its bounds, falls once in ``every`` seconds, rises by one.
20. No more wait for a limit than may, and nobody for longer.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, multiple, rule, run_state_machine_as_test
from redis.exceptions import ConnectionError

from celery_concurrency import scripts
from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.client import AsyncClient
from celery_concurrency.limiter.event_loop import EventLoop
from celery_concurrency.limiter.outcomes import Ticket
from celery_concurrency.limiter.weights import without_weight
from tests.limiter.model.machine import ADAPTIVE, BOUNDED, COUNT, Line, Machine

ACCOUNT = st.sampled_from(["a", "b", None, None])
HEAVY = st.sampled_from([1, 1, 2, 3, 5])

#: Steps of one example, and in all; ``make promises`` sets a million.
LENGTH = 100
STEPS = int(os.environ.get("PROMISES_STEPS", "10000"))


class InSmallSteps(Machine):
    """Hand-overs that take many calls."""

    steps = 2


class Collecting(Machine):
    """Room is kept for those who are passed over."""

    patience = -1.0


SHARES = st.fixed_dictionaries(
    {},
    optional={
        "dimensions": st.fixed_dictionaries(
            {"tenant": st.fixed_dictionaries({}, optional={"fair": st.booleans(), "max": COUNT})}
        ),
        "fair": st.fixed_dictionaries({"account": st.sampled_from([None, {}])}),
        "platform_max": st.fixed_dictionaries({"douyin": st.integers(1, 3)}),
        "account_max": COUNT,
        "task_type_max": st.fixed_dictionaries({"publish": COUNT}),
    },
)
#: Tags, rank, how many ask with them, and how many places each takes.
ASKS = st.tuples(
    st.fixed_dictionaries(
        {"account": st.sampled_from(["a", "b"])},
        optional={
            "tenant": st.sampled_from(["t1", "t2"]),
            "type": st.sampled_from(["publish", "other"]),
        },
    ),
    st.sampled_from([0, 0, 0, 3]),
    st.integers(1, 6),
    st.sampled_from([1, 1, 1, 2]),
)


class Sharing(Machine):
    """A dimension whose names have shares of what all of them want."""

    length = 25  # many calls each
    change: ClassVar = {
        "dimensions": {"tenant": {"fair": True, "weights": {"t1": 3}}},
        "platform_max": {"douyin": 2},
        "account_max": 2,
    }

    #: What other machines do often enough, and what lets nobody wait for long.
    drain = purge = the_data_is_lost = an_operator_deletes_a_semaphore = None  # type: ignore[assignment]
    a_limit_cools_down = a_cool_down_is_lifted = a_platform_refuses_a_run = None  # type: ignore[assignment]
    an_adaptive_limit_is_reset = moments_are_met = time_goes_on = None  # type: ignore[assignment]
    a_minute_is_over = a_worker_counts_who_ended = usage_says_so = None  # type: ignore[assignment]
    the_outbox_is_sent = a_beat = a_worker_falls_silent = release_again = None  # type: ignore[assignment]

    @rule(change=SHARES)
    def configure(self, change: dict[str, Any]) -> None:
        super().configure(change)

    @rule(asks=st.lists(ASKS, max_size=4), rounds=st.integers(0, 15))
    def many_ask_and_some_go_on(
        self, asks: list[tuple[dict[str, str], int, int, int]], rounds: int
    ) -> None:
        for tags, rank, count, weight in asks:
            for _ in range(count):
                task = f"task{self.number + 1}"
                self.number += 1
                self.ask(
                    task, {"platform": "douyin", **tags}, [], rank, None, skips=False, weight=weight
                )
                if (run := f"{task}:{self.number}") in self.denied:
                    self.place(run, [], None, None)
        for _ in range(rounds):
            self.all_end()
            self.next_begins()

    def all_end(self) -> None:
        for run in sorted(set(self.model.held) - self.model.lapsed - self.model.reserved):
            self.alive.discard(run)
            self.limiter.release(run)

    def next_begins(self) -> None:
        message = self.messages.pop(0) if self.messages else {}
        if message.get("parked_as") and not message.get("concurrency_discard"):
            limits, weight = without_weight(message["limits"])
            place = Ticket(message["score"], message["parked_as"], tuple(limits), weight)
            self.ask(
                message["waiter"],
                self.tags_of(tuple(limits)),
                [],
                0,
                place,
                skips=False,
                weight=weight,
            )


class Heavy(Machine):
    """Runs that take several places, in few limits; nothing else is in their way."""

    a_limit_cools_down = a_platform_refuses_a_run = drain = purge = the_data_is_lost = None
    a_minute_is_over = a_worker_counts_who_ended = usage_says_so = release_again = None
    cancel = a_waiter_expires = a_worker_falls_silent = park = None

    @rule(target=Machine.runs, asking=st.lists(st.tuples(ACCOUNT, HEAVY), min_size=1, max_size=6))
    def acquire(self, asking: list[tuple[str | None, int]]) -> Any:
        """Some ask, and wait at once where they have to."""
        runs = []
        for account, weight in asking:
            self.number += 1
            tags = {"platform": "douyin"} | ({"account": account} if account else {})
            asked = self.ask(f"task{self.number}", tags, [], 0, None, False, weight)
            runs += [asked] if isinstance(asked, str) else []
            for run in list(self.denied):
                self.place(run, [], None, None)
        return multiple(*runs)

    @rule(
        most=st.none() | st.integers(1, 8),
        of_all=st.none() | st.integers(0, 8),
        adaptive=st.none() | ADAPTIVE,
    )
    def configure(self, most: int | None, of_all: int | None, adaptive: Any) -> None:
        change: dict[str, Any] = {"account_max": 2, "adaptive": {"platform:douyin": adaptive}}
        change |= {"platform_max": {"douyin": most}} if most else {}
        change |= {"global_max": of_all} if of_all is not None else {}
        super().configure(change)


class HeavyCollecting(Heavy):
    """Room is kept for them, place by place."""

    patience = -1.0


class Crowding(Machine):
    """Few may wait, and not for long."""

    change: ClassVar = {
        "account_max": 1,
        "waiting": {"account:*": {"most": 2, "seconds": 5000}, "global": {"seconds": 9000}},
    }

    #: What other machines do often enough, and what lets nobody wait for long.
    drain = purge = the_data_is_lost = an_operator_deletes_a_semaphore = None  # type: ignore[assignment]
    a_limit_cools_down = a_cool_down_is_lifted = a_platform_refuses_a_run = None  # type: ignore[assignment]
    an_adaptive_limit_is_reset = moments_are_met = time_goes_on = None  # type: ignore[assignment]
    a_minute_is_over = a_worker_counts_who_ended = usage_says_so = None  # type: ignore[assignment]
    a_beat = a_worker_falls_silent = release_again = None  # type: ignore[assignment]

    @rule(change=st.fixed_dictionaries({"waiting": BOUNDED}))
    def configure(self, change: dict[str, Any]) -> None:
        super().configure(change)

    @rule(
        accounts=st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4), race=st.booleans()
    )
    def many_ask_and_wait(self, accounts: list[str], race: bool) -> None:
        """One after another, or all of them ask before the first is parked."""
        runs = []
        for account in accounts:
            task = f"task{self.number + 1}"
            self.number += 1
            self.ask(task, {"account": account}, [], 0, None, skips=False, weight=1)
            runs.append(f"{task}:{self.number}")
            if not race:
                self.place_denied(runs)
        self.place_denied(runs)

    def place_denied(self, runs: list[str]) -> None:
        for run in runs:
            if run in self.denied:
                self.place(run, [], None, None)


class AsyncLine:
    """A line for an event loop: of the calls without a reply, every other one is cancelled."""

    def __init__(self, line: Line, redis: AsyncClient) -> None:
        self._line, self._redis = line, redis
        self._unanswered = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    async def evalsha(self, *call: Any) -> Any:
        try:
            return self._line.evalsha(*call)
        except ConnectionError:
            self._unanswered += 1
            if self._unanswered % 2:
                raise asyncio.CancelledError from None
            raise


class InAnEventLoop(Machine):
    """The same steps, taken as ``async with limiter.acquire(...)`` takes them."""

    @initialize(outbox=st.booleans())
    def start(self, outbox: bool) -> None:
        super().start(outbox)
        self.loop = asyncio.Runner()
        self.loop.run(self.enter())
        self.limiter.keyspace.run = self.run  # type: ignore[method-assign]

    async def enter(self) -> None:
        self.here = EventLoop(self.limiter.keyspace, self.limiter.waiting_room, lambda: None)
        line = AsyncLine(self.line, self.here._redis)
        self.here._redis = line  # type: ignore[assignment]  # as good

    def run(self, steps: Any) -> Any:
        try:
            return self.loop.run(self.here.run(steps))
        except asyncio.CancelledError:
            # A caller that is cancelled knows as little as one whose Redis is away.
            raise LimiterUnavailable("cancelled") from None

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.close()
        super().teardown()


#: Each has as many steps; conftest.py lets them run beside each other.
MACHINES = (
    *(Machine, InAnEventLoop, InSmallSteps, Collecting),
    *(Heavy, HeavyCollecting, Sharing, Crowding),
)


@pytest.fixture(autouse=True)
def whole_calls() -> None:
    """Here calls leave the rest to others, as they do in use."""


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "PAUSE", 0)


@pytest.mark.timeout(0)
@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("machine", MACHINES)
def test_the_promises_hold_whatever_happens(redis_url: str, machine: type[Machine]) -> None:
    """The machine, on a real server."""
    machine.url = redis_url
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(1, STEPS // len(MACHINES) // LENGTH),
            stateful_step_count=machine.length,
            deadline=None,
            # Making a long failure shorter would take CI minutes; its seed is printed.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
