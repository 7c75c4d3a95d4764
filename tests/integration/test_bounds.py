"""Bounds on waiting: tasks that are refused as too many wait, and ones that are given up."""

from __future__ import annotations

import pytest
from celery import chain, chord
from celery.exceptions import ChordError

from celery_concurrency import TooManyWaiting, WaitedTooLong
from tests.support.sites import RAN, site
from tests.support.workers import wait_for

SENT, MOST = 1000, 100


@pytest.fixture(scope="module")
def room(server, tmp_path_factory):
    with site(server, tmp_path_factory.mktemp("bounds"), "bounds") as one:
        one.start(concurrency=4)
        yield one


@pytest.fixture(autouse=True)
def file(room, tmp_path):
    """Tasks that got it go on as soon as it is there; bounds of a test are gone after it."""
    yield tmp_path / "go on"
    (tmp_path / "go on").touch()
    room.limiter.config.update({"waiting": dict.fromkeys(bounds_of(room))})
    room.wait_until_free()
    room.redis.delete(RAN)


def bounds_of(room):
    return room.limiter.config.sync().config.waiting


def bound(room, user, **bounds):
    room.limiter.config.update({"waiting": {f"account:{user}": bounds}})


def begun(room, result):
    wait_for(lambda: result.id in room.ran())


def ended(results):
    wait_for(lambda: all(one.ready() for one in results), timeout=120)


def counted(room, name):
    return room.limiter.stats.window("total").get(f"{name}:total", 0)


def grow_older(room, user, seconds):
    """As if so many seconds had passed for who waits for a user."""
    key = f"concurrency:waiting:account:{user}"
    for waiter in room.redis.zrange(key, 0, -1):
        room.redis.zincrby(key, -seconds, waiter)
    room.redis.zincrby("concurrency:waiting", -seconds, f"account:{user}")


def given_up(room, user, *waiting):
    """Let them have waited for an hour."""
    room.wait_until_parked(*waiting)
    grow_older(room, user, 3600)


def test_of_a_thousand_as_many_wait_as_may_and_the_rest_is_refused(room, file):
    bound(room, "flood", most=MOST)
    first = room.tasks.work.delay("flood", str(file))
    begun(room, first)
    others = [room.tasks.work.delay("flood") for _ in range(SENT - 1)]
    # To ask for a thousand results again and again would take more than all of the workers do.
    wait_for(lambda: counted(room, "crowded") >= SENT - 1 - MOST, timeout=120)
    wait_for(lambda: sum(one.ready() for one in others) == SENT - 1 - MOST, timeout=120)
    refused = [one for one in others if one.ready()]
    assert len(room.waiting()) == MOST
    for one in refused:
        with pytest.raises(TooManyWaiting) as caught:
            one.get()
        assert (caught.value.limit, caught.value.most) == ("account:flood", MOST)
        assert caught.value.waiting == MOST
    assert counted(room, "crowded") >= len(refused)
    file.touch()
    ended(others)
    assert first.get() == first.id
    ran = room.ran()
    assert len(ran) == len(set(ran)) == MOST + 1
    assert {one.id for one in refused}.isdisjoint(ran)
    assert room.redis.exists("concurrency:waiting", "concurrency:waiting:account:flood") == 0


