"""Each promise names tests of the limiter and of real workers; each of them asserts something."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
TABLE = (TESTS.parent / "docs" / "promises.md").read_text("utf-8")
NAMED = re.compile(r"`([\w/]+\.py::\w+)`")

#: What Celery does with a task, and whose slots wait: the limiter knows of neither.
OF_WORKERS_ALONE = {5, 10}


def named_by_promise() -> dict[int, list[str]]:
    """Return the tests of each promise; a row without a number belongs to the one above."""
    named: dict[int, list[str]] = {}
    number = 0
    for cell, row in re.findall(r"^\| *(\d*) *\|(.*)\|$", TABLE, re.MULTILINE):
        number = int(cell or number)
        named.setdefault(number, []).extend(NAMED.findall(row))
    return {number: tests for number, tests in named.items() if number}


PROMISES = named_by_promise()


@cache
def definitions(path: Path) -> dict[str, tuple[Path, str] | ast.AST]:
    """Return what a name means in a file: a definition, or where it is imported from."""
    found: dict[str, tuple[Path, str] | ast.AST] = {}
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
            home = TESTS.parent / f"{(node.module or '').replace('.', '/')}.py"
            found |= {name.asname or name.name: (home, name.name) for name in node.names}
    return found


def asserts(path: Path, name: str, seen: set[tuple[Path, str]]) -> bool:
    """Whether a function or class asserts something, or one of the tests' that it uses does."""
    node = definitions(path).get(name) if path.exists() else None
    if node is None or (path, name) in seen:
        return False
    seen.add((path, name))
    if isinstance(node, tuple):
        return asserts(*node, seen)
    inner = list(ast.walk(node))
    if any(isinstance(one, ast.Assert) for one in inner):
        return True
    used = [one.id for one in inner if isinstance(one, ast.Name)]
    raised = [one.exc for one in inner if isinstance(one, ast.Raise)]
    return (
        "pytest.raises" in map(ast.unparse, inner)
        or any("AssertionError" in ast.unparse(one) for one in raised if one)
        or any(asserts(path, one, seen) for one in used)
    )


@pytest.mark.parametrize("named", sorted({test for tests in PROMISES.values() for test in tests}))
def test_each_test_that_a_promise_names_is_run_and_asserts_something(named):
    file, _, function = named.partition("::")
    node = definitions(TESTS / file).get(function)
    assert isinstance(node, ast.FunctionDef)
    assert re.match(r".*\btest_\w+\.py::test_", named)
    assert not [mark for mark in node.decorator_list if "skip" in ast.unparse(mark)]
    assert asserts(TESTS / file, function, set())


def test_a_test_that_asserts_nothing_is_seen(tmp_path):
    file = tmp_path / "test_nothing.py"
    file.write_text("def helper():\n    pass\n\ndef test_it():\n    helper()\n")
    assert not asserts(file, "test_it", set())
    file.with_stem("test_all").write_text(
        "def helper():\n    assert 1\n\ndef test_it():\n    helper()"
    )
    assert asserts(file.with_stem("test_all"), "test_it", set())


@pytest.mark.parametrize("number", range(1, 19))
def test_each_promise_names_tests_of_the_limiter_and_of_real_workers(number):
    levels = {test.partition("/")[0] for test in PROMISES[number]}
    assert levels >= ({"integration"} if number in OF_WORKERS_ALONE else {"limiter", "integration"})
