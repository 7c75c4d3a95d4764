"""What is done on the page, in a real browser: asked about first, done in Redis, shown at once."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from celery_concurrency.limiter.config.history import Author
from tests.support import scenes
from tests.support.waiting import put_back

PREFIX = "concurrency"
WRITES = ("PUT", "POST", "DELETE")


@pytest.fixture
def busy(limiter):
    """Who runs, by task id, with their tokens."""
    return scenes.busy(limiter)


def config(limiter):
    return limiter.config.sync().config


def click(desk, button, *, exact=False):
    """Press a button of the page; returns the dialog that asks about it."""
    desk.page.get_by_role("button", name=button, exact=exact).click()
    dialog = desk.page.get_by_role("dialog")
    dialog.wait_for()
    return dialog


def confirm(dialog, button):
    """Press the dialog's button, and wait until it is done."""
    dialog.get_by_role("button", name=button, exact=True).click()
    dialog.wait_for(state="hidden")


def told(desk, *lines):
    """Expect a message of these lines."""
    expect(desk.page.locator("#done p")).to_have_text([*lines])


def used(desk, limit):
    """Return how much of a limit the view of the limits shows."""
    button = desk.page.get_by_role("button", name=f"Edit: {limit}", exact=True)
    return button.locator("xpath=ancestor::tr").locator(".measure").first


# -- limits


def test_edit_a_limit(desk, limiter, busy):
    desk.open()
    dialog = click(desk, "Edit: platform:douyin")
    expect(dialog).to_contain_text("That is the current value.")
    field = dialog.get_by_label("New limit")
    field.fill("2")
    expect(dialog).to_contain_text("platform:douyin goes from 3 to 2 at once, for all workers.")
    expect(dialog).to_contain_text("The 3 running tasks are not affected")
    field.fill("9")
    expect(dialog).to_contain_text("Waiting tasks go on at once")
    dialog.get_by_label("Your name").fill("安娜 O'Hara")
    confirm(dialog, "Change it")
    # The message first: it goes by itself.
    expect(desk.page.locator("#done")).to_have_text("platform:douyin: 3 → 9")
    expect(used(desk, "platform:douyin")).to_contain_text("of 9")
    assert config(limiter).platform_max["douyin"] == 9
    newest = limiter.config.history()[0]
    assert (newest.operator, newest.source) == ("安娜 O'Hara", "api")
    # The name is remembered for the next time.
    expect(click(desk, "Edit: global").get_by_label("Your name")).to_have_value("安娜 O'Hara")


def test_what_is_no_limit_can_not_be_sent(desk, busy):
    desk.open()
    dialog = click(desk, "Edit: global")
    for value in ("", "-1", "1000001", "1.5"):
        dialog.get_by_label("New limit").fill(value)
        expect(dialog.get_by_role("button", name="Change it")).to_be_disabled()
        expect(dialog).to_contain_text("Enter a whole number from 0 to 1,000,000")
    dialog.get_by_label("New limit").fill("5")
    expect(dialog).not_to_contain_text("whole number")


def test_edit_each_kind_of_limit(desk, limiter, busy):
    desk.open()
    for limit, read in {
        "global": lambda config: config.global_max,
        "account:acc1": lambda config: config.account_overrides["acc1"],
        "task_type:batch_publish": lambda config: config.task_type_max["batch_publish"],
        "tenant:t1": lambda config: config.dimensions["tenant"].overrides["t1"],
    }.items():
        dialog = click(desk, f"Edit: {limit}", exact=True)
        dialog.get_by_label("New limit").fill("7")
        confirm(dialog, "Change it")
        expect(used(desk, limit)).to_contain_text("of 7")
        assert read(config(limiter)) == 7, limit


def test_two_changes_before_the_page_has_read_the_first(desk, limiter, busy):
    """It was told what is in force by then, and takes nobody's change but others' for theirs."""
    desk.open()
    held = []
    desk.page.route(
        "**/config",
        lambda route: held.append(route) if route.request.method == "GET" else route.continue_(),
    )
    for name in ("vip:1", "vip:2"):
        dialog = click(desk, "Set another limit")
        dialog.get_by_label("Dimension").select_option(label="Account")
        dialog.get_by_label("Name (*").fill(name)
        dialog.get_by_label("New limit").fill("2")
        confirm(dialog, "Change it")
    assert limiter.config.sync().config.account_overrides == {"vip:1": 2, "vip:2": 2}
    desk.page.unroute_all(behavior="ignoreErrors")


