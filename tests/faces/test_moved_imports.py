"""Imports that were documented before a move: they work for one release, and name the new home."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings

import pytest

import celery_concurrency
from celery_concurrency.limiter import Limiter, connect
from celery_concurrency.limiter.limiter import Limiter as TheLimiter
from celery_concurrency.worker.apps import limiter_of


@pytest.mark.parametrize(
    ("module", "name", "moved", "home"),
    [
        ("connection", "connect", connect, "import connect from celery_concurrency.limiter"),
        ("apps", "limiter_of", limiter_of, "import limiter_of from celery_concurrency.worker.apps"),
    ],
)
def test_an_old_import_works_and_warns(monkeypatch, module, name, moved, home):
    # As in a process that imports it for the first time, and without a trace in this one.
    monkeypatch.delitem(sys.modules, f"celery_concurrency.{module}", raising=False)
    monkeypatch.delattr(celery_concurrency, module, raising=False)
    with pytest.warns(DeprecationWarning, match=f"^celery_concurrency.{module} has moved: {home}$"):
        old = importlib.import_module(f"celery_concurrency.{module}")
    assert getattr(old, name) is moved
    assert old.__all__ == [name]


def test_the_limiter_is_where_it_was():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from celery_concurrency.limiter import Limiter as Old
    assert Old is Limiter is TheLimiter


def test_the_warning_names_the_line_of_the_import(tmp_path):
    # In a process without pytest, whose own importer would be named.
    file = tmp_path / "old.py"
    file.write_text("\nfrom celery_concurrency.connection import connect\n")
    command = [sys.executable, "-W", "default", file]
    done = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.stderr.startswith(f"{file}:2: DeprecationWarning: celery_concurrency.connection")
