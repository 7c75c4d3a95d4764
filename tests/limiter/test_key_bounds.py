"""What each key of the key reference may grow to, where names come from outside.

100,000 names are put into each: the product trims it, or it holds no more than what lives or
waits, or what the configuration says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import pytest
from redis import Redis

from benchmarks.crowd import TRIP, Crowd
from celery_concurrency import scripts
from celery_concurrency.errors import InvalidConfig
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.actions import KEPT, note_action
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.config.schema import MAX_JSON_BYTES
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.stats.backlog import LIMITS_MOST, SAMPLES_KEPT, sample_backlog
from celery_concurrency.limiter.stats.counters import SNAPSHOTS_KEPT
from celery_concurrency.limiter.stats.durations import BOUNDS as BUCKETS
from celery_concurrency.limiter.stats.durations import KEPT_SECONDS
from celery_concurrency.limiter.stats.misnamed import MISNAMED_MOST, Misnamed, count_misnamed
from celery_concurrency.limiter.waiting_room import STEPS
from celery_concurrency.limiter.workers import WorkerFacts
from celery_concurrency.scripts.constants import BY_LIMIT, NAMED_MOST, SHARED_DIMENSIONS, TOTALS

MANY: Final = 100_000
#: Runs and waiters: each takes several calls to come and to go.
LIVING: Final = 3_000
#: Names that there is room for, and all that statistics have besides: totals, and the others.
NAMES: Final = 2 * NAMED_MOST
BESIDES: Final = len(TOTALS) + len(BY_LIMIT) * len(SHARED_DIMENSIONS)

#: Each key of the reference, and what bounds it: the size of the ``configuration``; a ``trim``
#: in which the product takes out what is too much; the runs that ``live`` and messages that
#: ``wait``, after whose end nothing is left but marks that expire; a time after which it
#: ``expires``; or it is ``one`` value.
BOUNDS: Final = {
    "config": "configuration",
    "config:flat": "configuration",
    "config:rates": "configuration",
    "config:observed": "configuration",
    "config:adaptive": "configuration",
    "config:shares": "configuration",
    "config:bounds": "configuration",
    "config:version": "one",
    "config:history": "configuration",
    "config:defaults": "configuration",
    "actions": "trim",
    "semaphore:<limit>": "live",
    "rate:<limit>": "expires",
    "cooldowns": "expires",
    "cooldown:<limit>": "expires",
    "cooled:<call>": "expires",
    "observed:<kind> <entry>": "configuration",
    "observed:starts:<limit>": "expires",
    "observed:undecided:<limit>": "expires",
    "observed:ended:<limit>": "expires",
    "observed:running:<limit>": "live",
    "observed:places:<limit>": "expires",
    "probes": "expires",
    "refused:<token>": "expires",
    "adaptive": "expires",
    "adaptive:<limit>": "expires",
    "moves:<limit>": "expires",
    "adaptive:unlogged": "trim",
    "adaptive:history": "expires",
    "leases": "live",
    "workers": "live",
    "worker:<worker>": "live",
    "token:<token>": "live",
    "stats:counters": "trim",
    "stats:named": "trim",
    "stats:copied": "trim",
    "stats:misnamed": "trim",
    "stats:backlog": "trim",
    "stats:trimmed": "one",
    "stats:history": "trim",
    "stats:ended": "trim",
    "stats:times": "trim",
    "stats:times:<start>": "trim",
    "sweep:next": "one",
    "sweep:grace": "one",
    "epoch": "one",
    "fence": "one",
    "groups": "live",
    "group:<group>": "live",
    "waiter:<waiter>": "live",
    "names": "live",
    "retried:<task id>": "live",
    "expiring": "live",
    "newest": "live",
    "ticket": "one",
    "waiting": "live",
    "waiting:<limit>": "live",
    "waiting:walk": "one",
    "reserved:<group>": "live",
    "reservations": "live",
    "begun:<run>": "live",
    "collecting": "live",
    "collecting:cursor": "one",
    "outbox": "live",
    "outbox:<number>": "live",
    "outbox:number": "one",
    "call:<id>": "live",
    "open": "live",
    "flows:<class>": "live",
    "served:<class>": "live",
    "turns": "live",
    "ready:<flow>": "live",
    "bucket:<flow><own limit>": "live",
    "shut:<limit>": "live",
    "heavy:<weight>:<limit>": "live",
    "weights:<limit>": "live",
    "moments": "live",
    "moments:watched": "one",
    "blocked:shared": "live",
    "blocked:own": "live",
    "freed": "live",
    "recheck": "one",
}


def test_each_key_of_the_reference_is_considered() -> None:
    """A new key is to be given a bound here, and a test that fills it."""
    text = (Path(__file__).parents[2] / "docs" / "redis-keys.md").read_text("utf-8")
    cells = re.findall(r"^\| (`concurrency:.*?) \|", text, re.MULTILINE)
    listed = [key for cell in cells for key in re.findall(r"`concurrency:(.*?)`", cell)]
    assert len(listed) == len(set(listed))
    assert set(listed) == BOUNDS.keys()
    assert {key for key, bound in BOUNDS.items() if bound == "trim"} == FILLED.keys()


# -- what is trimmed


def counters(redis: Redis, limiter: Limiter) -> None:
    fill(redis, "stats:counters", (f"acquired:platform:{n}" for n in range(MANY)))
    assert redis.hlen("concurrency:stats:counters") == MANY
    trim(limiter)
    assert redis.hlen("concurrency:stats:counters") <= len(BY_LIMIT) * NAMES + BESIDES


def named(redis: Redis, limiter: Limiter) -> None:
    for some in range(0, MANY, 1000):
        names = {f"platform:{number}": 1 for number in range(some, some + 1000)}
        redis.zadd("concurrency:stats:named", names)
    calls = 0
    while redis.zcard("concurrency:stats:named") > NAMES:
        redis.delete("concurrency:stats:history")  # a minute is over
        limiter.stats.snapshot()
        calls += 1
        assert calls <= MANY / 1000


def copied(redis: Redis, limiter: Limiter) -> None:
    fill(redis, "stats:copied", (f"acquired:platform:{n}" for n in range(MANY)))
    limiter.stats.snapshot()  # the first of an hour
    assert redis.hlen("concurrency:stats:copied") <= len(BY_LIMIT) * NAMES + BESIDES


#: So many copies, a minute after each other.
MINUTES: Final = """
for minute = tonumber(ARGV[1]), 1, -1 do
  local id = string.format('%d000-0', ARGV[2] - 60 * minute)
  redis.call('XADD', KEYS[1], id, 'changed', '{}')
