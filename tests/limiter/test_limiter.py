"""The limiter by itself: each case by name, which the model test finds only by chance."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError

from celery_concurrency import scripts
from celery_concurrency.errors import InvalidTag, LimiterUnavailable
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.acquire_arguments import arguments
from celery_concurrency.limiter.client import Client
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.outcomes import Denied, Granted
from celery_concurrency.testing.server import Server
from tests.support.patience import impatient
from tests.support.workers import settle, wait_for

ACCOUNT = {"account": "acc1"}


def acquire_raw(limiter: Limiter, token: str) -> Any:
    """Send an acquire for ``account:acc1`` as it is; a late copy of one looks the same."""
    args = arguments(("global", "account:acc1"), task="t", worker="w")
    return scripts.call(limiter.redis, "acquire", "concurrency", token, *args)[0]


def first_held_up(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> Callable[[], Any]:
    """Let the next call of a script end in this error, unsent; return what sends it, late."""
    evalsha, late = limiter.redis.evalsha, []

    def held_up(*call: Any) -> Any:
        if not late:
            late.append(call)
            raise error
        return evalsha(*call)

    monkeypatch.setattr(limiter.redis, "evalsha", held_up)
    return lambda: evalsha(*late[0])


def lapse(redis: Redis, token: str, *limits: str) -> None:
    """Let a token's time be over."""
    redis.zadd("concurrency:leases", {token: 1}, xx=True)
    for limit in limits:
        redis.zadd(f"concurrency:semaphore:{limit}", {token: 1}, xx=True)


def test_the_keys_are_the_seeds(limiter: Limiter, redis: Redis) -> None:
    """Names, types and values as the seed's diagram has them."""
    tags = {"platform": "douyin", "account": "acc123", "type": "publish"}
    before = redis.time()[0]
    answer = limiter.try_acquire("task-1:run", tags, task="proj.publish", worker="w@h")
    assert isinstance(answer, Granted)
    after = redis.time()[0]
    for limit in ("global", "platform:douyin", "account:acc123", "task_type:publish"):
        members = redis.zrange(f"concurrency:semaphore:{limit}", 0, -1, withscores=True)
        assert [name for name, _ in members] == ["task-1:run"]
        assert members[0][1] == answer.expiry
        assert before + 300 <= members[0][1] <= after + 301
    assert json.loads(redis.get("concurrency:config") or "")["account_max"] == 1
    limiter.release("task-1:run")
    assert redis.hgetall("concurrency:stats:counters") == {
        "acquired:total": "1",
        "acquired:platform:douyin": "1",
        "acquired:task_type:publish": "1",
        "released:total": "1",
    }
    assert not list(redis.scan_iter("concurrency:semaphore:*"))


def test_no_key_of_ours_is_outside_the_prefix(redis_url: str, redis: Redis) -> None:
    """A hash tag in the prefix keeps all in one cluster slot."""
    redis.flushall()
    settle(redis, "{own}")
    limiter = Limiter(connect(redis_url), "{own}")
    limiter.try_acquire("t:1", {"platform": "x", "account": "a"})
    limiter.stats.snapshot()
    limiter.usage()
    limiter.config.reset()
    keys = list(redis.scan_iter("*"))
    assert keys
    assert [key for key in keys if not key.startswith("{own}:")] == []


def test_a_denied_run_names_the_limit_and_holds_nothing(limiter: Limiter, redis: Redis) -> None:
    limiter.config.update({"platform_max": {"douyin": 2}})
    for number in range(2):
        limiter.try_acquire(f"t:{number}", {"platform": "douyin", "account": number})
    answer = limiter.try_acquire("t:2", {"platform": "douyin", "account": "free"})
    assert isinstance(answer, Denied)
    assert (answer.limit, answer.held, answer.max) == ("platform:douyin", 2, 2)
    assert str(answer) == "platform:douyin (2 of 2)"
    assert redis.zcard("concurrency:semaphore:global") == 2
    assert not redis.exists("concurrency:semaphore:account:free", "concurrency:token:t:2")


