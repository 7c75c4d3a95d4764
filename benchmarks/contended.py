"""``python -m benchmarks.contended``: the README's picture of one account, drawn from real runs.

Six tasks of one account are sent at once to a worker with a process for each: without any limit,
with a lock and a countdown, and with us. Both languages show the same runs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from unittest.mock import patch

from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.server import Server
from tests.support.jotting import FILE, read_jots
from tests.support.workers import Worker, settle, wait_for

IMAGES: Final = Path("docs/images")
TASKS: Final = 6
SECONDS: Final = 0.4

#: Each way's task, its worker's variables, its class of colour, and its title in each language.
WAYS: Final = (
    ("work", {}, "bad",
     "Celery alone: all at once, and the platform locks the account",
     "只用 Celery：同时运行，账号被平台锁定"),
    ("locked", {}, "slow",
     "A lock, and retry(countdown=1): nobody notices that the account is free",
     "加锁并 retry(countdown=1)：账号已空闲，却没有任务知道"),
    ("work", {"GATED": "1"}, "good",
     "celery-concurrency: the task that ends starts the next",
     "celery-concurrency：一个任务结束，下一个立即开始"),
)  # fmt: skip

Bars = list[tuple[float, float]]

WIDTH, LEFT, ROW, BAR, PANEL = 760, 8, 11, 8, 102
STYLE: Final = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.small { font-size: 11px; fill: #59636e; }
.axis, .wait { stroke: #d1d9e0; } .wait { stroke-dasharray: 1 3; }
.bad { fill: #d55e00; } .slow { fill: #8c8c8c; } .good { fill: #0072b2; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .small { fill: #9198a1; } .axis, .wait { stroke: #3d444d; }
  .good { fill: #56b4e9; }
}"""


def main() -> None:
    """Run the tasks each way, and draw both pictures."""
    with Server() as server:
        runs = [_run(server, task, variables) for task, variables, *_ in WAYS]
    for name, language in (("contended.svg", 0), ("contended.zh-CN.svg", 1)):
        (IMAGES / name).write_text("\n".join(_draw(runs, language)) + "\n", "utf-8")
        print(IMAGES / name)


def _run(server: Server, task: str, variables: dict[str, str]) -> Bars:
    """Return when each task began and ended, in seconds since the first began."""
    redis = connect(server.url())
    redis.flushall()
    settle(redis)
    with tempfile.TemporaryDirectory() as name:
        jots, log = Path(name) / "jots", Path(name) / "log"
        with patch.dict(os.environ, {"BROKER_URL": server.url(), FILE: str(jots), **variables}):
            from benchmarks import project  # noqa: PLC0415 - it asks where the broker is

            worker = Worker("benchmarks.project", log, concurrency=TASKS)
        try:
            worker.wait_until_ready()
            for _ in range(TASKS):
                getattr(project, task).apply_async((SECONDS,), headers={"account": "a"})
            wait_for(lambda: len(read_jots(jots)) >= TASKS)
            found = read_jots(jots)
            return [(run.start - found[0].start, run.end - found[0].start) for run in found]
        finally:
            worker.kill()
            redis.close()


def _draw(runs: list[Bars], language: int) -> Iterator[str]:
    """Yield the lines of a picture: a panel for each way, a row for each task."""
    longest = max(end for bars in runs for _, end in bars)
    scale = (WIDTH - 2 * LEFT - 50) / longest
    height = PANEL * len(runs) + 24
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">'
    yield f"<style>\n{STYLE}\n</style>"
    for panel, (bars, (_, _, colour, *titles)) in enumerate(zip(runs, WAYS, strict=True)):
        top = PANEL * panel
        yield f'<text x="{LEFT}" y="{top + 16}">{titles[language]}</text>'
        for row, (start, end) in enumerate(bars):
            middle = top + 26 + row * ROW + BAR / 2
            yield (
                f'<line class="wait" x1="{LEFT}" y1="{middle}" '
                f'x2="{LEFT + start * scale:.1f}" y2="{middle}"/>'
            )
            yield (
                f'<rect class="{colour}" x="{LEFT + start * scale:.1f}" y="{top + 26 + row * ROW}" '
                f'width="{(end - start) * scale:.1f}" height="{BAR}" rx="2"/>'
            )
        done = max(end for _, end in bars)
        yield (
            f'<text class="small" x="{LEFT + done * scale + 6:.1f}" '
            f'y="{top + 26 + (TASKS - 1) * ROW + BAR}">{done:.1f} s</text>'
        )
    base = PANEL * len(runs)
    yield f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - LEFT}" y2="{base}"/>'
    for second in range(int(longest) + 1):
        at = LEFT + second * scale
        yield f'<text class="small" x="{at:.1f}" y="{base + 16}">{second} s</text>'
    yield "</svg>"


if __name__ == "__main__":
    main()
