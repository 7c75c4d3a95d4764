"""Limits that are only observed on the page, in a real browser: shown, made, put in force."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from celery_concurrency.limiter.config.maximum import Observed
from tests.faces.test_page_actions import click, config, confirm, used
from tests.faces.test_page_manners import violations
from tests.faces.test_page_views import row
from tests.support.floor import Floor


@pytest.fixture
def watched(limiter, redis):
    """Of three runs an observed maximum would have turned two away."""
    limiter.config.update(
        {
            "account_max": 0,
            "platform_max": {"douyin": {"max": 1, "mode": "observe"}},
            "rates": {"account:*": [{"max": 1, "per": 30, "mode": "observe"}]},
        }
    )
    floor = Floor(limiter, redis)
    for token in [floor.hold(platform="douyin", account=f"a{n}") for n in range(3)]:
        limiter.release(token)


def observed(desk):
    return desk.page.locator("#observed-rows tr")


@pytest.mark.parametrize(
    ("locale", "denied", "badge"),
    [
        ("en-GB", r"2 \(67%\), for .+ s on average, .+ s at most", "would allow 1"),
        ("zh-CN", r"2 次（67%），平均等待 .+ 秒，最长 .+ 秒", "若生效：1"),
    ],
)
def test_it_is_shown_beside_what_is_in_force(desks, serving, watched, locale, denied, badge):
    desk = desks(serving.page, locale=locale)
    view = desk.open()
    expect(observed(desk)).to_have_count(2)
    expect(observed(desk).first).to_contain_text("platform:douyin")
    expect(observed(desk).first).to_contain_text(re.compile(denied))
    expect(view.locator("#limits-table").get_by_text(badge)).to_be_visible()
    assert violations(desk) == []


def test_one_click_and_its_confirmation_put_it_in_force(desk, limiter, watched):
    desk.open()
    dialog = click(desk, re.compile("Put in force: platform:douyin"))
    expect(dialog).to_contain_text("platform:douyin (1) is in force at once")
    expect(dialog).to_contain_text("2 (67%)")
    confirm(dialog, "Put in force")
    expect(observed(desk)).to_have_count(1)
    assert config(limiter).max_of("platform:douyin") == 1
    confirm(click(desk, re.compile(r"Put in force: account:\*")), "Put in force")
    expect(desk.page.locator("#observed")).to_be_hidden()
    assert config(limiter).to_dict()["rates"] == {"account:*": [{"max": 1, "per": 30}]}


def test_a_limit_is_edited_to_observe_only(desk, limiter):
    desk.open()
    dialog = click(desk, "Edit: platform:bilibili")
    dialog.get_by_label("New limit").fill("4")
    dialog.get_by_label("Mode").select_option(value="observe")
    expect(dialog).to_contain_text("platform:bilibili turns nobody away")
    confirm(dialog, "Change it")
    expect(used(desk, "platform:bilibili")).to_contain_text("would allow 4")
    assert config(limiter).platform_max["bilibili"] == Observed(max=4, mode="observe")
    view = desk.open("configuration")
    expect(row(view, "platform:bilibili")).to_contain_text("4 (only observed)")
    dialog = click(desk, "Edit: platform:bilibili")
    expect(dialog.get_by_label("New limit")).to_have_value("4")
    expect(dialog.get_by_label("Mode")).to_have_value("observe")
    expect(dialog).to_contain_text("That is what it is now.")
    dialog.get_by_label("Mode").select_option(value="enforce")
    expect(dialog).to_contain_text("goes from 4 (only observed) to 4")
    confirm(dialog, "Change it")
    assert config(limiter).platform_max["bilibili"] == 4


def test_rates_are_observed_and_stay_so_when_others_are_edited(desk, limiter):
    limiter.config.update({"rates": {"global": [{"max": 1, "per": 30, "mode": "observe"}]}})
    view = desk.open("configuration")
    expect(row(view, "rates global")).to_contain_text("1 per 30 s (only observed)")
    dialog = click(desk, "Edit: rates global")
    expect(dialog.get_by_label("Rates")).to_have_value("1/30s:observe")
    dialog.get_by_label("Rates").fill("1/30s:observe, 9/1d")
    expect(dialog).to_contain_text("global: turns nobody away")
    confirm(dialog, "Change it")
    assert config(limiter).to_dict()["rates"]["global"] == [
        {"max": 1, "per": 30, "mode": "observe"}, {"max": 9, "per": 86_400},
    ]  # fmt: skip
