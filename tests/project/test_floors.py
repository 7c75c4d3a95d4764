"""The floors, told by paths alone: an import only ever points down."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "celery_concurrency"
ROOT = "celery_concurrency"

#: From the ground up; what is beside each other on a floor may use each other.
FLOORS = (
    {"errors", "log", "text"},
    {"scripts"},
    {"limiter"},
    {"worker", "signals"},
    {"api", "cli", "demo", "django", "metrics", "pytest_plugin", "testing"},
)
#: Where names moved away, for one release: each leads to where it is now.
MOVED = {"apps", "connection"}

#: What only upper floors may import.
NEEDS_CELERY = {"amqp", "billiard", "celery", "kombu", "vine"}
NEEDS_FACES = {"click", "django", "flask", "rich", "tornado", "werkzeug"}

PATHS = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """Return a file's dotted name below the package: ``limiter.config.store``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(path): path for path in PATHS}


def imports_of(path: Path) -> set[str]:
    """Return what a file imports, wherever in it and for whatever reason.

    Modules of the package without its name, ``limiter.keys``; of others the first part.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            found.add(_module_in(rest) if first == ROOT else first)
    return found - {"", module_of(path)}


def _module_in(name: str) -> str:
    """Return the module that a name is in: ``limiter.keys`` for ``limiter.keys.Keys``."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def floor_of(module: str) -> int:
    first = module.partition(".")[0]
    return next(height for height, names in enumerate(FLOORS) if first in names)


ON_A_FLOOR = sorted(name for name in MODULES if name and name not in MOVED)


def test_every_module_is_on_a_floor():
    assert {name.partition(".")[0] for name in ON_A_FLOOR} == set().union(*FLOORS)


@pytest.mark.parametrize("module", ON_A_FLOOR)
def test_no_import_points_up(module):
    imported = imports_of(MODULES[module])
    above = [name for name in imported & MODULES.keys() if floor_of(name) > floor_of(module)]
    assert above == []
    if floor_of(module) < floor_of("worker"):
        assert not imported & NEEDS_CELERY
    if floor_of(module) < floor_of("api"):
        assert not imported & NEEDS_FACES
    assert not imported & MOVED


def test_every_folder_is_found_in_contributing():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"`(?:\w+/)*(\w+)/`", text))
    folders = {path.parent.relative_to(PACKAGE).name for path in PATHS} - {""}
    assert folders <= named


def test_the_limiter_is_imported_without_celery():
    code = (
        "import sys, celery_concurrency.limiter; "
        f"print(*sorted({NEEDS_CELERY | NEEDS_FACES!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert done.stdout.split() == []


def test_a_celery_command_of_others_imports_none_of_ours():
    """Celery imports the group of commands when a worker starts, too."""
    imported = "{name for name in sys.modules if name.startswith('celery_concurrency')}"
    code = f"import sys, celery_concurrency.cli; print(*sorted({imported}), 'redis' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert done.stdout.split() == ["celery_concurrency", "celery_concurrency.cli", "False"]


def test_the_package_has_the_names_that_it_says():
    import celery_concurrency

    for name in celery_concurrency.__all__:
        assert getattr(celery_concurrency, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = celery_concurrency.nothing


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is_and_where_the_rest_is(path):
    """That it names others is not all, but where it names none it can't say what isn't there."""
    doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    named = re.findall(r"``([\w/.]+\.(?:py|lua|md))``", doc)
    assert named
    homes = (path.parent, PACKAGE, PACKAGE / "scripts", PACKAGE.parent)
    assert [name for name in named if not any((home / name).exists() for home in homes)] == []


def test_no_imports_go_in_circles():
    """Those for the type checker alone count as well: they tie files together just the same."""
    left = {name: imports_of(path) & MODULES.keys() for name, path in MODULES.items()}
    while ready := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in ready:
            del left[name]
    assert left == {}
