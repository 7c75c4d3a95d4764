"""A real headless Chromium for tests, and pages in it that may go wrong in no way."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from playwright.sync_api import expect, sync_playwright

#: Debian's; the first draws no windows, which take a third of the processor. Playwright
#: downloads one of its own, which a test run should not.
PROGRAMS: Final = ("chromium-headless-shell", "chromium")
ARGUMENTS: Final = (
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
#: Milliseconds for which a page is waited for: a busy machine may stand still for some seconds.
PATIENCE: Final = 60_000
expect.set_options(timeout=PATIENCE)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips the test where there is none, unless REQUIRE_CHROMIUM is set."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not program:
        missing = "there is no Chromium: apt-get install chromium-headless-shell"
        if os.environ.get("REQUIRE_CHROMIUM"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Desk:
    """A page of a browser, and what went wrong in it.

    Args:
        browser: see ``chromium``.
        address: of the page, without what is after the ``#``.
        options: of Playwright's ``new_context``.

    Attributes:
        page: Playwright's.
        problems: errors of scripts, of the policy and on the console. A test that
            makes one on purpose takes it out.
        requests: what it asked for, its addresses.
    """

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.address = address
        self.context = browser.new_context(**{"locale": "en-GB", **options})
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._on_console)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def open(self, view: str = "limits") -> Any:
        """Go to a view and wait until it was read; returns its element."""
        self.page.goto(f"{self.address}#{view}")
        self.wait_until_live()
        return self.view(view)

    def stop_clock(self) -> None:
        """Let the page's clock stand still, before it is opened; ``page.clock.run_for`` moves it.

        Its polls then come when a test says so, however slow the machine is.
        """
        self.page.clock.install()
        # Later than now: it can't be put back.
        self.page.clock.pause_at(time.time() + 60)

    def wait_until_live(self) -> None:
        """Wait until the page shows what the API says now."""
        self.page.wait_for_selector("#state[data-state=live]")

    def view(self, view: str) -> Any:
        """Return the element of a view, once it is shown."""
        section = self.page.locator(f"#view-{view.partition('/')[0]}")
        section.wait_for()
        return section

    def forgive(self, words: str) -> None:
        """Take out problems with these words, of which there has to be one."""
        left = [problem for problem in self.problems if words not in problem]
        assert len(left) < len(self.problems), (words, self.problems)
        self.problems = left
