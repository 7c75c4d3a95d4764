"""No read is sent as a transaction: out of memory, Redis refuses whatever is queued for one."""

from __future__ import annotations

import re
from pathlib import Path

import celery_concurrency
from celery_concurrency.limiter import connect
from celery_concurrency.limiter.keyspace import Keyspace

PACKAGE = Path(celery_concurrency.__file__).parent
SOURCES = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}


def test_pipelines_are_made_in_two_places():
    """Where a keyspace makes them, and where an event loop does; nowhere else a client does."""
    asked_of_it = re.compile(r"(keyspace|self)\.pipeline\(\)")
    makers = [name for name, text in SOURCES.items() if ".pipeline(" in asked_of_it.sub("", text)]
    assert sorted(makers) == ["limiter/event_loop.py", "limiter/keyspace.py"]
    for name in makers:
        assert re.findall(r"redis\.pipeline\((.*?)\)", SOURCES[name]) == ["transaction=False"]


def test_a_keyspace_makes_no_transactions():
    client = connect("redis://127.0.0.1:1")  # nothing is sent
    assert not Keyspace(client, "x").pipeline().transaction


def test_nobody_begins_a_transaction():
    begins = re.compile(r"\.(transaction|multi|watch)\(|\bMULTI\b.*execute_command")
    assert [name for name, text in SOURCES.items() if begins.search(text)] == []
