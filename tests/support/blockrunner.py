"""Executes what it is sent in one namespace; ``tests/support/blocks.py`` starts it.

A process of its own for each page: tasks are shared between all Celery apps of a process.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def main(page: Connection, directory: Path, env: Mapping[str, str]) -> None:
    """Answer each block with an empty text, or with what is wrong with it, until there is none.

    Args:
        page: sends each block's text, its line, and the path of its page; None is the end.
        directory: to run them in, and to import from.
        env: the environment that they have.
    """
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    namespace: dict[str, Any] = {"__name__": "page"}
    while block := page.recv():
        text, line, path = block
        try:
            # With the lines before it, so that a traceback shows the page's.
            exec(compile("\n" * (line - 1) + text, path, "exec"), namespace)
        except BaseException:  # noqa: BLE001 - it is told to the test
            page.send(traceback.format_exc())
        else:
            page.send("")
