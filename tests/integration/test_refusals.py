"""A task that a platform refused tells the limiter, however it ends; with real workers."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from celery import chord, group

from tests.support.proxies import Proxy
from tests.support.sites import RAN, site
from tests.support.workers import wait_for


@pytest.fixture(scope="module", params=["retry", "handoff"])
def platform(request, server, tmp_path_factory):
    """The project with one worker, in each waiting mode."""
    directory = tmp_path_factory.mktemp(request.param)
    with site(server, directory, "refusals", WAITING=request.param) as one:
        one.start(concurrency=3)
        yield one


def cooldown(site, account):
    return site.limiter.cooldowns.find(f"account:{account}")


def wait_until_shut(site, account):
    return wait_for(lambda: cooldown(site, account), what=f"{account} cools down")


def refusals(site, name="total"):
    """Return how many refusals were counted of all tasks, or of those of one type."""
    counted = "refused:total" if name == "total" else f"refused:task_type:{name}"
    return site.limiter.stats.window("total").get(counted, 0)


def send(site, name, *args, **tags):
    """Send a task that has an account and a type of its own name."""
    headers = {"account": name, "type": name, **tags}
    return site.tasks.app.send_task(name, args, headers=headers)


def ways_of(project):
    """Return each way to end: task name, state in the end, runs."""
    ways = {function.__name__: end[:2] for function, end in project.ENDINGS.items()}
    no_more = ("autoretries_no_more", "retries_no_more", "retries_plainly_no_more")
    return {**ways, **dict.fromkeys(no_more, ("FAILURE", 1))}


WAYS = (
    *("fails", "fails_by_a_kind_of_it", "fails_from_it", "autoretries", "retries"),
    *("retries_plainly", "ignores", "rejects", "requeues", "tells", "tells_and_fails"),
    *("autoretries_no_more", "retries_no_more", "retries_plainly_no_more"),
)


@pytest.mark.parametrize("name", WAYS)
def test_however_a_refused_task_ends_its_account_cools_down_and_it_counts_once(platform, name):
    state, runs = ways_of(platform.tasks)[name]
    result = send(platform, name)
    found = wait_until_shut(platform, name)
    assert found.seconds == pytest.approx(600, abs=20)
    assert found.by == f"task {result.id}"
    kind = "Captcha" if "kind" in name else "RiskControl"
    assert found.reason == f"{kind}: {name} is watched"
    if runs > 1:
        # Its next run waits for the account, and is the first to go on.
        platform.wait_until_waiting(result)
        assert platform.ran().count(f"{name} 2") == 0
        platform.limiter.cooldowns.lift(f"account:{name}")
    wait_for(lambda: f"{name} {runs}" in platform.ran(), timeout=30)
    if state in ("SUCCESS", "FAILURE"):
        wait_for(lambda: result.state == state, timeout=30, what=f"{state}, not {result.state}")
    platform.wait_until_free()
    assert refusals(platform, name) == 1
    assert [one for one in platform.ran() if one.startswith(f"{name} ")] == [
        f"{name} {number + 1}" for number in range(runs)
    ]


def test_all_ways_are_tried(platform):
    assert set(ways_of(platform.tasks)) == set(WAYS)


@pytest.mark.parametrize("seconds", [None, 30])
def test_the_exception_may_say_for_how_long(platform, seconds):
    account = f"says{seconds}"
    result = platform.tasks.refused_when_told.apply_async((seconds,), headers={"account": account})
    platform.redis.rpush(f"go on {result.id}", 1)
    found = wait_until_shut(platform, account)
    assert found.seconds == pytest.approx(seconds or 600, abs=20)


def test_after_its_cool_down_one_run_goes_first_and_its_success_opens_the_limit(platform):
    platform.limiter.config.update({"account_overrides": {"first": 3}})

    def begin(task, *args):
        result = task.apply_async(args, headers={"account": "first"})
        return result, lambda: f"begins {result.id}" in platform.ran()

    refused, has_begun = begin(platform.tasks.refused_when_told, 1)
    platform.redis.rpush(f"go on {refused.id}", 1)
    wait_until_shut(platform, "first")
    wait_for(lambda: cooldown(platform, "first").seconds == 0)
    probe, has_begun = begin(platform.tasks.goes_on_when_told)
    wait_for(has_begun)
    others = [begin(platform.tasks.goes_on_when_told) for _ in range(2)]
    wait_for(lambda: "one run goes first" in str(others[0][0].info))
    for other, has_begun in others:
        # By hand-over the second one may come when the worker knows that the first one waits.
        whys = ("one run goes first", "others came before")
        wait_for(lambda other=other, whys=whys: any(why in str(other.info) for why in whys))
        assert not has_begun()
    assert cooldown(platform, "first").probe.startswith(probe.id)
    platform.redis.rpush(f"go on {probe.id}", 1)
    for other, has_begun in others:
        wait_for(has_begun)
        platform.redis.rpush(f"go on {other.id}", 1)
    assert cooldown(platform, "first") is None
    platform.wait_until_free()


def test_a_task_without_an_account_is_counted_and_warned_of_once(platform):
    """Nothing cools down, and its tokens come back."""
    before = refusals(platform)
    results = [platform.tasks.refused_when_told.apply_async((60,)) for _ in range(6)]
    for result in results:
        platform.redis.rpush(f"go on {result.id}", 1)
    for result in results:
        wait_for(lambda result=result: result.state == "FAILURE", timeout=30)
    platform.wait_until_free()
    assert refusals(platform) == before + 6
    assert platform.limiter.cooldowns.find("global") is None
    # Once in each of the pool's processes.
    said = f"task {platform.tasks.refused_when_told.name} has no account"
    assert 1 <= platform.output().count(said) <= 3


def test_a_canvas_ends_as_it_would(platform):
    """One member is refused and fails; another one is retried, and its chord goes on."""
    tasks, app = platform.tasks, platform.tasks.app
    platform.redis.delete(RAN)
    header = [tasks.add.s(1), app.signature("fails").set(headers={"account": "chord"})]
    result = chord(header)(tasks.total.s().on_error(tasks.failed.s()))
    wait_until_shut(platform, "chord")
    wait_for(lambda: result.state == "FAILURE", timeout=30)
    wait_for(lambda: "link_error" in platform.ran(), timeout=30)
    assert platform.ran().count("link_error") == 1

    again = app.signature("autoretries").set(headers={"account": "group"})
    members = group([tasks.add.s(1), again]).apply_async()
    wait_until_shut(platform, "group")
    platform.limiter.cooldowns.lift("account:group")
    wait_for(members.successful, timeout=30)
    assert [one.result for one in members] == [1, "done"]
    platform.wait_until_free()


@pytest.fixture
def proxied(server, tmp_path):
    """Another site, whose worker asks its limiter through a proxy; and the proxy."""
    proxy = Proxy(server.port)

    @contextmanager
    def start(**env):
        url = f"redis://127.0.0.1:{proxy.port}/1"
        env = {"LIMITER_URL": url, "WAITING": "retry", **env}
        with site(server, tmp_path, "refusals", db=1, **env) as one:
            one.start(concurrency=2)
            yield one, proxy

    yield start
    proxy.close()


def test_when_redis_is_away_at_the_end_the_refusal_is_told_later(proxied):
    """Once, and before the tokens come back."""
    with proxied() as (away, proxy):
        result = away.tasks.refused_when_told.apply_async(headers={"account": "a"})
        wait_for(lambda: f"begins {result.id}" in away.ran())
        proxy.close()
        away.redis.rpush(f"go on {result.id}", 1)
        wait_for(lambda: f"[{result.id}] refused " in away.output())
        wait_for(lambda: f"[{result.id}] releases later " in away.output())
        assert result.state == "FAILURE"
        assert refusals(away) == 0
        proxy.open()
        away.wait_until_free()
        assert cooldown(away, "a").reason == "RiskControl: told is watched"
        assert refusals(away) == 1


def test_a_run_that_began_while_redis_was_away_tells_too(proxied):
    with proxied(UNAVAILABLE="run") as (away, proxy):
        proxy.close()
        result = away.tasks.refused_when_told.apply_async(headers={"account": "a"})
        wait_for(lambda: f"begins {result.id}" in away.ran())
        proxy.open()
        away.redis.rpush(f"go on {result.id}", 1)
        wait_until_shut(away, "a")
        away.wait_until_free()
        assert refusals(away) == 1


def test_a_worker_does_not_start_on_an_entry_that_leads_nowhere(server, tmp_path):
    with site(server, tmp_path, "refusals", db=1, MAPPED="tests.projects.refusals.Gone") as wrong:
        wrong.tasks.add.delay(1)  # who only sends does not mind
        with pytest.raises(AssertionError) as caught:
            wrong.start()
        said = "ImproperlyConfigured: concurrency_refusals['tests.projects.refusals.Gone']: can't"
        assert said in str(caught.value)
