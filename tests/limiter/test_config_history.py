"""The configuration's memory: what it keeps, of whom, and how one gets back."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis.exceptions import ConnectionError

from celery_concurrency import scripts
from celery_concurrency.errors import (
    ConfigConflict,
    InvalidConfig,
    UnknownVersion,
    VersionMismatch,
)
from celery_concurrency.limiter.config.history import LISTED, MAX_CHANGES, Author
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.config.store import ConfigStore
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.keyspace import Keyspace

KEY = "concurrency:config"
HISTORY = "concurrency:config:history"


@pytest.fixture
def store(redis_url):
    client = connect(redis_url)
    yield ConfigStore(Keyspace(client, "concurrency"))
    client.close()


def said(version):
    """Return what a version says of itself, but for the time and the whole configuration."""
    changed = version.changed and {c.field: (c.before, c.after) for c in version.changed}
    return version.source, version.operator, changed


def test_each_change_is_remembered(store, redis):
    begun = redis.time()[0]
    store.sync()
    store.update({"global_max": 4, "platform_max": {"douyin": 2}}, Author("api", "张三"))
    store.update({"platform_max": {"channels": None}, "paused": ["global"]})
    store.pause("platform:douyin", Author("cli", "root"))
    stored = store.reset(Author("reset", "root"))
    history = store.history()
    assert [said(version) for version in history] == [
        ("reset", "root", {
            "global_max": (4, 0),
            "platform_max.douyin": (2, 0),
            "platform_max.channels": (None, 0),
            "paused": (["global", "platform:douyin"], None),
        }),
        ("cli", "root", {"paused": (["global"], ["global", "platform:douyin"])}),
        ("library", None, {"platform_max.channels": (0, None), "paused": (None, ["global"])}),
        ("api", "张三", {"global_max": (0, 4), "platform_max.douyin": (0, 2)}),
        ("default", None, None),
    ]  # fmt: skip
    assert [version.version for version in history] == [5, 4, 3, 2, 1]
    assert stored.version == 5
    assert history[0].config == history[-1].config == Config().to_dict()
    assert history[3].config["global_max"] == 4
    times = [version.at for version in history]
    assert times == sorted(times, reverse=True)
    assert begun <= times[-1] <= times[0] < redis.time()[0] + 1


def test_what_changes_nothing_is_no_version(store, redis):
    before = store.update({"global_max": 4})
    assert store.update({"global_max": 4}) == store.update({}) == before
    assert store.rollback(before.version) == before
    assert len(store.history()) == 2


def test_what_is_written_by_hand_is_there_too(store, redis):
    store.update({"global_max": 4}, Author("api", "a"))
    redis.set(KEY, '{"global_max": 7}')
    # At once with the next change, also where nobody took it over before.
    store.update({"account_max": 2}, Author("api", "b"))
    redis.set(KEY, "{")
    newest, change, by_hand, *_ = store.history()
    assert (newest.source, newest.changed) == ("hand-written", [])
    assert "not JSON" in newest.problem
    assert newest.config == change.config
    assert said(change) == ("api", "b", {"account_max": (1, 2)})
    assert by_hand.source == "hand-written"
    assert by_hand.operator is by_hand.problem is None
    assert by_hand.config == {**Config().to_dict(), "global_max": 7}
    assert by_hand.changed[0].before == 4


def test_a_text_written_before_the_first_start_is_hand_written(store, redis):
    redis.set(KEY, '{"global_max": 7}')
    assert [said(version) for version in store.history()] == [("hand-written", None, None)]


def test_deleted_keys_are_told_from_a_hand(store, redis):
    store.update({"global_max": 4})
    redis.delete(f"{KEY}:flat")
    assert said(store.history()[0]) == ("recovered", None, [])
    redis.delete(KEY)
    assert said(store.history()[0]) == ("default", None, {"global_max": (4, 0)})


def test_rollback(store, redis):
    first = store.update({"global_max": 4, "platform_max": {"x": 1}, "paused": ["global"]})
    store.update({"global_max": 5, "platform_max": {"x": None, "y": 3}, "paused": []})
    back = store.rollback(first.version, Author("rollback", "me"))
    assert back.config == first.config
    assert back.version == first.version + 2
    assert store.sync() == back
    assert json.loads(redis.get(KEY)) == first.config.to_dict()
    assert said(store.history()[0])[:2] == ("rollback", "me")


@pytest.mark.parametrize("version", [0, 3, 2**63 - 1])
def test_there_is_no_such_version(store, version):
    before = store.update({"global_max": 4})
    with pytest.raises(UnknownVersion, match=str(version)):
        store.rollback(version)
    assert store.sync() == before


def test_a_version_that_is_not_valid_any_more_does_not_come_back(store, redis):
    before = store.update({"global_max": 4})
    fields = redis.xrange(HISTORY)[0][1]
    redis.xadd(HISTORY, {**fields, "json": '{"field_of_a_later_version": 1}'}, id="9-0")
    with pytest.raises(InvalidConfig, match="no such field"):
        store.rollback(9)
    assert store.sync() == before
    assert store.history()[0].config == {"field_of_a_later_version": 1}


def test_another_version_than_expected_changes_nothing(store, redis):
    version = store.update({"global_max": 4}).version
    before = redis.get(KEY), redis.xlen(HISTORY)
    for change in (
        lambda: store.update({"global_max": 5}, expected={version - 1}),
        lambda: store.update({}, expected=set()),
        lambda: store.reset(expected={version + 1}),
        lambda: store.rollback(1, expected=[0]),
    ):
        with pytest.raises(VersionMismatch, match=f"version {version}"):
            change()
    assert (redis.get(KEY), redis.xlen(HISTORY)) == before
    assert store.update({"global_max": 5}, expected={7, version}).config.global_max == 5


def test_a_text_written_by_hand_is_another_version(store, redis):
    version = store.update({"global_max": 4}).version
    redis.set(KEY, '{"global_max": 7}')
    with pytest.raises(VersionMismatch):
        store.update({"global_max": 5}, expected={version})
    assert store.sync().config.global_max == 7


def test_of_many_that_saw_the_same_version_one_wins(store, redis_url):
    version = store.update({"global_max": 100}).version
    start = threading.Barrier(8)

    def change(number):
        with connect(redis_url) as client:
            start.wait()
            try:
                ours = ConfigStore(Keyspace(client, "concurrency"))
                return ours.update({"global_max": number}, expected={version}).config.global_max
            except ConfigConflict:
                return None

    with ThreadPoolExecutor(8) as pool:
        won = [number for number in pool.map(change, range(8)) if number is not None]
    assert won == [store.sync().config.global_max]


def test_a_change_whose_reply_was_lost_is_done_once(store, redis, monkeypatch):
    """The first copy was executed: the second is told so, and neither conflicts nor counts."""
    version = store.sync().version
    evalsha = scripts._evalsha
    lost = []

    def lose_the_first(redis, verb, *args):
        reply = evalsha(redis, verb, *args)
        if verb == "configure" and not lost:
            lost.append(reply)
            raise ConnectionError("the reply was lost")
        return reply

    monkeypatch.setattr(scripts, "_evalsha", lose_the_first)
    stored = store.update({"global_max": 4}, Author("api", "a"), expected={version})
    assert (lost, stored.version) == ([version + 1], version + 1)
    assert [said(one)[0] for one in store.history()] == ["api", "default"]


def test_a_hundred_are_listed_each_with_what_it_changed(store, redis):
    for number in range(1, LISTED + 20):
        store.update({"global_max": number})
    history = store.history()
    assert len(history) == LISTED
    assert redis.xlen(HISTORY) == LISTED + 1
    assert [one.changed[0].after for one in history] == list(range(LISTED + 19, 19, -1))
    with pytest.raises(UnknownVersion):
        store.rollback(1)
    assert store.rollback(history[-1].version).config.global_max == 20


def test_long_configurations_are_kept_up_to_a_bound(store, redis):
    """Of a megabyte each, only the last few; then shorter ones are kept again."""
    names = {f"{number:05d}" + "x" * 190: 1 for number in range(4_900)}
    for _ in range(5):
        store.update({"account_overrides": names})
        store.update({"account_overrides": dict.fromkeys(list(names)[1:]), "global_max": 1})
    assert len(store.sync().config.to_json()) < 1000
    for number in range(12):
        store.update({"account_overrides": names, "global_max": number + 2})
    kept = redis.xrange(HISTORY)
    assert 6_000_000 < sum(len(fields["json"]) for _, fields in kept) <= 8 * 1024 * 1024
    assert 7 <= len(kept) <= 8
    history = store.history()
    assert len(history) == len(kept)
    assert history[-1].changed is history[-1].changed_total is None
    assert history[0].changed_total == 1
    few = store.update({"account_overrides": dict.fromkeys(names)})
    assert store.history()[0].changed_total == 1  # the whole map went
    for number in range(9):
        store.update({"global_max": 100 + number})
    assert few.version in [version.version for version in store.history()]


def test_of_many_changes_the_first_are_listed(store):
    store.update({"account_overrides": {"first": 1}})
    store.update({"account_overrides": {f"a{number}": 1 for number in range(1000)}})
    newest = store.history()[0]
    assert (len(newest.changed), newest.changed_total) == (MAX_CHANGES, 1000)


def test_no_version_comes_twice(store, redis):
    """Also where an operator deleted the key that counts them."""
    last = store.update({"global_max": 4}).version
    redis.delete(f"{KEY}:version")
    assert store.update({"global_max": 5}).version == last + 1
    redis.delete(HISTORY)
    assert store.update({"global_max": 6}).version == last + 2
    assert [version.version for version in store.history()] == [last + 2]


def test_pause_and_resume(store):
    assert store.pause("platform:douyin").config.paused == ["platform:douyin"]
    assert store.pause("platform:douyin").config.paused == ["platform:douyin"]
    assert store.pause("global").config.paused == ["platform:douyin", "global"]
    assert store.resume("platform:douyin").config.paused == ["global"]
    with pytest.raises(InvalidConfig, match="not paused; paused are: global"):
        store.resume("platform:douyin")
    for no_limit in ("douyin", "platform:*", "nope:x", ""):
        with pytest.raises(InvalidConfig, match="not a limit: write 'global' or"):
            store.pause(no_limit)


def test_many_pause_and_none_is_lost(store, redis_url, monkeypatch):
    # Where each call takes long, one may come too late more often than it tries.
    monkeypatch.setattr("celery_concurrency.limiter.config.store.TRIES", 1000)
    start = threading.Barrier(8)

    def pause(number):
        with connect(redis_url) as client:
            ours = ConfigStore(Keyspace(client, "concurrency"))
            start.wait()
            ours.pause(f"platform:p{number}")
            ours.pause(f"account:a{number}")
            ours.resume(f"platform:p{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(pause, range(8)))
    assert sorted(store.sync().config.paused) == [f"account:a{number}" for number in range(8)]
