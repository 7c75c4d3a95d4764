"""Wherever Celery copies a request or makes a message of it, nothing of ours is in it.

Each scenario runs twice on one worker, exempt and gated. The gated one waits first: its message
then has been in the waiting room, and has the most of ours about it. What bodies, callbacks,
results, events and inspection can see must be the same. The table in ``docs/decisions.md``
names the places in Celery that copy.
"""

from __future__ import annotations

import json
import re
import shelve
import signal
import threading
import zlib
from pickle import loads

import pytest
from celery import Task

from tests.support.sites import RAN, site
from tests.support.workers import wait_for

HEADERS = {"account": "a", "theirs": "1"}

#: Each scenario, and how many notes of views it leaves at its end.
SCENARIOS = {
    "look linked": 2,
    "look in a chain": 2,
    "look in a chord": 3,
    "look stamped": 1,
    "retried": 2,
    "retried stamped": 2,
    "auto linked": 3,
    "parent": 2,
    "replaced": 2,
    "replaced linked": 3,
    "replaced in a chord": 4,
    "replaced_by_chain": 3,
    "grown in a chord": 4,
    "fails linked": 3,
    "fails in a chord": 2,
    "dies linked": 3,
    "dies in a chain": 1,
    "slow": 1,
    "lost_once": 2,
    "typed given": 1,
    "dumped": 1,
}
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}"
NOT_BEFORE_5_7 = {"lost_once"}


