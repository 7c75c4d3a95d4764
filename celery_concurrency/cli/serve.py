"""The command that serves the HTTP API."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import click
from celery import Celery

from celery_concurrency.cli.command import command

DEFAULT_PORT: Final = 7000


@command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True,
    help="The port to listen on; 0 takes a free one.",
)  # fmt: skip
def serve(app: Celery, host: str, port: int) -> None:
    """Serve the HTTP API until interrupted. It asks for no password: keep it on loopback."""
    from waitress import create_server  # noqa: PLC0415 - the other commands need no server

    from celery_concurrency.api import URL_PREFIX, create_app  # noqa: PLC0415 - nor Flask

    wsgi_app = create_app(app)
    # An OSError is a port that is taken, a ValueError a host that is none.
    try:
        server = create_server(wsgi_app, host=host, port=port, ident=None)
    except (OSError, ValueError) as exc:
        problem = exc.strerror if isinstance(exc, OSError) else "there is no such host"
        raise click.ClickException(
            f"can't listen on {host}:{port} ({problem}); choose another with --host and --port"
        ) from exc
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for address in _addresses(server):
        click.echo(f"serving http://{address}{URL_PREFIX}, end with Ctrl-C")
    sys.stdout.flush()
    server.run()


def _addresses(server: Any) -> list[str]:
    """Return where a waitress server listens: a name may stand for several addresses."""
    several = getattr(server, "effective_listen", None)
    return [
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for host, port in several or [(server.effective_host, server.effective_port)]
    ]