end
"""


def history(redis: Redis, limiter: Limiter) -> None:
    large = json.dumps({f"acquired:platform:{n}": "1" for n in range(MANY)})
    now = redis.time()[0]
    for minute in range(9, 0, -1):
        redis.xadd("concurrency:stats:history", {"counters": large}, id=f"{now - 60 * minute}000-0")
    limiter.stats.snapshot()
    assert redis.xlen("concurrency:stats:history") == 1
    redis.delete("concurrency:stats:history")
    redis.eval(MINUTES, 1, "concurrency:stats:history", MANY, now)
    for _ in range(MANY // 10_000):  # which is what one copy takes out at most
        assert limiter.stats.snapshot()
        [(newest, _)] = redis.xrevrange("concurrency:stats:history", count=1)
        redis.xdel("concurrency:stats:history", newest)  # a minute is over
    assert redis.xlen("concurrency:stats:history") < SNAPSHOTS_KEPT + 200  # whole nodes


def ended(redis: Redis, limiter: Limiter) -> None:
    for some in range(0, MANY, 1000):
        lines = (f'1 2 3 ["global", "platform:{n}"]' for n in range(some, some + 1000))
        redis.rpush("concurrency:stats:ended", *lines)
    redis.ltrim("concurrency:stats:ended", -20_000, -1)
    limiter.try_acquire("a", {})
    limiter.release("a")
    assert redis.llen("concurrency:stats:ended") == 20_000
    while limiter.durations.tally():
        pass
    assert not redis.exists("concurrency:stats:ended")
    assert redis.hlen("concurrency:stats:times") <= 4 * (NAMED_MOST + 1 + len(SHARED_DIMENSIONS))


def times(redis: Redis, limiter: Limiter) -> None:
    fields = (f"{kind} 0 platform:{n}" for n in range(MANY) for kind in ("wait", "hold"))
    fill(redis, "stats:times", fields)
    trim(limiter)
    assert redis.hlen("concurrency:stats:times") <= 2 * NAMES * (len(BUCKETS) + 2)


def times_of_an_interval(redis: Redis, limiter: Limiter) -> None:
    """It holds those that a tally found a name for, and is gone after a day."""
    ended(redis, limiter)
    keys = redis.keys("concurrency:stats:times:*")
    assert 1 <= len(keys) <= 2  # an interval may end between two calls
    for key in keys:
        assert redis.hlen(key) <= 4 * (NAMED_MOST + 1 + len(SHARED_DIMENSIONS))
        assert 0 < redis.ttl(key) <= KEPT_SECONDS + 300


def unlogged(redis: Redis, limiter: Limiter) -> None:
    limiter.config.update({"adaptive": {"global": {"min": 1, "max": 9, "every": 1}}})
    redis.rpush("concurrency:adaptive:unlogged", *["{}"] * 5_000)
    limiter.refuse("one:1", ("global",), "global", 0)
    assert redis.llen("concurrency:adaptive:unlogged") == 1_000


def backlog(redis: Redis, limiter: Limiter) -> None:
    """A sample a minute for an hour, each of so many limits."""
    limiter.config.update({"account_max": 1})
    for number in range(2 * LIMITS_MOST):
        redis.zadd("concurrency:groups", {f'["global", "account:a{number}"]': number})
        redis.zadd(f'concurrency:group:["global", "account:a{number}"]', {"w": number})
    for _ in range(SAMPLES_KEPT + 9):
        sample_backlog(limiter.keyspace)
    samples = redis.xrange("concurrency:stats:backlog")
    assert len(samples) == SAMPLES_KEPT
    assert {len(json.loads(fields["waiting"])) for _, fields in samples} == {LIMITS_MOST}


def misnamed(redis: Redis, limiter: Limiter) -> None:
    counts = {Misnamed(f"task{n}", "platfrom", "platform"): 1 for n in range(1_000)}
    for _ in range(3):
        count_misnamed(limiter.keyspace, counts)
    assert redis.zcard("concurrency:stats:misnamed") == MISNAMED_MOST
    assert redis.ttl("concurrency:stats:misnamed") > 0


def actions(redis: Redis, limiter: Limiter) -> None:
    for number in range(KEPT + 20):
        note_action(limiter.keyspace, Author("api", "ann"), "cancelled", f"{number}" * 100)
    assert redis.xlen("concurrency:actions") == KEPT


FILLED: Final[dict[str, Callable[[Redis, Limiter], None]]] = {
    "adaptive:unlogged": unlogged,
    "stats:counters": counters,
    "stats:named": named,
    "stats:misnamed": misnamed,
    "stats:backlog": backlog,
    "actions": actions,
    "stats:copied": copied,
    "stats:history": history,
    "stats:ended": ended,
    "stats:times": times,
    "stats:times:<start>": times_of_an_interval,
}


def fill(redis: Redis, name: str, fields: Iterator[str]) -> None:
    while some := list(islice(fields, 10_000)):
        redis.hset(f"concurrency:{name}", mapping=dict.fromkeys(some, 1))


def trim(limiter: Limiter) -> None:
    steps = 0
    while not scripts.call(limiter.redis, "trim", "concurrency", 500).reply:
        steps += 1
        assert steps < 10 * MANY / 500, "a walk without end"


@pytest.mark.parametrize("key", FILLED)
def test_it_is_trimmed(limiter: Limiter, redis: Redis, key: str) -> None:
    FILLED[key](redis, limiter)


# -- what the configuration bounds


def test_rates_have_a_size(limiter: Limiter, redis: Redis) -> None:
    many = {f"platform:tenant-{number:07}": [{"max": 1, "per": 1}] for number in range(MANY)}
    with pytest.raises(InvalidConfig, match="longer than"):
        limiter.config.update({"rates": many})
    fitting = dict(list(many.items())[:15_000])
    limiter.config.update({"rates": fitting})
    assert redis.strlen("concurrency:config") <= MAX_JSON_BYTES
    assert redis.hlen("concurrency:config:rates") == len(fitting)
    limiter.config.update({"rates": dict.fromkeys(fitting)})
    assert not redis.exists("concurrency:config:rates")


def test_a_configuration_has_a_size(limiter: Limiter, redis: Redis) -> None:
    many = {f"tenant-{number:07}": 1 for number in range(MANY)}
    with pytest.raises(InvalidConfig, match="longer than"):
        limiter.config.update({"platform_max": many})
    redis.set("concurrency:config", json.dumps({"platform_max": many}))
    assert "longer than" in (limiter.config.sync().problem or "")
    fitting = dict(list(many.items())[:45_000])
    for change in range(9):
        limiter.config.update({"platform_max": fitting, "account_max": change})
    assert redis.strlen("concurrency:config") <= MAX_JSON_BYTES
    assert redis.hlen("concurrency:config:flat") <= MAX_JSON_BYTES / 10
    copies = redis.xrange("concurrency:config:history")
    assert sum(len(copy["json"]) for _, copy in copies) <= 8 * MAX_JSON_BYTES
    with pytest.raises(InvalidConfig, match="longer than"):
        Limiter(limiter.redis, "other", {"platform_max": many}).config.sync()


def test_observations_are_as_many_as_the_configuration_names(
    limiter: Limiter, redis: Redis
) -> None:
    """One for all names of a wildcard; none is left when they are in force."""
    observed = {"max": 1, "mode": "observe"}
    limiter.config.update({"account_max": observed, "platform_max": {"*": observed}})
    for number in range(1000):
        limiter.try_acquire(f"t{number}", tags_of(number))
    counts = [key for key in redis.keys("concurrency:observed:*") if ":max " in key]
    assert sorted(counts) == [
        f"concurrency:observed:max {entry}" for entry in ("account:*", "platform:*")
    ]
    assert redis.hlen("concurrency:config:observed") < 20
    limiter.config.update({"account_max": 1, "platform_max": {"*": 1}})
    assert not redis.exists(*counts, "concurrency:config:observed")


# -- what expires


def test_what_is_observed_of_a_name_is_gone_a_day_after_its_last_run(
    limiter: Limiter, redis: Redis
) -> None:
    rate = {"max": 3, "per": 100, "mode": "observe"}
    limiter.config.update(
        {"account_max": {"max": 2, "mode": "observe"}, "rates": {"account:*": [rate]}}
    )
    for number in range(100):
        limiter.try_acquire(f"t{number}", {"account": "a"})
    for number in range(99, 49, -1):  # those behind whom nobody's start is known yet
        limiter.release(f"t{number}")
    state = {key: redis.ttl(key) for key in redis.keys("concurrency:observed:*:account:a")}
    assert len(state) == 4
    starts = state.pop("concurrency:observed:starts:account:a")
    assert redis.zcard("concurrency:observed:starts:account:a") == 3
    assert 0 < starts <= 86_400 + 101
    assert all(0 < seconds <= 86_400 for seconds in state.values())
    for number in range(50):
        limiter.release(f"t{number}")
    for number in range(100, 104):
        limiter.try_acquire(f"t{number}", {"account": "a"})
        limiter.release(f"t{number}")
    assert redis.zcard("concurrency:observed:places:account:a") <= 2
    assert not redis.exists("concurrency:observed:undecided:account:a")


def test_starts_are_no_more_than_a_rate_allows_and_gone_after_its_window(
    limiter: Limiter, redis: Redis
) -> None:
    rates = [{"max": 3, "per": 100}, {"max": 10, "per": 50}]
    limiter.config.update({"enabled": False, "account_max": 0, "rates": {"account:*": rates}})
    for number in range(100):
        token = f"t{number}"
        limiter.try_acquire(token, {"account": "a"})
        limiter.release(token)
    assert redis.zcard("concurrency:rate:account:a") == 10
    assert 50 < redis.ttl("concurrency:rate:account:a") <= 101


def test_cool_downs_are_gone_after_their_end(limiter: Limiter, redis: Redis) -> None:
    for number in range(1000):
        limiter.cooldowns.set(f"account:a{number}", 60, "x" * 200, "x" * 200)
    limiter.cooldowns.lift("account:a0")
    assert redis.zcard("concurrency:cooldowns") == 999
    assert not redis.exists("concurrency:cooldown:account:a0")
    assert 0 < redis.ttl("concurrency:cooldown:account:a999") <= 61
    calls = redis.keys("concurrency:cooled:*")
    assert len(calls) == 1001
    assert all(0 < redis.ttl(call) <= 600 for call in calls)
    members = redis.zrange("concurrency:cooldowns", 0, -1)
    redis.zadd("concurrency:cooldowns", dict.fromkeys(members, 1))
    limiter.waiting_room.sweep(now=True)
    assert not redis.exists("concurrency:cooldowns")


def test_refusals_and_what_they_moved_are_gone_after_their_time(
    limiter: Limiter, redis: Redis
) -> None:
    entry = {"min": 1, "max": 1_000_000, "every": 1}
    limiter.config.update({"adaptive": {"account:*": entry}, "account_max": 0})
    for number in range(100):
        account = f"account:a{number}"
        limiter.refuse(f"t{number}:1", ("global", account), account, 60, reason="x" * 200)
    for limit in ("account:a0", "account:a99"):
        for key, most in (
            (f"refused:t{limit[9:]}:1", 600),
            (f"cooldown:{limit}", 86_461),
            (f"adaptive:{limit}", 7 * 86_400),
            (f"moves:{limit}", 86_400),
        ):
            assert most - 60 < redis.ttl(f"concurrency:{key}") <= most, key
    # A day after its end a probation is over, and a week after it moved a limit is not listed.
    for key in ("probes", "adaptive"):
        members = redis.zrange(f"concurrency:{key}", 0, -1)
        assert len(members) == 100
        redis.zadd(f"concurrency:{key}", dict.fromkeys(members, 1))
    limiter.waiting_room.sweep(now=True)
    limiter.waiting_room.sweep(now=True)
    assert not redis.exists("concurrency:probes")
    for number in range(50):
        limiter.refuse(f"last{number}:1", ("global", f"account:x{number}"), "global", 0)
    assert redis.zcard("concurrency:adaptive") == 50


def test_a_limit_that_moves_all_the_time_keeps_its_last_moves(
    limiter: Limiter, redis: Redis
) -> None:
    entry = {"min": 1, "max": 1_000_000, "decrease": 0.99, "every": 1}
    limiter.config.update({"adaptive": {"global": entry}})
    for number in range(1600):
        redis.hdel("concurrency:adaptive:global", "fell", "max")
        limiter.refuse(f"t{number}:1", ("global",), "global", 0)
    assert redis.xlen("concurrency:moves:global") == 1500
    assert len(limiter.adaptive.moves("global")) == 1500


def test_what_adaptive_limits_did_is_kept_for_a_day(limiter: Limiter, redis: Redis) -> None:
    limiter.config.update({"adaptive": {"global": {"min": 1, "max": 5}}})
    old = int((redis.time()[0] - 86_500) * 1000)
    for number in range(100):
        redis.xadd("concurrency:adaptive:history", {"states": "{}"}, id=f"{old}-{number + 1}")
    assert limiter.stats.snapshot()
    assert redis.xlen("concurrency:adaptive:history") == 1


def test_nobody_watches_for_long(limiter: Limiter, redis: Redis) -> None:
    assert limiter.waiting_room.watch_moments("w1")
    # It may be over by now: then there is no such key.
    assert redis.ttl("concurrency:moments:watched") in (-2, 0, 1, 2, 3)


# -- what lives and waits


def tags_of(number: int) -> dict[str, str]:
    """All names are different, and two runs share none; every other run has two own limits."""
    tags = {"platform": f"p{number}", "account": f"a{number}", "type": f"t{number}"}
    return {**tags, "tenant": f"n{number}"} if number % 2 else tags


@pytest.mark.timeout(900)
def test_of_what_lived_and_waited_nothing_is_left(redis: Redis, redis_url: str) -> None:
    client = connect(redis_url)
    config = {"dimensions": {"tenant": {"max": 1}}}
    crowd = Crowd(client, "concurrency", config, tags=tags_of, dimensions=("tenant",))
    crowd.hold(iter(range(LIVING)))
    assert redis.zcard("concurrency:leases") == LIVING
    crowd.park(iter(range(LIVING)))
    assert redis.zcard("concurrency:groups") == LIVING
    for number in range(1000):  # that were killed, each under a name of its own
        crowd.limiter.leases.beat([], 5, WorkerFacts(f"w{number}@h", "1", "prefork", 4))
    redis.zadd("concurrency:workers", {f"w{number}@h": 1 for number in range(1000)})
    seen = {kind_of(key) for key in redis.scan_iter("concurrency:*", count=10_000)}
    # Some go on with the room that others leave, the rest is given back to the broker.
    for number in range(500):
        crowd.limiter.release(crowd.holders[number])
        crowd.take_over(number)
    assert sum(crowd.limiter.waiting_room.drain()) == LIVING - 500
    release_all(client, crowd)
    sweeps = 0
    while redis.exists("concurrency:blocked:own", "concurrency:blocked:shared"):
        crowd.limiter.waiting_room.sweep(now=True)
        sweeps += 1
        assert sweeps < 100, "limits that nobody waits for are looked at for ever"
    left = list(redis.scan_iter("concurrency:*", count=10_000))
    assert seen > {
        "worker:<worker>",
        "semaphore:<limit>",
        "bucket:<flow><own limit>",
        "shut:<limit>",
    }
    for key in left:
        bound = BOUNDS[kind_of(key)]
        if bound == "live":
            assert redis.ttl(key) > 0, key
        elif bound == "one":
            assert redis.strlen(key) < 100
    client.close()


def release_all(client: Redis, crowd: Crowd) -> None:
    client.script_load(scripts.source("release"))
    tokens = list(crowd.holders.values())
    for first in range(0, len(tokens), TRIP):
        pipe = client.pipeline(transaction=False)
        for token in tokens[first : first + TRIP]:
            crowd.call(pipe, "release", token, 0, 7200, "", STEPS)
        pipe.execute()


def kind_of(key: str) -> str:
    """Return the key of the reference that this one is an example of."""
    name = key.removeprefix("concurrency:")
    if name in BOUNDS:
        return name
    [kind] = {one for one in BOUNDS if "<" in one and name.startswith(one.partition("<")[0])}
    return kind
