"""The command line: ``celery -A proj concurrency …``.

Exit status 0; 1 for a refusal, said in one line; 2 for a mistake in the call.
A file a subject; its commands are added to the group here, all in one place.

What a command shows is read on the limiter's floor, as in ``limiter/inspect/usage.py``.
"""

from __future__ import annotations

import logging

import click

from celery_concurrency.cli import config, monitor, pause, serve, tokens, usage, waiting


@click.group(name="concurrency")
def concurrency() -> None:
    """Look at the limits on concurrent tasks, and change them at run time."""
    # What a command has to say it says itself; where logging is set up, it logs too.
    logging.getLogger("celery_concurrency").addHandler(logging.NullHandler())


for command in (
    usage.usage,
    usage.stats,
    config.config,
    pause.pause,
    pause.resume,
    tokens.tokens,
    tokens.release,
    waiting.waiting,
    waiting.cancel,
    waiting.drain,
    monitor.monitor,
    serve.serve,
):
    concurrency.add_command(command)
