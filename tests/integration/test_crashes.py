"""Promise 4: a living run's token does not expire, a dead one's comes back; in real processes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import nullcontext

import pytest
from celery import Task

from celery_concurrency.limiter.inspect.workers import read_workers
from tests.support.recording import highest_overlap, read_records
from tests.support.sites import site
from tests.support.workers import wait_for

ACCOUNT = {"account": "a"}
#: Where nobody gave its token back, the lease of a dead run would last for twice as long.
SOON = 15


@pytest.fixture(scope="module")
def crashes(server, tmp_path_factory):
    with site(server, tmp_path_factory.mktemp("crashes"), "crashes", WAITING="auto") as one:
        one.start(concurrency=3)
        yield one


@pytest.fixture(autouse=True)
def nothing_left(request):
    yield
    if "crashes" in request.fixturenames:
        request.getfixturevalue("crashes").wait_until_free()


def begun(crashes):
    """Return when the tasks began that wait for a crash, by the clock of ``now``."""
    return [float(note.split()[1]) for note in crashes.ran() if note.startswith("begins")]


def now():
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def starts_after(crashes, ended):
    """Return how long after ``ended`` the next task of the account began; it must have waited."""
    result = crashes.next
    assert result.get(timeout=30) == "done"
    return begun(crashes)[-1] - ended


def wait_behind(crashes, what):
    """Let a task wait until the one that noted ``what`` is gone."""
    wait_for(lambda: what in crashes.ran())
    crashes.next = crashes.tasks.work.apply_async(headers=ACCOUNT)
    crashes.wait_until_waiting(crashes.next)


@pytest.mark.alone
def test_a_hard_time_limit(crashes):
    limited = crashes.tasks.stubborn.apply_async((60,), headers=ACCOUNT, time_limit=10)
    wait_behind(crashes, "stubborn")
    wait_for(lambda: limited.state == "FAILURE")
    assert starts_after(crashes, now()) < SOON


@pytest.mark.alone
@pytest.mark.parametrize("how", ["kill_itself", "exit_at_once"])
def test_a_child_that_ends_itself(crashes, how):
    crashes.redis.delete("ran")
    with crashes.held(**ACCOUNT):
        getattr(crashes.tasks, how).apply_async(headers=ACCOUNT)
        wait_for(lambda: crashes.redis.exists("concurrency:groups"))
        crashes.next = crashes.tasks.work.apply_async(headers=ACCOUNT)
        crashes.wait_until_waiting(crashes.next)
    wait_for(lambda: "killed" in crashes.ran())
    assert starts_after(crashes, now()) < SOON


@pytest.mark.alone
def test_a_task_that_waited_and_then_lost_its_child_runs_again(crashes):
    """Its message is no copy too many: it is the only one."""
    crashes.redis.delete("ran")
    with crashes.held(**ACCOUNT):
        result = crashes.tasks.safe.apply_async((60,), headers=ACCOUNT)
        crashes.wait_until_parked(result)
    wait_for(lambda: begun(crashes))
    [token] = crashes.semaphores()["account:a"]
    os.kill(int(crashes.ran()[0].split()[2]), signal.SIGKILL)
    died = now()
    wait_for(lambda: token not in crashes.semaphores().get("account:a", []))
    assert now() - died < SOON
    # Celery itself takes up to five seconds to see that the child is gone.
    assert result.get(timeout=30) == "again"


@pytest.mark.parametrize("name", ["denied", "denied_late"])
def test_a_denied_task_whose_child_is_killed_before_it_is_parked_is_not_lost(crashes, name):
    """The main process gives its message a place: the task runs once, and has never failed."""
    crashes.redis.delete("ran")
    task, failed = getattr(crashes.tasks, name), crashes.tasks.failed.s()
    with crashes.held(**ACCOUNT):
        result = task.apply_async(headers=ACCOUNT, link_error=failed)
        crashes.wait_until_parked(result)
    assert result.get(timeout=30) == "done"
    assert crashes.ran() == ["killed", "ran"]


@pytest.mark.parametrize("name", ["denied_for_long", "denied_for_long_late"])
def test_a_denied_task_that_reaches_its_time_limit_before_it_is_parked_is_not_lost(crashes, name):
    """Its body has not begun: it did not take too long, and its canvas is not told so."""
    crashes.redis.delete("ran")
    task, failed = getattr(crashes.tasks, name), crashes.tasks.failed.s()
    with crashes.held(**ACCOUNT):
        result = task.apply_async(headers=ACCOUNT, link_error=failed)
        wait_for(lambda: crashes.ran() == ["stuck"])
        crashes.wait_until_parked(result)
    assert result.get(timeout=30) == "done"
    assert crashes.ran() == ["stuck", "ran"]


@pytest.mark.skipif(
    not hasattr(Task, "retry_on_worker_lost"), reason="this Celery has no task_retry_on_worker_lost"
)
@pytest.mark.parametrize("how", ["at once", "after it waited"])
@pytest.mark.parametrize("name", ["retried", "retried.late"])
def test_celery_retries_a_task_that_lost_its_child(crashes, name, how):
    """Once, as without us; its next message has the task's own headers alone."""
    crashes.redis.delete("ran")
    with crashes.held(**ACCOUNT) if how == "after it waited" else nullcontext():
        result = crashes.tasks.app.send_task(name, headers=ACCOUNT)
        if how == "after it waited":
            crashes.wait_until_parked(result)
    assert result.get(timeout=60) == [1, ACCOUNT]
    assert crashes.ran() == ["killed", "begins again"]
    assert f"Failed to retry task {name}" not in crashes.output()