@pytest.mark.parametrize("limit", ["global", "platform:douyin", "account:acc1", "tenant:t1"])
def test_a_paused_limit_admits_nobody_and_touches_nobody(limiter: Limiter, limit: str) -> None:
    limiter.config.update({"dimensions": {"tenant": {}}, "account_max": 0})
    tags = {"platform": "douyin", "account": "acc1", "tenant": "t1"}
    assert isinstance(limiter.try_acquire("t:1", tags), Granted)
    limiter.config.update({"paused": [limit]})
    answer = limiter.try_acquire("t:2", tags)
    assert isinstance(answer, Denied)
    assert str(answer) == f"{limit} (paused, 1 run)"
    assert limiter.usage().global_.current == 1
    limiter.config.update({"paused": []})
    assert isinstance(limiter.try_acquire("t:2", tags), Granted)


def test_an_unlisted_name_has_the_wildcards_limit(limiter: Limiter) -> None:
    limiter.config.update({"platform_max": {"*": 1, "douyin": 2}})
    assert isinstance(limiter.try_acquire("t:1", {"platform": "new"}), Granted)
    assert isinstance(limiter.try_acquire("t:2", {"platform": "other"}), Granted)
    assert isinstance(limiter.try_acquire("t:3", {"platform": "new"}), Denied)
    assert isinstance(limiter.try_acquire("t:4", {"platform": "douyin"}), Granted)
    assert isinstance(limiter.try_acquire("t:5", {"platform": "douyin"}), Granted)
    assert isinstance(limiter.try_acquire("t:6", {"platform": "douyin"}), Denied)


def test_disabled_admits_everybody_and_goes_on_counting(limiter: Limiter) -> None:
    limiter.try_acquire("t:1", ACCOUNT)
    limiter.config.update({"enabled": False, "paused": ["global"]})
    assert isinstance(limiter.try_acquire("t:2", ACCOUNT), Granted)
    assert limiter.usage().accounts["acc1"].current == 2
    assert limiter.stats.window("total")["acquired:total"] == 2
    limiter.config.update({"enabled": True})
    assert isinstance(limiter.try_acquire("t:3", ACCOUNT), Denied)


def test_a_dimension_of_ones_own_counts_from_the_next_call_on(limiter: Limiter) -> None:
    tags = {"tenant": "t1"}
    assert limiter.try_acquire("t:0", tags).limits == ("global",)
    limiter.config.update({"dimensions": {"tenant": {"max": 1, "overrides": {"big": 2}}}})
    assert limiter.try_acquire("t:1", tags).limits == ("global", "tenant:t1")
    assert isinstance(limiter.try_acquire("t:2", tags), Denied)
    assert limiter.usage().to_dict()["dimensions"] == {"tenant": {"t1": {"current": 1, "max": 1}}}


def test_a_tag_that_names_no_limit_is_refused(limiter: Limiter, redis: Redis) -> None:
    with pytest.raises(InvalidTag, match="'account'"):
        limiter.try_acquire("t:1", {"account": ""})
    assert not redis.exists("concurrency:semaphore:global")


def test_a_run_is_not_its_task(limiter: Limiter) -> None:
    """A redelivery is another run: it neither shares the first one's token nor ends it."""
    assert isinstance(limiter.try_acquire("task:run1", ACCOUNT), Granted)
    assert isinstance(limiter.try_acquire("task:run2", ACCOUNT), Denied)
    assert limiter.release("task:run2") is False
    assert limiter.usage().accounts["acc1"].current == 1


def test_a_release_after_an_operators_del_copes(limiter: Limiter, redis: Redis) -> None:
    limiter.try_acquire("t:1", ACCOUNT)
    redis.delete("concurrency:semaphore:account:acc1")
    assert isinstance(limiter.try_acquire("t:2", ACCOUNT), Granted)
    assert limiter.release("t:1") is True
    assert redis.zrange("concurrency:semaphore:account:acc1", 0, -1) == ["t:2"]


