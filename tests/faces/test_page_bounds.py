"""The page: bounds on waiting, in the configuration and where tasks wait."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.faces.test_page_actions import click, config, confirm
from tests.faces.test_page_views import row
from tests.support.waiting import hold, park


def test_they_are_set_shown_and_removed(desk, limiter):
    view = desk.open("configuration")
    dialog = click(desk, "Set bounds on waiting")
    dialog.get_by_label("Dimension").select_option(label="Platform")
    dialog.get_by_label("Name", exact=False).first.fill("douyin")
    dialog.get_by_label("How many may wait").fill("5")
    dialog.get_by_label("For how many seconds").fill("600")
    expect(dialog).to_contain_text("platform:douyin: 5 may wait, for 10 min at most. One too many")
    confirm(dialog, "Change it")
    setting = row(view, "waiting platform:douyin")
    expect(setting).to_contain_text("5 may wait, for 10 min at most")
    hold(limiter, "holder", {"account": "a", "platform": "douyin"})
    park(limiter, "waits", {"account": "a", "platform": "douyin"})
    expect(desk.open("limits").locator("tr", has_text="douyin")).to_contain_text("1 of 5")
    expect(desk.open("why/waits")).to_contain_text("It is given up at")
    desk.open("configuration")
    dialog = click(desk, "Edit: waiting platform:douyin")
    dialog.get_by_label("How many may wait").fill("")
    confirm(dialog, "Change it")
    expect(setting).not_to_contain_text("may wait")
    assert config(limiter).waiting["platform:douyin"].most is None
    assert config(limiter).waiting["platform:douyin"].seconds == 600
    confirm(click(desk, "Remove: waiting platform:douyin"), "Remove")
    expect(view.locator("#config-rows")).not_to_contain_text("waiting platform")
    assert config(limiter).waiting == {}
