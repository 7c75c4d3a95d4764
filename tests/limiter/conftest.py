"""What the limiter's tests share: patience."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import patience


@pytest.fixture(scope="module", autouse=True)
def patient_clients() -> Iterator[None]:
    """A call that takes seconds is not lost."""
    with patience.patient_clients():
        yield


@pytest.fixture(autouse=True)
def whole_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left for later because a call took too long."""
    patience.whole_calls(monkeypatch)
