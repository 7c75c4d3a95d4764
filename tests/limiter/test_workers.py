"""Who is alive and what each holds: the beats, the reader, and both faces of it."""

from __future__ import annotations

import json
import re

import pytest

from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.inspect import workers as inspect_workers
from celery_concurrency.limiter.inspect.workers import read_workers
from celery_concurrency.limiter.workers import WorkerFacts, forget_worker
from tests.support import scenes
from tests.support.answers import out
from tests.support.waiting import hold, park

WORKERS = "/api/v1/concurrency/workers"
FACTS = WorkerFacts("w1@h", "0.1.0", "prefork", 4, since=1_767_600_951.5, mode="handoff")


@pytest.fixture(autouse=True)
def patient_readers(monkeypatch):
    """Who was heard of just now is alive, however slow the machine is; scenes have it silent."""
    monkeypatch.setattr(inspect_workers, "SILENT_SECONDS", 9)


def by_name(limiter):
    return {one.name: one for one in read_workers(limiter.keyspace).workers}


def test_a_worker_without_tokens_beats_too(limiter, redis):
    limiter.config.sync()
    assert limiter.leases.beat([], 30, FACTS) == set()
    [one] = read_workers(limiter.keyspace).workers
    assert one.model_dump(exclude={"heard", "silent"}) == {
        "name": "w1@h", "kind": "worker", "alive": True, "taken_back_after": 30,
        "since": 1_767_600_951.5, "mode": "handoff", "version": "0.1.0", "pool": "prefork",
        "concurrency": 4, "tokens": 0, "limits": {}, "more_limits": 0,
    }  # fmt: skip
    assert one.heard == pytest.approx(redis.time()[0], abs=60)
    assert 0 <= one.silent < 9


def test_one_call_says_it_all_and_says_it_once(limiter, redis):
    """However many batches its tokens take; and where there are some, it is no call more."""
    limiter.config.sync()
    tokens = [hold(limiter, f"t{number:03}", {}) for number in range(130)]
    limiter.leases.beat(tokens, 30, FACTS)
    redis.config_resetstat()
    limiter.leases.beat(tokens, 30, FACTS)
    stats = redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 3
    assert stats["cmdstat_hset"]["calls"] == 1
    assert redis.zrange("concurrency:workers", 0, -1) == ["w1@h"]
    assert by_name(limiter)["w1@h"].tokens == 130


def test_a_timeout_below_the_workers_own_is_the_one_that_counts(limiter):
    limiter.config.update({"timeout": 7})
    limiter.leases.beat([], 30, FACTS)
    assert by_name(limiter)["w1@h"].taken_back_after == 7


def test_a_silent_worker_is_listed_until_its_tokens_are_taken_back(limiter, redis):
    limiter.config.sync()
    scenes.beat(limiter, "w1@h", silent=12)
    token = hold(limiter, "t1", {"account": "a"})
    one = by_name(limiter)["w1@h"]
    assert (one.alive, one.tokens, one.taken_back_after) == (False, 1, pytest.approx(30))
    assert 12 <= one.silent < 60
    limiter.waiting_room.sweep(now=True)
    assert by_name(limiter)["w1@h"].tokens == 1
    redis.zadd("concurrency:workers", {"w1@h": 1})
    redis.zadd("concurrency:leases", {token: 1})
    # In the time of grace after an outage nobody could beat: nobody is forgotten.
    redis.set("concurrency:sweep:grace", 1)
    limiter.waiting_room.sweep(now=True)
    assert by_name(limiter)["w1@h"].tokens == 1
    redis.delete("concurrency:sweep:grace")
    limiter.waiting_room.sweep(now=True)
    assert by_name(limiter) == {}
    assert not redis.exists("concurrency:worker:w1@h")


def test_one_that_ends_in_good_order_was_never_silent(limiter, redis):
    limiter.config.sync()
    limiter.leases.beat([], 30, FACTS)
    forget_worker(limiter.keyspace, "w1@h")
    forget_worker(limiter.keyspace, "w1@h")
    assert by_name(limiter) == {}
    assert redis.keys("concurrency:worker*") == []


def test_it_is_there_again_after_a_loss_of_data(limiter, redis):
    limiter.config.sync()
    limiter.leases.beat([], 30, FACTS)
    redis.flushall()
    limiter.config.sync()
    limiter.leases.beat([], 30, FACTS)
    assert by_name(limiter)["w1@h"].since == FACTS.since


def test_a_record_of_a_later_version_is_read(limiter, redis):
    """In a rolling update both are there: what is not known here is passed over."""
    limiter.config.sync()
    limiter.leases.beat([], 30, FACTS)
    facts = {**json.loads(redis.hget("concurrency:worker:w1@h", "facts")), "colour": "green"}
    redis.hset("concurrency:worker:w1@h", "facts", json.dumps(facts))
    assert by_name(limiter)["w1@h"].mode == "handoff"