def test_an_expired_holder_is_in_nobodys_way_from_the_next_sweep_on(
    limiter: Limiter, redis: Redis
) -> None:
    limiter.try_acquire("t:1", ACCOUNT)
    lapse(redis, "t:1", "global", "account:acc1")
    assert "acc1" not in limiter.usage().accounts
    assert isinstance(limiter.try_acquire("t:2", ACCOUNT), Denied)
    assert limiter.waiting_room.sweep(now=True) == 1
    assert isinstance(limiter.try_acquire("t:2", ACCOUNT), Granted)
    assert limiter.usage().accounts["acc1"].current == 1
    assert redis.zrange("concurrency:semaphore:account:acc1", 0, -1) == ["t:2"]
    assert limiter.release("t:1") is False
    assert redis.hget("concurrency:stats:counters", "expired:total") == "1"


def test_what_a_silent_worker_held_is_counted_apart(limiter: Limiter, redis: Redis) -> None:
    """Its own time is not over: only nobody says that it lives."""
    limiter.try_acquire("t:1", ACCOUNT, lease=30)
    lapse(redis, "t:1")
    assert limiter.waiting_room.sweep(now=True) == 1
    counters = redis.hgetall("concurrency:stats:counters")
    assert (counters.get("reclaimed:total"), counters.get("expired:total")) == ("1", None)


def test_a_token_really_expires_by_the_servers_clock(limiter: Limiter) -> None:
    limiter.config.update({"timeout": 1})
    limiter.try_acquire("t:1", ACCOUNT)
    assert isinstance(limiter.try_acquire("t:2", ACCOUNT), Denied)
    wait_for(lambda: limiter.waiting_room.sweep(now=True))
    assert isinstance(limiter.try_acquire("t:3", ACCOUNT), Granted)


def test_a_sweep_goes_in_bounded_steps(limiter: Limiter, redis: Redis) -> None:
    limiter.config.update({"account_max": 0})
    for number in range(150):
        limiter.try_acquire(f"t:{number}", ACCOUNT)
        lapse(redis, f"t:{number}", "global", "account:acc1")
    calls = redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert limiter.waiting_room.sweep(now=True) == 150
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] - calls == 3
    assert redis.zcard("concurrency:semaphore:global") == 0


