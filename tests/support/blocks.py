"""Runs the code blocks of a Markdown page, one after the other, as a reader would.

A page has an empty Redis of its own, and a directory with a project, ``proj.py``.
Only where things are is changed: ``localhost:6379`` is the tests' server and
``localhost:7000`` a free port. What is run:

- ``python``: a block that begins with a comment like ``# proj.py`` is written to that
  file, and runs by itself as that is read. Others are executed, all of a page in one process,
  which has the project's names. What they set of an app, that app has to take.
- ``bash``: a worker, ``serve`` and the like are started and go on until the page ends;
  everything else has to exit with 0. Commands of ours alone, for the project that is given, run
  in the page's process: each would take a second to start.
- ``console`` is not run: a command after a ``$`` and its answer, of tasks that no page has
  sent. ``project/test_docs.py`` sends them, and holds the answer against what is said then.

A block that can't be run has ``<!-- not run: the reason -->`` in the line above it, or
is in ``NOT_RUN``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import blockrunner, forks
from tests.support.ports import free_port
from tests.support.workers import wait_for

#: How such a block begins, and why it is not run wherever it stands.
NOT_RUN = {
    "pip install ": "from an index; make dist installs the wheel and runs a task on it",
    "make ": "make's targets are the suite itself, the demo that it has tests of, and checks",
}

#: What goes on once it is started, and what it says when it is there.
LASTING = {
    r"celery .*\bworker\b": r"\bready\.",
    r"celery .*\bconcurrency serve\b": r"serving http",
}

PROJECT = """
from celery import Celery

from celery_concurrency.worker.apps import limiter_of

app = Celery("proj", broker="redis://localhost:6379/0", backend="redis://localhost:6379/0")
app.conf.imports = ("celery_concurrency.signals",)
app.conf.broker_connection_retry_on_startup = True


@app.task
def publish(video):
    return f"{video} is out"


# Names that pages take for granted.
video_id = "v1"
limiter = limiter_of(app)
"""

#: A block of nothing but our own commands and comments, and nothing of a shell's but quotes.
OURS = re.compile(r"(#.*\n|celery -A proj concurrency (?!serve\b)[^|;&<>$`\\\n]+\n)+")
#: What runs one of them.
COMMAND = """
import shlex as _shlex, types as _types
from click.testing import CliRunner as _CliRunner
from celery_concurrency.cli import concurrency as _concurrency
from proj import app as _app

_done = _CliRunner().invoke(
    _concurrency, _shlex.split({!r}, comments=True)[4:], obj=_types.SimpleNamespace(app=_app)
)
assert _done.exit_code == 0, _done.output
"""

#: After each block: the settings that it gave an app are ones that a worker would take.
CHECK = """
from celery import Celery
from celery_concurrency.worker.apps import limiter_of as _limiter_of
from celery_concurrency.worker.apps import forget as _forget

for one in [value for value in list(globals().values()) if isinstance(value, Celery)]:
    _forget(one)
    _limiter_of(one)
"""

#: Pages that take other names for granted.
BEFORE = {
    "page.md": "from flask import Flask; celery_app, app = app, Flask('theirs')",
}

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[^\s`]*)[^\n]*\n(?P<text>.*?)^ *(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"<!-- not run: (.+?) -->\s*$")
_FILE = re.compile(r"# ([\w/]+\.py)\n")


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        line: where its text begins in its page.
        not_run: why; "" if it is run.
    """

    language: str
    text: str
    line: int
    not_run: str


def blocks_of(page: str) -> Iterator[Block]:
    """Yield the code blocks of a page."""
    for found in _FENCE.finditer(page):
        indent = len(found["indent"])
        text = "".join(line[indent:] for line in found["text"].splitlines(keepends=True))
        mark = _MARK.search(page[: found.start()])
        reason = mark[1] if mark else ""
        for start, why in NOT_RUN.items():
            if text.removeprefix("$ ").startswith(start):
                reason = why
        yield Block(found["language"], text, page[: found.start("text")].count("\n") + 1, reason)


class Page:
    """Runs the blocks of one page; a context manager that ends what they started.

    Args:
        path: of the page.
        directory: to run them in.
        redis_port: of an empty server.
        env: the environment of what they start.
    """

    def __init__(self, path: Path, directory: Path, redis_port: int, env: dict[str, str]) -> None:
        self._path = path
        self._directory = directory
        self._redis_port = redis_port
        self._api_port = free_port()
        self._env = {**env, "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
        self._env["PYTHONPATH"] = str(directory)
        self._started: list[subprocess.Popen[bytes]] = []
        self._has_own_project = path.name in BEFORE
        self._write("proj.py", PROJECT)
        self._python, theirs = forks.CONTEXT.Pipe()
        self._process = forks.CONTEXT.Process(
            target=blockrunner.main, args=(theirs, directory, self._env), daemon=True
        )
        self._process.start()
        theirs.close()
        self._execute(PROJECT, 1)
        self._execute(BEFORE.get(path.name, ""), 1)

    def run(self, block: Block) -> None:
        """Run a block; its failure is the test's."""
        text = self._at_home(block.text)
        if f":{self._api_port}/" in text and not self._serves():
            self._start(f"celery -A proj concurrency serve --port {self._api_port}", "serving http")
        if block.language == "bash" and OURS.fullmatch(text) and not self._has_own_project:
            for command in re.findall(r"^celery .+$", text, re.MULTILINE):
                self._execute(COMMAND.format(command), block.line)
        elif block.language == "bash":
            self._run_bash(text)
        elif (file := _FILE.match(text)) is not None:
            self._has_own_project |= file[1] == "proj.py"
            self._write(file[1], text)
            self._call([f"python {file[1]}"])
        else:
            self._execute(text, block.line)
            self._execute(CHECK, 1)

    def _at_home(self, text: str) -> str:
        text = text.replace("localhost:6379", f"localhost:{self._redis_port}")
        text = re.sub(r"(localhost|127\.0\.0\.1):7000", rf"\1:{self._api_port}", text)
        text = text.replace("--port 7000", f"--port {self._api_port}")
        text = re.sub(r"\bredis-cli\b", f"redis-cli -p {self._redis_port}", text)
        # Without, curl is content with an error.
        return re.sub(r"\bcurl\b", "curl --silent --show-error --fail-with-body", text)

    def _write(self, name: str, text: str) -> None:
        (self._directory / name).write_text(self._at_home(text))

    def _execute(self, text: str, line: int) -> None:
        self._python.send((self._at_home(text), line, str(self._path)))
        wrong = self._python.recv()
        assert not wrong, wrong

    def _run_bash(self, text: str) -> None:
        script: list[str] = []
        for command in re.split(r"(?<!\\)\n", text):
            ready = next((said for what, said in LASTING.items() if re.search(what, command)), None)
            if ready:
                self._call(script)
                script = []
                self._start(command, ready)
            else:
                script.append(command)
        self._call(script)

    def _call(self, script: list[str]) -> None:
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", "\n".join(script)],
            cwd=self._directory,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, "\n".join([*script, done.stdout])

    def _start(self, command: str, ready: str) -> None:
        log = self._directory / f"{len(self._started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self._directory,
                env=self._env,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return re.search(ready, log.read_text()) is not None

        wait_for(is_ready, what=command)

    def _serves(self) -> bool:
        return any("serve" in str(process.args) for process in self._started)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exc: object) -> None:
        self._python.send(None)
        self._process.join(60)
        assert self._process.exitcode == 0
        for process in self._started:
            process.terminate()
        for process in self._started:
            process.wait(60)