def test_silent_ones_come_first_and_last_those_that_say_nothing(limiter):
    """A program that holds tokens outside of tasks, and a worker of an earlier version."""
    limiter.config.sync()
    scenes.fleet(limiter)
    scenes.beat(limiter, "w9@h", silent=20)
    found = read_workers(limiter.keyspace)
    assert [(one.name, one.kind, one.alive) for one in found.workers] == [
        ("w9@h", "worker", False), ("w3@h", "worker", False),
        ("w1@h", "worker", True), ("w2@h", "worker", True),
        ("4711@h", "program", None), ("w0@h", "worker", None),
    ]  # fmt: skip
    assert (found.total, found.modes) == (6, {"handoff": 1, "retry": 1})
    assert found.versions == {"0.1.0": 1, "0.0.9": 1}  # not that of a silent one


def test_who_holds_outside_of_tasks_is_a_program(limiter):
    with limiter.acquire(account="a"):
        [one] = read_workers(limiter.keyspace).workers
        assert (one.kind, one.tokens, one.limits) == ("program", 1, {"global": 1, "account:a": 1})
        assert re.fullmatch(r"\d+@.+", one.name)


def test_what_one_holds_is_bounded_and_says_so(limiter, monkeypatch):
    monkeypatch.setattr(inspect_workers, "MAX_LIMITS", 3)
    for number in range(3):
        hold(limiter, f"t{number}", {"platform": "douyin", "account": f"a{number}"})
    one = by_name(limiter)["w1@h"]
    assert list(one.limits.items()) == [("global", 3), ("platform:douyin", 3), ("account:a0", 1)]
    assert one.more_limits == 2
    monkeypatch.setattr(inspect_workers, "MAX_TOKENS", 2)
    assert read_workers(limiter.keyspace).unread_tokens == 1


def test_workers_are_listed_up_to_a_bound(limiter, monkeypatch):
    monkeypatch.setattr(inspect_workers, "MAX_LISTED", 2)
    limiter.config.sync()
    for number in range(3):
        scenes.beat(limiter, f"w{number}@h", silent=10 - number)
    found = read_workers(limiter.keyspace)
    assert [one.name for one in found.workers] == ["w0@h", "w1@h"]
    assert (found.total, list(found.notes())[-1]) == (3, "1 more workers are not listed")


def test_a_reservation_has_no_holder(limiter):
    token = hold(limiter, "first", {"account": "a"})
    park(limiter, "second", {"account": "a"})
    limiter.release(token)
    assert read_workers(limiter.keyspace).workers == []


# -- over HTTP, on the command line


def test_over_http(client, limiter):
    limiter.config.sync()
    scenes.fleet(limiter)
    data = client.get(WORKERS).json["data"]
    assert [one["name"] for one in data["workers"]] == ["w3@h", "w1@h", "w2@h", "4711@h", "w0@h"]
    assert data["workers"][0]["alive"] is False
    # What one of them holds.
    token = hold(limiter, "t1", {"account": "a"})
    tokens = client.get("/api/v1/concurrency/tokens?worker=w1@h").json["data"]
    assert ([one["token"] for one in tokens["tokens"]], tokens["total"]) == ([token], 1)
    for query in ("worker=nobody", "worker=w0@h&task=t1", "worker=w1@h&limit=platform:bilibili"):
        assert client.get(f"/api/v1/concurrency/tokens?{query}").json["data"]["tokens"] == []


def test_on_the_command_line(here, limiter):
    limiter.config.sync()
    scenes.fleet(limiter)
    done = here("workers")
    head, *rows = [re.split(r"  +", line) for line in out(done).splitlines()]
    assert head == ["worker", "state", "up", "mode", "version", "pool", "tokens"]
    silent = rows.pop(0)
    assert re.fullmatch(r"silent \d\d s", silent[1])
    assert [[row[0], row[1], *row[3:]] for row in rows] == [
        ["w1@h", "alive", "handoff", "0.1.0", "prefork 4", "0"],
        ["w2@h", "alive", "retry", "0.0.9", "gevent 100", "0"],
        ["4711@h", "program", "-", "-", "-", "1"],
        ["w0@h", "unknown", "-", "-", "-", "1"],
    ]
    assert rows[0][2] == "2 h 5 min"
    first, *others = done.stderr.splitlines()
    assert re.fullmatch(r"w3@h is silent for \d\d s: its tokens are taken back after 30 s", first)
    assert others == [
        "workers have different modes: handoff (1), retry (1)",
        "workers have different versions: 0.1.0 (1), 0.0.9 (1)",
    ]
    data = json.loads(out(here("workers", "--json")))
    assert data["workers"][0]["name"] == "w3@h"
    listed = json.loads(out(here("tokens", "--worker", "w0@h", "--json")))
    assert [one["token"] for one in listed] == ["old-1:1"]


def test_a_long_name_is_folded_into_80_columns(here, limiter):
    limiter.config.sync()
    name = "celery@publisher-7d9f8b6c5-x2x4z.videos.svc.cluster.local\x1b[2J"
    scenes.beat(limiter, name, silent=25, pool="eventlet", concurrency=1000, version="10.11.12")
    lines = out(here("workers")).splitlines()
    assert max(map(len, lines)) <= 80
    folded = "".join(line.split("  ")[0].strip() for line in lines[1:])
    assert folded == name.replace("\x1b", "\\x1b")


def test_another_prefix_has_other_workers(limiter, redis_url):
    other = type(limiter)(connect(redis_url), "other")
    other.config.sync()
    scenes.beat(other, "w1@h")
    assert read_workers(limiter.keyspace).workers == []
