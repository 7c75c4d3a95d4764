"""Certificates for servers with TLS, and a server that can use them."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from celery_concurrency.testing import server


class Certificates(NamedTuple):
    """Files of a server: its authority's certificate, its own, and the key to that."""

    ca: Path
    cert: Path
    key: Path


def certificates(directory: Path, *names: str) -> Certificates:
    """Make an authority that nobody knows, and have it certify a server.

    Args:
        directory: for the files.
        names: of the server.
    """
    files = Certificates(*(directory / f"{field}.pem" for field in Certificates._fields))
    authority = trustme.CA()
    certified = authority.issue_cert(*names)
    authority.cert_pem.write_to_path(files.ca)
    certified.cert_chain_pems[0].write_to_path(files.cert)
    certified.private_key_pem.write_to_path(files.key)
    return files


@cache
def server_with_tls() -> str:
    """Return the path of a server's program that can do TLS; skip the test where there is none.

    With REQUIRE_TLS=1 in the environment that is a failure instead.
    """
    programs = filter(None, (server.find_server(), *map(shutil.which, server.ON_PATH)))
    for program in dict.fromkeys(programs):
        # It ends at once: it says that it has no certificate, or that it can't do TLS.
        command = [program, "--port", "0", "--tls-port", "1"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if "tls-cert-file" in said.stdout + said.stderr:
            return program
    problem = f"the embedded server can't do TLS; one on PATH has to: {' or '.join(server.ON_PATH)}"
    if os.environ.get("REQUIRE_TLS") == "1":
        pytest.fail(problem)
    pytest.skip(problem)
