"""The three floors hold: an import only ever points down. And every module says what it is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "celery_concurrency"
ROOT = "celery_concurrency"

#: Redis alone.
LIMITER = {
    "acquiring",
    "blocking",
    "calling",
    "config",
    "configdefaults",
    "confighistory",
    "configstore",
    "connection",
    "counting",
    "errors",
    "health",
    "lease",
    "limiter",
    "limits",
    "log",
    "parked",
    "scripts",
    "stats",
    "statshistory",
    "times",
    "tokens",
    "usage",
    "verdicts",
    "waiters",
    "waitingroom",
    "why",
}
#: Celery, and the limiter.
CELERY = {
    "apps",
    "gate",
    "handoff",
    "heartbeat",
    "message",
    "outbox",
    "run",
    "runlog",
    "settings",
    "signals",
    "tags",
    "task",
    "worker",
}
#: Everything; ``testing`` is what the user's tests are given.
FACES = {"api", "cli", "demo", "metrics", "pytest_plugin", "testing"}

#: What only upper floors may know.
ABOVE_LIMITER = {"amqp", "billiard", "celery", "click", "flask", "kombu", "vine", "werkzeug"}
ABOVE_CELERY = {"click", "flask", "waitress", "werkzeug"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return what a module is found by below the package: ``api/errors.py`` is in ``api``."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Return what a module imports: ``celery``, or ``.gate`` for one of ours."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            module = node.module or ""
            # ``from celery_concurrency import gate`` names a module, too.
            names = [f"{module}.{alias.name}" if module == ROOT else module for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            found.add(f".{rest.partition('.')[0]}" if first == ROOT and rest else first)
    return found


def floor(names: set[str]) -> list[Path]:
    return [path for path in MODULES if name_of(path) in names]


def test_every_module_is_on_a_floor():
    names = {name_of(path) for path in MODULES} - {"__init__"}
    assert names == LIMITER | CELERY | FACES


@pytest.mark.parametrize("path", floor(LIMITER), ids=name_of)
def test_the_limiter_knows_redis_alone(path):
    imported = imports_of(path)
    assert not imported & ABOVE_LIMITER
    assert not imported & {f".{name}" for name in CELERY | FACES}


@pytest.mark.parametrize("path", floor(CELERY), ids=name_of)
def test_the_celery_floor_knows_no_faces(path):
    imported = imports_of(path)
    assert not imported & ABOVE_CELERY
    assert not imported & {f".{name}" for name in FACES}


def test_every_module_is_found_in_contributing():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+)(?:\.py|/)", text))
    assert {name_of(path) for path in MODULES} - {"__init__"} <= named


def test_the_limiter_is_imported_without_celery():
    code = (
        "import sys, celery_concurrency.limiter, celery_concurrency.calling; "
        f"print(*sorted({ABOVE_LIMITER!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert done.stdout.split() == []


def test_the_package_has_the_names_that_it_says():
    import celery_concurrency

    for name in celery_concurrency.__all__:
        assert getattr(celery_concurrency, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = celery_concurrency.nothing


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is_and_where_the_rest_is(path):
    """That it names others is not all, but where it names none it can't say what isn't there."""
    doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    named = re.findall(r"``([\w/.]+\.(?:py|lua|md))``", doc)
    assert named
    homes = (path.parent, PACKAGE, PACKAGE / "scripts", PACKAGE.parent)
    assert [name for name in named if not any((home / name).exists() for home in homes)] == []
