"""Promise 4 at a worker's end, in each pool, and while the broker is away."""

from __future__ import annotations

import signal

import pytest

from tests.support.proxies import Proxy
from tests.support.recording import highest_overlap, read_records
from tests.support.sites import site
from tests.support.workers import wait_for

ACCOUNT = {"account": "a"}
#: So short that a run outlives its lease soon, if nobody renews it.
SECONDS = 10
SHORT = {"WAITING": "auto", "WORKER_TIMEOUT": str(SECONDS)}


@pytest.fixture
def short(server, tmp_path):
    """A site with short leases."""
    with site(server, tmp_path, "crashes", **SHORT) as one:
        one.limiter.config.update({"timeout": SECONDS})
        yield one
        one.wait_until_free()


def begun(one):
    return [note for note in one.ran() if note.startswith("begins")]


def runs_of(one, running, waiting):
    """Let one go on, wait for both, and return the records of their runs."""
    one.redis.rpush("go on", "1")
    assert running.get(timeout=60) is False
    assert waiting.get(timeout=60) == "done"
    results = (running, waiting)
    ids = {result.id for result in results}
    return [run for run in read_records(one.url) if run.task_id in ids]


def test_beats_go_on_until_the_last_task_of_a_warm_shutdown_has_ended(short):
    first = short.start(concurrency=1)
    running = short.tasks.stay.apply_async(headers=ACCOUNT)
    wait_for(short.ran)
    first.process.send_signal(signal.SIGTERM)
    short.start(concurrency=1)
    waiting = short.tasks.work.apply_async(headers=ACCOUNT)
    short.wait_until_outlived(SECONDS, "a")
    runs = runs_of(short, running, waiting)
    assert len(runs) == 2
    assert highest_overlap(runs) == 1
    assert first.process.wait(60) == 0


@pytest.mark.alone
@pytest.mark.parametrize("waited", [False, True], ids=["at once", "after waiting"])
def test_a_cold_shutdown_gives_tokens_back_and_loses_no_task(short, waited):
    first = short.start(concurrency=1)
    short.limiter.config.update({"timeout": 600})  # what the test holds stays
    with short.held(account="a" if waited else "b"):
        running = short.tasks.safe.apply_async((60,), headers=ACCOUNT)
        if waited:
            short.wait_until_parked(running)
    wait_for(lambda: begun(short))
    first.process.send_signal(signal.SIGQUIT)
    first.process.wait(60)
    # Nobody else is there who would take them back.
    short.wait_until_free()
    short.start(concurrency=1)
    assert running.get(timeout=30) == "again"


def test_a_long_task_outlives_its_lease_in_every_pool(short):
    """In solo the main thread does nothing but the task."""
    pools = ("threads", "gevent", "solo")
    for pool in pools:
        short.start(pool=pool, concurrency=1, arguments=("-Q", pool))
    short.start(concurrency=len(pools))
    long = {
        pool: short.tasks.stay.apply_async(queue=pool, headers={"account": pool}) for pool in pools
    }
    wait_for(lambda: len(short.ran()) == len(pools))
    next_ = {pool: short.tasks.work.apply_async(headers={"account": pool}) for pool in pools}
    short.wait_until_outlived(SECONDS, *pools)
    short.redis.rpush("go on", *pools)
    for pool in pools:
        runs = runs_of(short, long[pool], next_[pool])
        assert len(runs) == 2
        assert highest_overlap(runs) == 1, pool


def test_a_broker_outage_stops_no_beat(server, tmp_path):
    proxy = Proxy(server.port)
    through = f"redis://127.0.0.1:{proxy.port}/0"
    try:
        with site(server, tmp_path, "crashes", LIMITER_URL=server.url(), **SHORT) as one:
            cut_off = one.start(concurrency=1, env={"BROKER_URL": through})
            running = one.tasks.stay.apply_async(headers=ACCOUNT)
            wait_for(one.ran)
            one.start(concurrency=1)
            proxy.close()
            wait_for(lambda: "Connection to broker lost" in cut_off.output())
            waiting = one.tasks.work.apply_async(headers=ACCOUNT)
            one.wait_until_outlived(SECONDS, "a")
            runs = runs_of(one, running, waiting)
            assert len(runs) == 2
            assert highest_overlap(runs) == 1
            assert "keeps running without its tokens" not in one.output()
            proxy.open()
            one.wait_until_free()
    finally:
        proxy.close()


def test_a_task_that_is_delivered_twice_at_once_runs_one_after_the_other(short):
    """As by a visibility timeout that is shorter than the task: same id, same delivery tag."""
    result = short.tasks.safe.apply_async((3,), headers=ACCOUNT)
    [message] = short.redis.lrange("celery", 0, -1)
    short.redis.rpush("celery", message)
    short.start(concurrency=2)
    wait_for(lambda: len(begun(short)) == 2)
    short.wait_until_free()
    runs = [run for run in read_records(short.url) if run.task_id == result.id]
    assert len(runs) == 2
    assert highest_overlap(runs) == 1