@pytest.mark.alone
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_a_task_that_is_terminated(crashes, how):
    crashes.redis.delete("ran")
    task = crashes.tasks.stubborn if how == "SIGKILL" else crashes.tasks.look_at_lease
    result = task.apply_async((60,), headers=ACCOUNT)
    wait_behind(crashes, "stubborn" if how == "SIGKILL" else "looking")
    result.revoke(terminate=True, signal=how)
    assert starts_after(crashes, now()) < SOON
    wait_for(lambda: result.state == "REVOKED")


def test_a_worker_that_is_killed_loses_its_tokens_after_its_timeout(server, tmp_path):
    """Until then it is listed as silent, and not afterwards."""
    with site(server, tmp_path, "crashes", db=1, WAITING="auto", WORKER_TIMEOUT="12") as other:

        def listed(name):
            found = read_workers(other.limiter.keyspace).workers
            return next((one for one in found if one.name == name), None)

        killed = other.start(concurrency=1, arguments=("-Q", "killed"))
        other.tasks.work.apply_async((120,), queue="killed", headers=ACCOUNT)
        wait_for(lambda: begun(other))
        one = wait_for(lambda: (one := listed(killed.name)) and one.alive and one)
        assert (one.alive, one.mode, one.pool, one.concurrency) == (True, "handoff", "prefork", 1)
        assert one.limits == {"global": 1, "account:a": 1}
        left = other.start(concurrency=1)
        next_ = other.tasks.work.apply_async(headers=ACCOUNT)
        # Before that its message is in the hands of whoever took it, acknowledged.
        other.wait_until_parked(next_)
        killed.kill()
        ended = now()
        silent = wait_for(lambda: (one := listed(killed.name)) and not one.alive and one)
        assert silent.limits == {"global": 1, "account:a": 1}
        assert next_.get(timeout=60) == "done"
        assert 3 < begun(other)[-1] - ended < 28
        wait_for(lambda: listed(killed.name) is None)
        wait_for(lambda: listed(left.name).alive)
        left.stop()
        assert listed(left.name) is None


def test_a_lease_lasts_for_the_timeout_of_its_worker(crashes):
    """Half a minute in the default settings, as here."""
    crashes.redis.delete("ran")
    running = crashes.tasks.stay.apply_async(headers=ACCOUNT)
    wait_for(crashes.ran)
    [token] = crashes.semaphores()["account:a"]
    left = crashes.redis.zscore("concurrency:leases", token) - crashes.redis.time()[0]
    assert 10 < left <= 31
    crashes.redis.rpush("go on", "1")
    assert running.get(timeout=30) is False


def test_a_lease_outlives_its_timeout_while_the_run_lives(crashes):
    """Nobody else of its account runs meanwhile."""
    crashes.redis.delete("ran")
    crashes.limiter.config.update({"timeout": 3})
    try:
        running = crashes.tasks.stay.apply_async(headers={"account": "long"})
        wait_for(crashes.ran)
        waiting = crashes.tasks.work.apply_async(headers={"account": "long"})
        # Shorter than five seconds is no lease.
        crashes.wait_until_outlived(5, "long")
        crashes.redis.rpush("go on", "1")
        assert (running.get(timeout=60), waiting.get(timeout=60)) == (False, "done")
    finally:
        crashes.limiter.config.reset()
    ids = {running.id, waiting.id}
    runs = [run for run in read_records(crashes.url) if run.task_id in ids]
    assert len(runs) == 2
    assert highest_overlap(runs) == 1


def test_a_task_reads_its_lease(crashes):
    before, lost = crashes.tasks.look_at_lease.apply_async((0,), headers=ACCOUNT).get(timeout=30)
    assert before[:2] == [False, ["global", "account:a"]]
    assert before[2] > 1_700_000_000_000_000
    assert lost is False


def test_runs_whose_tokens_were_taken_back_are_told(server, tmp_path):
    """By the log always; they are terminated where the settings say so, and the pool can."""
    env = {"WAITING": "auto", "WORKER_TIMEOUT": "5"}
    pools = {"log": "prefork", "terminate": "prefork", "solo": "solo", "threads": "threads"}
    with site(server, tmp_path, "crashes", db=2, **env) as other:
        workers, results = {}, {}
        for name, pool in pools.items():
            on_lost = {"ON_LOST": "log" if name == "log" else "terminate"}
            workers[name] = other.start(on_lost, pool=pool, concurrency=1, arguments=("-Q", name))
            results[name] = other.tasks.stay.apply_async(queue=name)
        wait_for(lambda: len(other.ran()) == len(pools))

        def all_taken():
            other.limiter.waiting_room.sweep(now=True)
            return not other.semaphores()

        for worker in workers.values():
            os.kill(worker.pid, signal.SIGSTOP)
        try:
            wait_for(all_taken)
        finally:
            for worker in workers.values():
                os.kill(worker.pid, signal.SIGCONT)
        for worker in workers.values():
            wait_for(lambda log=worker.output: "keeps running without its tokens" in log())
        for name in ("solo", "threads"):
            said = f"this worker's pool can't terminate tasks: {results[name].id} keeps running"
            wait_for(lambda log=workers[name].output, said=said: said in log())
        wait_for(lambda: results["terminate"].state == "REVOKED")
        other.redis.rpush("go on", *pools)
        assert [results[name].get(timeout=30) for name in ("log", "solo", "threads")] == [True] * 3
        assert other.limiter.stats.window("total")["lost:total"] == len(pools)
