"""Weights: tasks that take several places, with real workers."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from contextlib import suppress

import pytest

from celery_concurrency.errors import InvalidTag, WeightTooHigh
from tests.support.sites import RAN, site
from tests.support.workers import wait_for

#: Places of the platform, and how many tasks are sent there.
PLACES, SENT = 7, 500


@pytest.fixture(scope="module", params=["handoff", "retry"])
def room(request, server, tmp_path_factory):
    with site(server, tmp_path_factory.mktemp("weights"), "weights", WAITING=request.param) as one:
        one.mode = request.param
        one.start(concurrency=4)
        yield one


@pytest.fixture(autouse=True)
def limited(room):
    room.limiter.config.update({"platform_max": {"p": PLACES}})
    yield
    room.wait_until_free()
    room.redis.delete(RAN)


def test_a_task_takes_as_many_places_as_it_declares(room, tmp_path):
    go_on = tmp_path / "go on"
    with room.held(platform="p"):
        result = room.tasks.work.delay(5, file=str(go_on))
        wait_for(room.ran)
        assert room.redis.zcard("concurrency:semaphore:platform:p") == 1 + 5
        assert room.redis.zcard("concurrency:semaphore:global") == 1 + 5
        assert room.limiter.usage().platforms["p"].current == 1 + 5
        waits = room.tasks.work.apply_async((5,), headers={"concurrency_weight": 2})
        room.wait_until_waiting(waits)
        assert "platform:p (6 of 7, it takes 2)" in room.output()
        go_on.touch()
    assert result.get(timeout=30) == 5
    assert waits.get(timeout=30) == 5


def test_one_that_is_too_heavy_fails_at_once_and_links_are_told(room):
    result = room.tasks.work.apply_async((PLACES + 1,), link_error=room.tasks.told.si())
    with pytest.raises(WeightTooHigh, match="takes 8 places, and platform:p has 7 places"):
        result.get(timeout=30)
    wait_for(lambda: room.ran() == ["told"])


def test_one_that_waits_fails_if_its_limit_becomes_lower_than_its_weight(room):
    with room.held(platform="p"):
        result = room.tasks.work.delay(PLACES)
        room.wait_until_waiting(result)
        room.limiter.config.update({"platform_max": {"p": 3}})
        with pytest.raises(WeightTooHigh, match="has 3 places"):
            result.get(timeout=30)
    assert not room.ran()


@pytest.mark.parametrize("weight", [0, 101, "2", True, 1.5])
def test_another_value_fails_the_task(room, weight):
    result = room.tasks.work.apply_async((1,), headers={"concurrency_weight": weight})
    with pytest.raises(InvalidTag, match=r"'concurrency_weight' is .*: make it an integer"):
        result.get(timeout=30)


def test_a_retry_weighs_as_much_as_its_header_says(room):
    result = room.tasks.again.apply_async(headers={"concurrency_weight": 2})
    assert result.get(timeout=30) == 2


def test_heavy_and_light_tasks_never_take_more_places_than_there_are(room):
    """While processes are killed: all of them run."""
    if room.mode == "retry":
        pytest.skip("each would wait for seconds, again and again")
    choice = random.Random(7)
    room.start(concurrency=4)
    weights = [choice.randint(1, 5) for _ in range(SENT)]
    results = [room.tasks.work.delay(weight, choice.uniform(0, 0.03)) for weight in weights]
    killed: dict[int, float] = {}
    while len(killed) < 4:
        before = len(room.ran())
        wait_for(lambda before=before: len(room.ran()) > before + 40)
        # One that was killed before is there until its parent has seen it.
        pids = {pid for one in room.workers for pid in one.children()} - set(killed)
        pid = choice.choice(sorted(pids))
        killed[pid] = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert [result.get(timeout=120) for result in results] == weights
    assert 0 < most_taken([json.loads(one) for one in room.ran()], killed) <= PLACES


def most_taken(noted, killed):
    """Return how many places were taken at once, as the tasks wrote it down."""
    changes, open_ = [], {}
    for one in sorted(noted, key=lambda one: one["at"]):
        open_.setdefault((one["id"], one["pid"]), []).append(one)
        changes.append((one["at"], one["by"]))
    for (_, pid), of_run in open_.items():
        if sum(one["by"] for one in of_run):
            assert pid in killed, "only a killed process has no end"
            changes.append((killed[pid], -of_run[-1]["weight"]))
    taken, most = 0, 0
    for _, by in sorted(changes):
        taken += by
        most = max(most, taken)
    assert taken == 0
    return most
