"""The gate stands before every kind of task in every pool, and before nothing else."""

from __future__ import annotations

import re

import pytest

from tests.support.sites import site
from tests.support.workers import wait_for

POOLS = {
    "prefork": {"pool": "prefork"},
    "spawn": {"pool": "prefork"},
    "threads": {"pool": "threads"},
    "gevent": {"pool": "gevent"},
    "solo": {"pool": "solo", "concurrency": 1},
}


@pytest.fixture(scope="module", params=POOLS)
def kinds(request, server, tmp_path_factory):
    """The project of all kinds with one worker, in each pool in turn."""
    with site(server, tmp_path_factory.mktemp(request.param), "kinds") as one:
        one.spawned = request.param == "spawn"
        one.start(env={"START_METHOD": "spawn" if one.spawned else "fork"}, **POOLS[request.param])
        yield one


def send(site, name, **headers):
    return site.tasks.app.send_task(name, headers=headers)


def test_every_kind_of_task_waits_and_then_runs(kinds):
    """The one import gates them all; a body that has to wait has not begun."""
    names = dict(kinds.tasks.GATED)
    if kinds.spawned:
        del names["by_class"]  # Celery itself does not find such a task in a spawned child
    with kinds.held(account="every"):
        results = {kind: send(kinds, name, account="every") for kind, name in names.items()}
        kinds.wait_until_waiting(*results.values())
        assert not kinds.ran()
    # One after the other could take many countdowns.
    kinds.limiter.config.update({"account_max": 0})
    assert {kind: result.get(timeout=30) for kind, result in results.items()} == {
        kind: kind for kind in names
    }
    befores = [
        "before own_before_start",
        "before same_base",
        "before annotated",
        "before late.annotated",
    ]
    assert sorted(kinds.ran()) == sorted([*names, *befores])
    kinds.wait_until_free()
    kinds.limiter.config.reset()


def test_the_reason_is_the_result_of_a_waiting_task(kinds):
    with kinds.held(account="reason"):
        result = send(kinds, kinds.tasks.GATED["plain"], account="reason")
        kinds.wait_until_waiting(result)
        assert str(result.info) == "waits for account:reason (1 of 1)"
    assert result.get(timeout=30) == "plain"


def test_exempt_tasks_and_calls_of_a_function_are_not_gated(kinds):
    """Neither concurrency_exempt, nor task(), nor task.apply() asks for a token."""
    before = kinds.limiter.stats.window("total").get("acquired:total", 0)
    with kinds.held(account="free"), kinds.held(account="direct"):
        for name in ("free.task", "some.exempt", "tests.projects.kinds.direct"):
            send(kinds, name, account="free" if "kinds" not in name else "other").get(timeout=30)
    # Two were the test's own, one was direct's.
    assert kinds.limiter.stats.window("total")["acquired:total"] - before == 3


def test_celerys_own_tasks_are_not_gated(kinds):
    """A full global limit does not keep a chord from being put together."""
    kinds.limiter.config.update({"global_max": 1})
    with kinds.held():
        result = kinds.tasks.app.send_task("celery.backend_cleanup")
        assert result.get(timeout=30) is None
    kinds.limiter.config.reset()


def test_the_log_says_who_waits_and_all_of_who_has_released(kinds):
    with kinds.held(platform="douyin", account="log"):
        result = send(kinds, kinds.tasks.GATED["plain"], platform="douyin", account="log", type="p")
        kinds.wait_until_waiting(result)
    result.get(timeout=30)
    task = f"Task {kinds.tasks.GATED['plain']}[{result.id}]"
    tags = "(platform=douyin account=log type=p)"
    assert f"{task} waits for account:log (1 of 1) {tags}" in kinds.output()
    limits = "global, platform:douyin, account:log, task_type:p"
    line = rf"released {limits} after [\d.]+ s, for which it had waited [\d.]+ s"
    end = re.compile(f"{re.escape(task)} {line} {re.escape(tags)}")
    wait_for(lambda: end.search(kinds.output()))
    assert f"{task} granted" not in kinds.output(), "that is for DEBUG"


@pytest.mark.parametrize("signals", ["", "1"], ids=["base-class-alone", "base-class-and-imports"])
def test_the_base_class_gates_its_tasks_once(server, tmp_path, signals):
    with site(server, tmp_path, "explicit", db=1, SIGNALS=signals) as explicit:
        explicit.start(concurrency=2)
        # Not one account for all: the order of their runs is no matter here.
        with explicit.held(account="a"), explicit.held(account="b"), explicit.held(account="c"):
            gated = explicit.tasks.gated.apply_async(headers={"account": "a"})
            own_base = explicit.tasks.app.send_task(
                "tests.projects.explicit.own_base", headers={"account": "b"}
            )
            plain = explicit.tasks.plain.apply_async(headers={"account": "c"})
            explicit.wait_until_waiting(gated, own_base)
            if signals:
                explicit.wait_until_waiting(plain)
            else:
                assert plain.get(timeout=30) == "plain"
            assert "gated" not in explicit.ran()
            assert "before" not in explicit.ran()
        for result in (gated, own_base, plain):
            result.get(timeout=30)
        assert sorted(explicit.ran()) == ["before", "gated", "own_base", "plain"]
        explicit.wait_until_free()
        # The test's own three, and one for each run of a gated task.
        total = explicit.limiter.stats.window("total")
        assert total["acquired:total"] == total["released:total"] == (6 if signals else 5)


def test_without_any_redis_a_worker_does_not_start(server, tmp_path):
    """The error names the setting that is missing."""
    memory = {"BROKER_URL": "memory://", "RESULT_BACKEND": "cache+memory://"}
    with (
        site(server, tmp_path, "plain", db=1, **memory) as plain,
        pytest.raises(AssertionError, match="set concurrency_redis_url"),
    ):
        plain.start()


def test_a_wrong_setting_keeps_a_worker_from_starting(server, tmp_path):
    with (
        site(server, tmp_path, "plain", db=1, COUNTDOWN="-1") as plain,
        pytest.raises(AssertionError, match=r"concurrency_retry_countdown is -1\.0"),
    ):
        plain.start()
