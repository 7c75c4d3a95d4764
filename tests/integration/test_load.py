"""Promise 1 under load: no limit exceeded, each used in full, as the tasks recorded it.

The seed's own scenario, and 400 tasks with random tags, over two workers of different
pools, for each dimension alone and for all together.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.limits import limits_of
from celery_concurrency.testing.server import Server
from tests.support.recording import (
    BEGUN_KEY,
    FULL_KEY,
    RECORDS_KEY,
    by,
    highest_overlap,
    read_records,
    records_client,
)
from tests.support.workers import Worker, import_project, kill_all, settle, wait_for

TASKS = 400
CHOICES = {
    "platform": ["douyin", "xiaohongshu", "kuaishou", "bilibili", "channels"],
    # One busy account among many: the others can't fill a limit of two by chance.
    "account": [f"acc{number}" for number in range(30)] + ["acc0"] * 15,
    "type": ["publish", "batch_publish"],
    "tenant": ["t1", "t2", "t3"],
}
OPEN = {"global_max": 0, "account_max": 0, "dimensions": {"tenant": {"max": 0}}}
GLOBAL = {"global_max": 6}
PLATFORM = {"platform_max": {"douyin": 2, "bilibili": 3, "*": 1}}
ACCOUNT = {"account_max": 1, "account_overrides": {"acc0": 2}}
TASK_TYPE = {"task_type_max": {"publish": 4}}
OWN = {"dimensions": {"tenant": {"max": 3, "overrides": {"t1": 2}}}}


@pytest.fixture(scope="module")
def deployment(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ModuleType, Limiter]]:
    """A project, two workers of it, and its limiter; one for all loads."""
    with pytest.MonkeyPatch.context() as patch, connect(server.url()) as client:
        client.flushall()
        settle(client)
        patch.setenv("BROKER_URL", server.url())
        patch.setenv("RESULT_BACKEND", server.url())
        patch.setenv("COUNTDOWN", "0.3")
        logs = tmp_path_factory.mktemp("logs")
        workers = [
            Worker("tests.projects.plain", Path(logs) / f"{pool}.log", pool=pool, concurrency=size)
            for pool, size in (("prefork", 4), ("threads", 8))
        ]
        try:
            for worker in workers:
                worker.wait_until_ready()
            yield import_project("plain"), Limiter(client)
        finally:
            kill_all(workers)


def tokens(limiter: Limiter, limit: str) -> int:
    """Return how many tokens of a limit are out."""
    return int(limiter.redis.zcard(f"concurrency:semaphore:{limit}"))


def test_two_of_one_account_never_run_at_once_and_both_accounts_are_busy(
    deployment: tuple[ModuleType, Limiter], server: Server
) -> None:
    """The seed's heart, by the default limits: twenty 0.1 s tasks over two accounts."""
    project, limiter = deployment
    limiter.config.reset()
    accounts = ["account:acc0", "account:acc1"]
    with records_client(server.url()) as records:
        records.delete(RECORDS_KEY, FULL_KEY, BEGUN_KEY)
        results = [
            project.publish_when_full.apply_async(
                (accounts, 0.1), headers={"account": f"acc{number % 2}"}
            )
            for number in range(20)
        ]
        wait_for(lambda: records.get(BEGUN_KEY) == "2", what="both bodies have begun")
        assert [tokens(limiter, name) for name in accounts] == [1, 1]
        records.sadd(FULL_KEY, *accounts)
    assert [result.get(timeout=60) for result in results] == [result.id for result in results]

    runs = read_records(server.url())
    assert len(runs) == 20
    runs_of = by(runs, lambda run: run.headers["account"])
    assert {name: highest_overlap(one) for name, one in runs_of.items()} == {"acc0": 1, "acc1": 1}
    assert highest_overlap(runs) == 2


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param([GLOBAL], id="global"),
        pytest.param([PLATFORM], id="platform"),
        pytest.param([ACCOUNT], id="account"),
        pytest.param([TASK_TYPE], id="task_type"),
        pytest.param([OWN], id="own"),
        pytest.param([GLOBAL, PLATFORM, ACCOUNT, TASK_TYPE, OWN], id="all"),
    ],
)
def test_no_limit_is_exceeded_and_each_is_used_in_full(
    deployment: tuple[ModuleType, Limiter], server: Server, limits: list[dict[str, Any]]
) -> None:
    project, limiter = deployment
    limiter.config.reset()
    limiter.config.update(OPEN)
    for change in limits:
        limiter.config.update(change)
    config = limiter.config.sync().config
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    sent = [{tag: chance.choice(names) for tag, names in CHOICES.items()} for _ in range(TASKS)]
    limits_of_each = [limits_of(headers, config.dimensions) for headers in sent]
    limited = {
        limit: config.max_of(limit)
        for names in limits_of_each
        for limit in names
        if config.max_of(limit)
    }
    assert limited
    # Where all limits are in each other's way, only that of all tasks is sure to be full.
    to_fill = set(limited if len(limits) == 1 else ["global"])
    with records_client(server.url()) as records:
        records.delete(RECORDS_KEY, FULL_KEY)
        for headers, names in zip(sent, limits_of_each, strict=True):
            # Each holds until its limits were full once: whether short bodies overlap is up to
            # the machine.
            project.publish_when_full.apply_async(
                (sorted(to_fill & set(names)), chance.uniform(0.02, 0.06)), headers=headers
            )

        def all_ran() -> bool:
            for limit in to_fill - records.smembers(FULL_KEY):
                if tokens(limiter, limit) >= limited[limit]:
                    records.sadd(FULL_KEY, limit)
            return records.llen(RECORDS_KEY) >= TASKS

        wait_for(all_ran, 150, f"{TASKS} runs")
        assert records.smembers(FULL_KEY) == to_fill

    runs = read_records(server.url())
    assert len({run.task_id for run in runs}) == len(runs) == TASKS
    overlaps = {
        limit: highest_overlap(
            run for run in runs if limit in limits_of(run.headers, config.dimensions)
        )
        for limit in limited
    }
    assert [limit for limit in limited if overlaps[limit] > limited[limit]] == []
    wait_for(lambda: limiter.usage().global_.current == 0, what="all tokens back")
