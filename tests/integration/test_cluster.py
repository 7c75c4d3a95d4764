"""A Redis Cluster that fails over, and whose slot moves to another node: the limiter follows.

What was written and not yet replicated is lost when a master dies; so the test that kills one
waits for it. A failover in good order loses nothing.
"""

from __future__ import annotations

import json
import threading
import time
import types

import pytest
from celery import Celery
from click.testing import CliRunner

from celery_concurrency.api import create_app
from celery_concurrency.cli import concurrency
from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter import Limiter, cluster
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.outcomes import Denied, Granted
from tests.support.holders import KEY, Holders, direct
from tests.support.recording import by, highest_overlap, read_records
from tests.support.sites import site
from tests.support.workers import wait_for

HEADERS = {"account": "a"}


@pytest.fixture
def limiter(home):
    with connect(home.url) as client:
        yield Limiter(client)


def test_a_worker_goes_on_after_a_failover(home, limiter, server, tmp_path):
    """What runs keeps its token, and the next task waits for its end."""
    env = {"WORKER_TIMEOUT": "5"}
    with site(server, tmp_path, "crashes", db=6, LIMITER_URL=home.url, **env) as one:
        one.start(concurrency=2)
        assert f"all keys begin with {KEY}" in one.output()
        assert "by countdown (a Redis Cluster holds the tokens" in one.output()
        running = one.tasks.stay.apply_async(headers=HEADERS)
        wait_for(one.ran)
        with direct(home) as client:
            [token] = client.zrange(f"{KEY}:semaphore:account:a", 0, -1)
            ends = client.zscore(f"{KEY}:leases", token)
            fence = int(client.get(f"{KEY}:fence"))
        home.kill(KEY)
        waiting = one.tasks.work.apply_async(headers=HEADERS)
        with direct(home) as client:
            wait_for(lambda: client.time()[0] > ends, what="the lease of before is over")
            wait_for(lambda: client.zscore(f"{KEY}:leases", token) > ends)
            assert isinstance(limiter.try_acquire("task:1", HEADERS), Denied)
            one.wait_until_waiting(waiting)
            one.redis.rpush("go on", "1")
            assert running.get(timeout=60) is False
            assert waiting.get(timeout=60) == "done"
            assert int(client.get(f"{KEY}:fence")) > fence
            wait_for(lambda: not client.keys(f"{KEY}:semaphore:*"))
        ids = {running.id, waiting.id}
        runs = [run for run in read_records(one.url) if run.task_id in ids]
        assert len(runs) == 2
        assert highest_overlap(runs) == 1
        assert "keeps running without its tokens" not in one.output()


def test_tasks_go_on_while_their_slot_moves_and_fails_over(home, server, tmp_path):
    """They wait in the cluster, and come back to the broker by the outbox."""
    env = {"WAITING": "handoff", "LIMITER_URL": home.url}
    with site(server, tmp_path, "crashes", db=6, **env) as one:
        one.start(concurrency=4)
        sent = [
            one.tasks.work.apply_async((0.1,), headers={"account": f"a{number % 2}"})
            for number in range(30)
        ]
        wait_for(lambda: len(one.ran()) >= 4)
        home.fail_over(KEY)
        source = home.master_of(KEY)
        before = source.redirected()
        with home.migrating(KEY, home.others(source)[0]):
            # Not for long: a sender that can't confirm leaves the others of its batch for 30 s.
            wait_for(lambda: source.redirected() > before + 5, what="calls are refused")
        assert [result.get(timeout=120) for result in sent] == ["done"] * len(sent)
        runs = read_records(one.url)
        ids = [run.task_id for run in runs if run.task_id in {result.id for result in sent}]
        assert sorted(ids) == sorted(result.id for result in sent)
        for account in by(runs, lambda run: run.headers["account"]).values():
            assert highest_overlap(account) == 1
        with direct(home) as client:
            assert client.exists(f"{KEY}:outbox:number"), "they waited"
            wait_for(lambda: not client.keys(f"{KEY}:semaphore:*"))
            wait_for(lambda: not client.exists(f"{KEY}:outbox", f"{KEY}:groups"))


def test_never_more_hold_a_limit_while_its_slot_moves_and_fails_over(home, refused):
    with Holders(home.url, most=2) as holders:
        holders.hold_while_it_moves(home, refused)
    assert holders.errors == []
    assert holders.most == 2


def test_never_more_hold_a_limit_while_its_slot_moves_at_once(home):
    """As Valkey 9 does it: no client sees a slot of which each of two nodes has a part."""
    with Holders(home.url, most=2) as holders:
        holders.wait_for_turns(20)
        target = home.others(home.master_of(KEY))[0]
        if not home.migrate_at_once(KEY, target):
            pytest.skip("this server can't")
        wait_for(lambda: home.master_of(KEY) is target)
        holders.wait_for_turns(20)
    assert holders.errors == []
    assert holders.most == 2


def test_nothing_is_done_while_the_slot_moves(home, limiter, refused, monkeypatch):
    assert isinstance(limiter.try_acquire("task:1", HEADERS), Granted)
    # Not before: it may have to look for a master that is new since the test before.
    monkeypatch.setattr(cluster, "SERVED_SECONDS", 0.1)
    source = home.master_of(KEY)
    target = home.others(source)[0]
    with home.migrating(KEY, target) as keys:
        for call in (
            lambda: limiter.try_acquire("task:2", HEADERS),
            lambda: limiter.leases.beat({"task:1"}, 60),
            lambda: limiter.waiting_room.sweep(now=True),
            limiter.keyspace.now,
            lambda: limiter.redis.blpop(["{concurrency}:call:1"], timeout=1),
        ):
            refused.clear()
            with pytest.raises(LimiterUnavailable, match="the slot is being moved"):
                call()
            assert refused
        assert source.ask("DBSIZE") + target.ask("DBSIZE") == len(keys)
        monkeypatch.setattr(cluster, "SERVED_SECONDS", 30)
        waits = threading.Thread(target=limiter.release, args=("task:1",))
        refused.clear()
        waits.start()
        wait_for(lambda: len(refused) > 1, what="it is tried again")
    waits.join(30)
    assert isinstance(limiter.try_acquire("task:3", HEADERS), Granted)


def test_the_time_is_that_of_the_node_with_the_keys(home, limiter):
    limiter.keyspace.now()
    source = home.master_of(KEY)
    target = home.others(source)[0]
    with home.migrating(KEY, target):
        pass
    target.ask("CONFIG", "RESETSTAT")
    assert limiter.keyspace.now() == pytest.approx(time.time(), abs=60)
    assert "cmdstat_time" in target.ask("INFO", "commandstats")


def test_faces_show_a_cluster(home, limiter, server):
    app = Celery("faces", broker=server.url(), set_as_current=False)
    app.conf.concurrency_redis_url = home.url
    assert isinstance(limiter.try_acquire("task:1", HEADERS), Granted)
    client = create_app(app).test_client()
    for path in ("health", "usage", "stats", "tokens", "waiting", "config", "cooldowns"):
        answer = client.get(f"/api/v1/concurrency/{path}")
        assert (answer.status_code, answer.json["success"]) == (200, True), path
    answer = client.put("/api/v1/concurrency/config", json={"global_max": 7})
    assert answer.json["data"]["global_max"] == 7, answer.json
    context = types.SimpleNamespace(app=app)
    done = CliRunner().invoke(concurrency, ["usage", "--json"], obj=context)
    assert json.loads(done.stdout)["global"]["max"] == 7, done.output
