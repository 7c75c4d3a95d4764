"""The command line: ``celery -A proj concurrency …``. ``command.py`` has what commands share.

Every ``celery`` command imports this, also one that starts a worker: a command's module is
imported when that command is used.

Exit status 0; 1 for a refusal, in one line on stderr; 2 for a mistake in the call.
"""

import logging
from importlib import import_module
from typing import Final

import click

#: The module of each command.
_HOMES: Final = {
    "adaptive": "adaptive",
    "cancel": "waiting",
    "config": "config",
    "cool": "cooldowns",
    "cooldowns": "cooldowns",
    "drain": "waiting",
    "enforce": "observed",
    "monitor": "monitor",
    "observed": "observed",
    "pause": "cooldowns",
    "purge": "waiting",
    "release": "tokens",
    "resume": "cooldowns",
    "serve": "serve",
    "stats": "usage",
    "tokens": "tokens",
    "usage": "usage",
    "waiting": "waiting",
    "workers": "workers",
}


class _Commands(click.Group):
    """The group, as click's documentation has one whose commands are imported late."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _HOMES:
            return None
        module = import_module(f"{__name__}.{_HOMES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(name="concurrency", cls=_Commands)
@click.option(
    "--namespace", metavar="NAME",
    help="Which of concurrency_namespaces, where the app has them; by default "
    "CONCURRENCY_NAMESPACE in the environment.",
)  # fmt: skip
@click.pass_context
def concurrency(ctx: click.Context, namespace: str | None) -> None:
    """Look at the limits on concurrent tasks, and change them at run time."""
    # Commands print their own messages. Without a handler, logging would print them too.
    logging.getLogger("celery_concurrency").addHandler(logging.NullHandler())
    if namespace:
        from celery_concurrency.worker.apps import choose  # noqa: PLC0415 - as late as a command

        choose(ctx.obj.app, namespace)