@pytest.fixture(scope="module")
def copies(server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("copies")
    with site(server, directory, "copies") as one:
        start(one)
        yield one


def start(copies):
    copies.start(concurrency=2, arguments=("--statedb", str(copies.directory / "state")))


@pytest.fixture(scope="module")
def events(copies):
    """All events of the worker so far."""
    seen = []
    ends = threading.Event()
    connection = copies.tasks.app.connection_for_read()
    receiver = copies.tasks.app.events.Receiver(connection, handlers={"*": seen.append})

    def receive():
        while not ends.is_set():
            try:
                receiver.capture(limit=None, timeout=0.5, wakeup=False)
            except TimeoutError:
                continue

    thread = threading.Thread(target=receive)
    thread.start()
    yield seen
    ends.set()
    thread.join()
    connection.release()


@pytest.fixture(autouse=True)
def nothing_left(copies):
    copies.redis.delete(RAN)
    yield
    copies.wait_until_free()


def seen_of(copies, name, gated):
    """Run a scenario; return what was noted in it, and the metadata of its first task's result."""
    copies.redis.delete(RAN, "dumps")
    signature = copies.tasks.of(name, "" if gated else "free.", HEADERS)
    priority = 3 if "stamped" in name else None
    if gated:
        with copies.held(account="a"):
            result = signature.apply_async(priority=priority)
            wait_for(lambda: copies.redis.exists("concurrency:groups"), what=f"{name} waits")
            [waiter] = copies.waiting()
    else:
        result = signature.apply_async(priority=priority)
        waiter = None
    notes = wait_for(
        lambda: len(copies.ran()) >= SCENARIOS[name] and copies.ran(), what=f"the notes of {name}"
    )
    result.get(timeout=60, propagate=False)
    assert len(copies.ran()) == SCENARIOS[name]
    return sorted({*notes, *copies.redis.smembers("dumps")}), result, waiter


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_can_be_seen_is_what_could_be_seen_without_us(copies, name):
    if name in NOT_BEFORE_5_7 and not hasattr(Task, "retry_on_worker_lost"):
        pytest.skip("this Celery has no task_retry_on_worker_lost")
    free, result, _ = seen_of(copies, name, gated=False)
    without = meta(copies, result.id)
    gated, result, waiter = seen_of(copies, name, gated=True)
    assert waiter
    assert [without_prefix(note) for note in gated] == [without_prefix(note) for note in free]
    assert meta(copies, result.id) == without


def without_prefix(note):
    return re.sub(rf"{UUID}|Job: \d+", "<id>", note.replace("free.", ""))


def meta(copies, task_id):
    """Return what the backend has of a result, but for ids, times and tracebacks."""
    text = copies.redis.get(f"celery-task-meta-{task_id}") or "null"
    assert "concurrency" not in text
    found = json.loads(text)
    if found is None:
        return None
    own = {"task_id", "date_done", "traceback", "parent_id", "children", "group_id", "worker"}
    return {
        name: without_prefix(str(value)) if name not in own else bool(value)
        for name, value in found.items()
    }


def test_the_events_of_a_task_have_the_fields_that_they_have_without_us(copies, events):
    fields = {}
    for gated in (False, True):
        wait_for(lambda: any(one["type"] == "worker-heartbeat" for one in events))
        before = len(events)
        _, result, _ = seen_of(copies, "retried", gated)

        def ended(before=before, result=result):
            mine = [one for one in events[before:] if one.get("uuid") == result.id]
            return any(one["type"] == "task-succeeded" for one in mine) and mine

        mine = wait_for(ended)
        fields[gated] = {(one["type"], *sorted(one)) for one in mine}
        texts = json.dumps([{**one, "traceback": "", "exception": ""} for one in mine])
        assert "concurrency" not in texts
    assert fields[True] == fields[False]


def test_while_it_waits_and_runs_inspection_shows_what_it_shows_without_us(copies):
    inspect = copies.tasks.app.control.inspect([copies.workers[0].name], timeout=20)
    with copies.held(account="a"):
        waiting = copies.tasks.app.send_task("look", headers=HEADERS)
        copies.wait_until_parked(waiting)
        state = copies.redis.get(f"celery-task-meta-{waiting.id}")
        assert set(json.loads(state)) >= {"status", "name", "args", "kwargs", "worker", "retries"}
        assert "concurrency_" not in json.dumps({**json.loads(state), "traceback": ""})
        # One that waits for its time is held in the worker, with a run of ours aboard.
        later = copies.tasks.app.send_task("look", headers=HEADERS, countdown=600)
        wait_for(lambda: (inspect.scheduled() or {}).get(copies.workers[0].name))
        shown = json.dumps([inspect.scheduled(), inspect.reserved(), inspect.query_task(later.id)])
        assert later.id in shown
        assert "concurrency" not in shown
        later.revoke()
        waiting.revoke()
        wait_for(lambda: waiting.state == "REVOKED")
    assert "concurrency" not in copies.redis.get(f"celery-task-meta-{waiting.id}")


def test_what_celery_has_run_before_is_left_to_celery(copies):
    """A copy of a message that waited, delivered again after success; no tokens are taken."""
    with copies.held(account="a"):
        result = copies.tasks.app.send_task("look", headers=HEADERS)
        copies.wait_until_parked(result)
        record = copies.redis.get(f"concurrency:waiter:{result.id}")
    result.get(timeout=30)
    acquired = copies.limiter.stats.window("total")["acquired:total"]
    copy = json.loads(record.partition("\n")[2])
    copy["properties"]["delivery_info"]["redelivered"] = True
    copies.redis.rpush("celery", json.dumps(copy))
    said = f"{result.id}] Task already completed successfully."
    wait_for(lambda: said in copies.output())
    assert len(copies.ran()) == 1
    assert copies.limiter.stats.window("total")["acquired:total"] == acquired


def test_a_cold_shutdown_writes_and_sends_back_what_it_does_without_us(copies):
    with copies.held(account="a"):
        result = copies.tasks.app.send_task("slow", headers=HEADERS, time_limit=600)
        copies.wait_until_parked(result)
    wait_for(copies.ran)
    worker = copies.workers.pop()
    worker.process.send_signal(signal.SIGQUIT)
    worker.process.wait(60)
    assert "concurrency_" not in copies.redis.get(f"celery-task-meta-{result.id}")
    start(copies)
    # kombu adds a header of its own, that it comes again.
    wait_for(lambda: len(copies.ran()) == 2)
    first, again = map(json.loads, copies.ran())
    assert set(again["headers"]) - {"redelivered"} == set(first["headers"]) == set(HEADERS)
    result.revoke(terminate=True, signal="SIGKILL")
    wait_for(lambda: result.state == "REVOKED")


def test_what_a_worker_keeps_over_its_end_is_ids(copies, tmp_path):
    """Of those that were cancelled, too, which it was told by a header of ours."""
    with copies.held(account="a"):
        cancelled = copies.tasks.app.send_task("look", headers=HEADERS)
        copies.wait_until_parked(cancelled)
        copies.limiter.waiting_room.cancel(cancelled.id)
        wait_for(lambda: cancelled.state == "REVOKED")
    assert "concurrency" not in copies.redis.get(f"celery-task-meta-{cancelled.id}")
    copies.workers.pop().stop()
    with shelve.open(str(copies.directory / "state"), "r") as kept:
        found = {name: unpacked(value) for name, value in kept.items()}
        found = repr({**found, "zrevoked": list(found["zrevoked"])})
    assert cancelled.id in found
    assert "concurrency" not in found
    start(copies)


def unpacked(value):
    return loads(zlib.decompress(value)) if isinstance(value, bytes) else value
