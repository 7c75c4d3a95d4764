"""Adaptive limits, refusals and probes on the page, in a real browser."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import expect

from tests.faces.test_page_actions import click, config, confirm, used
from tests.faces.test_page_manners import violations
from tests.faces.test_page_moments import moments
from tests.faces.test_page_views import cells, row
from tests.support import history, scenes
from tests.support.serving import Serving

LIMIT = "platform:bilibili"
VIEW = f"adaptive/{LIMIT}"
VIEWS = ("limits", VIEW, "why/wait-probe", "configuration")


@pytest.fixture
def probe(limiter):
    """The run that goes first in account:tried; account:rests cools down; the platform fell."""
    return scenes.refused(limiter)


@pytest.fixture
def day(desk):
    """The page is told of a day with two strict times."""
    data = history.adaptive(time.time())
    body = {"success": True, "data": data}
    desk.page.route("**/adaptive/history**", lambda route: route.fulfill(json=body))
    return data


# -- in the limits


def test_a_badge_says_the_range_and_leads_to_the_limit(desk, limiter, probe):
    view = desk.open()
    measure = used(desk, LIMIT)
    expect(measure).to_contain_text("3 of 4")
    badge = measure.get_by_role("link", name=f"adaptive 1-8: {LIMIT}", exact=True)
    assert measure.locator(".fill").evaluate("bar => bar.style.width") == "75%"
    # Observed, it turns nobody away.
    expect(used(desk, "task_type:publish")).to_contain_text("2, no limit")
    expect(used(desk, "task_type:publish")).to_contain_text("adaptive 2-20, observed: 20")
    expect(row(view, "douyin").locator("[data-state=adaptive]")).to_have_count(0)
    badge.click()
    expect(desk.view("adaptive").get_by_role("heading", level=2)).to_have_text(
        f"Adaptive limit: {LIMIT}"
    )
    expect(desk.page.locator("nav.views [aria-current]")).to_have_text("Limits")
    assert desk.page.title().startswith("Adaptive limit")


def test_a_configured_maximum_below_it_is_what_is_shown(desk, limiter, probe):
    limiter.config.update({"platform_max": {"bilibili": 2}})
    desk.open()
    expect(used(desk, LIMIT)).to_contain_text("3 of 2")
    expect(used(desk, LIMIT)).to_contain_text("over the limit")
    answer = desk.open(VIEW).locator("#adaptive-answer")
    expect(answer).to_contain_text("The configured maximum is lower, so 2 is in force.")


@pytest.mark.parametrize(
    ("locale", "rests", "tried", "why"),
    [
        ("en-GB", r"cools down\s*opens in (10 min|9 min \d+ sec)\s*then one run goes first\s*429",
         r"^after a refusal\s*one run goes first: task\s*tries\s*429, set by refused-tried$",
         "account:tried: one run goes first after a refusal"),
        ("zh-CN", r"冷却中\s*(10 分钟|9 分钟 \d+ 秒)后放行\s*随后先放行一个任务试探\s*429",
         r"^试探中\s*正在试探的任务：\s*tries\s*429，由 refused-tried 设置$",
         "account:tried 曾被平台拒绝，先放行一个任务试探"),
    ],
)  # fmt: skip
def test_a_refusal_says_that_one_goes_first_and_which(
    desks, serving, limiter, probe, locale, rests, tried, why
):
    desk = desks(serving.page, locale=locale)
    view = desk.open()
    expect(row(view, "rests").locator(".moments li")).to_have_text(re.compile(rests))
    item = row(view, "tried").locator(".moments li")
    # A page whose clock is a little late has counted down first; that is hidden by now, not gone.
    expect(item).to_have_text(re.compile(tried), use_inner_text=True)
    expect(item.locator("time")).to_be_hidden()
    # It cools down no more: there is nothing to extend.
    cool = {"en-GB": ("Extend", "Cool down"), "zh-CN": ("延长冷却", "冷却")}[locale]
    for limit, text in zip(("account:rests", "account:tried"), cool, strict=True):
        expect(view.get_by_role("button", name=f"{text}: {limit}", exact=True)).to_be_visible()
    view = desk.open("waiting")
    expect(row(view, "wait-probe").locator(".reason")).to_have_text(why)
    view = desk.open("why/wait-probe")
    expect(view.locator("#why-answer")).to_contain_text(why)
    expect(row(view, "account:tried").locator(".holders li")).to_contain_text("tries")
    row(view, "account:tried").locator(".moments a").click()
    # Not until then has the page been told of it.
    expect(desk.view("why").locator("#why-answer code").first).to_have_text("tries")
    expect(desk.view("why").locator(".holders").first).to_contain_text("tries")
    desk.forgive("404")  # it does not wait


def test_its_success_and_lifting_it_end_it(desk, limiter, probe):
    desk.page.clock.install()
    desk.open()
    expect(moments(desk, "account:tried")).to_contain_text("one run goes first")
    limiter.waiting_room.cancel("wait-probe")
    limiter.release(probe, succeeded=True)
    desk.page.clock.run_for(2_000)
    expect(desk.page.locator("#limits-table")).not_to_contain_text("one run goes first:")
    confirm(click(desk, "Lift: account:rests"), "Lift")
    expect(desk.page.locator("#limits-table")).not_to_contain_text("then one run goes first")


# -- a limit of its own


def test_how_it_stands_and_how_it_came_there(desk, limiter, probe):
    limiter.stats.snapshot()
    view = desk.open(VIEW)
    answer = view.locator("#adaptive-answer")
    expect(answer).to_contain_text("It is at 4 now, and moves between 1 and 8 by itself.")
    expect(answer).to_contain_text("A refusal multiplies it by 0.5, at most once every 30 s.")
    [[_, change, why]] = cells(view, "#adaptive-rows tr")
    assert (change, why) == ("8 → 4", "refused: 429")
    figure = view.get_by_role("figure")
    expect(figure).to_have_count(1)
    label = figure.locator(".plot").get_attribute("aria-label")
    assert label.endswith("limit 4, running 3, refusals in 5 minutes 2")


def test_a_day_of_it_is_plotted_and_told(desk, limiter, day):
    limiter.config.update({"adaptive": {"platform:douyin": {"min": 1, "max": 10}}})
    view = desk.open("adaptive/platform:douyin")
    rows = view.locator("#adaptive-rows tr")
    expect(rows).to_have_count(20)
    more = view.get_by_role("button", name=f"Show {len(day['moves']) - 20} earlier ones")
    more.click()
    expect(rows).to_have_count(len(day["moves"]))
    expect(view.locator("#adaptive-more")).to_be_hidden()
    last, first = day["moves"][-1], day["moves"][0]
    expect(rows.first).to_contain_text(f"{last['before']} → {last['after']}")
    expect(rows.last).to_contain_text(f"{first['before']} → {first['after']}")
    expect(rows.last).to_contain_text("refused: 429")
    figure = view.get_by_role("figure")
    # Drawn first, and so below the line that falls.
    expect(figure.locator(".u-legend .u-series").nth(1)).to_contain_text("refusals in 5 minutes")
    figure.locator("summary").click()
    table = figure.locator("details tbody tr")
    # The newest first: now, and a day ago what it was before its first move.
    expect(table.first.locator("td").first).to_have_text(str(day["limit"]["current"]))
    expect(table.last.locator("td").first).to_have_text(str(first["before"]))
    refusals = [one["count"] for one in day["refusals"] if one["count"]]
    shown = [text for text in table.locator("td:nth-child(4)").all_inner_texts() if text != "–"]
    assert sorted(map(int, shown)) == sorted(refusals)


def test_where_refusals_are_not_counted_there_are_the_falls(desk, limiter, probe):
    limiter.config.update({"adaptive": {"account:*": {"min": 1, "max": 4}}})
    # From 3, the configured maximum, which was in force.
    limiter.refuse(probe, ("global", "account:tried"), "account:tried", 0, reason="429 <b>")
    view = desk.open("adaptive/account:tried")
    figure = view.get_by_role("figure")
    assert figure.locator(".plot").get_attribute("aria-label").endswith("running –, falls 1")
    expect(figure.locator(".u-legend")).to_contain_text("falls")
    expect(view.locator("#adaptive-rows")).to_contain_text("refused: 429 <b>")


def test_it_is_put_back_by_a_name(desk, limiter, probe):
    view = desk.open(VIEW)
    dialog = click(desk, "Back to its maximum")
    expect(dialog).to_contain_text(f"{LIMIT} goes back to 8 at once, and waiting tasks go on.")
    dialog.get_by_label("Your name").fill("安娜")
    confirm(dialog, "Back to its maximum")
    # The message first: it goes by itself.
    expect(desk.page.locator("#done")).to_have_text(f"{LIMIT}: 4 → 8")
    expect(view.locator("#adaptive-answer")).to_contain_text("It is at 8 now")
    expect(view.locator("#adaptive-rows tr").first).to_contain_text("reset by 安娜")
    expect(view.get_by_role("button", name="Back to its maximum")).to_be_hidden()
    assert limiter.adaptive.find(LIMIT).current == 8


def test_who_may_only_look_has_no_button(desks, server, limiter, probe):
    env = {"CONCURRENCY_TOKEN": "s3cret", "CONCURRENCY_READ_TOKEN": "look"}
    with Serving(server.url(), "--port", "0", env=env) as guarded:
        desk = desks(guarded.page)
        desk.page.goto(f"{desk.address}#{VIEW}")
        desk.view("sign-in").get_by_label("Bearer token").fill("look")
        desk.page.keyboard.press("Enter")
        expect(desk.view("adaptive").locator("#adaptive-answer")).to_contain_text("It is at 4")
        expect(desk.page.get_by_role("button", name="Back to its maximum")).to_be_hidden()
    desk.forgive("401")


def test_one_that_is_not_adaptive_says_so(desk, limiter):
    desk.page.goto(f"{desk.address}#adaptive/platform:douyin")
    alert = desk.page.locator("#problem")
    expect(alert).to_contain_text("This limit is not adaptive")
    expect(alert).to_contain_text("PUT /config")
    desk.forgive("404")


def test_one_that_did_not_move_says_so(desk, limiter):
    limiter.config.update({"adaptive": {"platform:*": {"min": 1, "max": 5, "mode": "observe"}}})
    view = desk.open("adaptive/platform:new")
    expect(view.locator("#adaptive-none")).to_be_visible()
    expect(view.locator("#adaptive-table")).to_be_hidden()
    expect(view.get_by_role("figure")).to_have_count(0)
    expect(view.locator("#adaptive-answer")).to_contain_text("Only observed")


def test_what_was_before_it_is_known_is_not_drawn(desk, limiter, day):
    limiter.config.update({"adaptive": {"platform:douyin": {"min": 1, "max": 10}}})
    day["samples"], day["refusals"] = day["samples"][-2:], []
    day["moves"] = day["moves"][-1:]
    table = desk.open("adaptive/platform:douyin").get_by_role("figure")
    table.locator("summary").click()
    expect(desk.page.locator("#adaptive-plots details tbody tr")).not_to_have_count(0)
    shown = cells(desk.page, "#adaptive-plots details tbody tr")
    move = day["moves"][0]
    assert [text for [_, text, *_] in shown[-2:]] == [str(move["after"]), str(move["before"])]
    assert shown[-1][0].endswith(time.strftime("%H:%M:%S", time.localtime(move["at"] - 1)))


def test_one_that_is_observed_is_put_in_force(desk, limiter, probe):
    view = desk.open("adaptive/task_type:publish")
    dialog = click(desk, "Put in force")
    expect(dialog).to_contain_text("task_type:* (2 to 20) is in force at once")
    confirm(dialog, "Put in force")
    expect(view.locator("#adaptive-answer")).to_contain_text("It is at 20 now")
    expect(view.get_by_role("button", name="Put in force")).to_be_hidden()
    assert config(limiter).adaptive["task_type:*"].mode == "enforce"


def test_it_is_in_the_table_of_what_is_observed(desk, limiter, probe):
    desk.open()
    expect(desk.page.locator("#observed-rows tr")).to_contain_text("2 to 20 (adaptive)")
    dialog = click(desk, re.compile(r"Put in force: task_type:\*"))
    expect(dialog).to_contain_text("task_type:* (2 to 20 (adaptive)) is in force at once")
    confirm(dialog, "Put in force")
    entry = config(limiter).adaptive["task_type:*"]
    assert (entry.max, entry.decrease, entry.mode) == (20, 0.7, "enforce")


# -- in the configuration


def test_it_is_shown_edited_and_removed(desk, limiter, probe):
    view = desk.open("configuration")
    expect(row(view, f"adaptive {LIMIT}")).to_contain_text(
        "1 to 8; times 0.5 on a refusal, at most once every 30 s"
    )
    expect(row(view, "adaptive task_type:*")).to_contain_text("(observed)")
    dialog = click(desk, f"Edit: adaptive {LIMIT}")
    expect(dialog.get_by_label("Minimum")).to_have_value("1")
    dialog.get_by_label("Maximum").fill("6")
    dialog.get_by_label("Seconds between").fill("90")
    expect(dialog).to_contain_text(f"{LIMIT} moves between 1 and 6 by itself, at once. If it has")
    confirm(dialog, "Change it")
    expect(row(view, f"adaptive {LIMIT}")).to_contain_text(
        "1 to 6; times 0.5 on a refusal, at most once"
    )
    entry = config(limiter).adaptive[LIMIT]
    assert (entry.min, entry.max, entry.every, entry.decrease) == (1, 6, 90, 0.5)
    confirm(click(desk, f"Remove: adaptive {LIMIT}"), "Remove")
    expect(view.locator("#config-rows")).not_to_contain_text(f"adaptive {LIMIT}")
    assert config(limiter).adaptive.keys() == {"task_type:*"}


def test_to_edit_one_that_is_observed_leaves_it_so(desk, limiter, probe):
    desk.open("configuration")
    dialog = click(desk, "Edit: adaptive task_type:*")
    expect(dialog.get_by_label("Mode")).to_have_value("observe")
    expect(dialog).to_contain_text("task_type:* turns no task away.")
    expect(dialog).not_to_contain_text("by itself")
    dialog.get_by_label("Maximum").fill("30")
    confirm(dialog, "Change it")
    entry = config(limiter).adaptive["task_type:*"]
    assert (entry.max, entry.decrease, entry.mode) == (30, 0.7, "observe")
    dialog = click(desk, "Edit: adaptive task_type:*")
    dialog.get_by_label("Mode").select_option(value="enforce")
    expect(dialog).to_contain_text("task_type:* moves between 2 and 30 by itself")
    confirm(dialog, "Change it")
    assert config(limiter).adaptive["task_type:*"].mode == "enforce"


@pytest.mark.parametrize("name", ["vip", "constructor", "__proto__"])
def test_set_another(desk, limiter, name):
    view = desk.open("configuration")
    dialog = click(desk, "Set adaptive limit")
    dialog.get_by_label("Dimension").select_option(label="Account")
    dialog.get_by_label("Name", exact=False).first.fill(name)
    dialog.get_by_label("Maximum").fill("3")
    expect(dialog).to_contain_text(f"account:{name} begins at 3")
    expect(dialog).to_contain_text("The configured maximum (1) stays, and wins where it is lower.")
    confirm(dialog, "Change it")
    expect(row(view, f"adaptive account:{name}")).to_contain_text("1 to 3; times 0.5")
    assert config(limiter).adaptive[f"account:{name}"].max == 3


def test_what_can_not_be_is_said_at_the_field(desk, limiter):
    desk.open("configuration")
    dialog = click(desk, "Set adaptive limit")
    dialog.get_by_label("Dimension").select_option(label="Global")
    button = dialog.get_by_role("button", name="Change it")
    expect(button).to_be_enabled()
    for label, wrong, right, problem in (
        ("Minimum", "11", "10", "It can't be more than the maximum"),
        ("multiplies it by", "1", "0.9", "It must be more than 0 and less than 1"),
        ("multiplies it by", "0", "0.01", "It must be more than 0 and less than 1"),
        ("Seconds between", "0", "1", ""),
        ("Maximum", "1000001", "1000000", ""),
    ):
        field = dialog.get_by_label(label)
        field.fill(wrong)
        if problem:
            expect(dialog.get_by_text(problem)).to_be_visible()
        expect(button).to_be_disabled()
        field.fill(right)
        expect(button).to_be_enabled()
    confirm(dialog, "Change it")
    assert config(limiter).adaptive["global"].every == 1


# -- for everybody


@pytest.mark.parametrize("width", [390, 800, 1400])
@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_no_window_is_too_narrow(desks, serving, limiter, probe, width, locale):
    name = "a-very-long-name-of-a-platform-that-has-no-blank-" * 3
    limit = f"platform:{name}"
    limiter.config.update({"adaptive": {limit: {"min": 1, "max": 1_000_000}}})
    limiter.refuse("x", ("global", limit), limit, 600, reason="because-" * 20, by="x" * 200)
    desk = desks(serving.page, locale=locale, viewport={"width": width, "height": 800})
    for view in (*VIEWS, f"adaptive/{limit}"):
        desk.open(view)
        assert desk.page.evaluate("document.documentElement.scrollWidth") <= width, view


@pytest.mark.parametrize(
    ("options", "rules"),
    [({}, ()), ({"color_scheme": "dark"}, ("color-contrast",)), ({"locale": "zh-CN"}, ())],
    ids=str,
)
def test_nothing_of_it_keeps_anybody_out(desks, serving, probe, options, rules):
    desk = desks(serving.page, **options)
    for view in VIEWS:
        desk.open(view)
        assert violations(desk, *rules) == [], view
    desk.page.locator("#set-adaptive").click()
    desk.page.locator("#dialog-fields input").nth(1).fill("99")
    assert violations(desk, *rules) == []