def test_its_canvas_is_told_that_one_was_given_up(room, file):
    bound(room, "canvas", seconds=600)
    first = room.tasks.work.delay("canvas", str(file))
    begun(room, first)
    part = room.tasks.work.si("canvas")
    grouped = chord([room.tasks.told.si(), part], room.tasks.told.si())
    grouped = grouped.on_error(room.tasks.failed.s())()
    chained = chain(room.tasks.work.si("canvas"), room.tasks.told.si()).apply_async()
    linked = room.tasks.work.si("canvas").on_error(room.tasks.failed.s()).apply_async()
    wait_for(lambda: len(room.waiting()) == 3)
    grow_older(room, "canvas", 3600)
    for result in (chained.parent, linked):
        with pytest.raises(WaitedTooLong) as caught:
            result.get(timeout=30)
        assert (caught.value.limit, caught.value.seconds) == ("account:canvas", 600)
        assert 3600 <= caught.value.waited < 3660
        assert result.state == "FAILURE"
    error = grouped.get(timeout=30, propagate=False)
    assert isinstance(error, ChordError)
    assert "WaitedTooLong('account:canvas', 600, 36" in str(error)
    wait_for(lambda: sum(one.startswith("failed") for one in room.ran()) == 2)
    assert f"failed {linked.id}" in "".join(room.ran())
    wait_for(lambda: "told" in room.ran())
    assert room.ran().count("told") == 1, "the chord's other part"


def test_it_is_not_retried_and_its_message_is_gone(room, file):
    """Not by autoretry, nor by its late acknowledgement."""
    bound(room, "stubborn", seconds=600, most=1)
    first = room.tasks.work.delay("stubborn", str(file))
    begun(room, first)
    waits = room.tasks.stubborn.delay("stubborn")
    room.wait_until_parked(waits)
    refused = room.tasks.stubborn.delay("stubborn")
    with pytest.raises(TooManyWaiting):
        refused.get(timeout=30)
    given_up(room, "stubborn", waits)
    with pytest.raises(WaitedTooLong):
        waits.get(timeout=30)
    wait_for(lambda: not room.redis.exists("unacked"))
    assert room.ran() == [first.id]


def test_one_that_retries_waits_however_many_do(room, file):
    """It has begun its work: refused, that would be lost."""
    bound(room, "again", most=1)
    retries = room.tasks.again.delay("again", str(file))
    begun(room, retries)
    room.limiter.config.update({"paused": ["account:again"]})
    other = room.tasks.work.delay("again")
    room.wait_until_parked(other)
    file.touch()
    wait_for(lambda: f"{retries.id} retry 1" in room.waiting() or retries.ready())
    room.limiter.config.update({"paused": []})
    assert retries.get(timeout=30) == retries.id
    assert other.get(timeout=30) == other.id


def test_one_without_a_result_is_given_up(room, file):
    bound(room, "forgotten", seconds=600)
    first = room.tasks.work.delay("forgotten", str(file))
    begun(room, first)
    linked = room.tasks.forgotten.si("forgotten").on_error(room.tasks.failed.s()).apply_async()
    given_up(room, "forgotten", linked)
    wait_for(lambda: f"failed {linked.id}" in "".join(room.ran()))
    wait_for(lambda: not room.redis.exists("unacked"))


def test_one_that_is_revoked_as_it_is_given_up_ends_and_takes_nobodys_place(room, file):
    """Whichever comes first; what is reserved for the next of its account stays."""
    bound(room, "revoked", seconds=600)
    first = room.tasks.work.delay("revoked", str(file))
    begun(room, first)
    waits = room.tasks.work.delay("revoked")
    room.wait_until_parked(waits)
    room.tasks.app.control.revoke(waits.id)
    grow_older(room, "revoked", 3600)
    wait_for(lambda: waits.state in ("REVOKED", "FAILURE"))
    other = room.tasks.work.delay("revoked")
    file.touch()
    assert other.get(timeout=30) == other.id


def test_by_countdown_it_is_given_up_when_it_asks_again(server, tmp_path):
    with site(server, tmp_path, "bounds", db=3, WAITING="retry") as room:
        bound(room, "retry", seconds=1, most=1)
        room.start(concurrency=2)
        wait_for(lambda: "how many tasks wait for a limit is not bounded" in room.output())
        with room.held(account="retry"):
            results = [room.tasks.work.delay("retry") for _ in range(2)]
            for result in results:
                with pytest.raises(WaitedTooLong, match=r"waited for account:retry for [1-9]"):
                    result.get(timeout=30)