def test_set_a_limit_that_is_not_shown(desk, limiter, busy):
    desk.open()
    for number, (dimension, name, read) in enumerate(
        [
            ("Platform", "*", lambda config: config.platform_max["*"]),
            ("Account", "vip:1", lambda config: config.account_overrides["vip:1"]),
            ("Account", "*", lambda config: config.account_max),
            ("tenant", "*", lambda config: config.dimensions["tenant"].max),
        ]
    ):
        dialog = click(desk, "Set another limit")
        dialog.get_by_label("Dimension").select_option(label=dimension)
        dialog.get_by_label("Name (*").fill(name)
        dialog.get_by_label("New limit").fill(str(20 + number))
        confirm(dialog, "Change it")
        assert read(config(limiter)) == 20 + number, name


def test_pause_and_resume(desk, limiter, busy):
    desk.open()
    dialog = click(desk, "Pause: platform:douyin")
    expect(dialog).to_contain_text("From now on platform:douyin admits no task.")
    confirm(dialog, "Pause")
    told(desk, "platform:douyin: open → paused")
    expect(used(desk, "platform:douyin")).to_contain_text("paused")
    since = re.compile(r"since \d\d:\d\d:\d\d, by unknown, over HTTP$")
    cell = used(desk, "platform:douyin").locator("xpath=..")
    expect(cell.locator("div.aside")).to_have_text(since)
    assert config(limiter).paused == ["platform:kuaishou", "platform:douyin"]
    dialog = click(desk, "Resume: platform:kuaishou")
    confirm(dialog, "Resume")
    told(desk, "platform:kuaishou: paused → open")
    desk.page.get_by_role("button", name="Pause: platform:kuaishou").wait_for()
    assert config(limiter).paused == ["platform:douyin"]


def test_nothing_is_done_until_it_is_confirmed(desk, limiter, busy):
    methods = []
    desk.page.on("request", lambda request: methods.append(request.method))
    desk.open()
    for button, leave in (("Edit: global", "Escape"), ("Pause: global", "Change nothing")):
        dialog = click(desk, button)
        if leave == "Escape":
            desk.page.keyboard.press(leave)
        else:
            dialog.get_by_role("button", name=leave).click()
        dialog.wait_for(state="hidden")
    assert not set(methods) & set(WRITES)


def test_a_message_goes_by_itself_and_when_another_dialog_is_opened(desk, busy):
    """What a dialog that was left did not do is not to be read off the change before."""
    desk.page.clock.install()
    desk.open()
    message = desk.page.locator("#message")

    def change(most):
        dialog = click(desk, "Edit: global")
        dialog.get_by_label("New limit").fill(most)
        confirm(dialog, "Change it")

    change("5")
    told(desk, "global: 12 → 5")
    dialog = click(desk, "Pause: global")
    told(desk)
    desk.page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    told(desk)
    change("6")
    told(desk, "global: 5 → 6")
    # Not while somebody reads it.
    message.hover()
    desk.page.clock.run_for(25_000)
    told(desk, "global: 5 → 6")
    desk.page.mouse.move(0, 0)
    desk.page.clock.run_for(10_000)
    told(desk)
    change("7")
    message.get_by_role("button", name="Close").click()
    told(desk)
    assert desk.page.evaluate("document.activeElement.id") == "title-limits"


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("row", [0, -1])
def test_a_message_is_in_sight_and_covers_no_button_in_use(desks, serving, busy, width, row):
    desk = desks(serving.page, viewport={"width": width, "height": 700})
    view = desk.open()
    button = view.get_by_role("button", name="Pause: ").nth(row)
    button.scroll_into_view_if_needed()
    # As far down as it can be, whatever comes after it.
    button.evaluate("one => scrollBy(0, one.getBoundingClientRect().bottom - innerHeight)")
    button.click()
    confirm(desk.page.get_by_role("dialog"), "Pause")
    message = desk.page.locator("#message")
    expect(message).to_contain_text("open → paused")
    expect(message).to_be_in_viewport(ratio=1)
    box, used = message.bounding_box(), desk.page.locator(":focus").bounding_box()
    assert box["y"] >= used["y"] + used["height"] or box["y"] + box["height"] <= used["y"]


