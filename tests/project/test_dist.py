"""The wheel has all it needs, and a task runs on it; ``make dist`` does this in full."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools import dist


@pytest.mark.skipif(not (dist.TREE / ".git").exists(), reason="no checkout: git knows the files")
def test_a_task_runs_on_the_unpacked_wheel(tmp_path):
    """Here without an environment of its own, which is what takes the time."""
    dist.copy_tree(tmp_path / "tree")
    built = tmp_path / "dist"
    dist.run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", built, tmp_path / "tree"),
    )
    wheel = next(built.glob("*.whl"))
    dist.check_contents(wheel)
    unpacked = tmp_path / "unpacked"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, unpacked], check=True, timeout=60)
    dist.smoke(sys.executable, tmp_path / "smoke", unpacked)
