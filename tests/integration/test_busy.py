"""Busy limits: a task that is skipped, and one that replaces those that wait."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from celery import chain, chord
from celery.exceptions import ChordError, TaskRevokedError

from celery_concurrency.errors import InvalidTag
from tests.support.sites import RAN, site
from tests.support.workers import wait_for

SENT = 200


@pytest.fixture(scope="module", params=["handoff", "retry"])
def room(request, server, tmp_path_factory):
    with site(server, tmp_path_factory.mktemp("busy"), "busy", WAITING=request.param) as one:
        one.mode = request.param
        one.start(concurrency=4)
        yield one


@pytest.fixture
def file(room, tmp_path):
    """Tasks that got it go on as soon as it is there."""
    yield tmp_path / "go on"
    (tmp_path / "go on").touch()
    room.wait_until_free()
    room.redis.delete(RAN)


def skipped(room, *results):
    """Wait until all of these are skipped."""
    wait_for(lambda: all(f"[{one.id}] skipped because" in room.output() for one in results))


def begun(room, result):
    wait_for(lambda: result.id in room.ran())


def counted(room, name):
    return room.limiter.stats.window("total").get(f"{name}:total", 0)


def test_of_many_that_are_skipped_one_runs_and_none_waits(room, file):
    before = counted(room, "skipped")
    first = room.tasks.poll.delay("many", str(file))
    begun(room, first)
    others = [room.tasks.poll.delay("many") for _ in range(SENT - 1)]
    skipped(room, *others)
    assert f"[{others[0].id}] skipped because account:many is busy" in room.output()
    assert not room.waiting()
    assert not room.redis.exists("celery")
    wait_for(lambda: not room.redis.exists("unacked"))
    assert {one.state for one in others} == {"PENDING"}
    assert counted(room, "skipped") == before + SENT - 1
    file.touch()
    assert first.get(timeout=30) == first.id
    assert room.ran() == [first.id]
    room.wait_until_free()  # its result comes before its release
    again = room.tasks.poll.delay("many")
    assert again.get(timeout=30) == again.id


def test_one_waits_where_only_others_kinds_of_work_are_in_its_way(room, file):
    """The limits that it shares are full; a second one is skipped, as the first waits."""
    room.limiter.config.update({"platform_max": {"full": 1}})
    with room.held(platform="full"):
        first = room.tasks.poll.apply_async(("shared",), headers={"platform": "full"})
        room.wait_until_waiting(first)
        # Until it is in the room, nobody knows that it is about to wait.
        if room.mode == "handoff":
            room.wait_until_parked(first)
            second = room.tasks.poll.apply_async(("shared",), headers={"platform": "full"})
            skipped(room, second)
    assert first.get(timeout=30) == first.id


def test_its_canvas_is_told_that_a_part_was_skipped(room, file):
    first = room.tasks.poll.delay("canvas", str(file))
    begun(room, first)
    group = chord([room.tasks.told.si(), room.tasks.poll.si("canvas")], room.tasks.told.si())()
    with pytest.raises(ChordError, match="skipped: account:canvas is busy"):
        group.get(timeout=30)
    linked = chain(room.tasks.poll.si("canvas"), room.tasks.told.si()).apply_async()
    skipped(room, linked.parent)
    wait_for(lambda: len(room.ran()) >= 2)
    assert room.ran() == [first.id, "told"]


def test_what_has_begun_before_is_not_skipped_for_its_own_tokens(room, file):
    results = [room.tasks.stubborn.delay(f"stubborn{number}") for number in range(10)]
    assert [result.get(timeout=60) for result in results] == [3] * 10
    late = room.tasks.late.delay("late")
    assert late.get(timeout=60) == late.id


def test_no_lock_stays_behind_a_killed_process(room, file):
    first = room.tasks.poll.delay("killed", str(file))
    pid = Path(f"{file}.pid")
    wait_for(lambda: pid.exists() and pid.read_text())
    os.kill(int(pid.read_text()), signal.SIGKILL)
    wait_for(lambda: first.state == "FAILURE")
    # Where nobody gave it back, its lease would last for half a minute.
    wait_for(lambda: not room.semaphores().get("account:killed"), timeout=20)
    second = room.tasks.poll.delay("killed")
    assert second.get(timeout=30) == second.id


def test_a_sender_may_want_something_else(room, file):
    with room.held(account="sender"):
        send = room.tasks.poll.apply_async
        waits = send(("sender",), headers={"concurrency_busy": "wait"})
        room.wait_until_waiting(waits)
    assert waits.get(timeout=30) == waits.id
    with pytest.raises(InvalidTag, match="make it 'wait', 'skip' or 'replace'"):
        send(("sender",), headers={"concurrency_busy": "drop"}).get(timeout=30)


def test_of_many_that_replace_each_other_the_first_and_the_newest_run(room, file):
    if room.mode == "retry":
        pytest.skip("there is no waiting room")
    before = counted(room, "replaced")
    first = room.tasks.render.delay("many", str(file))
    begun(room, first)
    other = room.tasks.poll.apply_async(("many",), headers={"concurrency_busy": "wait"})
    room.wait_until_parked(other)
    parts = [chord([room.tasks.render.si("many")], room.tasks.told.si())() for _ in range(2)]
    others = [room.tasks.render.delay("many") for _ in range(SENT - 3)]
    wait_for(lambda: counted(room, "replaced") == before + SENT - 2)
    wait_for(lambda: {one.state for one in others[:-1]} == {"REVOKED"})
    assert room.waiting() == {other.id, others[-1].id}
    for part in parts:
        with pytest.raises(TaskRevokedError):
            part.get(timeout=30)
    file.touch()
    assert others[-1].get(timeout=30) == others[-1].id
    assert other.get(timeout=30) == other.id
    assert sorted(room.ran()) == sorted([first.id, other.id, others[-1].id])
    assert not room.redis.exists("concurrency:newest")
