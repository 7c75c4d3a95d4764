"""Fixtures for the tests of users' tasks; ``testing/__init__.py`` has what they do.

pytest loads this module in every project of an environment, so it imports nothing else until
a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from celery_concurrency.testing import Concurrency


@pytest.fixture(scope="session")
def celery_concurrency_redis_url() -> Iterator[str]:
    """The URL of an embedded server; override it in your conftest.py to use your own server.

    Each test writes only keys under its own prefix, and deletes them afterwards.
    """
    from celery_concurrency.testing.server import Server  # noqa: PLC0415 - see above

    with Server() as server:
        yield server.url()


@pytest.fixture
def celery_concurrency(celery_concurrency_redis_url: str) -> Iterator[Concurrency]:
    """Limits for this test only: hold them, ask what would wait, gate an app's tasks."""
    from celery_concurrency.testing import Concurrency  # noqa: PLC0415 - see above

    with Concurrency(celery_concurrency_redis_url) as concurrency:
        yield concurrency


@pytest.fixture
def celery_concurrency_off() -> Iterator[None]:
    """No task of this process is gated in this test, and none needs a limiter."""
    from celery_concurrency.testing import gating_off  # noqa: PLC0415 - see above

    with gating_off():
        yield
