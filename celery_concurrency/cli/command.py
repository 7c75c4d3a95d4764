"""What all commands share: they are given the app, and refuse in one line.

How they print is in ``output.py``.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from celery.bin.base import CeleryCommand

from celery_concurrency.cli.output import printable
from celery_concurrency.errors import ConcurrencyError, InvalidConfig

F = Callable[..., Any]


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return f"uid {os.getuid()}"


operator_option = click.option(
    "--operator",
    default=_os_user,
    show_default="the OS user",
    help="Who makes this change, for the history.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def command(name: str | None = None) -> Callable[[F], click.Command]:
    """Make a function a command: it is given the Celery app first, then its options.

    One of our own errors ends it with a line on stderr and exit status 1.

    Args:
        name: what it is called; the function's name without.
    """

    def make(function: F) -> click.Command:
        @wraps(function)
        @click.pass_context
        def run(ctx: click.Context, *args: Any, **kwargs: Any) -> Any:
            try:
                return function(ctx.obj.app, *args, **kwargs)
            except ConcurrencyError as exc:
                raise click.ClickException(_line_of(exc)) from exc
            except BrokenPipeError:  # who reads has had enough: click ends quietly
                raise
            except OSError as exc:  # as a full disk below the output
                raise click.ClickException(exc.strerror or str(exc)) from exc

        celery_command: type[click.Command] = CeleryCommand
        return click.command(name=name, cls=celery_command)(run)

    return make


def _line_of(exc: ConcurrencyError) -> str:
    details = exc.details if isinstance(exc, InvalidConfig) else []
    problems = [f"{d['field']}: {d['problem']}".lstrip(": ") for d in details]
    # A name may have a line break in it.
    return printable(" ".join(("; ".join(problems) or str(exc)).split()))
