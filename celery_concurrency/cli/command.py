"""What all commands share: they get the Celery app, and end with one line on an error.

``output.py`` prints for them.
"""

import getpass
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from celery.bin.base import CeleryCommand

from celery_concurrency.cli.output import refusal
from celery_concurrency.errors import ConcurrencyError, ImproperlyConfigured, InvalidConfig
from celery_concurrency.limiter.limits import limit_problem

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


def limit_option(text: str) -> Callable[[F], F]:
    """Return the option ``--limit``, the name of a limit or "", with this help text."""
    return click.option("--limit", default="", callback=_check_limit, help=text)


def _check_limit(ctx: click.Context, parameter: click.Parameter, limit: str) -> str:
    problem = limit_problem(limit) if limit else None
    if problem:
        raise refusal(problem)
    return limit


def command(name: str | None = None) -> Callable[[F], click.Command]:
    """Make a function a command that gets the Celery app first, then its options.

    One of our own errors ends it with one line on stderr and exit status 1.

    Args:
        name: the command's name; the function's by default.
    """

    def make(function: F) -> click.Command:
        @wraps(function)
        @click.pass_context
        def run(ctx: click.Context, *args: Any, **kwargs: Any) -> Any:
            try:
                return function(ctx.obj.app, *args, **kwargs)
            except ImproperlyConfigured as exc:
                raise refusal(_without_app(ctx) or str(exc)) from exc
            except ConcurrencyError as exc:
                raise _refusal_of(exc) from exc
            except UnicodeEncodeError as exc:  # an argument that is not UTF-8 names nothing
                raise refusal(f"{exc.object!r} is not UTF-8 text") from exc
            except BrokenPipeError:  # the reader closed the pipe: click ends quietly
                raise
            except OSError as exc:  # such as a full disk
                raise refusal(exc.strerror or str(exc)) from exc

        celery_command: type[click.Command] = CeleryCommand
        return click.command(name=name, cls=celery_command)(run)

    return make


def _without_app(ctx: click.Context) -> str | None:
    """Return the error message if no app was named, else None."""
    root = ctx.find_root()
    if root.params.get("app", "") is not None:
        return None
    called = ctx.command_path.removeprefix(root.command_path)
    return f"which app? Name it as the worker does: celery -A proj{called}"


def _refusal_of(exc: ConcurrencyError) -> click.ClickException:
    details = exc.details if isinstance(exc, InvalidConfig) else []
    problems = [f"{d['field']}: {d['problem']}".lstrip(": ") for d in details]
    # In one line, even if a name has a line break in it.
    return refusal(" ".join(("; ".join(problems) or str(exc)).split()))