# -- tokens and waiters


def test_release_a_token(desk, limiter, busy, redis):
    token = busy["run-x"]
    desk.open("running")
    dialog = click(desk, f"Release: {token}")
    expect(dialog).to_contain_text("Task publish (run-x) is not stopped")
    expect(dialog).to_contain_text("platform:xiaohongshu")
    confirm(dialog, "Release")
    told(
        desk,
        "Token of publish (run-x): held → released (global, platform:xiaohongshu, account:acc7, "
        "task_type:batch_publish, tenant:t1)",
    )
    desk.page.get_by_text(token).wait_for(state="detached")
    assert redis.zscore(f"{PREFIX}:leases", token) is None
    # Who waited for it was handed the room.
    assert [one["headers"]["id"] for one in put_back(redis)] == ["wait-x"]


def test_release_one_that_is_gone_meanwhile(desk, limiter, busy):
    desk.open("running")
    dialog = click(desk, f"Release: {busy['run-x']}")
    limiter.release(busy["run-x"])
    dialog.get_by_role("button", name="Release").click()
    expect(dialog).to_contain_text("No run holds this token (any more)")
    desk.forgive("404")


def test_cancel_a_waiting_task(desk, busy, redis):
    desk.open("waiting")
    dialog = click(desk, "Cancel the task: wait-1")
    expect(dialog).to_contain_text("Task publish (wait-1) will not run")
    confirm(dialog, "Cancel the task")
    told(desk, "publish (wait-1): waiting → cancelled")
    desk.page.locator("code", has_text="wait-1").wait_for(state="detached")
    assert not redis.exists(f"{PREFIX}:waiter:wait-1")
    assert redis.exists(f"{PREFIX}:waiter:wait-0")


def test_cancel_all_that_wait_for_a_limit(desk, busy, redis):
    desk.open()
    dialog = click(desk, "Cancel waiting: platform:douyin")
    expect(dialog).to_contain_text("All waiting tasks that count in platform:douyin, 5 as of now")
    confirm(dialog, "Cancel waiting")
    told(desk, "platform:douyin: 5 waiting → 5 cancelled")
    waiting = {key.rpartition(":")[2] for key in redis.keys(f"{PREFIX}:waiter:*")}
    assert waiting == {"wait-x", "wait-paused"}


def test_cancel_from_the_answer_why(desk, busy, redis):
    desk.open("why/wait-x")
    confirm(click(desk, "Cancel the task"), "Cancel the task")
    expect(desk.view("why")).to_contain_text("This task does not wait")
    assert not redis.exists(f"{PREFIX}:waiter:wait-x")
    desk.forgive("404")


# -- configuration


def test_switch_off_and_on(desk, limiter, busy):
    desk.open("configuration")
    dialog = click(desk, "Switch off: enabled")
    expect(dialog).to_contain_text("Every task is admitted")
    confirm(dialog, "Switch off")
    told(desk, "enabled: on → off")
    expect(desk.page.locator("#notice")).to_contain_text("Limits are switched off")
    assert config(limiter).enabled is False
    confirm(click(desk, "Switch on: enabled"), "Switch on")
    expect(desk.page.locator("#notice")).to_be_hidden()
    assert config(limiter).enabled is True


def test_timeout_and_removing_an_entry(desk, limiter, busy):
    desk.open("configuration")
    dialog = click(desk, "Edit: timeout")
    dialog.get_by_label("Timeout in seconds").fill("60")
    expect(dialog).to_contain_text("silent for 60 s")
    confirm(dialog, "Change it")
    told(desk, "timeout: 300 s → 60 s")
    expect(desk.page.get_by_text("60 s", exact=True)).to_be_visible()
    confirm(click(desk, "Remove: platform:bilibili"), "Remove")
    told(desk, "platform:bilibili: 4 → not set")
    desk.page.get_by_role("button", name="Remove: platform:bilibili").wait_for(state="detached")
    assert config(limiter).timeout == 60
    assert "bilibili" not in config(limiter).platform_max


