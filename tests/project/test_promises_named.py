"""The table of promises names tests that exist, and leaves no promise out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
TABLE = (TESTS.parent / "docs" / "promises.md").read_text()


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`([\w/]+\.py::\w+)`", TABLE))))
def test_each_test_that_a_promise_names_exists(named):
    file, _, function = named.partition("::")
    assert re.search(rf"^def {function}\(", (TESTS / file).read_text(), re.MULTILINE)


def test_each_promise_names_tests():
    rows = re.findall(r"^\| (\d+) \|.*`[\w/]+\.py::\w+`", TABLE, re.MULTILINE)
    assert [int(number) for number in rows] == list(range(1, 15))
