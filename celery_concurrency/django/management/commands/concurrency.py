"""The command ``concurrency`` of Django is that of Celery; ``cli/__init__.py`` has its parts."""

from argparse import REMAINDER, ArgumentParser
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from celery_concurrency.cli import concurrency
from celery_concurrency.django.site_app import site_app
from celery_concurrency.errors import ImproperlyConfigured


class Command(BaseCommand):
    """Passes everything on, options and ``--help`` too."""

    help = "Look at the limits on concurrent tasks, and change them at run time."
    # It is for the time when something is wrong, and says itself what is.
    requires_system_checks: Sequence[str] = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run from the command line: all of its arguments are ours."""
        self._run(argv[2:], f"{argv[0]} {argv[1]}")

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the arguments of ``call_command("concurrency", "usage", "--json")``."""
        parser.add_argument("args", nargs=REMAINDER)

    def handle(self, *args: Any, **_: Any) -> None:
        """Run from ``call_command``.

        Raises:
            CommandError: the command failed, and said why on stderr.
        """
        try:
            self._run([str(one) for one in args], "concurrency")
        except SystemExit as exc:
            if exc.code:
                raise CommandError("see stderr", returncode=int(exc.code)) from exc

    def _run(self, arguments: list[str], name: str) -> None:
        try:
            app = site_app()
        except ImproperlyConfigured as exc:
            raise CommandError(str(exc)) from exc
        concurrency.main(arguments, prog_name=name, obj=SimpleNamespace(app=app))
