"""Hand-over by real workers: who waits is handed room the moment it is free, and in order."""

from __future__ import annotations

from statistics import median
from urllib.parse import quote

import pytest

from celery_concurrency.api import create_app
from tests.support.jotting import FILE, gaps, read_jots
from tests.support.recording import highest_overlap
from tests.support.sites import RAN, site
from tests.support.workers import wait_for

PROCESSES = 4
#: Messages that a worker takes out of the broker ahead, and those that it runs.
OWN_QUEUE = PROCESSES * 4 + PROCESSES


@pytest.fixture(scope="module")
def room(server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("room")
    env = {"WAITING": "auto", "PATIENCE": "1", FILE: str(directory / "jots")}
    with site(server, directory, "room", **env) as one:
        one.start(concurrency=PROCESSES)
        yield one


@pytest.fixture(autouse=True)
def nothing_left(room):
    """Each test begins without records and with the default limits, and leaves no token."""
    room.redis.delete(RAN)
    jots(room).unlink(missing_ok=True)
    room.limiter.config.reset()
    yield
    room.wait_until_free()
    assert room.waiting() == set()


def jots(room):
    return room.directory / "jots"


def send(room, count, seconds=0.0, **tags):
    return [room.tasks.work.apply_async((seconds,), headers=tags) for _ in range(count)]


def runs_of(room, results):
    """Wait until all of these have ended; return their records."""
    ids = {result.id for result in results}

    def found():
        runs = [run for run in read_jots(jots(room)) if run.task_id in ids]
        return runs if len(runs) >= len(ids) else None

    runs = wait_for(found, what=f"{len(ids)} runs")
    assert {run.task_id for run in runs} == ids
    assert len(runs) == len(ids), "each runs once"
    return runs


@pytest.mark.alone
def test_between_two_long_tasks_of_one_account_is_a_fraction_of_their_time(room):
    """1.2 of the ideal is a gap of 0.1 s; the median, as the machine may be busy."""
    runs = runs_of(room, send(room, 10, 0.5, account="long"))
    assert highest_overlap(runs) == 1
    assert median(gaps(runs)) <= 0.2 * 0.5


@pytest.mark.alone
def test_between_two_short_tasks_of_one_account_is_what_a_message_takes_anyway(room):
    """1.25 of the ideal is a gap of 12.5 ms for 50 ms; by countdown it is up to a second.

    On a machine that is busy with something else it is more: then it is held against
    the gaps of tasks that each send the next one, in turns with those who wait.
    """
    waited, sent = [], []
    for number in range(3):
        runs = runs_of(room, send(room, 20, 0.05, account=f"short{number}"))
        assert highest_overlap(runs) == 1
        waited += gaps(runs)
        jots(room).unlink()
        room.tasks.relay.delay(14, 0.05)
        wait_for(lambda: len(read_jots(jots(room))) == 15)
        sent += gaps(read_jots(jots(room)))
    assert median(waited) <= max(0.0125, 2 * median(sent)), (median(waited), median(sent))


def test_those_who_wait_hold_up_no_free_account(room):
    """Between its sending and its start there are no more than are in the worker anyway."""
    with room.held(account="busy"):
        # OWN_QUEUE of them take six seconds: so long may the process stand still that has the
        # free one.
        room.wait_until_parked(*send(room, 300, 0.3, account="busy"))
        runs_of(room, send(room, 1, account="free"))
    wait_for(lambda: len(read_jots(jots(room))) > 5, what="the busy account is busy")
    free = send(room, 1, account="free")
    before = len(read_jots(jots(room)))
    runs_of(room, free)
    place = [run.task_id for run in read_jots(jots(room))].index(free[0].id)
    assert place - before <= OWN_QUEUE
    assert sum(room.limiter.waiting_room.cancel_limit("account:busy")) > OWN_QUEUE


def test_forty_of_one_account_run_in_the_order_in_which_they_asked(room):
    results = []
    with room.held(account="order"):
        for _ in range(40):
            results += send(room, 1, account="order")
            room.wait_until_parked(results[-1])
    runs = runs_of(room, results)
    assert [run.task_id for run in runs] == [result.id for result in results]


def test_a_task_that_ends_within_a_millisecond_ends_as_success(room):
    """Parked before its state RETRY was written, it would say RETRY for ever."""
    with room.held(account="quick"):
        results = send(room, 40, account="quick")
        room.wait_until_parked(*results)
        assert {result.state for result in results} == {"RETRY"}
        assert str(results[0].info).startswith("waits for account:quick")
    runs_of(room, results)
    room.wait_until_free()
    wait_for(lambda: all(result.state == "SUCCESS" for result in results))


def test_one_that_needs_two_scarce_limits_gets_them_though_others_need_one_each(room):
    """While juniors take turns at each of them, both are never free at once.

    Passed over for longer than ``PATIENCE_SECONDS``, it is collected for.
    """
    room.limiter.config.update({"platform_max": {"scarce": 1}})
    kinds = [{"platform": "scarce"}, {"account": "scarce"}]
    with room.held(platform="scarce"), room.held(account="scarce"):
        senior = send(room, 1, platform="scarce", account="scarce")
        room.wait_until_parked(*senior)
        # All of them wait before the first begins, so that none of the two streams runs dry.
        juniors = [send(room, 60, 0.1, **tags) for tags in kinds]
        room.wait_until_parked(*juniors[0], *juniors[1])
    order = [run.task_id for run in runs_of(room, [*senior, *juniors[0], *juniors[1]])]
    for stream in juniors:
        places = [order.index(result.id) for result in stream]
        assert min(places) < order.index(senior[0].id), "it had no need to be collected for"
        assert order.index(senior[0].id) < max(places), "it was not collected for"


def test_reservations_that_lapse_behind_a_full_pool_starve_nobody(server, tmp_path):
    """They belong to the group: the first of it that stands at a slot begins on one."""
    env = {"WAITING": "auto", "HANDOFF_TIMEOUT": "1", "PREFETCH": "1"}
    env[FILE] = str(tmp_path / "jots")
    with site(server, tmp_path, "room", db=1, **env) as full:
        full.start(concurrency=2)
        with full.held(account="a"):
            results = send(full, 6, account="a")
            full.wait_until_parked(*results)
            gate = tmp_path / "open"
            blocking = [full.tasks.until.delay(str(gate)) for _ in range(2)]
            wait_for(lambda: len(full.ran()) == 2, what="the pool is full")
        wait_for(lambda: full.limiter.stats.window("total").get("lapsed:total", 0) >= 3)
        assert read_jots(jots(full)) == []
        gate.touch()
        runs = runs_of(full, results + blocking)
        assert highest_overlap([run for run in runs if run.headers]) == 1
        assert all(result.get(timeout=30) for result in results)
        full.wait_until_free()
        assert full.waiting() == set()


def test_a_task_of_any_id_waits_is_found_and_goes_on(room):
    """Celery takes any text as an id; here they are a line of the log, and an address."""
    ids = ["a\n[2026-01-01] WARNING b\x1b[2J\u202e", "../a//b?c#%2F", "任务 "]
    client = create_app(room.tasks.app).test_client()
    with room.held(account="any"):
        results = [
            room.tasks.work.apply_async((0,), task_id=id, headers={"account": "any"}) for id in ids
        ]
        room.wait_until_parked(*results)
        for id in ids:
            found = client.get(f"/api/v1/concurrency/waiting/{quote(id, safe='')}")
            assert found.json["data"]["task_id"] == id
        gone = client.delete(f"/api/v1/concurrency/waiting/{quote(ids[0], safe='')}")
        assert gone.json["data"] == {"cancelled": 1}
    runs_of(room, results[1:])
    wait_for(lambda: results[0].state == "REVOKED")

    def told():
        return [line for line in room.output().splitlines() if "] waits for account:any" in line]

    wait_for(lambda: len(told()) >= len(ids))
    assert len(told()) == len(ids)
    assert r"[a\n[2026-01-01] WARNING b\x1b[2J\u202e] waits for account:any" in "".join(told())


def test_tenants_take_turns_though_one_asked_for_more_and_before(room):
    """Each tenant has three tasks among the first that begin, as many as the flood."""
    room.limiter.config.update(
        {"dimensions": {"tenant": {"fair": True}}, "platform_max": {"shared": 1}, "account_max": 0}
    )
    tenants = ["flood", *(f"light{number}" for number in range(5))]
    with room.held(platform="shared"):
        results = {"flood": send(room, 60, 0.01, platform="shared", tenant="flood")}
        room.wait_until_parked(*results["flood"])
        for tenant in tenants[1:]:
            results[tenant] = send(room, 3, 0.01, platform="shared", tenant=tenant)
            room.wait_until_parked(*results[tenant])
    runs = runs_of(room, [one for some in results.values() for one in some])
    by = {one.id: tenant for tenant, some in results.items() for one in some}
    order = [by[run.task_id] for run in runs]
    assert sorted(order[:18]) == sorted(3 * tenants)
