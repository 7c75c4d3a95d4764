"""The model of a configuration: what it may say, and how a change is merged in."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from celery.app.task import Context
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_concurrency.errors import InvalidConfig
from celery_concurrency.limiter.config.flat import dimensions_key, flat_of
from celery_concurrency.limiter.config.maximum import MAX_LIMIT
from celery_concurrency.limiter.config.problems import MAX_QUOTED
from celery_concurrency.limiter.config.schema import (
    MAX_JSON_BYTES,
    MAX_TIMEOUT,
    RESERVED_DIMENSIONS,
    Config,
)
from celery_concurrency.text import unprintable

SEED = (Path(__file__).parent.parent / "seed.md").read_text("utf-8")
#: The seed prints its default configuration with a comment at the end of some lines.
SEED_DEFAULTS = json.loads(
    re.sub(r"//.*", "", SEED.split("## 📊 默认配置")[1].split("```json")[1].split("```")[0])
)

# Strategies: what is valid, so that what comes out can be held against what went in.
counts = st.integers(0, MAX_LIMIT)
names = st.text(min_size=1, max_size=200).filter(lambda name: unprintable(name) is None)
own_names = names.filter(lambda name: name != "*")
dimension_names = own_names.filter(
    lambda name: (
        ":" not in name
        and name not in RESERVED_DIMENSIONS
        and not name.startswith(("_", "concurrency_"))
    )
)
name_maps = st.dictionaries(names, counts, max_size=4)
own_maps = st.dictionaries(own_names, counts, max_size=4)
dimension = st.fixed_dictionaries({}, optional={"max": counts, "overrides": own_maps})
paused = st.lists(st.one_of(st.just("global"), own_names.map("platform:{}".format)), max_size=3)
fields = {
    "global_max": counts,
    "platform_max": name_maps,
    "account_max": counts,
    "task_type_max": name_maps,
    "enabled": st.booleans(),
    "timeout": st.integers(1, MAX_TIMEOUT),
    "account_overrides": own_maps,
    "dimensions": st.dictionaries(dimension_names, dimension, max_size=3),
    "paused": paused,
}
changes = st.fixed_dictionaries({}, optional=fields)
configs = changes.map(lambda change: Config().merged(change))


def problem(change: object) -> str:
    """Return what is wrong with a change; fails where nothing is."""
    with pytest.raises(InvalidConfig) as caught:
        Config().merged(change)
    return str(caught.value)


def test_defaults_are_the_seeds():
    assert Config().to_dict() == SEED_DEFAULTS
    assert list(Config().to_dict()) == list(SEED_DEFAULTS)
    assert json.loads(Config().to_json()) == SEED_DEFAULTS


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"global_max": 20}, "global_max", 20),
        ({"enabled": False}, "enabled", False),
        (
            {"platform_max": {"douyin": 10}},
            "platform_max",
            {**SEED_DEFAULTS["platform_max"], "douyin": 10},
        ),
        (
            {"platform_max": {"*": 3, "weibo": 1}},
            "platform_max",
            {**SEED_DEFAULTS["platform_max"], "*": 3, "weibo": 1},
        ),
        ({"task_type_max": {"publish": None}}, "task_type_max", {"batch_publish": 0}),
        ({"task_type_max": {"no-such": None}}, "task_type_max", SEED_DEFAULTS["task_type_max"]),
        ({"platform_max": {}}, "platform_max", SEED_DEFAULTS["platform_max"]),
        ({"account_overrides": {"vip": 3}}, "account_overrides", {"vip": 3}),
        ({"paused": ["platform:douyin"]}, "paused", ["platform:douyin"]),
        ({"paused": ["global", "global"]}, "paused", ["global"]),
    ],
)
def test_a_change_names_only_what_it_changes(change, field, expected):
    merged = Config().merged(change).to_dict()
    assert merged == {**SEED_DEFAULTS, field: expected}


def test_own_dimensions_merge_at_every_depth():
    one = Config().merged({"dimensions": {"tenant": {"max": 2, "overrides": {"t1": 5, "t2": 6}}}})
    two = one.merged({"dimensions": {"tenant": {"overrides": {"t2": None, "t3": 7}}, "region": {}}})
    assert two.to_dict()["dimensions"] == {
        "tenant": {"max": 2, "overrides": {"t1": 5, "t3": 7}},
        "region": {"max": 0, "overrides": {}},
    }
    assert (
        "dimensions" not in two.merged({"dimensions": {"tenant": None, "region": None}}).to_dict()
    )


def test_a_list_replaces():
    one = Config().merged({"paused": ["global", "account:a:b"]})
    assert one.merged({"paused": ["platform:x"]}).paused == ["platform:x"]
    assert "paused" not in one.merged({"paused": []}).to_dict()


#: How long an example takes says nothing of what is tested.
however_slow = settings(deadline=None, suppress_health_check=list(HealthCheck))


@however_slow
@given(configs, changes)
def test_merging_again_changes_nothing(config, change):
    once = config.merged(change)
    assert once.merged(change) == once


@however_slow
@given(configs)
def test_the_json_says_all(config):
    assert Config.parse(config.to_json()) == config
    assert Config.parse(config.to_json().encode()) == config
    assert config.merged({}) == config
    assert config.merged(config.to_dict()) == config


@however_slow
@given(configs, changes)
def test_a_merge_leaves_its_parts_alone(config, change):
    before = config.to_json(), json.dumps(change)
    config.merged(change)
    assert (config.to_json(), json.dumps(change)) == before


@however_slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(sorted(fields)) | st.text(), inner, max_size=3)
        ),
    )
)
def test_whatever_comes_is_taken_or_refused_with_details(value):
    refusal = None
    try:
        merged = Config().merged(value)
        assert Config.parse(merged.to_json()) == merged
    except InvalidConfig as exc:
        refusal = exc
    if refusal:
        assert str(refusal)
        assert all(set(detail) == {"field", "problem"} for detail in refusal.details)


@pytest.mark.parametrize("value", [0, 1, MAX_LIMIT])
@pytest.mark.parametrize("field", ["global_max", "account_max"])
def test_bounds_of_counts(field, value):
    assert Config().merged({field: value}).to_dict()[field] == value


@pytest.mark.parametrize("value", [1, MAX_TIMEOUT])
def test_bounds_of_the_timeout(value):
    assert Config().merged({"timeout": value}).timeout == value


@pytest.mark.parametrize("bad", [-1, MAX_LIMIT + 1, True, "1", 1.0, 1.5, [], {}, float("nan")])
@pytest.mark.parametrize(
    "field",
    [
        "global_max",
        "account_max",
        "timeout",
        "platform_max.douyin",
        "platform_max.*",
        "task_type_max.publish",
        "account_overrides.a",
        "dimensions.tenant.max",
        "dimensions.tenant.overrides.t1",
    ],
)
def test_a_count_is_an_integer_within_bounds(field, bad):
    change = bad
    for key in reversed(field.split(".")):
        change = {key: change}
    assert problem(change).startswith(f"{field}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "JSON object"),
        ([], "JSON object"),
        ("global_max", "JSON object"),
        ({"timeout": 0}, "timeout: "),
        ({"timeout": MAX_TIMEOUT + 1}, "timeout: "),
        ({"enabled": 1}, "enabled: "),
        ({"enabled": "true"}, "enabled: "),
        ({"globel_max": 1}, "globel_max: there is no such field"),
        ({"dimensions": {"tenant": {"mux": 1}}}, "dimensions.tenant.mux: there is no such field"),
        ({"globalmax": 1}, "globalmax: there is no such field; did you mean global_max?"),
        ({"nothing": 1}, "nothing: there is no such field"),
        ({"dimensions": {"t": {"maxx": 1}}}, "there is no such field; did you mean max?"),
        ({"platform_max": 3}, 'it looks like {"douyin": 3}, on the command line platform_max.do'),
        ({"paused": "global"}, 'it looks like ["platform:douyin"], on the command line paused='),
        ({"rates": {"account:*": 3}}, "on the command line rates.account:*=1/30s"),
        ({"adaptive": {"platform:*": 3}}, "on the command line adaptive.platform:*=1-10"),
        ({"dimensions": {"tenant": 3}}, "on the command line dimensions.tenant.max=3"),
        ({"paused": ["platfrom:x"]}, "which is not a limit; did you mean platform:x?"),
        ({"paused": ["type:x"]}, "which is not a limit; did you mean task_type:x?"),
        ({"paused": ["Global"]}, "which is not a limit; did you mean global?"),
        ({"enabled": None}, "enabled can't be null"),
        ({"platform_max": None}, "platform_max can't be null"),
        ({"dimensions": {"tenant": {"mux": None}}}, "dimensions.tenant.mux can't be null"),
        ({"dimensions": {"tenant": {"max": None}}}, "dimensions.tenant.max can't be null"),
        ({"platform_max": [1]}, "platform_max: "),
        ({"platform_max": {"": 1}}, "is empty"),
        ({"platform_max": {"x" * 201: 1}}, "longer than 200"),
        ({"platform_max": {"\ud800": 1}}, "can't be printed"),
        ({"platform_max": {1: 1}}, "platform_max"),
        ({"platform_max": {"douyin": {"max": None}}}, "platform_max.douyin"),
        ({"account_overrides": {"*": 5}}, "'*' can't be used here"),
        ({"dimensions": {"tenant": {"overrides": {"*": 5}}}}, "'*' can't be used here"),
        ({"dimensions": {"a:b": {}}}, "no colon"),
        ({"dimensions": {"*": {}}}, "not be '*'"),
        ({"dimensions": {"": {}}}, "is empty"),
        ({"dimensions": {"_own": {}}}, "uses itself"),
        ({"dimensions": {"concurrency_token": {}}}, "uses itself"),
        ({"dimensions": {"tenant": None}, "paused": ["tenant:t1"]}, "not a limit"),
        ({"paused": "global"}, "paused: "),
        ({"paused": [1]}, "paused.0: "),
        *(
            ({"paused": [limit]}, "which is not a limit")
            for limit in (
                "",
                "globe",
                "platform",
                "platform:",
                "platform:*",
                "Platform:x",
                "tenant:t1",
            )
        ),
    ],
)
def test_what_is_refused_and_how(change, said):
    assert said in problem(change)


def test_a_dimension_that_is_paused_cannot_be_taken_out():
    one = Config().merged({"dimensions": {"tenant": {}}, "paused": ["tenant:t1"]})
    with pytest.raises(InvalidConfig, match="tenant:t1"):
        one.merged({"dimensions": {"tenant": None}})
    assert not one.merged({"dimensions": {"tenant": None}, "paused": []}).dimensions


@pytest.mark.parametrize(
    "change",
    [
        {"x" * 100_000: 1},
        {"x" * 100_000: None},
        {str(number): None for number in range(5000)},
        {str(number): 1 for number in range(5000)},
        {"platform_max": {"x" * 100_000: 1}},
        {"paused": ["x" * 100_000]},
    ],
)
def test_much_that_is_wrong_is_said_in_short(change):
    with pytest.raises(InvalidConfig) as caught:
        Config().merged(change)
    assert len(json.dumps([str(caught.value), caught.value.details])) < 25 * (2 * MAX_QUOTED + 100)


def test_no_change_makes_it_longer_than_can_be_read_again():
    """Each change is short, and their sum is not."""
    config = Config()
    refused = False
    for number in range(10):
        names = {f"{number}-{i}-{'x' * 150}": 1 for i in range(1000)}
        try:
            config = config.merged({"platform_max": names})
        except InvalidConfig as exc:
            refused = "longer than" in str(exc)
            break
        assert Config.parse(config.to_json()) == config
    assert refused
    assert len(config.to_json()) > MAX_JSON_BYTES * 0.8


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"[]",
        b"1",
        b'{"global_max": 1}x',
        b" " * MAX_JSON_BYTES + b"{}",
    ],
)
def test_what_is_no_configuration_is_refused_when_parsed(raw):
    with pytest.raises(InvalidConfig):
        Config.parse(raw)


def test_names_that_celery_uses_are_no_dimensions():
    """A header of such a name would be read by Celery, or never reach us."""
    context = {name for name in {*dir(Context), *vars(Context())} if not name.startswith("_")}
    used = context | {"lang", "task", "argsrepr", "kwargsrepr", "compression"}
    assert used >= {"id", "retries", "headers"}
    for name in sorted(used):
        assert "uses itself" in problem({"dimensions": {name: {}}}), name


@pytest.mark.parametrize("name", ["platform", "account", "type", "task_type", "global"])
def test_our_own_names_are_no_dimensions(name):
    assert "uses itself" in problem({"dimensions": {name: {}}})


def test_the_flat_copy_has_a_field_a_limit():
    config = Config.of(
        {
            "global_max": 9,
            "platform_max": {"douyin": 5, "*": 2},
            "account_max": 1,
            "account_overrides": {"vip": 3},
            "task_type_max": {"publish": 0},
            "dimensions": {"tenant": {"max": 2, "overrides": {"t1": 5}}},
            "paused": ["platform:kuaishou", "account:vip", "tenant:t2"],
            "enabled": False,
            "timeout": 60,
        }
    )
    assert flat_of(config) == {
        "enabled": "0",
        "timeout": "60",
        "dimensions": dimensions_key(["tenant"]),
        "global": "9",
        "platform:douyin": "5",
        "platform:*": "2",
        "platform:kuaishou": "-1",
        "account:vip": "-1",
        "account:*": "1",
        "task_type:publish": "0",
        "tenant:t1": "5",
        "tenant:t2": "-1",
        "tenant:*": "2",
    }


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("global", 9),
        ("platform:douyin", 5),
        ("platform:other", 2),
        ("account:vip", 3),
        ("account:other", 1),
        ("task_type:publish", 4),
        ("task_type:other", 0),
        ("tenant:t1", 5),
        ("tenant:other", 2),
        ("gone:publish", 0),
    ],
)
def test_the_maximum_of_a_limit(limit, expected):
    config = Config.of(
        {
            "global_max": 9,
            "platform_max": {"douyin": 5, "*": 2},
            "account_overrides": {"vip": 3},
            "task_type_max": {"publish": 4},
            "dimensions": {"tenant": {"max": 2, "overrides": {"t1": 5}}},
            "paused": ["platform:douyin"],
        }
    )
    assert config.max_of(limit) == expected


@however_slow
@given(configs)
def test_the_flat_copy_and_the_maxima_agree(config):
    for limit, count in flat_of(config).items():
        if limit in ("enabled", "timeout", "dimensions"):
            continue
        if limit in config.paused:
            assert count == "-1"
        elif not limit.endswith(":*"):
            assert count == str(config.max_of(limit))
