"""The door: who has to wait anyway is parked by the main process, and takes no slot."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress

import pytest
from celery import chain, chord
from celery.contrib.abortable import AbortableAsyncResult
from celery.result import AsyncResult
from redis import Redis

from tests.support.sites import RAN, site
from tests.support.workers import wait_for

SLOTS = 2


@pytest.fixture(scope="module", params=["one database", "a database each, with prefixes"])
def room(request, server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("door")
    env, broker = {}, 0
    if request.param != "one database":
        broker = 4
        env = {"BROKER_URL": server.url(4), "RESULT_BACKEND": server.url(5), "KEYPREFIX": "mine:"}
        env["REDIS_URL"] = server.url(6)
    with (
        site(server, directory, "door", db=6 if env else 0, **env) as one,
        Redis.from_url(server.url(broker), decode_responses=True) as client,
    ):
        one.broker, one.prefix = client, env.get("KEYPREFIX", "")
        one.start(concurrency=SLOTS, arguments=("-E",))
        yield one


@pytest.fixture
def slots(room, tmp_path):
    """All slots of the worker are busy until this file is there."""
    file = tmp_path / "free"
    yield file
    file.touch()
    room.wait_until_free()
    room.redis.delete(RAN)


def fill(room, file):
    """Let all slots be busy; wait until they are."""
    held = len(room.semaphores().get("global", []))
    for _ in range(SLOTS):
        room.tasks.fill.delay(str(file))
    wait_for(lambda: len(room.semaphores().get("global", [])) == held + SLOTS)


def wait_until_known(room, account):
    """Let tasks of an account wait until the worker's main process knows; return their results."""
    results = []

    def is_known():
        results.append(room.tasks.work.apply_async(headers={"account": account}))
        room.wait_until_parked(results[-1])
        return is_parked_as_it_arrives(room, results[-1])

    wait_for(is_known)
    return results


def is_parked_as_it_arrives(room, result):
    lines = [line for line in room.output().splitlines() if f"[{result.id}] waits " in line]
    return bool(lines) and "is parked as it arrives" in lines[0]


def ran(room):
    return [line for line in room.ran() if not line.startswith("retry ")]


def test_who_has_to_wait_takes_no_slot(room, slots):
    """State, ack, event and signal are as if it had been denied in the pool; it runs in turn."""
    events = []
    with room.held(account="busy"):
        known = wait_until_known(room, "busy")
        fill(room, slots)
        with listening(room.tasks.app, events):
            results = [room.tasks.work.apply_async(headers={"account": "busy"}) for _ in range(20)]
            room.wait_until_parked(*results)
            last = results[-1]
            wait_for(lambda: ("task-retried", last.id) in [event[:2] for event in events])
        # Those who fill the slots may be acknowledged later.
        names = [f"{room.prefix}{name}" for name in ("celery", "unacked", "unacked_index")]
        wait_for(lambda: not room.broker.exists(*names))
        assert last.state == "RETRY"
        assert "waits for account:busy (others came before)" in str(last.result)
        assert f"retry {last.id} {last.result}" in room.ran()
        assert ("task-received", last.id) in [event[:2] for event in events]
        assert room.limiter.stats.window("total")["denied:total"] >= 21
    slots.touch()
    assert [result.get(timeout=30) for result in (*known, *results)]
    assert ran(room) == [result.id for result in (*known, *results)]
    assert room.output().count(f"[{last.id}] waits ") == 1


@contextmanager
def listening(app, events):
    """While the block runs, note a worker's events: type, task, reason."""

    def note(event):
        events.append((event["type"], event.get("uuid"), event.get("exception")))

    def listen():
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": note})
            with receiver.consumer_context(wakeup=False) as (own, _, _):
                while not over.is_set():
                    with suppress(TimeoutError):
                        own.drain_events(timeout=0.2)

    over = threading.Event()
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    wait_for(lambda: events, what="the worker's heartbeat: it listens")
    yield
    over.set()
    thread.join(60)


@pytest.mark.parametrize("task", ["late", "forgotten", "limited", "declared"])
def test_whatever_kind_of_task_it_is(room, slots, task):
    account = f"user{task}"
    args = ("declared",) if task == "declared" else ()
    headers = {} if task == "declared" else {"account": account}
    with room.held(account=account):
        known = wait_until_known(room, account)
        fill(room, slots)
        send = getattr(room.tasks, task).apply_async
        results = [send(args, headers=headers) for _ in range(3)]
        room.wait_until_parked(*results)
        wait_for(lambda: room.broker.hlen(f"{room.prefix}unacked") == 0)
        assert results[0].state == ("PENDING" if task == "forgotten" else "RETRY")
    slots.touch()
    wait_for(lambda: len(ran(room)) == len(known) + 3)
    assert ran(room) == [result.id for result in (*known, *results)]


