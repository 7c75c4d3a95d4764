"""The pytest plugin, as a user's own project has it: in pytest processes of their own."""

from __future__ import annotations

import pytest

CONFTEST = """
import pytest
from celery import Celery

app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)


@app.task(concurrency={"account": lambda user: user})
def publish(user):
    return "published by " + user


@app.task
def tidy():
    return "tidied"


@pytest.fixture(scope="session")
def celery_concurrency_redis_url():
    return %r
"""

WOULD_WAIT = """
import pytest
from celery import chain, group
from conftest import publish, tidy


def test_one_at_a_time(celery_concurrency):
    with celery_concurrency.running(publish.s("u1")):
        assert celery_concurrency.waits_for(publish.s("u1")) == "account:u1"
        celery_concurrency.assert_waits(publish.s("u1"), "account:u1")
        celery_concurrency.assert_runs(publish.s("u2"))
        celery_concurrency.assert_runs(tidy.s())
    celery_concurrency.assert_runs(publish.s("u1"))


def test_exempt(celery_concurrency, monkeypatch):
    with celery_concurrency.running(account="u1"), celery_concurrency.running(account="u2"):
        monkeypatch.setitem(publish.app.conf, "concurrency_exempt", ("conftest.*",))
        celery_concurrency.assert_runs(publish.s("u1"))
        with celery_concurrency.running(publish.s("u2")):
            pass


def test_what_is_no_task_or_no_tag_is_refused(celery_concurrency):
    both = [publish.s("u1"), publish.s("u2")]
    for what in (publish, chain(*both), group(*both), None):
        with pytest.raises(TypeError, match="not the signature of one task: use publish"):
            celery_concurrency.assert_runs(what)
    with pytest.raises(TypeError, match="'acount' is not a tag; use platform, account, type"):
        with celery_concurrency.running(acount="u1"):
            pass


def test_headers_and_limits(celery_concurrency):
    celery_concurrency.configure(platform_max={"douyin": 1})
    with celery_concurrency.running(platform="douyin"):
        tagged = publish.s("u1").set(headers={"platform": "douyin"})
        celery_concurrency.assert_waits(tagged, "platform:douyin")


def test_asking_is_no_start(celery_concurrency):
    celery_concurrency.configure(rates={"account:*": [{"max": 1, "per": 30}]})
    for _ in range(2):
        celery_concurrency.assert_runs(publish.s("u1"))
    with celery_concurrency.running(publish.s("u1")):
        pass
    celery_concurrency.assert_waits(publish.s("u1"), "account:u1")


def test_limits_of_others_are_not_seen(celery_concurrency):
    celery_concurrency.assert_runs(publish.s("u1").set(headers={"platform": "douyin"}))
"""

WRONG = """
from conftest import publish


def test_would_run(celery_concurrency):
    celery_concurrency.assert_waits(publish.s("u1"))


def test_waits_for_another(celery_concurrency):
    with celery_concurrency.running(account="u1"):
        celery_concurrency.assert_waits(publish.s("u1"), "global")


def test_would_wait(celery_concurrency):
    with celery_concurrency.running(account="u1"):
        celery_concurrency.assert_runs(publish.s("u1"))


def test_no_room(celery_concurrency):
    with celery_concurrency.running(account="u1"), celery_concurrency.running(account="u1"):
        pass
"""

