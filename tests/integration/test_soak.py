"""Promises 1, 3, 4 and 15 for some seconds under a load in which processes are killed at random."""

from __future__ import annotations

import pytest

from tests.support.soak.load import soaking


@pytest.mark.alone
@pytest.mark.parametrize("apart", [False, True], ids=["one server", "two servers"])
def test_a_short_soak(tmp_path, apart):
    with soaking(tmp_path, seed=1, apart=apart) as soak:
        figures = soak.run(12)
        print(figures)
        assert figures.is_well, str(figures)
        assert figures.done["child"]
