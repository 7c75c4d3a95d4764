"""Redis away, the limiter's alone or the broker's too: nothing runs ungated, nothing is lost."""

from __future__ import annotations

import os
import signal

import pytest

from celery_concurrency.testing.server import Server
from tests.support.proxies import Proxy
from tests.support.sites import RAN, site
from tests.support.workers import wait_for


@pytest.fixture
def limiter_server():
    with Server() as server:
        yield server


def test_without_the_limiters_redis_tasks_wait_and_run_when_it_is_back(
    server, limiter_server, tmp_path
):
    with site(server, tmp_path, "away", LIMITER_URL=limiter_server.url()) as away:
        away.start(concurrency=2)
        work = away.tasks.work
        assert work.apply_async(headers={"account": "a"}).get(timeout=30) == "done"
        away.redis.delete(RAN)
        limiter_server.kill()
        results = [work.apply_async(headers={"account": name}) for name in "ab"]
        results.append(work.delay())
        away.wait_until_waiting(*results, times=2)
        assert away.ran() == []
        assert "Redis did not answer" in str(results[0].info)
        limiter_server.start()
        assert [result.get(timeout=30) for result in results] == ["done"] * 3
        assert away.ran() == ["work"] * 3


def test_without_the_limiters_redis_tasks_run_where_the_settings_say_so(
    server, limiter_server, tmp_path
):
    url = limiter_server.url()
    with site(server, tmp_path, "away", LIMITER_URL=url, UNAVAILABLE="run") as away:
        away.start(concurrency=2)
        limiter_server.kill()
        results = [away.tasks.work.apply_async(headers={"account": "a"}) for _ in range(3)]
        assert [result.get(timeout=30) for result in results] == ["done"] * 3
        assert f"[{results[0].id}] runs " in away.output()
        limiter_server.start()
        result = away.tasks.work.apply_async(headers={"account": "a"})
        assert result.get(timeout=30) == "done"
        wait_for(lambda: f"[{result.id}] released global, account:a after" in away.output())


def wait_until_acked(away):
    """Wait until the run is at the gate, and the broker knows.

    A worker whose broker goes away before that ends, by a fault of kombu: it restores its messages
    by a connection that is closed.
    """
    wait_for(lambda: away.ran() == ["at the gate"])
    wait_for(lambda: not away.redis.hlen("unacked"))


@pytest.mark.parametrize("waiting", ["retry", "auto"])
def test_a_denied_task_whose_child_is_killed_while_the_broker_is_away_is_not_lost(
    server, tmp_path, waiting
):
    """Its message is put back when the broker is there again, and the task runs once."""
    proxy = Proxy(server.port)
    through = f"redis://127.0.0.1:{proxy.port}/0"
    limiter = server.url() if waiting == "retry" else through
    urls = {"BROKER_URL": through, "LIMITER_URL": limiter, "WAITING": waiting}
    try:
        with site(server, tmp_path, "away", **urls) as away:
            worker = away.start(concurrency=1)
            with away.held(account="a"):
                headers = {"account": "a", "held_up": True}
                result = away.tasks.work.apply_async(headers=headers)
                wait_until_acked(away)
                [child] = worker.children()
                proxy.close()
                away.redis.rpush("go on", "1", *["again"] * 100)
                said = "keeps its slot" if waiting == "retry" else "waits Redis did not answer"
                wait_for(lambda: f"[{result.id}] {said} " in worker.output())
                os.kill(child, signal.SIGKILL)
                proxy.open()
                assert "work" not in away.ran()
            again = away.tasks.app.AsyncResult
            wait_for(lambda: again(result.id).state == "SUCCESS")
            assert away.ran().count("work") == 1
            wait_for(lambda: f"[{result.id}] was not lost with its process" in worker.output())
    finally:
        proxy.close()


@pytest.mark.parametrize("limiter", ["here", "away-too"])
def test_with_the_broker_away_a_denied_task_is_not_lost(server, tmp_path, limiter):
    """Its message finds no place until the broker is back; then it runs once."""
    proxy = Proxy(server.port)
    through = f"redis://127.0.0.1:{proxy.port}/0"
    urls = {
        "BROKER_URL": through,
        "RESULT_BACKEND": server.url() if limiter == "here" else through,
        "LIMITER_URL": server.url() if limiter == "here" else through,
    }
    try:
        with site(server, tmp_path, "away", **urls) as away:
            worker = away.start(concurrency=1)
            with away.held(account="a"):
                headers = {"account": "a", "held_up": True}
                result = away.tasks.work.apply_async(headers=headers)
                wait_until_acked(away)
                proxy.close()
                away.redis.rpush("go on", "1", *["again"] * 100)
                said = "keeps its slot" if limiter == "here" else "waits Redis did not answer"
                wait_for(lambda: f"[{result.id}] {said} " in worker.output())
                if limiter == "here":
                    wait_for(lambda: result.state == "RETRY")
                proxy.open()
                assert "work" not in away.ran()
            # Where Celery could not write RETRY, it writes FAILURE for the time being, as it
            # would for a retry of the task's own.
            again = away.tasks.app.AsyncResult
            wait_for(lambda: again(result.id).state == "SUCCESS")
            assert away.ran().count("work") == 1
    finally:
        proxy.close()
