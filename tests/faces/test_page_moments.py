"""Rates and cool-downs on the page, in a real browser: how they are shown, set and lifted."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from tests.faces.test_page_actions import click, config, confirm, used
from tests.faces.test_page_manners import violations
from tests.faces.test_page_views import row
from tests.support import scenes
from tests.support.waiting import hold, park, put_back

API = "**/api/v1/concurrency/**"


@pytest.fixture
def shut(limiter):
    scenes.shut(limiter)


def moments(desk, limit):
    """Return the windows and the cool-down that the view of the limits shows of a limit."""
    return used(desk, limit).locator("xpath=..").locator(".moments li")


# -- shown


def test_each_window_has_a_bar_and_says_when_it_opens(desk, shut):
    view = desk.open()
    quick = moments(desk, "account:quick")
    expect(quick).to_have_count(2)
    expect(quick.nth(0)).to_have_text(re.compile(r"^1 of 1 in 100 s\s*opens in (\d\d|100) s$"))
    expect(quick.nth(1)).to_have_text("1 of 15 in 1 day")
    widths = [bar.evaluate("bar => bar.style.width") for bar in quick.locator(".fill").all()]
    assert widths[0] == "100%"
    assert widths[1].startswith("6.6")
    expect(moments(desk, "platform:bilibili")).to_have_text("2 of 4 in 1 hr")
    expect(row(view, "douyin").locator(".moments")).to_be_hidden()


def test_a_cool_down_says_until_when_and_why_and_who_said_so(desk, shut):
    desk.open()
    cooling = moments(desk, "platform:channels")
    expect(cooling).to_contain_text(re.compile(r"cools down\s*opens in (9 min \d+ sec|10 min)"))
    expect(cooling).to_contain_text("429: slow down, set by task 5f1c")
    expect(moments(desk, "account:banned").first).to_contain_text("risk control, set by anna")


def test_it_counts_down_between_two_polls(desk, shut):
    desk.stop_clock()
    desk.open()
    desk.page.route(API, lambda route: None)  # no answer from now on
    with desk.page.expect_request("**/usage"):
        desk.page.clock.run_for(2_000)
    time = moments(desk, "account:quick").locator("time").first

    def left():
        return int(re.search(r"\d+", time.inner_text())[0])

    before = left()
    desk.page.clock.run_for(5_000)
    assert left() == before - 5
    desk.page.unroute_all(behavior="ignoreErrors")


@pytest.mark.parametrize(
    ("locale", "rate", "cooling"),
    [
        ("en-GB", r"account:quick opens in \d+ s \(1 per 100 s\)",
         r"platform:channels opens in .+ \(it cools down: 429: slow down\)"),
        ("zh-CN", r"account:quick \d+ 秒后放行（每 100 秒 1 个）",
         r"platform:channels .+后放行（冷却中：429: slow down）"),
    ],
)  # fmt: skip
def test_who_waits_for_a_moment_is_told_when_it_is(desks, serving, shut, locale, rate, cooling):
    desk = desks(serving.page, locale=locale)
    view = desk.open("waiting")
    expect(row(view, "wait-rate").locator(".reason")).to_have_text(re.compile(f"^{rate}$"))
    expect(row(view, "wait-cool").locator(".reason")).to_have_text(re.compile(f"^{cooling}$"))
    view = desk.open("why/wait-rate")
    expect(view.locator("#why-answer")).to_contain_text(re.compile(rate))
    account = row(view, "account:quick")
    expect(account.locator(".badge")).to_have_text(re.compile("not open yet|暂不放行"))
    expect(account.locator(".moments li")).to_have_count(2)


# -- cool-downs


def test_cool_a_limit_down_extend_it_and_lift_it(desk, limiter, redis):
    scenes.configure(limiter)
    desk.open()
    dialog = click(desk, "Cool down: platform:douyin")
    expect(dialog).to_contain_text("platform:douyin admits no task until")
    dialog.get_by_label("For how long").fill("30")
    expect(dialog).to_contain_text("(30 min)")
    dialog.get_by_label("Reason").fill("429 <b>风控</b>")
    dialog.get_by_label("Your name").fill("安娜")
    confirm(dialog, "Cool down")
    cooling = moments(desk, "platform:douyin")
    expect(cooling).to_contain_text("429 <b>风控</b>, set by 安娜")
    first = limiter.cooldowns.find("platform:douyin")
    assert (first.reason, first.by) == ("429 <b>风控</b>", "安娜")
    assert 1700 < first.seconds <= 1800
    park(limiter, "waits", {"platform": "douyin"})

    dialog = click(desk, "Extend: platform:douyin")
    expect(dialog.get_by_label("Reason")).to_have_value("429 <b>风控</b>")
    expect(dialog).to_contain_text("the longer of two stands: nothing would change")
    dialog.get_by_label("Unit").select_option(label="days")
    dialog.get_by_label("For how long").fill("2")
    expect(dialog).to_contain_text("(2 days)")
    confirm(dialog, "Extend")
    expect(cooling).to_contain_text("opens in 1 day 23 hr")
    assert limiter.cooldowns.find("platform:douyin").until > first.until

    dialog = click(desk, "Lift: platform:douyin")
    expect(dialog).to_contain_text("platform:douyin admits tasks again at once")
    confirm(dialog, "Lift")
    expect(cooling).to_have_count(0)
    assert limiter.cooldowns.find("platform:douyin") is None
    assert [one["headers"]["id"] for one in put_back(redis)] == ["waits"]
    # It is no version of the configuration.
    assert len(limiter.config.history()) == 4


def test_how_long_is_bounded_in_each_unit(desk, limiter):
    desk.open()
    dialog = click(desk, "Cool down: global")
    button = dialog.get_by_role("button", name="Cool down", exact=True)
    for unit, most in (("seconds", 604_800), ("minutes", 10_080), ("hours", 168), ("days", 7)):
        dialog.get_by_label("Unit").select_option(label=unit)
        dialog.get_by_label("For how long").fill(str(most))
        expect(button).to_be_enabled()
        for wrong in (str(most + 1), "0", "1.5", ""):
            dialog.get_by_label("For how long").fill(wrong)
            expect(button).to_be_disabled()


@pytest.mark.parametrize("name", ["nobody yet", "__proto__"])
def test_cool_a_limit_down_that_is_not_listed(desk, limiter, name):
    desk.open()
    dialog = click(desk, "Cool another limit down")
    dialog.get_by_label("Dimension").select_option(label="Account")
    dialog.get_by_label("Name", exact=True).fill(name)
    confirm(dialog, "Cool down")
    expect(moments(desk, f"account:{name}")).to_contain_text("cools down")
    assert limiter.cooldowns.find(f"account:{name}")
    dialog = click(desk, "Cool another limit down")
    dialog.get_by_label("Dimension").select_option(label="Global")
    expect(dialog.get_by_label("Name", exact=True)).to_be_disabled()
    confirm(dialog, "Cool down")
    assert limiter.cooldowns.find("global")


def test_a_cool_down_that_is_over_meanwhile_can_not_be_lifted(desk, limiter, shut):
    desk.open()
    dialog = click(desk, "Lift: platform:channels")
    limiter.cooldowns.lift("platform:channels")
    dialog.get_by_role("button", name="Lift").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    desk.forgive("404")


# -- rates in the configuration


def test_rates_are_shown_edited_and_removed(desk, limiter, shut):
    view = desk.open("configuration")
    expect(row(view, "rates account:*")).to_contain_text("1 per 100 s, 15 per 1 day")
    expect(row(view, "rates platform:bilibili")).to_contain_text("4 per 1 hr")
    dialog = click(desk, "Edit: rates account:*")
    field = dialog.get_by_label("Rates")
    expect(field).to_have_value("1/100s, 15/1d")
    field.fill("2/90s、3/2h;20/1d")
    expect(dialog).to_contain_text("account:*: in any 90 s, at most 2 tasks may start.")
    expect(dialog).to_contain_text("account:*: in any 2 hr, at most 3 tasks may start.")
    confirm(dialog, "Change it")
    expect(row(view, "rates account:*")).to_contain_text("2 per 90 s, 3 per 2 hr, 20 per 1 day")
    given = [str(rate) for rate in config(limiter).rates["account:*"]]
    assert given == ["2 per 90 s", "3 per 7200 s", "20 per 86400 s"]
    confirm(click(desk, "Remove: rates platform:bilibili"), "Remove")
    expect(view.locator("#config-rows")).not_to_contain_text("rates platform:bilibili")
    assert config(limiter).rates.keys() == {"account:*"}


@pytest.mark.parametrize("name", ["vip", "constructor", "__proto__"])
def test_set_rates_of_another_limit(desk, limiter, shut, name):
    view = desk.open("configuration")
    dialog = click(desk, "Set rates")
    dialog.get_by_label("Dimension").select_option(label="Account")
    dialog.get_by_label("Name", exact=False).first.fill(name)
    dialog.get_by_label("Rates").fill("40/1d")
    expect(dialog).to_contain_text("They replace those of account:* (1 per 100 s, 15 per 1 day).")
    confirm(dialog, "Change it")
    expect(row(view, f"rates account:{name}")).to_contain_text("40 per 1 day")
    assert [str(rate) for rate in config(limiter).rates[f"account:{name}"]] == ["40 per 86400 s"]


def test_what_is_no_rate_is_said_at_the_field(desk, limiter):
    desk.open("configuration")
    dialog = click(desk, "Set rates")
    dialog.get_by_label("Dimension").select_option(label="Global")
    field = dialog.get_by_label("Rates")
    button = dialog.get_by_role("button", name="Change it")
    for text, problem in (
        ("1/30", '"1/30" is not a rate'),
        ("0/30s", "the number must be from 1 to 10,000"),
        ("1/8d", "the time must be from 1 s to 7 days"),
        ("1/1s 2/2s 3/3s 4/4s 5/5s", "4 rates at most"),
    ):
        field.fill(text)
        expect(dialog.locator(".field-problem")).to_contain_text(problem)
        expect(field).to_have_attribute("aria-invalid", "true")
        assert field.get_attribute("aria-describedby") == "problem-rates"
        expect(button).to_be_disabled()
    field.fill("1/30s")
    expect(dialog.locator(".field-problem")).to_be_hidden()
    confirm(dialog, "Change it")
    assert config(limiter).rates.keys() == {"global"}


def test_what_the_api_finds_wrong_with_rates_is_said_at_the_field(desk, limiter, shut):
    desk.open("configuration")
    dialog = click(desk, "Edit: rates account:*")
    error = {
        "code": "invalid_config",
        "message": "The configuration is not valid; nothing was changed",
        "details": [
            {"field": "rates.account:*.0.max", "problem": "is <b>wrong</b>"},
            {"field": "timeout", "problem": "is wrong too"},
        ],
    }
    body = json.dumps({"success": False, "message": error["message"], "error": error})
    desk.page.route("**/config", lambda route: route.fulfill(status=400, body=body))
    dialog.get_by_label("Rates").fill("1/30s")
    dialog.get_by_role("button", name="Change it").click()
    expect(dialog.locator(".field-problem")).to_have_text("is <b>wrong</b>")
    expect(dialog.get_by_role("alert")).to_contain_text("timeout: is wrong too")
    expect(dialog.get_by_role("alert")).not_to_contain_text("<b>")
    # It can be mended and sent again.
    dialog.get_by_label("Rates").fill("1/60s")
    expect(dialog.locator(".field-problem")).to_be_hidden()
    expect(dialog.get_by_role("button", name="Change it")).to_be_enabled()
    desk.forgive("400")


# -- for everybody


@pytest.mark.parametrize("width", [390, 800, 1400])
@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_no_window_is_too_narrow(desks, serving, limiter, shut, width, locale):
    name = "a-very-long-name-of-an-account-that-has-no-blank-" * 3
    hold(limiter, "long", {"account": name})
    limiter.cooldowns.set(f"account:{name}", 600, "because-" * 20, "x" * 200)
    desk = desks(serving.page, locale=locale, viewport={"width": width, "height": 800})
    for view in ("limits", "waiting", "why/wait-rate", "configuration"):
        desk.open(view)
        assert desk.page.evaluate("document.documentElement.scrollWidth") <= width, view
    desk.open()
    table = desk.page.locator("#limits-table").locator("xpath=..")
    assert table.evaluate("one => one.scrollWidth <= one.clientWidth")


@pytest.mark.parametrize(
    ("options", "rules"),
    [({}, ()), ({"color_scheme": "dark"}, ("color-contrast",)), ({"locale": "zh-CN"}, ())],
    ids=str,
)
def test_nothing_of_it_keeps_anybody_out(desks, serving, shut, options, rules):
    desk = desks(serving.page, **options)
    for view in ("limits", "waiting", "why/wait-rate", "configuration"):
        desk.open(view)
        assert violations(desk, *rules) == [], view
    desk.page.locator("#set-rates").click()
    desk.page.locator("#dialog-fields input").last.fill("nonsense")
    assert violations(desk, *rules) == []
    desk.page.keyboard.press("Escape")
    desk.open()
    for button in ("#cool-another", "button[aria-label$='platform:channels']"):
        desk.page.locator(button).nth(2 if "aria" in button else 0).click()
        assert violations(desk, *rules) == [], button
        desk.page.keyboard.press("Escape")
