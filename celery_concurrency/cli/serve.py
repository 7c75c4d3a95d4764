"""The command ``serve``: the HTTP API and its page.

``api/blueprint.py`` creates the app, ``http_server.py`` serves it.
"""

import logging
import os
import re
import socket
import sys
from pathlib import Path
from typing import Final

import click
from celery import Celery

from celery_concurrency.cli.command import command
from celery_concurrency.cli.output import echo, refusal
from celery_concurrency.log import OneLine

DEFAULT_PORT: Final = 7000

TOKEN_VARIABLE: Final = "CONCURRENCY_TOKEN"  # noqa: S105 - the name of a variable
READ_TOKEN_VARIABLE: Final = "CONCURRENCY_READ_TOKEN"  # noqa: S105 - as well
FILE: Final = click.Path(dir_okay=False, path_type=Path)


@command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True,
    help="The port to listen on; 0 takes a free one.",
)  # fmt: skip
@click.option(
    "--token-file", type=FILE,
    help=f"A file with the bearer token for everything; or set {TOKEN_VARIABLE}.",
)  # fmt: skip
@click.option(
    "--read-token-file", type=FILE,
    help=f"A file with a token that only reads; or set {READ_TOKEN_VARIABLE}.",
)  # fmt: skip
def serve(
    app: Celery, host: str, port: int, token_file: Path | None, read_token_file: Path | None
) -> None:
    """Serve the HTTP API and its page until interrupted.

    On loopback a token is optional; on any other address it is required.
    """
    from celery_concurrency.api import URL_PREFIX, create_app  # noqa: PLC0415 - needs Flask
    from celery_concurrency.api.access import bearer, is_loopback  # noqa: PLC0415 - as well
    from celery_concurrency.cli import http_server  # noqa: PLC0415 - needs Tornado

    token = _token(token_file, TOKEN_VARIABLE)
    read_token = _token(read_token_file, READ_TOKEN_VARIABLE)
    if token is not None and token == read_token:
        raise refusal("both tokens are the same: give the read token another value")
    asks = token is not None or read_token is not None
    if not asks and not is_loopback(host):
        raise refusal(
            f"others can reach it on {host!r}, so it needs a token: write one to a file "
            f"(openssl rand -hex 32 > FILE) and add --token-file FILE, or set {TOKEN_VARIABLE}; "
            "or leave out --host"
        )
    wsgi_app = create_app(
        app, bearer(token, read_token) if asks else None, loopback=is_loopback(host)
    )
    try:
        sockets = http_server.listen(host, port)
    except (OSError, UnicodeError) as exc:
        problem = exc.strerror if isinstance(exc, OSError) else "there is no such host"
        raise refusal(
            f"can't listen on {host}:{port} ({problem}); choose another with --host and --port"
        ) from exc
    _log_to_stderr()
    for address in map(_address, sockets):
        echo(
            f"serving http://{address}{URL_PREFIX}, "
            f"with a page at http://{address}/, end with Ctrl-C"
        )
    sys.stdout.flush()
    http_server.serve(wsgi_app, sockets)


def _token(file: Path | None, variable: str) -> str | None:
    """Return the token in the file, else in the environment variable; None if neither is given."""
    if file is None:
        source, token = variable, os.environ.get(variable, "").strip()
        if not token:
            return None
    else:
        source = str(file)
        try:
            token = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            problem = exc.strerror if isinstance(exc, OSError) else "it is not text"
            raise refusal(f"can't read the token in {file} ({problem})") from exc
    # The characters of a bearer token (RFC 6750).
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token):
        raise refusal(
            f"{source} has no token: write letters, digits and ._~+/- in one line, "
            "for example the output of openssl rand -hex 32"
        )
    return token


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.addFilter(OneLine())  # for Tornado's records, and those of all others
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[handler]
    )


def _address(listening: socket.socket) -> str:
    """Return where a socket listens, as in a URL."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
