"""Makes the pictures of the page in the documentation: ``python -m tests.support.screenshots``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.testing.server import Server
from tests.support import history, scenes
from tests.support.browsing import Desk, chromium
from tests.support.serving import Serving
from tests.support.workers import settle

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WINDOW = {"width": 1080, "height": 620}


def take(browser: Any, address: str) -> None:
    """Take all pictures of a page that is served at an address."""
    backlog = {"success": True, "data": history.backlog(time.time())}
    for name, locale in {"page": "en-US", "page.zh-CN": "zh-CN"}.items():
        wide = Desk(browser, address, viewport={"width": 1280, "height": 656}, locale=locale)
        wide.page.route("**/stats/backlog", lambda route: route.fulfill(json=backlog))
        wide.open()
        wide.page.screenshot(path=IMAGES / f"{name}.png")
    desk = Desk(browser, address, viewport=WINDOW)
    made_up = {"success": True, "data": history.made_up(time.time())}
    desk.page.route("**/stats/history**", lambda route: route.fulfill(json=made_up))
    for name, view in {
        "waiting": "waiting",
        "why": "why/wait-0",
        "statistics": "statistics",
        "configuration": "configuration",
    }.items():
        desk.open(view)
        desk.page.screenshot(path=IMAGES / f"page-{name}.png")
    adaptive = {"success": True, "data": history.adaptive(time.time())}
    desk.page.route("**/adaptive/history**", lambda route: route.fulfill(json=adaptive))
    desk.open("adaptive/platform:douyin")
    desk.page.screenshot(path=IMAGES / "page-adaptive.png")
    dark = Desk(browser, address, viewport=WINDOW, color_scheme="dark", locale="zh-CN")
    dark.open()
    dark.page.get_by_role("button", name="修改: platform:douyin").click()
    dark.page.get_by_label("新上限").fill("2")
    dark.page.screenshot(path=IMAGES / "page-edit-dark-zh.png")


def main() -> None:
    """Start a server with something of everything in it, and take them."""
    IMAGES.mkdir(exist_ok=True)
    with Server() as server, chromium() as browser:
        client = connect(server.url())
        settle(client)
        limiter = Limiter(client)
        scenes.busy(limiter)
        scenes.shut(limiter)
        with Serving(server.url()) as serving:
            take(browser, serving.page)


if __name__ == "__main__":
    main()
