"""The page: fair shares, in the configuration and where tasks wait."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.faces.test_page_actions import click, config, confirm
from tests.faces.test_page_views import row
from tests.support.waiting import hold, park


def test_they_are_set_shown_and_removed(desk, limiter):
    limiter.config.update({"dimensions": {"tenant": {"max": 1}}})
    view = desk.open("configuration")
    dialog = click(desk, "Set fair shares")
    dialog.get_by_label("Dimension").select_option(label="tenant")
    dialog.get_by_label("Name (leave").fill("acme")
    dialog.get_by_role("spinbutton", name="Weight").fill("3")
    expect(dialog).to_contain_text("acme goes on 3 times in a round")
    confirm(dialog, "Change it")
    setting = row(view, "fair tenant")
    expect(setting).to_contain_text("acme with weight 3, all others with 1")
    hold(limiter, "holder", {"tenant": "acme"})
    park(limiter, "waits", {"tenant": "acme"})
    expect(desk.open("limits").locator("tr", has_text="acme")).to_contain_text("1 (weight 3)")
    desk.open("configuration")
    confirm(click(desk, "Remove: fair tenant"), "Remove")
    expect(view.locator("#config-rows")).not_to_contain_text("fair tenant")
    assert config(limiter).shares() == (None, {})
