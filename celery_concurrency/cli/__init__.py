"""The command line: ``celery -A proj concurrency …``. ``command.py`` has what commands share.

Exit status 0; 1 for a refusal, in one line on stderr; 2 for a mistake in the call.
"""

import logging

import click

from celery_concurrency.cli import (
    adaptive,
    config,
    cooldowns,
    monitor,
    observed,
    serve,
    tokens,
    usage,
    waiting,
    workers,
)


@click.group(name="concurrency")
def concurrency() -> None:
    """Look at the limits on concurrent tasks, and change them at run time."""
    # Commands print their own messages. Without a handler, logging would print them too.
    logging.getLogger("celery_concurrency").addHandler(logging.NullHandler())


for command in (
    usage.usage,
    usage.stats,
    config.config,
    cooldowns.pause,
    cooldowns.resume,
    cooldowns.cool,
    cooldowns.cooldowns,
    observed.observed,
    observed.enforce,
    adaptive.adaptive,
    tokens.tokens,
    tokens.release,
    workers.workers,
    waiting.waiting,
    waiting.cancel,
    waiting.drain,
    waiting.purge,
    monitor.monitor,
    serve.serve,
):
    concurrency.add_command(command)
