"""What celery-once and celery-singleton are used for, done by them and by ``concurrency_busy``."""

from __future__ import annotations

import os
import signal

import pytest
from celery_once import AlreadyQueued

from tests.support.sites import RAN, site
from tests.support.workers import wait_for

KINDS = ("once", "singleton", "ours")


@pytest.fixture(scope="module")
def room(server, tmp_path_factory):
    with site(server, tmp_path_factory.mktemp("once"), "once") as one:
        one.limiter.config.update({"dimensions": {"report": {"max": 1}}})
        one.start(concurrency=8)
        yield one


@pytest.fixture
def directory(room, tmp_path):
    yield tmp_path
    (tmp_path / "go on").touch()
    room.wait_until_free()
    room.redis.delete(RAN)


def is_turned_away(room, kind, shop, directory, first):
    """Send the same work once more, with another argument that is no part of what it is."""
    try:
        second = getattr(room.tasks, kind).delay(shop, str(directory), notify=False)
    except AlreadyQueued:
        return True
    if kind == "ours":
        wait_for(lambda: skipped(room, second) or room.ran().count(f"ours {shop}") == 2)
        return skipped(room, second)
    return second.id == first.id


def skipped(room, result):
    return f"[{result.id}] skipped" in room.output()


def begun(directory, kind, shop):
    return (directory / f"{kind} {shop}").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_work_is_not_done_twice_at_once(room, directory, kind):
    first = getattr(room.tasks, kind).delay("a", str(directory))
    wait_for(lambda: begun(directory, kind, "a"))
    assert is_turned_away(room, kind, "a", directory, first)
    other = getattr(room.tasks, kind).delay("b", str(directory))
    wait_for(lambda: begun(directory, kind, "b"))
    (directory / "go on").touch()
    first.get(timeout=30)
    other.get(timeout=30)
    ran = sorted(line for line in room.ran() if line.startswith(kind))
    assert ran == [f"{kind} a", f"{kind} b"]
    # Theirs is locked until a little after it has its result.
    wait_for(lambda: not is_turned_away(room, kind, "a", directory, first))


@pytest.mark.parametrize("kind", KINDS)
def test_only_their_lock_stays_behind_a_killed_process(room, directory, kind):
    first = getattr(room.tasks, kind).delay("killed", str(directory))
    file = directory / f"{kind} killed"
    wait_for(lambda: file.exists() and file.read_text())
    os.kill(int(file.read_text()), signal.SIGKILL)
    wait_for(lambda: first.state == "FAILURE")
    file.unlink()
    if kind == "ours":
        wait_for(lambda: not room.semaphores().get("report:killed"))
    assert is_turned_away(room, kind, "killed", directory, first) == (kind != "ours")
