"""Build wheel and sdist from what git knows of, check them, and try the wheel.

Everything happens in temporary directories; only what passed is left in ``dist/``.
A build in the tree itself could take up files of an earlier one (``build/lib``, the
``SOURCES.txt`` of an ``egg-info``), so it is done on a copy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent


def main() -> None:
    """Do all of it, and say where the result is."""
    with tempfile.TemporaryDirectory(prefix="concurrency-dist-") as name:
        scratch = Path(name)
        copy_tree(scratch / "tree")
        built = scratch / "dist"
        run(sys.executable, "-m", "build", "--outdir", built, scratch / "tree")
        run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir())
        wheel = next(built.glob("*.whl"))
        check_contents(wheel)
        try_out(wheel, scratch)
        shutil.rmtree(TREE / "dist", ignore_errors=True)
        shutil.copytree(built, TREE / "dist")
    for path in sorted((TREE / "dist").iterdir()):
        print(f"dist/{path.name}\t{path.stat().st_size // 1024} KiB")


def copy_tree(target: Path) -> None:
    """Copy the files that git knows of, as they are now."""
    for name in tracked():
        source = TREE / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def tracked(under: str = ".") -> list[str]:
    """Return the files that git knows of."""
    command = ["git", "ls-files", "-z", "--", under]
    return subprocess.check_output(command, cwd=TREE, text=True).split("\0")[:-1]


def check_contents(wheel: Path) -> None:
    """Make sure that each file of the package is in a wheel, whatever its kind."""
    packed = set(zipfile.ZipFile(wheel).namelist())
    missing = set(tracked("celery_concurrency")) - packed
    if missing:
        sys.exit(f"not in the wheel, see package_data in setup.cfg: {', '.join(sorted(missing))}")


def try_out(wheel: Path, scratch: Path) -> None:
    """Install a wheel in a fresh environment, and run a gated task on it."""
    venv.create(scratch / "env", with_pip=True)
    python = scratch / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[demo]")
    smoke(python, scratch / "smoke")


def smoke(python: str | Path, directory: Path, path: Path | None = None) -> None:
    """Run ``smoke.py`` in a directory of its own.

    Args:
        python: of the environment to try.
        directory: a new one.
        path: where that is to find the package, if it is not installed.
    """
    directory.mkdir()
    shutil.copy2(TREE / "tools" / "smoke.py", directory)
    env = {**os.environ, "PYTHONPATH": str(path or "")}
    subprocess.run([python, "smoke.py", TREE], cwd=directory, env=env, check=True)


def run(*command: str | Path) -> None:
    """Run a command; its failure is ours."""
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
