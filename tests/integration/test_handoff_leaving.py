"""Who leaves the waiting room: whoever finds room by an operator's hand, and who may not run."""

from __future__ import annotations

import pytest
from celery import chord
from celery.exceptions import TaskRevokedError

from tests.support.jotting import FILE, read_jots
from tests.support.recording import highest_overlap
from tests.support.sites import RAN, site
from tests.support.workers import wait_for


@pytest.fixture(scope="module")
def room(server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("leaving")
    with site(server, directory, "room", WAITING="auto", **{FILE: str(directory / "jots")}) as one:
        one.start(pool="threads", concurrency=10)
        yield one


@pytest.fixture(autouse=True)
def nothing_left(room):
    room.redis.delete(RAN)
    jots(room).unlink(missing_ok=True)
    room.limiter.config.reset()
    yield
    room.limiter.config.reset()
    room.wait_until_free()
    assert room.waiting() == set()


def jots(room):
    return room.directory / "jots"


def send(room, count, **tags):
    return [room.tasks.work.apply_async(headers=tags) for _ in range(count)]


def discarded(room, result):
    return f"Discarding revoked task: tests.projects.room.work[{result.id}]" in room.output()


def wait_until_run(room, results):
    """Wait until each of these has run; once, and to its end."""
    ids = sorted(result.id for result in results)
    wait_for(lambda: len(read_jots(jots(room))) >= len(ids))
    assert [result.get(timeout=30) for result in results] == [result.id for result in results]
    assert sorted(run.task_id for run in read_jots(jots(room))) == ids


def test_a_raised_limit_lets_all_six_begin_at_once(room, tmp_path):
    """By the call that raises it, not by a later sweep."""
    go_on = tmp_path / "go on"
    tags = {"account": "raised"}
    first = room.tasks.until.apply_async((str(go_on),), headers=tags)
    wait_for(room.ran)
    six = [room.tasks.until.apply_async((str(go_on),), headers=tags) for _ in range(6)]
    room.wait_until_parked(*six)
    room.limiter.config.update({"account_max": 7})
    assert room.waiting() == set()
    wait_for(lambda: len(room.ran()) == 7)
    go_on.touch()
    for result in [first, *six]:
        result.get(timeout=30)


def test_a_lowered_limit_touches_nothing_that_runs(room, tmp_path):
    """Nor does it admit one more before so many have ended."""
    go_on = tmp_path / "go on"
    tags = {"account": "lowered"}
    room.limiter.config.update({"account_max": 3})
    running = [room.tasks.until.apply_async((str(go_on),), headers=tags) for _ in range(3)]
    wait_for(lambda: len(room.ran()) == 3)
    holders = room.semaphores()["account:lowered"]
    room.limiter.config.update({"account_max": 1})
    [waiting] = send(room, 1, **tags)
    room.wait_until_parked(waiting)
    assert room.semaphores()["account:lowered"] == holders
    assert len(holders) == 3
    go_on.touch()
    for result in running:
        result.get(timeout=30)
    assert waiting.get(timeout=30) == waiting.id
    assert highest_overlap(read_jots(jots(room))) == 3


@pytest.mark.parametrize(
    ("closed", "opened"),
    [
        ({"paused": ["platform:douyin"]}, {"paused": []}),
        ({"paused": ["global"]}, {"paused": []}),
        ({"paused": ["global", "account:0"]}, {"enabled": False}),
        ({"paused": ["account:0", "account:1", "account:2"]}, {"paused": []}),
    ],
    ids=["a platform", "all", "enabled: false", "accounts"],
)
def test_what_is_paused_and_resumed_lets_those_run_who_wait(room, closed, opened):
    room.limiter.config.update(closed)
    results = [send(room, 1, platform="douyin", account=str(number))[0] for number in range(3)]
    room.wait_until_parked(*results)
    assert read_jots(jots(room)) == []
    room.limiter.config.update(opened)
    assert room.waiting() == set()
    wait_until_run(room, results)


@pytest.mark.parametrize("limit", ["account:stuck", "platform:douyin", "global"])
def test_a_semaphore_that_an_operator_deletes_lets_those_run_who_wait(room, limit):
    """Nobody is told of it: the sweep sees it."""
    room.limiter.config.update({"global_max": 1, "platform_max": {"douyin": 1}})
    with room.held(platform="douyin", account="stuck"):
        [result] = send(room, 1, platform="douyin", account="stuck")
        room.wait_until_parked(result)
        for name in ("account:stuck", "platform:douyin", "global"):
            if name != limit:
                room.redis.delete(f"concurrency:semaphore:{name}")
        room.redis.delete(f"concurrency:semaphore:{limit}")
        wait_until_run(room, [result])


def test_a_token_that_expires_lets_those_run_who_wait(room):
    """Its holder is dead."""
    room.limiter.config.update({"timeout": 1})
    room.limiter.try_acquire("dead:1", {"account": "dead"})
    results = send(room, 2, account="dead")
    wait_until_run(room, results)


def test_a_task_that_is_revoked_while_it_waits_never_runs(room):
    with room.held(account="revoked"):
        result, other = send(room, 2, account="revoked")
        room.wait_until_parked(result, other)
        result.revoke()
        wait_for(lambda: room.waiting() == {other.id})
        wait_for(lambda: discarded(room, result))
    wait_until_run(room, [other])
    wait_for(lambda: result.state == "REVOKED")


def test_a_task_that_is_cancelled_while_it_waits_never_runs(room):
    with room.held(account="cancelled"):
        result, other = send(room, 2, account="cancelled")
        room.wait_until_parked(result, other)
        assert room.limiter.waiting_room.cancel(result.id)
        wait_for(lambda: discarded(room, result))
        wait_for(lambda: result.state == "REVOKED")  # the log is ahead of it
        assert room.waiting() == {other.id}
    wait_until_run(room, [other])


def test_a_task_that_is_revoked_with_its_turn_on_its_way_passes_it_on(server, tmp_path):
    """Its message is in the broker and its room reserved: the next one has it at once."""
    env = {"WAITING": "auto", "HANDOFF_TIMEOUT": "150", FILE: str(tmp_path / "j")}
    with site(server, tmp_path, "room", db=1, **env) as one:
        one.start(concurrency=1)
        go_on = tmp_path / "go on"
        with one.held(account="a"):
            first, second = send(one, 2, account="a")
            one.wait_until_parked(first, second)
            blocking = one.tasks.until.delay(str(go_on))
            wait_for(one.ran)
        wait_for(lambda: one.output().count(f"[{first.id}] received") == 2)
        first.revoke()
        wait_for(lambda: f"flagged as revoked: {first.id}" in one.output())
        go_on.touch()
        # Where the reservation stayed, it would be longer than two minutes.
        assert second.get(timeout=60) == second.id
        wait_for(lambda: discarded(one, first))
        one.wait_until_free()
        wait_for(lambda: first.state == "REVOKED")
        assert {run.task_id for run in read_jots(tmp_path / "j")} == {second.id, blocking.id}


def test_a_task_that_expires_while_it_waits_never_runs(room):
    with room.held(account="expires"):
        result = room.tasks.work.apply_async(headers={"account": "expires"}, expires=10)
        other = send(room, 1, account="expires")[0]
        room.wait_until_parked(result, other)
        wait_for(lambda: discarded(room, result))
        wait_for(lambda: result.state == "REVOKED")  # Celery logs it first
    wait_until_run(room, [other])


@pytest.mark.parametrize("how", ["revoked", "cancelled", "expired"])
def test_the_chord_of_one_that_never_runs_is_told(room, how):
    """As by Celery alone: its body fails and never runs; errbacks are for what has failed."""
    tasks = room.tasks
    with room.held(account="chord"):
        waits = tasks.work.si().set(headers={"account": "chord"}, task_id=f"header {how}")
        waits.set(link_error=tasks.told.s())
        if how == "expired":
            waits = waits.set(expires=10)
        body = chord([waits, tasks.work.si()], tasks.told.s()).apply_async()
        wait_for(lambda: room.waiting() == {f"header {how}"})
        if how == "revoked":
            tasks.app.control.revoke(f"header {how}")
        elif how == "cancelled":
            room.limiter.waiting_room.cancel(f"header {how}")
        wait_for(lambda: body.state == "FAILURE")
        wait_for(lambda: body.parent.results[0].state == "REVOKED")
        # Celery raises the error of a part that has failed before the body is asked for.
        with pytest.raises(TaskRevokedError):
            body.get(timeout=30)
    assert room.ran() == []
