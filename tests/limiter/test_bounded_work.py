"""Promise 14: a call does no more when many wait, and what is more is done in further calls."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from redis import Redis

from benchmarks.crowd import Crowd, tags_of
from celery_concurrency import scripts
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.waiters import group_of
from celery_concurrency.limiter.waiting_room import STEPS, SWEEP_BATCH
from tests.support.floor import Floor

FEW, MANY = 1_000, 50_000
#: Redis commands that a step takes at most; the longest ones file a group anew.
OF_STEP = 60
OWN = {"dimensions": {"tenant": {"max": 1}}}


@pytest.fixture
def client(redis_url) -> Iterator[Redis]:
    one = connect(redis_url)
    yield one
    one.close()


def commands(client: Redis) -> int:
    """Return how many commands the server has done, those in scripts counted."""
    stats = client.info("commandstats")
    return sum(one["calls"] for name, one in stats.items() if name != "cmdstat_info")


def counted(client: Redis, verb: str, *args: object) -> tuple[int, list]:
    """Call a script once; return how many commands it took, and its reply."""
    before = commands(client)
    reply = scripts.call(client, verb, "concurrency", *args).reply
    return commands(client) - before, reply


def owned(account: int) -> dict[str, str]:
    """Tags with a dimension of the user's own, in which ten accounts are one."""
    return {**tags_of(account), "tenant": f"tenant{account // 10}"}


CROWDS = {
    "100 a group": (100, {}, {}),
    "one a group": (1, {}, {}),
    "an own dimension": (10, {**OWN, "account_max": 0}, {"tags": owned, "dimensions": ("tenant",)}),
}


def work(client: Redis, waiting: int, crowd: str) -> dict[str, list[int]]:
    """Return how many commands calls take while so many wait."""
    each, config, options = CROWDS[crowd]
    client.flushall()
    one = Crowd(client, "concurrency", config, **options)
    groups = waiting // each
    holders = range(0, groups, 10 if crowd == "an own dimension" else 1)
    one.hold(iter(holders))
    one.park(account for account in range(groups) for _ in range(each))
    taken: dict[str, list[int]] = {"park": [], "release": [], "cancel": [], "sweep": []}
    # First, middle and last.
    for account in (holders[0], holders[len(holders) // 2], holders[-1]):
        waiter = one.waiter(account)
        facts = json.dumps(one.limiter.waiting_room._facts(waiter))
        count, (outcome, more, _) = counted(
            client, "park", waiter.run, waiter.name, group_of(waiter.limits), waiter.ticket,
            facts, waiter.message, "", STEPS,
        )  # fmt: skip
        assert (outcome, more) == (b"parked", 0)
        taken["park"].append(count)
        count, (cancelled, more, _) = counted(client, "cancel", waiter.task_id, STEPS)
        assert (cancelled, more) == (1, 0)
        taken["cancel"].append(count)
        before = client.llen("bench-queue")
        count, (held, more, _) = counted(
            client, "release", one.holders[account], 0, 7200, "", STEPS
        )
        assert (held, more) == (1, 0)
        assert client.llen("bench-queue") == before + 1
        taken["release"].append(count)
    for _ in range(3):
        count, _ = counted(client, "sweep", 0, SWEEP_BATCH, "-1", "-1", "60", STEPS)
        taken["sweep"].append(count)
    return taken


@pytest.mark.parametrize("crowd", CROWDS)
def test_a_call_does_no_more_when_fifty_times_as_many_wait(client, crowd):
    few, many = work(client, FEW, crowd), work(client, MANY, crowd)
    for verb in ("park", "release", "cancel"):
        assert max(many[verb]) <= max(few[verb]) + 2, verb
        assert max(many[verb]) <= 3 * OF_STEP, verb
    assert max(many["sweep"]) <= 5 * SWEEP_BATCH * OF_STEP


def hand_all_over(client: Redis) -> tuple[int, int]:
    """Hand over after a change; return how many calls it took, and the most commands of one."""
    changed, calls, most = 1, 0, 0
    while True:
        count, (more, _) = counted(client, "advance", changed, STEPS)
        changed, calls, most = 0, calls + 1, max(most, count)
        if not more:
            return calls, most
        assert calls < 3 * MANY / STEPS


def test_a_change_that_frees_many_is_done_in_bounded_calls(client):
    """All of them go on in the end: a thousand, and after ``enabled: false`` all others."""
    crowd = Crowd(client, "concurrency", {"global_max": 1})
    crowd.hold(iter([0]))
    crowd.park(iter(range(1, MANY + 1)))
    crowd.limiter.config._changed = lambda: None
    for change, handed in (({"global_max": 1001}, 1000), ({"enabled": False}, MANY)):
        crowd.limiter.config.update(change)
        _, most = hand_all_over(client)
        assert most <= 2 * STEPS * OF_STEP
        assert client.llen("bench-queue") == handed
        assert client.zcard("concurrency:semaphore:global") == handed + 1
    assert not client.exists("concurrency:groups")


def test_two_limits_full_by_turns_cost_each_call_a_bounded_number(limiter, redis, client):
    """Groups that need both are filed anew with each release; in steps, if they are many."""
    limiter.config.update(OWN)
    floor = Floor(limiter, redis)
    held = {"account": floor.hold(account="a"), "tenant": floor.hold(tenant="a")}
    for number in range(200):
        floor.wait(f"task{number}", account="a", tenant="a", platform=str(number))
    for name in ("account", "tenant") * 3:
        count, (_, more, _) = counted(client, "release", held[name], 0, 7200, "", STEPS)
        assert count <= STEPS * OF_STEP
        calls = 0
        while more:
            count, (more, _) = counted(client, "advance", 0, STEPS)
            assert count <= STEPS * OF_STEP
            calls += 1
            assert calls <= 20, "a hand-over without end"
        held[name] = floor.hold(**{name: "a"})
    assert floor.back() == []
    limiter.release(held["account"])
    limiter.release(held["tenant"])
    floor.finish()
    assert len(floor.waiting()) == 199
