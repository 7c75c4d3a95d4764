"""pytest-celery's nodes and clusters, over local processes: several workers share the limits."""

from __future__ import annotations

import pytest
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestWorker,
    CeleryWorkerCluster,
    RedisTestBackend,
    RedisTestBroker,
)

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.outcomes import Granted
from tests.support.nodes import ServerContainer, WorkerContainer
from tests.support.recording import highest_overlap, read_records
from tests.support.workers import wait_for

PUBLISH = "tests.projects.plain.publish"


@pytest.fixture
def celery_broker_cluster():
    node = RedisTestBroker(ServerContainer("broker"))
    yield CeleryBrokerCluster(node)
    node.teardown()


@pytest.fixture
def celery_backend_cluster():
    node = RedisTestBackend(ServerContainer("backend"))
    yield CeleryBackendCluster(node)
    node.teardown()


@pytest.fixture
def broker_url(celery_broker_cluster):
    return celery_broker_cluster[0].config()["url"]


@pytest.fixture
def celery_worker_cluster(broker_url, celery_backend_cluster, tmp_path):
    backend_url = celery_backend_cluster[0].config()["url"]
    env = {"BROKER_URL": broker_url, "RESULT_BACKEND": backend_url, "COUNTDOWN": "0.3"}
    containers = [
        WorkerContainer("tests.projects.plain", tmp_path, env, concurrency=2) for _ in range(2)
    ]
    cluster = CeleryWorkerCluster(*(CeleryTestWorker(one, app=None) for one in containers))
    yield cluster
    for worker in cluster:
        worker.teardown()


@pytest.fixture
def limiter(broker_url):
    """Where the workers keep their tokens: their broker, as no setting says otherwise."""
    client = connect(broker_url)
    yield Limiter(client)
    client.close()


def test_two_workers_share_a_limit_and_one_that_restarts_loses_nothing(
    celery_setup, celery_backend_cluster, limiter
):
    assert celery_setup.ready(control=True)
    assert isinstance(limiter.try_acquire("test:1", {"account": "a"}), Granted)
    results = [
        celery_setup.app.send_task(PUBLISH, (0.05,), headers={"account": "a"}) for _ in range(10)
    ]
    wait_for(lambda: all(result.state == "RETRY" for result in results))
    for worker in celery_setup.worker_cluster:
        worker.assert_log_exists(" waits for account:a (1 of 1) (account=a)")

    # What it holds back for their countdown goes to the other one, or waits for itself.
    celery_setup.worker.restart()
    limiter.release("test:1")
    assert [result.get(timeout=60) for result in results] == [result.id for result in results]
    records = read_records(celery_backend_cluster[0].config()["url"])
    assert len(records) == 10
    assert highest_overlap(records) == 1
    wait_for(lambda: not limiter.redis.keys("concurrency:semaphore:*"))
