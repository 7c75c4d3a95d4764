"""Where the configuration is kept: by hand, by many at once, and after a loss."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from celery_concurrency import scripts
from celery_concurrency.errors import ConfigConflict, InvalidConfig, LimiterUnavailable
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.config.flat import flat_of
from celery_concurrency.limiter.config.schema import MAX_JSON_BYTES, Config
from celery_concurrency.limiter.config.store import ConfigStore
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.outcomes import Granted

KEY = "concurrency:config"
FLAT = "concurrency:config:flat"
DEFAULTS = "concurrency:config:defaults"


@pytest.fixture
def store(redis_url):
    """Makes stores, each as another process has it: ``store(default_config)``."""
    clients = []

    def make(default_changes=None):
        clients.append(connect(redis_url))
        return ConfigStore(Keyspace(clients[-1], "concurrency"), default_changes)

    yield make
    for client in clients:
        client.close()


def errors(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def stored_flat(redis):
    """Return the flat copy without what is said about it."""
    about = ("source", "json", "problem", "opens")
    return {field: value for field, value in redis.hgetall(FLAT).items() if field not in about}


def test_no_key_means_the_defaults_and_they_are_stored(store, redis):
    stored = store().sync()
    assert stored.config == Config()
    assert stored.problem is None
    assert json.loads(redis.get(KEY)) == Config().to_dict()
    assert stored_flat(redis) == flat_of(Config())
    assert store().sync() == stored


def test_an_update_is_in_force_with_the_next_call_of_another_process(limiter, store, redis):
    assert isinstance(limiter.try_acquire("t1", {"account": "a"}), Granted)
    assert not isinstance(limiter.try_acquire("t2", {"account": "a"}), Granted)
    updated = store().update({"account_max": 2})
    assert isinstance(limiter.try_acquire("t2", {"account": "a"}), Granted)
    assert json.loads(redis.get(KEY))["account_max"] == 2
    assert updated.version == store().sync().version


def test_what_is_written_by_hand_is_taken_over(limiter, store, redis):
    store().sync()
    redis.set(KEY, '{"global_max": 7, "platform_max": {"抖音": 1}}')
    stored = store().sync()
    assert stored.problem is None
    assert stored.config == Config.of({"global_max": 7, "platform_max": {"抖音": 1}})
    assert stored_flat(redis) == flat_of(stored.config)
    assert isinstance(limiter.try_acquire("t1", {"platform": "抖音"}), Granted)
    assert not isinstance(limiter.try_acquire("t2", {"platform": "抖音"}), Granted)


def test_the_text_written_by_hand_stays_as_it_was_written(store, redis):
    written = '{ "global_max" : 7 }'
    redis.set(KEY, written)
    store().sync()
    assert redis.get(KEY) == written


def test_syncing_again_writes_nothing(store, redis):
    redis.set(KEY, '{"global_max": 7}')
    version = store().sync().version
    before = redis.hgetall(FLAT)
    assert [store().sync().version for _ in range(3)] == [version] * 3
    assert redis.hgetall(FLAT) == before


INVALID = {
    "no JSON": b"{global_max: 5}",
    "a comment": b'{"global_max": 5} // five',
    "a wrong type": b'{"global_max": "5"}',
    "a bool": b'{"global_max": true}',
    "out of bounds": b'{"global_max": -1}',
    "an unknown field": b'{"globel_max": 5}',
    "a list": b"[]",
    "null": b"null",
    "bad UTF-8": b'{"platform_max": {"\xff\xfe": 5}}',
    "a lone surrogate": b'{"platform_max": {"\\ud800": 5}}',
    "nothing": b"",
    "NaN": b'{"global_max": NaN}',
    "too deep": b'{"platform_max": ' + b"[" * 100_000,
    "too long": b'{"global_max": 5}' + b" " * MAX_JSON_BYTES,
}


@pytest.mark.parametrize("raw", INVALID.values(), ids=INVALID.keys())
@pytest.mark.parametrize("before", [{}, {"global_max": 3, "platform_max": {"douyin": 2}}])
def test_what_is_not_valid_is_not_in_force_and_says_so(limiter, store, redis, caplog, raw, before):
    """The last valid one stays in force, and usage, result and log say what is wrong, once."""
    config = store().update(before).config
    flat = stored_flat(redis)
    redis.set(KEY, raw)
    ours = store()
    for _ in range(3):
        stored = ours.sync()
        assert stored.config == config
        assert stored.problem
    assert stored_flat(redis) == flat
    with connect_bytes(redis) as client:
        assert client.get(KEY) == raw

    [record] = errors(caplog)
    assert stored.problem in record.getMessage()
    assert KEY in record.getMessage()
    assert limiter.usage().to_dict()["config_problem"] == stored.problem


def connect_bytes(redis):
    kwargs = redis.connection_pool.connection_kwargs
    return connect(f"redis://{kwargs['host']}:{kwargs['port']}/{kwargs['db']}")


def test_a_second_mistake_is_said_too_and_a_correction_ends_it(store, redis, caplog):
    ours = store()
    ours.sync()
    for raw in ("{", '{"global_max": -1}', '{"global_max": 4}', "{"):
        redis.set(KEY, raw)
        problem = ours.sync().problem
        assert bool(problem) == (raw != '{"global_max": 4}')
    assert len(errors(caplog)) == 3
    assert ours.sync().config.global_max == 4


@pytest.mark.parametrize("raw", INVALID.values(), ids=INVALID.keys())
def test_without_a_last_valid_one_the_defaults_are_in_force(limiter, store, redis, raw):
    redis.set(KEY, raw)
    assert isinstance(limiter.try_acquire("t1", {"account": "a"}), Granted)
    assert not isinstance(limiter.try_acquire("t2", {"account": "a"}), Granted)
    stored = store().sync()
    assert stored.config == Config()
    assert stored.problem


@pytest.mark.parametrize("raw", INVALID.values(), ids=INVALID.keys())
def test_an_update_over_what_is_not_valid_changes_the_last_valid_one(store, redis, raw):
    store().update({"global_max": 3})
    redis.set(KEY, raw)
    stored = store().update({"account_max": 2})
    assert stored.config == Config().merged({"global_max": 3, "account_max": 2})
    assert stored.problem is None
    assert store().sync().problem is None
    assert json.loads(redis.get(KEY)) == stored.config.to_dict()


def test_a_refused_update_leaves_an_invalid_text_as_it_is(store, redis):
    store().update({"global_max": 3})
    redis.set(KEY, "{")
    with pytest.raises(InvalidConfig):
        store().update({"account_max": -2})
    assert redis.get(KEY) == "{"


WRONG_TYPES = {
    "a list": lambda redis: redis.rpush(KEY, "x"),
    "a hash": lambda redis: redis.hset(KEY, "x", "y"),
    "a sorted set": lambda redis: redis.zadd(KEY, {"x": 1}),
}


@pytest.mark.parametrize("write", WRONG_TYPES.values(), ids=WRONG_TYPES.keys())
def test_another_type_at_the_key_is_not_in_force_and_says_so(limiter, store, redis, caplog, write):
    ours = store()
    config = ours.update({"global_max": 1}).config
    kind_before = redis.hgetall(FLAT)
    redis.delete(KEY)
    write(redis)
    for _ in range(3):
        stored = ours.sync()
        assert stored.config == config
    assert "not a string" in stored.problem
    assert len(errors(caplog)) == 1
    assert redis.hgetall(FLAT) == kind_before
    assert "not a string" in limiter.usage().config_problem
    assert isinstance(limiter.try_acquire("t1", {}), Granted)
    assert not isinstance(limiter.try_acquire("t2", {}), Granted)


@pytest.mark.parametrize("before", [None, {"global_max": 3}])
@pytest.mark.parametrize("write", WRONG_TYPES.values(), ids=WRONG_TYPES.keys())
def test_an_update_over_another_type_changes_the_last_valid_one(store, redis, write, before):
    expected = Config()
    if before:
        expected = store().update(before).config
    redis.delete(KEY)
    write(redis)
    assert store().sync().config == expected
    stored = store().update({"account_max": 2})
    assert stored.config == expected.merged({"account_max": 2})
    assert json.loads(redis.get(KEY)) == stored.config.to_dict()
    assert store().sync().problem is None


def test_del_of_the_key_brings_the_defaults(limiter, store, redis):
    store().update({"global_max": 1, "account_max": 0})
    redis.delete(KEY)
    assert store().sync().config == Config()
    assert json.loads(redis.get(KEY)) == Config().to_dict()
    assert stored_flat(redis) == flat_of(Config())


def test_del_of_the_flat_copy_is_made_good_by_the_next_call(limiter, store, redis):
    store().update({"global_max": 1})
    redis.delete(FLAT)
    assert isinstance(limiter.try_acquire("t1", {}), Granted)
    assert not isinstance(limiter.try_acquire("t2", {}), Granted)
    assert stored_flat(redis) == flat_of(Config().merged({"global_max": 1}))


def test_loss_of_all_keys_brings_the_defaults(store, redis):
    ours = store()
    ours.update({"global_max": 1})
    redis.flushall()
    assert ours.sync().config == Config()
    assert ours.update({"account_max": 3}).config == Config().merged({"account_max": 3})


@pytest.mark.parametrize("json_of_flat", ['{"field_of_a_later_version": 1}', "{"])
def test_a_flat_copy_of_another_version_is_made_anew(store, redis, json_of_flat):
    store().update({"global_max": 4})
    redis.hset(FLAT, "json", json_of_flat)
    stored = store().sync()
    assert (stored.config.global_max, stored.problem) == (4, None)
    assert Config.parse(redis.hget(FLAT, "json")) == stored.config
    # And where the text is not valid either, the defaults are the last that is left.
    redis.hset(FLAT, "json", json_of_flat)
    redis.set(KEY, "{")
    stored = store().sync()
    assert stored.config == Config()
    assert stored.problem


def test_a_long_configuration_can_be_read_again(store, redis):
    """Written by hand without blanks, it is shorter than as we write it ourselves."""
    names = {f"{number:06d}": 0 for number in range(95_000)}
    raw = json.dumps({"platform_max": names}, separators=(",", ":"))
    assert len(raw) < MAX_JSON_BYTES < len(Config.of({"platform_max": names}).to_json())
    redis.set(KEY, raw)
    assert store().sync().config.platform_max == names
    assert store().sync().problem is None
    with pytest.raises(InvalidConfig, match="longer than"):
        store().update({"global_max": 1})
    few = store().update({"platform_max": dict.fromkeys(list(names)[100:])})
    assert len(few.config.platform_max) == 100


def test_updates_from_many_threads_lose_nothing(store, redis, monkeypatch):
    """Promise of the compare-and-set: each of 16 adds its own platforms, all are there."""
    # Where each call takes long, one may come too late more often than it tries.
    monkeypatch.setattr("celery_concurrency.limiter.config.store.TRIES", 1000)
    start = threading.Barrier(16)
    versions = []

    def add(number):
        ours = store()
        start.wait()
        for part in "ab":
            versions.append(ours.update({"platform_max": {f"p{number}{part}": number}}).version)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(add, range(16)))
    added = {f"p{number}{part}": number for number in range(16) for part in "ab"}
    expected = {**Config().platform_max, **added}
    assert store().sync().config.platform_max == expected
    assert json.loads(redis.get(KEY))["platform_max"] == expected
    assert len(set(versions)) == 32


def test_an_update_that_never_comes_first_says_so(store, redis, monkeypatch):
    ours = store()
    ours.sync()
    before = redis.get(KEY), redis.hgetall(FLAT)
    monkeypatch.setattr(scripts, "call", lambda *args: scripts.Answer(0, False))
    monkeypatch.setattr("celery_concurrency.limiter.config.store.PAUSE", 0)
    with pytest.raises(ConfigConflict):
        ours.update({"global_max": 1})
    assert (redis.get(KEY), redis.hgetall(FLAT)) == before


@pytest.mark.parametrize(
    "change", [{"global_max": -1}, {"nope": 1}, [], None, {"enabled": None}, {"timeout": 0}]
)
def test_a_refused_update_changes_nothing(store, redis, change):
    store().update({"global_max": 3})
    before = redis.get(KEY), redis.hgetall(FLAT)
    with pytest.raises(InvalidConfig):
        store().update(change)
    assert (redis.get(KEY), redis.hgetall(FLAT)) == before


def test_reset(store, redis):
    store().update({"global_max": 3, "platform_max": {"new": 1}, "paused": ["global"]})
    assert store().reset().config == Config()
    assert json.loads(redis.get(KEY)) == Config().to_dict()


def test_the_first_process_stores_its_defaults_for_all(store, redis, caplog):
    first, second, plain = store({"account_max": 2}), store({"account_max": 3}), store()
    expected = Config().merged({"account_max": 2})
    assert first.sync().config == expected
    assert not errors(caplog)

    for _ in range(3):
        assert second.sync().config == expected
    [record] = errors(caplog)
    assert "concurrency_default_config" in record.getMessage()
    assert DEFAULTS in record.getMessage()

    for ours in (first, second, plain):
        ours.update({"account_max": 9})
        assert ours.reset().config == expected
    assert len(errors(caplog)) == 1
    redis.delete(KEY)
    assert plain.sync().config == expected


def test_defaults_are_stored_also_where_a_configuration_is_there_already(store):
    store().update({"global_max": 5})
    assert store({"account_max": 2}).sync().config == Config().merged({"global_max": 5})
    assert store().reset().config == Config().merged({"account_max": 2})


def test_who_has_the_same_defaults_is_not_logged(store, caplog):
    for change in ({"account_max": 2}, {"account_max": 2}, None):
        store(change).sync()
    assert not errors(caplog)


def test_stored_defaults_that_are_not_valid_give_way_to_ones_own(store, redis, caplog):
    redis.set(DEFAULTS, "{")
    assert store({"account_max": 2}).sync().config.account_max == 2
    assert DEFAULTS in errors(caplog)[0].getMessage()


def test_bad_defaults_are_refused_at_once(redis_url):
    with pytest.raises(InvalidConfig, match="account_max"):
        Limiter(connect(redis_url), default_config={"account_max": -1})


def configure(client, version, digest, config, name):
    fields = [
        text for pair in {**flat_of(config), "json": config.to_json()}.items() for text in pair
    ]
    about = (str(version), digest, config.to_json(), name, "test", "somebody")
    return scripts.call(client, "configure", "concurrency", *about, *fields).reply


def test_a_configure_that_arrives_again_changes_nothing(store, redis, redis_url):
    """Promise 2, for the script alone: also where the configuration is A, then B, then A again."""
    a, b = Config().merged({"global_max": 1}), Config().merged({"global_max": 2})

    def everything():
        history = redis.xrange("concurrency:config:history")
        return redis.get(KEY), redis.hgetall(FLAT), redis.get(f"{KEY}:version"), history

    with connect(redis_url) as client:
        assert configure(client, 0, "", a, "first") == 1
        digest_a = redis.hget(FLAT, "source")
        before = everything()
        # A copy of the same call is told what the first one was; another's is refused.
        assert configure(client, 0, "", a, "first") == 1
        assert configure(client, 0, "", a, "of another") == 0
        assert everything() == before

        assert configure(client, 1, digest_a, b, "second") == 2
        digest_b = redis.hget(FLAT, "source")
        assert configure(client, 2, digest_b, a, "third") == 3
        before = everything()
        # The text is A's as it was when this was first sent; the version is not.
        assert redis.hget(FLAT, "source") == digest_a
        assert configure(client, 1, digest_a, b, "second") == 2
        assert configure(client, 1, digest_a, b, "of another") == 0
        assert everything() == before
    assert store().sync().config == a


def test_versions_go_on_after_the_flat_copy_was_deleted(store, redis):
    version = store().update({"global_max": 1}).version
    redis.delete(FLAT)
    assert store().sync().version > version


def test_a_configure_does_not_run_over_a_text_written_by_hand(store, redis, redis_url):
    version = store().sync().version
    digest = redis.hget(FLAT, "source")
    redis.set(KEY, '{"global_max": 8}')
    with connect(redis_url) as client:
        assert configure(client, version, digest, Config(), "mine") == 0
    assert store().sync().config.global_max == 8


@pytest.mark.parametrize("verb", ["sync", "reset", "history"])
def test_away(verb):
    client = connect("redis://127.0.0.1:1/0")
    with pytest.raises(LimiterUnavailable, match="concurrency_redis_url"):
        getattr(ConfigStore(Keyspace(client, "concurrency")), verb)()
