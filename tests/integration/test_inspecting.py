"""What ``celery inspect`` says of a waiting task, and of a worker; also where Redis hangs."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.jotting import FILE
from tests.support.proxies import Proxy
from tests.support.sites import site
from tests.support.workers import wait_for

ACCOUNT = {"account": "a"}


def room(server, directory, **env):
    return site(server, directory, "room", **{FILE: str(directory / "jots"), **env})


def inspect(one, timeout=20):
    """Return who asks all workers; it answers as soon as each has."""
    return one.tasks.app.control.inspect([w.name for w in one.workers], timeout=timeout)


def stats_of(one, name):
    """Return what a worker says of itself, once Redis has answered it within half a second."""

    def found():
        # A gevent worker says that it is ready before it listens.
        said = inspect(one, timeout=5).stats()
        stats = said and said[name]["concurrency"]
        return stats and "unknown" not in stats.values() and stats

    return wait_for(found)


def tasks_of(one, name, *ids):
    """Return what a worker says of these tasks, once Redis has answered it in time."""

    def found():
        said = inspect(one).query_task(*ids)
        return said and "unknown" not in {state for state, _ in said[name].values()} and said

    return wait_for(found)


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_waiting_task_is_found_as_one_that_a_worker_has(server, tmp_path, pool):
    with room(server, tmp_path, WAITING="auto") as one:
        name = one.start(pool=pool, concurrency=1).name
        reason = "the broker is the Redis server that holds the tokens"
        expected = {"mode": "handoff", "reason": reason, "waiting": 0, "uncounted_groups": 0}
        assert stats_of(one, name) == expected
        with one.held(**ACCOUNT):
            result = one.tasks.work.apply_async(headers=ACCOUNT)
            one.wait_until_parked(result)
            wait_for(lambda: facts_of_waiting(one, name, result.id))
            found = tasks_of(one, name, result.id, "nobody")
            state, facts = found[name].pop(result.id)
            assert (found, state) == ({name: {}}, "waiting")
            assert facts["name"] == facts["type"] == "tests.projects.room.work"
            why = facts["concurrency"]
            assert why["blocked_by"]["limit"] == "account:a"
            assert why["position"] == 1
            assert abs(why["since"] - one.redis.time()[0]) < 60
            assert stats_of(one, name)["waiting"] == 1
            assert tasks_of(one, name, "nobody") == {name: {}}
        assert result.get(timeout=30) == result.id


def test_celery_s_own_answer_stays_as_it_is(server, tmp_path):
    """And ours about a waiting task has the same fields, for programs."""
    with room(server, tmp_path, WAITING="auto") as one:
        name = one.start(concurrency=1).name
        running = one.tasks.until.apply_async((str(tmp_path / "go"),), headers=ACCOUNT)
        wait_for(one.ran)
        waiting = one.tasks.work.apply_async(headers=ACCOUNT)
        expected = {running.id: "active", waiting.id: "reserved"}

        def answer():
            said = inspect(one).query_task(running.id, waiting.id)
            found = said[name] if said else {}
            return found if {id: state for id, (state, _) in found.items()} == expected else None

        # It is reserved, behind the running one, and has asked for nothing yet.
        found = wait_for(answer)
        assert "concurrency" not in found[running.id][1]
        with one.held(account="b"):
            (tmp_path / "go").touch()
            parked = one.tasks.work.apply_async(headers={"account": "b"})
            one.wait_until_parked(parked)
            # Until its child has said that it ended, Celery answers for it itself.
            facts = wait_for(lambda: facts_of_waiting(one, name, parked.id))
        assert set(facts) == {*found[running.id][1], "concurrency"}
        json.dumps([found, facts])


def facts_of_waiting(one, name, task_id):
    """Return our answer about a task; None while Celery gives its own."""
    facts = tasks_of(one, name, task_id)[name][task_id][1]
    return facts if "concurrency" in facts else None


def test_it_is_unknown_and_soon_said_where_redis_hangs(server, tmp_path):
    """The tokens' Redis alone: the worker goes on taking messages, and answers in time."""
    proxy = Proxy(server.port)
    through = f"redis://127.0.0.1:{proxy.port}/0"
    try:
        with room(server, tmp_path, WAITING="handoff", REDIS_URL=through) as one:
            name = one.start(concurrency=1).name
            assert stats_of(one, name)["mode"] == "handoff"
            proxy.part()

            def seconds():
                begun = time.monotonic()
                stats = inspect(one).stats()[name]
                state, facts = inspect(one).query_task("nobody")[name]["nobody"]
                assert set(stats["concurrency"].values()) == {"unknown"}
                assert (state, facts["concurrency"]) == ("unknown", "unknown")
                return time.monotonic() - begun

            # Each command would wait for two seconds. The soonest, as the machine may stand still.
            assert min(seconds() for _ in range(3)) < 6
            proxy.join()
    finally:
        proxy.join()
        proxy.close()
