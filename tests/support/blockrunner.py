"""Executes what it is sent, line by line as JSON, in one namespace; ``tests/support/blocks.py``
starts it.

A process of its own for each page: tasks are shared between all Celery apps of a process.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any


def main() -> None:
    """Answer each block with an empty text, or with what is wrong with it."""
    namespace: dict[str, Any] = {"__name__": "page"}
    # What blocks print goes to stderr: the answers are alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        block = json.loads(line)
        try:
            # With the lines before it, so that a traceback shows the page's.
            code = compile("\n" * (block["line"] - 1) + block["text"], block["path"], "exec")
            exec(code, namespace)
        except BaseException:  # noqa: BLE001 - it is told to the test
            answer = traceback.format_exc()
        else:
            answer = ""
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