def test_reset(desk, limiter, busy):
    desk.open("configuration")
    dialog = click(desk, "Reset to the defaults")
    expect(dialog).to_contain_text("All limits go back to the defaults")
    expect(dialog).to_contain_text("platform:douyin: 3 → no limit")
    confirm(dialog, "Reset to the defaults")
    expect(desk.page.locator("#done p")).to_have_count(7)
    expect(desk.page.locator("#done p").first).to_have_text("global: 12 → no limit")
    expect(desk.page.locator("#done p").last).to_have_text("and 2 more")
    expect(desk.page.locator("#config-version")).to_have_text("Version 5")
    assert config(limiter).global_max == 0
    assert limiter.config.history()[0].source == "reset"
    desk.page.locator("#history-rows tr").nth(4).wait_for()
    expect(click(desk, "Reset to the defaults")).to_contain_text("nothing would change")


def test_history_and_rolling_back(desk, limiter, busy):
    view = desk.open("configuration")
    rows = view.locator("#history-rows tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(1)).to_contain_text("王伟 (api)")
    expect(rows.nth(1)).to_contain_text("platform:xiaohongshu: 2 → 1")
    expect(rows.nth(0).get_by_role("button")).to_be_hidden()
    dialog = click(desk, "Roll back: 2")
    expect(dialog).to_contain_text("platform:xiaohongshu: 1 → 2")
    expect(dialog).to_contain_text("platform:kuaishou: paused → open")
    confirm(dialog, "Roll back")
    told(desk, "platform:xiaohongshu: 1 → 2", "platform:kuaishou: paused → open")
    expect(rows).to_have_count(5)
    expect(rows.nth(0)).to_contain_text("in force")
    expect(click(desk, "Roll back: 2")).to_contain_text("nothing would change")
    assert config(limiter).to_dict() == limiter.config.history()[3].config


# -- others, and what goes wrong


def test_who_is_late_changes_nothing_and_sees_what_is_now(desk, limiter, busy):
    desk.open()
    dialog = click(desk, "Edit: global")
    limiter.config.update({"global_max": 99}, Author("cli", "bert"))
    dialog.get_by_label("New limit").fill("5")
    # Polling goes on behind the dialog, and is no consent to what it brings.
    expect(used(desk, "global")).to_contain_text("of 99")
    dialog.get_by_role("button", name="Change it").click()
    expect(dialog).to_contain_text("Somebody changed it meanwhile.")
    expect(dialog).to_contain_text("The configuration was changed after you read it")
    expect(dialog.get_by_role("button", name="Change it")).to_be_hidden()
    assert config(limiter).global_max == 99
    dialog.get_by_role("button", name="Close").click()
    expect(click(desk, "Edit: global").get_by_label("New limit")).to_have_value("99")
    desk.forgive("412")


def test_a_refusal_is_shown_as_the_api_says_it(desk, limiter, busy):
    desk.open()
    dialog = click(desk, "Set another limit")
    dialog.get_by_label("Dimension").select_option(label="tenant")
    dialog.get_by_label("Name (*").fill("t9")
    body = {
        "success": False,
        "message": "The configuration is not valid; nothing was changed",
        "error": {
            "code": "invalid_config",
            "message": "The configuration is not valid; nothing was changed",
            "details": [{"field": "dimensions.tenant", "problem": "is <b>wrong</b>"}],
        },
    }
    desk.page.route("**/config", lambda route: route.fulfill(status=400, body=json.dumps(body)))
    dialog.get_by_role("button", name="Change it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("The configuration is not valid")
    expect(dialog.get_by_role("alert")).to_contain_text("dimensions.tenant: is <b>wrong</b>")
    expect(dialog.get_by_role("button", name="Change it")).to_be_enabled()
    desk.forgive("400")
