"""Promise 14: a call does no more when many wait, and what is more is done in further calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from benchmarks.crowd import PLATFORMS, Crowd, tags_of
from celery_concurrency import scripts
from celery_concurrency.limiter import Denied, Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.waiters import group_of
from celery_concurrency.limiter.waiting_room import STEPS, SWEEP_BATCH
from tests.support.floor import Floor

FEW, MANY = 500, 5_000
#: Redis commands that a step takes at most; the longest ones file a group anew.
OF_STEP = 60
OWN = {"dimensions": {"tenant": {"max": 1}}}
FAIR = {"dimensions": {"tenant": {"max": 1, "fair": True, "weights": {"tenant1": 3}}}}


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


OWNED = {"tags": owned, "dimensions": ("tenant",)}
CROWDS = {
    "100 a group": (100, {}, {}),
    "one a group": (1, {}, {}),
    "a fair dimension": (10, {**FAIR, "account_max": 0}, OWNED),
    "an own dimension": (10, {**OWN, "account_max": 0}, OWNED),
}


def work(client: Redis, waiting: int, crowd: str) -> dict[str, list[int]]:
    """Return how many commands calls take while so many wait."""
    each, config, options = CROWDS[crowd]
    client.flushall()
    one = Crowd(client, "concurrency", config, **options)
    groups = waiting // each
    holders = range(0, groups, 10 if "dimension" in crowd else 1)
    one.hold(iter(holders))
    one.park(account for account in range(groups) for _ in range(each))
    taken: dict[str, list[int]] = {"park": [], "release": [], "cancel": [], "sweep": []}
    # First, middle and last.
    for account in (holders[0], holders[len(holders) // 2], holders[-1]):
        waiter = one.waiter(account)
        facts = one.limiter.waiting_room._facts(waiter)
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
def test_a_call_does_no_more_when_ten_times_as_many_wait(client, crowd):
    few, many = work(client, FEW, crowd), work(client, MANY, crowd)
    for verb in ("park", "release", "cancel"):
        assert max(many[verb]) <= max(few[verb]) + 2, verb
        assert max(many[verb]) <= (4 if "fair" in crowd else 3) * OF_STEP, verb
    assert max(many["sweep"]) <= 5 * SWEEP_BATCH * OF_STEP


def timed_crowd(client: Redis, waiting: int) -> Crowd:
    """Let so many wait, each for its account, which may begin once a day and has begun."""
    client.flushall()
    rates = {"account:*": [{"max": 1, "per": 86_400}]}
    one = Crowd(client, "concurrency", {"rates": rates, "account_max": 0})
    one.hold(iter(range(waiting)))
    one.park(iter(range(waiting)))
    assert client.zcard("concurrency:moments") == waiting
    return one


def timed_work(client: Redis, waiting: int) -> dict[str, list[int]]:
    """Return how many commands calls take while so many wait for a moment."""
    one = timed_crowd(client, waiting)
    taken: dict[str, list[int]] = {}
    for account in (0, waiting // 2, waiting - 1):
        limit = f"account:{tags_of(account)['account']}"
        calls = {
            "release": ("release", one.holders[account], 0, 7200, "", STEPS),
            "cool": ("cool", limit, "60", f"a{account}", "a reason", "ann", STEPS),
            "lift": ("cool", limit, "0", f"b{account}", "", "", STEPS),
            "advance": ("advance", 0, STEPS),
        }
        for name, (verb, *args) in calls.items():
            if name == "advance":
                # The moment of one of them has come.
                client.delete(f"concurrency:rate:{limit}")
                client.zadd("concurrency:moments", {limit: 1})
            count, reply = counted(client, verb, *args)
            assert not reply[-2], "there is more to do"
            taken.setdefault(name, []).append(count)
        assert client.rpop("bench-queue"), "who waited for it went on"
        assert not client.llen("bench-queue")
    for _ in range(3):
        count, _ = counted(client, "sweep", 0, SWEEP_BATCH, "-1", "-1", "60", STEPS)
        taken.setdefault("sweep", []).append(count)
    return taken


def test_a_call_does_no_more_when_ten_times_as_many_wait_for_a_moment(client):
    few, many = timed_work(client, FEW), timed_work(client, MANY)
    for verb in ("release", "cool", "lift", "advance"):
        assert max(many[verb]) <= max(few[verb]) + 2, verb
        assert max(many[verb]) <= 3 * OF_STEP, verb
    assert max(many["sweep"]) <= 5 * SWEEP_BATCH * OF_STEP


def test_moments_that_come_at_once_are_met_in_bounded_calls(client):
    """Two thousand accounts open at the same moment; so does a platform for which as many wait."""
    waiting = 2_000
    timed_crowd(client, waiting)
    for account in range(waiting):
        limit = f"account:{tags_of(account)['account']}"
        client.zadd("concurrency:moments", {limit: 1})
        client.delete(f"concurrency:rate:{limit}")
    _, most = hand_all_over(client, 0)
    assert most <= 2 * STEPS * OF_STEP
    assert client.llen("bench-queue") == waiting
    assert not client.exists("concurrency:moments")


def test_a_cool_down_that_is_lifted_lets_many_go_on_in_bounded_calls(client):
    waiting = 2_000
    client.flushall()
    crowd = Crowd(client, "concurrency", {"account_max": 0})
    for platform in PLATFORMS:
        crowd.limiter.cooldowns.set(f"platform:{platform}", 3600)
    crowd.park(iter(range(waiting)))
    count, (lifted, more, _) = counted(client, "cool", "platform:douyin", 0, "b", "", "", STEPS)
    assert lifted
    assert more
    _, most = hand_all_over(client, 0)
    assert max(count, most) <= 2 * STEPS * OF_STEP
    assert client.llen("bench-queue") == waiting // len(PLATFORMS)


def test_cool_downs_that_end_at_once_are_taken_out_in_bounded_calls(client):
    client.flushall()
    Limiter(client).config.sync()
    client.zadd("concurrency:cooldowns", {f"account:a{number}": 1 for number in range(1_000)})
    left, more = 1_000, 1
    while more:
        args = (0, SWEEP_BATCH, 1, 10, 60, STEPS)
        _, more, _ = scripts.call(client, "sweep", "concurrency", *args).reply[1:]
        before, left = left, client.zcard("concurrency:cooldowns")
        assert before - left <= SWEEP_BATCH
    assert left == 0


def test_no_newcomer_passes_who_waits_for_one_of_many_cool_downs_that_end_at_once(redis, limiter):
    """A sweep meets some of their moments only, and those that it has not met count on."""
    floor = Floor(limiter, redis)
    limiter.config.update({"account_max": 1})
    accounts = [f"a{number:02}" for number in range(40)]
    for account in accounts:
        limiter.cooldowns.set(f"account:{account}", 100)
        floor.wait(account, account=account, platform="p")
    floor.age(100)
    scripts.call(limiter.redis, "sweep", "concurrency", 0, SWEEP_BATCH, 1, 10, 60, STEPS)
    assert 0 < redis.zcard("concurrency:moments") < len(accounts)
    for account in accounts:
        assert isinstance(floor.ask("new", account=account), Denied), account


def hand_all_over(client: Redis, changed: int = 1) -> tuple[int, int]:
    """Hand over, after a change; return how many calls it took, and the most commands of one."""
    calls, most = 0, 0
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