class TestPromise2:
    """A script that arrives again, or late, changes nothing."""

    def test_an_acquire_again_is_granted_again(self, limiter: Limiter, redis: Redis) -> None:
        limiter.config.sync()
        assert acquire_raw(limiter, "t:1") == acquire_raw(limiter, "t:1")
        assert redis.hget("concurrency:stats:counters", "acquired:total") == "1"

    def test_an_acquire_after_its_run_was_given_up(self, limiter: Limiter, redis: Redis) -> None:
        limiter.config.sync()
        limiter._doubtful.add("t:1")
        limiter.release("t:1")
        assert acquire_raw(limiter, "t:1") == [b"ended"]
        assert not redis.exists("concurrency:semaphore:global")
        assert 0 < redis.ttl("concurrency:token:t:1") <= 600

    def test_an_acquire_after_its_time_was_over(self, limiter: Limiter, redis: Redis) -> None:
        limiter.config.sync()
        acquire_raw(limiter, "t:1")
        lapse(redis, "t:1", "global", "account:acc1")
        assert acquire_raw(limiter, "t:1") == [b"ended"]
        limiter.waiting_room.sweep(now=True)
        assert acquire_raw(limiter, "t:1") == [b"ended"]
        assert not redis.exists("concurrency:semaphore:global")

    def test_an_acquire_that_arrives_after_its_run_was_denied(
        self, limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its first copy was held up, the second denied: the first is granted to nobody."""
        limiter.try_acquire("holder:1", ACCOUNT)
        late = first_held_up(limiter, monkeypatch, ConnectionError("no reply"))
        assert isinstance(limiter.try_acquire("t:1", ACCOUNT), Denied)
        limiter.release("holder:1")
        wait_for(lambda: redis.hexists("concurrency:token:t:1", "ended"))
        assert late() == [b"ended"]
        assert not redis.exists("concurrency:semaphore:global")

    def test_an_acquire_that_arrives_when_the_dimensions_are_again_what_it_says(
        self, limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Held up, it knew of a dimension that had gone; its run asked anew and was denied."""
        limiter.config.update({"dimensions": {"tenant": {"max": 1}}})
        limiter.release("x:1" if limiter.try_acquire("x:1", {}) else "")
        limiter.config.update({"dimensions": {"tenant": None}, "paused": ["global"]})
        late = first_held_up(limiter, monkeypatch, ConnectionError("no reply"))
        assert isinstance(limiter.try_acquire("t:1", ACCOUNT), Denied)
        limiter.config.update({"dimensions": {"tenant": {"max": 1}}, "paused": []})
        wait_for(lambda: redis.hexists("concurrency:token:t:1", "ended"))
        assert late() == [b"ended"]

    def test_an_acquire_that_arrives_after_a_time_limit_struck(
        self, limiter: Limiter, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was sent, and its reply never read."""
        limiter.config.sync()
        late = first_held_up(limiter, monkeypatch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            limiter.try_acquire("t:1", ACCOUNT)
        wait_for(lambda: redis.hexists("concurrency:token:t:1", "ended"))
        assert late() == [b"ended"]


def test_scripts_survive_a_script_flush(limiter: Limiter, redis: Redis) -> None:
    limiter.try_acquire("t:1", ACCOUNT)
    redis.script_flush()
    assert limiter.release("t:1") is True


def test_many_threads_share_a_limiter(limiter: Limiter) -> None:
    limiter.config.update({"account_max": 3})
    granted: list[Granted] = []

    def ask(number: int) -> None:
        answer = limiter.try_acquire(f"t:{number}", ACCOUNT)
        if isinstance(answer, Granted):
            granted.append(answer)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(granted) == 3


def test_what_is_released_while_redis_is_away_is_released_when_it_is_back() -> None:
    """And what was asked meanwhile holds nothing for long, wherever its call got stuck."""
    import os
    import signal

    with Server() as server, connect(server.url()) as client:
        settle(client)
        assert isinstance(client, Client)
        limiter = Limiter(client)
        limiter.try_acquire("t:1", ACCOUNT)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with impatient(client, 0.2):
                with pytest.raises(LimiterUnavailable, match="did not answer 3 times"):
                    limiter.release("t:1")
                with pytest.raises(LimiterUnavailable):
                    limiter.try_acquire("t:2", {"account": "acc2"})
        finally:
            os.kill(server.pid, signal.SIGCONT)
        with Redis.from_url(server.url()) as redis:
            wait_for(lambda: not redis.exists("concurrency:semaphore:global"))
            wait_for(lambda: redis.hget("concurrency:token:t:2", "ended"))
            wait_for(lambda: not limiter._later._tokens)
        assert limiter.stats.window("total")["acquired:total"] in (1, 2)


def test_a_run_that_goes_on_without_an_answer_gives_nothing_up(limiter, monkeypatch):
    """A release that is under way when Redis is back would end it, so that nobody counts it."""
    given_up = []
    monkeypatch.setattr(limiter._later, "add", lambda token, *_: given_up.append(token))

    def away(*_):
        raise LimiterUnavailable("away")

    monkeypatch.setattr(limiter.keyspace, "call", away)
    for token, options in (("one:1", {}), ("two:1", {"runs_anyway": True})):
        with pytest.raises(LimiterUnavailable):
            limiter.try_acquire(token, {"account": "a"}, **options)
    assert given_up == ["one:1"]
