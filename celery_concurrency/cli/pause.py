"""The commands ``pause`` and ``resume``.

All else that changes the configuration is in ``config.py``.
"""

import click
from celery import Celery

from celery_concurrency.cli.command import command, json_option, operator_option
from celery_concurrency.cli.output import echo, print_json
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.config.store import Stored
from celery_concurrency.worker.apps import limiter_of


@command()
@click.argument("limit")
@operator_option
@json_option
def pause(app: Celery, limit: str, operator: str, as_json: bool) -> None:
    """Let LIMIT admit nobody for now: global, platform:douyin. What runs goes on."""
    _print_paused(limiter_of(app).config.pause(limit, Author("cli", operator)), as_json)


@command()
@click.argument("limit")
@operator_option
@json_option
def resume(app: Celery, limit: str, operator: str, as_json: bool) -> None:
    """Let a paused LIMIT admit again."""
    _print_paused(limiter_of(app).config.resume(limit, Author("cli", operator)), as_json)


def _print_paused(stored: Stored, as_json: bool) -> None:
    paused = stored.config.paused
    if as_json:
        print_json(paused)
    else:
        echo(f"paused now: {', '.join(paused)}" if paused else "nothing is paused now")
