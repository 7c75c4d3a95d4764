"""How the page behaves, in a real browser: polling, tokens, keyboard, and who can't see it."""

from __future__ import annotations

import time

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import expect

from tests.support import history, scenes
from tests.support.serving import Serving

VIEWS = ("limits", "running", "waiting", "why/wait-0", "workers", "statistics", "configuration")

#: A page is hidden for its scripts; headless, no window is ever really behind another.
HIDE = """hidden => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def statistics(route):
    route.fulfill(json={"success": True, "data": history.made_up(time.time())})


# -- polling


def test_it_polls_while_it_is_seen_and_not_while_it_is_hidden(desk):
    desk.page.clock.install()
    desk.open()
    usage = "**/usage"
    for _ in range(3):
        with desk.page.expect_request(usage):
            desk.page.clock.run_for(2_000)
        desk.wait_until_live()
    desk.page.evaluate(HIDE, True)
    expect(desk.page.locator("#state")).to_have_text("Asleep")
    before = len(desk.requests)
    desk.page.clock.run_for(600_000)
    assert len(desk.requests) == before
    with desk.page.expect_request(usage):
        desk.page.evaluate(HIDE, False)
    expect(desk.page.locator("#state")).to_have_text("Live")


def test_it_polls_less_while_something_is_wrong_and_says_what(desk):
    # Else it goes on by itself, and a slow machine is late for the moment before a try.
    desk.stop_clock()
    desk.open()
    failed = []

    def fail(route):
        failed.append(route.request.url)
        said = f"Redis can't be reached, {len(failed)}"
        problem = {"code": "unavailable", "message": said, "details": []}
        route.fulfill(status=503, json={"success": False, "error": problem})

    desk.page.route("**/usage", fail)
    # From two seconds on, each time twice as long, and never more than half a minute.
    desk.page.clock.run_for(2_000)
    alert = desk.page.get_by_role("alert")
    for tries, seconds in enumerate((4, 8, 16, 30, 30), 1):
        # Until it has failed, there is no next try to wait for.
        expect(alert).to_have_text(f"Redis can't be reached, {tries}")
        expect(desk.page.locator("#state")).to_have_text(
            f"Not up to date · next try in {seconds} s"
        )
        desk.page.clock.run_for(seconds * 1_000 - 100)
        assert len(failed) == tries
        with desk.page.expect_request("**/usage"):
            desk.page.clock.run_for(100)
    expect(alert).to_have_text("Redis can't be reached, 6")
    desk.page.unroute("**/usage")
    desk.page.clock.run_for(30_000)
    expect(desk.page.locator("#state")).to_have_text("Live")
    expect(alert).to_be_hidden()
    desk.forgive("503")


def test_a_server_that_is_gone_and_comes_back(desk):
    desk.page.clock.install()
    desk.open()
    desk.context.set_offline(True)
    desk.page.clock.run_for(2_000)
    expect(desk.page.get_by_role("alert")).to_have_text("The server does not answer")
    desk.context.set_offline(False)
    desk.page.clock.run_for(4_000)
    expect(desk.page.locator("#state")).to_have_text("Live")
    desk.forgive("ERR_INTERNET_DISCONNECTED")


# -- who may what


@pytest.fixture(scope="module")
def guarded(server):
    env = {"CONCURRENCY_TOKEN": "s3cret", "CONCURRENCY_READ_TOKEN": "look"}
    with Serving(server.url(), "--host", "0.0.0.0", "--port", "0", env=env) as serving:
        yield serving


def sign_in(desk, token):
    desk.page.goto(desk.address)
    desk.view("sign-in").get_by_label("Bearer token").fill(token)
    desk.page.keyboard.press("Enter")


def test_a_token_is_asked_for_and_kept_in_this_tab(desks, guarded, limiter):
    scenes.busy(limiter)
    desk = desks(guarded.page)
    sign_in(desk, "wrong")
    expect(desk.page.get_by_role("alert")).to_have_text("This token is not accepted.")
    sign_in(desk, "s3cret")
    expect(desk.view("limits")).to_contain_text("douyin")
    desk.page.reload()
    desk.view("limits")
    kept = (
        "JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, location.href])"
    )
    session, *others = desk.page.evaluate(f"JSON.parse({kept})")
    assert list(session.values()) == ["s3cret"]
    assert "s3cret" not in str(others)
    other_tab = desk.context.new_page()
    other_tab.goto(desk.address)
    other_tab.locator("#view-sign-in").wait_for()
    desk.page.get_by_role("button", name="Sign out").click()
    desk.view("sign-in")
    assert desk.page.evaluate("sessionStorage.length") == 0
    desk.forgive("401")


def test_who_only_looks_sees_no_button_that_would_be_refused(desks, guarded, limiter):
    scenes.busy(limiter)
    desk = desks(guarded.page)
    sign_in(desk, "look")
    expect(desk.page.locator("#role")).to_have_text("Read only")
    desk.page.route("**/stats/history**", statistics)
    for view in VIEWS:
        shown = desk.open(view)
        buttons = [one.inner_text() for one in shown.get_by_role("button").all()]
        assert set(buttons) <= {"Why does it wait?"}, view
        assert desk.page.locator("[data-change]:visible").count() == 0
    desk.forgive("401")


def test_who_may_change_sees_them(desk, limiter):
    scenes.busy(limiter)
    for view in ("limits", "running", "waiting", "why/wait-0", "configuration"):
        desk.open(view)
        assert desk.page.locator("[data-change]:visible").count() > 0, view
    expect(desk.page.locator("#role")).to_be_hidden()


# -- by keyboard alone


def focused(desk):
    return desk.page.evaluate(
        "(document.activeElement.ariaLabel ?? document.activeElement.innerText)"
    )


def test_by_keyboard_alone(desk, limiter):
    scenes.busy(limiter)
    desk.open()
    press = desk.page.keyboard.press
    press("Tab")
    assert focused(desk) == "Skip to the content"
    assert desk.page.locator("#skip").bounding_box()["x"] >= 0
    press("Enter")
    assert desk.page.evaluate("document.activeElement.id") == "main"
    for _ in range(30):
        press("Tab")
        if focused(desk) == "Edit: platform:douyin":
            break
    ring = "getComputedStyle(document.activeElement).outlineStyle"
    assert desk.page.evaluate(ring) == "solid"
    press("Enter")
    dialog = desk.page.get_by_role("dialog")
    dialog.wait_for()
    # Its first field has the focus, and Tab goes round inside.
    names = []
    for _ in range(10):
        names.append(desk.page.evaluate("document.activeElement.id || document.activeElement.type"))
        press("Tab")
    assert names[:5] == ["number", "select-one", "operator", "dialog-close", "dialog-do"]
    assert names[5:] == names[:5]
    press("Shift+Tab")
    assert desk.page.evaluate("document.activeElement.id") == "dialog-do"
    press("Escape")
    dialog.wait_for(state="hidden")
    assert focused(desk) == "Edit: platform:douyin"
    press("Enter")
    desk.page.keyboard.type("8")
    press("Enter")
    dialog.wait_for(state="hidden")
    assert focused(desk) == "Edit: platform:douyin"
    assert limiter.config.sync().config.platform_max["douyin"] == 8


def test_focus_stays_where_it_is_while_rows_come_and_go(desk, limiter):
    tokens = scenes.busy(limiter)
    desk.open("running")
    desk.page.get_by_role("button", name=f"Release: {tokens['run-1']}").focus()
    limiter.release(tokens["run-0"])
    desk.page.get_by_text(tokens["run-0"]).wait_for(state="detached")
    assert focused(desk) == f"Release: {tokens['run-1']}"
    # With its row gone, it is at the view's title.
    desk.page.keyboard.press("Enter")
    desk.page.get_by_role("dialog").get_by_role("button", name="Release").click()
    desk.page.get_by_text(tokens["run-1"]).wait_for(state="detached")
    desk.page.get_by_role("dialog").wait_for(state="hidden")
    assert desk.page.evaluate("document.activeElement.isConnected")


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
@pytest.mark.parametrize("view", ["limits", "running", "waiting"])
def test_actions_are_in_sight_at_800_pixels(desks, serving, limiter, view, locale):
    scenes.busy(limiter)
    desk = desks(serving.page, viewport={"width": 800, "height": 700}, locale=locale)
    shown = desk.open(view)
    actions = shown.locator("td.buttons:visible")
    expect(actions.first).to_be_visible()
    rights = actions.evaluate_all("cells => cells.map(cell => cell.getBoundingClientRect().right)")
    assert max(rights) <= 800


# -- for those who can't see it


def violations(desk, *rules):
    """Return what axe finds wrong, in a line each; by these rules only, if there are any."""
    # The package's own call gives axe to the page again for each look, half a megabyte, and brings
    # back all that is right as well.
    if not desk.page.evaluate("'axe' in window"):
        desk.page.evaluate(AXE_SCRIPT)
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    found = desk.page.evaluate("async how => (await axe.run(how)).violations", options)
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ({}, ()),
        # What may differ there.
        ({"color_scheme": "dark"}, ("color-contrast",)),
        ({"viewport": {"width": 360, "height": 740}}, ()),
        ({"locale": "zh-CN"}, ("html-has-lang", "html-lang-valid", "valid-lang", "button-name")),
    ],
    ids=str,
)
def test_nothing_keeps_anybody_out(desks, serving, limiter, options, rules):
    scenes.busy(limiter)
    limiter.config.update({"platform_max": {"douyin": 2}})
    desk = desks(serving.page, **options)
    desk.page.route("**/stats/history**", statistics)
    for view in VIEWS:
        desk.open(view)
        assert violations(desk, *rules) == [], view
    for button in ("#reset", "button[aria-label$='timeout']"):
        desk.page.locator(button).click()
        assert violations(desk, *rules) == [], button
        desk.page.keyboard.press("Escape")


def test_nothing_keeps_anybody_out_where_nothing_is_there(desks, guarded, serving, limiter):
    desk = desks(serving.page)
    for view in ("limits", "running", "waiting"):
        desk.open(view)
        assert violations(desk) == [], view
    asking = desks(guarded.page)
    sign_in(asking, "wrong")
    expect(asking.page.get_by_role("alert")).to_be_visible()
    assert violations(asking) == []
    asking.forgive("401")
