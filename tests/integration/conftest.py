"""What the tests of a Redis Cluster share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery_concurrency.limiter import cluster
from tests.support.clusters import Cluster
from tests.support.holders import settle_at


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A cluster for all tests of a file."""
    with Cluster() as nodes:
        yield nodes


@pytest.fixture
def home(nodes: Cluster) -> Cluster:
    """The cluster, whole and empty."""
    nodes.empty()
    settle_at(nodes)
    return nodes


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """What nodes refused because they don't serve the slot."""
    said: list[Exception] = []

    class Noted(cluster.Elsewhere):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)
            said.append(self)

    monkeypatch.setattr(cluster, "Elsewhere", Noted)
    return said