def test_what_belongs_to_its_canvas_goes_on_when_it_has_run(room, slots):
    with room.held(account="canvas"):
        wait_until_known(room, "canvas")
        fill(room, slots)
        work = room.tasks.work.si().set(headers={"account": "canvas"})
        linked = chain(work, room.tasks.told.si()).apply_async()
        group = chord([work, work], room.tasks.told.si())()
        room.wait_until_parked(linked.parent, *group.parent)
    slots.touch()
    linked.get(timeout=30)
    group.get(timeout=30)
    assert ran(room).count("told") == 2


def test_higher_priority_goes_first_and_who_is_revoked_or_expired_never_runs(room, slots):
    send = room.tasks.work.apply_async
    with room.held(account="order"):
        known = wait_until_known(room, "order")
        fill(room, slots)
        low = send(headers={"account": "order"}, priority=9)
        high = send(headers={"account": "order"}, priority=3)
        revoked = send(headers={"account": "order"})
        expired = send(headers={"account": "order"}, expires=10)
        room.wait_until_parked(low, high, revoked, expired)
        revoked.revoke()
        wait_for(lambda: not {revoked.id, expired.id} & room.waiting())
    slots.touch()
    low.get(timeout=30)
    wait_for(lambda: {revoked.state, expired.state} == {"REVOKED"})
    assert ran(room)[len(known) :] == [high.id, low.id]


def test_a_group_of_which_nobody_waits_any_more_goes_to_the_pool(room, slots):
    with room.held(account="gone"):
        known = wait_until_known(room, "gone")
        assert sum(room.limiter.waiting_room.cancel_limit("account:gone")) == len(known)
    wait_for(lambda: {result.state for result in known} == {"REVOKED"})
    assert room.tasks.work.apply_async(headers={"account": "gone"}).get(timeout=30)


def test_a_success_is_not_overwritten_by_a_copy_that_waits(room, slots):
    first = room.tasks.work.apply_async(headers={"account": "again"})
    first.get(timeout=30)
    with room.held(account="again"):
        wait_until_known(room, "again")
        room.tasks.work.apply_async(headers={"account": "again"}, task_id=first.id)
        room.wait_until_parked(first)
        wait_for(lambda: is_parked_as_it_arrives(room, first))
        assert AsyncResult(first.id, app=room.tasks.app).state == "SUCCESS"
    slots.touch()


@pytest.mark.parametrize("known", [False, True])
def test_a_task_that_was_aborted_before_its_turn_sees_that(room, slots, known):
    """Whether it is denied in the pool or would be parked as it arrives."""
    account = f"aborted{known}"
    result = AbortableAsyncResult("aborted" + os.urandom(4).hex(), app=room.tasks.app)
    with room.held(account=account):
        if known:
            wait_until_known(room, account)
        result.abort()
        room.tasks.abortable.apply_async(headers={"account": account}, task_id=result.id)
        room.wait_until_parked(result)
        assert result.is_aborted()
    wait_for(lambda: f"{result.id} True" in ran(room))


def test_where_it_is_switched_off_each_task_asks_in_the_pool(server, tmp_path):
    env = {"LATE": "1", "REDIS_URL": server.url(7), "KEYPREFIX": ""}
    with site(server, tmp_path, "door", db=7, **env) as one:
        one.start(concurrency=SLOTS)
        with one.held(account="late"):
            results = []
            for _ in range(4):
                # By then the main process could know of those before.
                results.append(one.tasks.work.apply_async(headers={"account": "late"}))
                one.wait_until_waiting(results[-1])
                one.wait_until_parked(results[-1])
            assert "is parked as it arrives" not in one.output()
            wait_for(lambda: one.output().count("retry: Retry in 600.0s") == 4)
        for result in results:
            result.get(timeout=30)


def test_other_work_with_the_same_id_is_not_lost(room, slots):
    with room.held(account="same"):
        known = wait_until_known(room, "same")
        send = room.tasks.work.apply_async
        first = send(("one",), headers={"account": "same"})
        room.wait_until_parked(first)
        # A copy of it, and another message whose sender took the same id.
        send(("one",), headers={"account": "same"}, task_id=first.id)
        send(("two",), headers={"account": "same"}, task_id=first.id)
        last = send(headers={"account": "same"})
        room.wait_until_parked(last)
        assert len([name for name in room.waiting() if name.startswith(first.id)]) == 2
    slots.touch()
    last.get(timeout=30)
    assert ran(room)[len(known) :] == [first.id, first.id, last.id]