WORKER = """
import pytest
from celery.contrib.testing.worker import start_worker
from conftest import app, publish

from celery_concurrency import ConcurrencyTask
from celery_concurrency.testing import Concurrency
from celery_concurrency.worker.bootstep import ConcurrencyStep


def test_on(celery_concurrency):
    celery_concurrency.gate(app)
    with start_worker(app, perform_ping_check=False, shutdown_timeout=60):
        with celery_concurrency.running(account="u1"):
            waiting = publish.delay("u1")
            celery_concurrency.assert_waits(waiting, "account:u1")
            with pytest.raises(AssertionError, match="not for 'global'"):
                celery_concurrency.assert_waits(waiting, "global", timeout=0.1)
        assert waiting.get(timeout=60) == "published by u1"
        with pytest.raises(AssertionError, match="its state is SUCCESS"):
            celery_concurrency.assert_waits(waiting)
        celery_concurrency.limiter.cooldowns.set("account:u2", 60)
        waiting = publish.delay("u2")
        celery_concurrency.assert_waits(waiting, "account:u2")
        celery_concurrency.limiter.cooldowns.lift("account:u2")
        assert waiting.get(timeout=60) == "published by u2"


def test_all_is_as_it_was():
    assert app.conf.get("concurrency_redis_url") is None
    # Without a Redis anywhere in its settings, this worker could not start gated.
    with start_worker(app, perform_ping_check=False, shutdown_timeout=60):
        assert publish.delay("u1").get(timeout=60) == "published by u1"


def test_tasks_that_are_gated_by_their_base_stay_so(celery_concurrency_redis_url):
    with Concurrency(celery_concurrency_redis_url) as concurrency:
        concurrency.gate(app)

        @app.task(base=ConcurrencyTask)
        def own():
            pass

    assert own.before_start.is_gate
    assert ConcurrencyStep in app.steps["worker"]
    assert not hasattr(publish.before_start, "is_gate")


def test_on_again(celery_concurrency, celery_concurrency_redis_url):
    celery_concurrency.gate(app)
    with Concurrency(celery_concurrency_redis_url) as inner:
        inner.gate(app)
    assert publish.before_start.is_gate
    celery_concurrency.gate(app)
    with start_worker(app, perform_ping_check=False, shutdown_timeout=60):
        with celery_concurrency.running(account="u1"):
            celery_concurrency.assert_waits(publish.delay("u1"), "account:u1")
"""

OFF = """
import celery_concurrency.signals
import pytest
from celery.contrib.testing.worker import start_worker
from conftest import app, publish

from celery_concurrency import ImproperlyConfigured


def test_off(celery_concurrency_off):
    with start_worker(app, perform_ping_check=False, shutdown_timeout=60):
        assert publish.delay("u1").get(timeout=60) == "published by u1"


def test_on_after_it():
    with pytest.raises(ImproperlyConfigured):
        with start_worker(app, perform_ping_check=False, shutdown_timeout=60):
            pass


def test_what_gates_the_whole_process_stays(celery_concurrency):
    celery_concurrency.gate(app)
    celery_concurrency.close()
    assert publish.before_start.is_gate
"""

LIGHT = """
import sys


def test_nothing_is_imported():
    heavy = {"celery", "kombu", "redis", "flask", "click", "pydantic"}
    assert not heavy & set(sys.modules)
"""


@pytest.fixture
def run(pytester, monkeypatch, redis_url):
    """Runs a file of tests in a process with no other plugins than ours."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(text: str, conftest: str = CONFTEST % redis_url) -> pytest.RunResult:
        pytester.makeconftest(conftest)
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess("-p", "celery_concurrency.pytest_plugin", timeout=300)

    return run


def test_pytest_finds_it(pytester):
    found = pytester.runpytest_subprocess("--fixtures", "-p", "no:valkey", timeout=300)
    found.stdout.fnmatch_lines(["*celery_concurrency *", "*celery_concurrency_off *"])


def test_where_it_is_not_used_nothing_is_imported(run):
    run(LIGHT, conftest="").assert_outcomes(passed=1)


def test_whether_a_task_would_wait(run, redis):
    run(WOULD_WAIT).assert_outcomes(passed=6)
    assert not redis.keys()


def test_what_is_wrong_is_said(run):
    result = run(WRONG)
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: *publish('u1') would run, it is counted in 'global' *account=u1",
            "*publish('u1') would wait for 'account:u1', not for 'global'",
            "*publish('u1') would wait for 'account:u1'",
            "*there is no room to run it: it waits for account:u1 (1 of 1)",
        ]
    )


def test_with_a_worker_in_the_process(run, redis):
    run(WORKER).assert_outcomes(passed=4)
    assert not redis.keys()


def test_where_all_apps_of_the_process_are_gated(run, redis):
    run(OFF).assert_outcomes(passed=3)
    assert not redis.keys()


def test_its_own_server(run):
    test = "def test_it(celery_concurrency):\n    celery_concurrency.limiter.usage()\n"
    run(test, conftest="").assert_outcomes(passed=1)
