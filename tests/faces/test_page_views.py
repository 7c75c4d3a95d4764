"""What the page shows, in a real browser: as Redis has it, in both languages, for everybody."""

from __future__ import annotations

import json
import re
import time

import pytest
from playwright.sync_api import expect

from celery_concurrency.limiter.inspect.usage import read_usage
from celery_concurrency.limiter.stats.backlog import sample_backlog
from celery_concurrency.limiter.workers import forget_worker
from celery_concurrency.scripts.constants import NAMED_MOST
from tests.support import history, scenes
from tests.support.waiting import hold, park

PREFIX = "concurrency"


def row(view, name):
    """Return the row of a table whose first cell has this text."""
    return view.locator("tr").filter(has=view.page.locator("th[scope=row]", has_text=name)).first


def cells(view, rows):
    """Return the texts of the cells of rows, without their blanks."""
    return [
        [re.sub(r"\s+", " ", text).strip() for text in one.locator("th, td").all_inner_texts()]
        for one in view.locator(rows).all()
    ]


# -- limits


def test_limits_are_as_redis_has_them(desk, limiter, redis):
    scenes.busy(limiter)
    view = desk.open()
    shown = {
        one.get_attribute("aria-label").partition(": ")[2]: one
        for one in view.get_by_role("button", name="Edit").all()
    }
    usage = read_usage(limiter.keyspace, limiter.config.sync())
    by_limit = {"global": usage.global_, "tenant:t1": usage.dimensions["tenant"]["t1"]}
    for kind, named in (
        ("platform", usage.platforms),
        ("task_type", usage.task_types),
        ("account", usage.accounts),
    ):
        by_limit.update({f"{kind}:{name}": one for name, one in named.items()})
    assert shown.keys() == by_limit.keys()
    for limit, button in shown.items():
        held = redis.zcard(f"{PREFIX}:semaphore:{limit}")
        most = by_limit[limit].max
        links = button.locator("xpath=ancestor::tr").locator(".measure a").all_inner_texts()
        text = f"{held} of {most}" if most else f"{held}, no limit"
        assert links == [text, str(by_limit[limit].waiting)], limit
    assert redis.zcard(f"{PREFIX}:semaphore:platform:douyin") == 3  # so that it is not all 0


def test_bars_and_words_say_the_same(desk, limiter):
    scenes.busy(limiter)
    limiter.config.update({"platform_max": {"douyin": 2}})
    view = desk.open()
    for name, word, share in (
        ("douyin", "over the limit", "100%"),
        ("xiaohongshu", "full", "100%"),
        ("kuaishou", "paused", "0%"),
        ("bilibili", None, "0%"),
        ("t1", None, "20%"),
    ):
        one = row(view, name)
        badge = one.locator(".badge")
        if word:
            expect(badge).to_have_text(word)
        else:
            expect(badge).to_be_hidden()
        assert one.locator(".fill").first.evaluate("bar => bar.style.width") == share


def test_it_follows_what_happens(desk, limiter, redis):
    desk.page.clock.install()
    scenes.configure(limiter)
    view = desk.open()
    used = row(view, "bilibili").locator(".measure a").first
    expect(used).to_have_text("0 of 4")
    token = hold(limiter, "new", {"platform": "bilibili"})
    desk.page.clock.run_for(2_000)
    expect(used).to_have_text("1 of 4")
    limiter.release(token)
    desk.page.clock.run_for(2_000)
    expect(used).to_have_text("0 of 4")


def test_how_many_waited_in_the_last_hour(desk, limiter):
    desk.stop_clock()
    scenes.configure(limiter)
    token = hold(limiter, "runs", {"platform": "xiaohongshu"})
    for number in range(6):
        park(limiter, f"waits-{number}", {"platform": "xiaohongshu"})
    sample_backlog(limiter.keyspace)
    limiter.waiting_room.cancel("waits-0")
    view = desk.open()
    line = row(view, "xiaohongshu").get_by_role("img")
    expect(line).to_have_accessible_name("Waiting in the last hour: 6 at most, 5 now")
    nobody = row(view, "bilibili").get_by_role("img")
    expect(nobody).to_have_accessible_name("Waiting in the last hour: 0 at most, 0 now")
    # Its end is how many wait now, whenever the last sample was made.
    limiter.release(token)
    desk.page.clock.run_for(2_000)
    expect(line).to_have_accessible_name("Waiting in the last hour: 6 at most, 4 now")
    asked = [one for one in desk.requests if one.endswith("/stats/backlog")]
    assert len(asked) == 1, "a sample is a minute"


def test_many_accounts_are_found_by_name(desk, limiter):
    limiter.config.update({"account_max": 2})
    for number in range(130):
        hold(limiter, f"t{number}", {"account": f"account-{number:03}"})
    limiter.config.update({"account_max": 1})
    park(limiter, "waits", {"account": "account-128"})
    view = desk.open()
    accounts = view.locator("th[scope=row]", has_text="account-")
    expect(accounts).to_have_count(100)
    expect(accounts.first).to_have_text("account-128")  # the one that somebody waits for
    expect(view.locator("#limits-more")).to_have_text("30 more: filter by name to see them.")
    view.get_by_label("Filter").fill("account-129")
    expect(accounts).to_have_count(1)
    expect(view.locator("#limits-more")).to_be_hidden()
    view.get_by_label("Filter").fill("nobody")
    expect(view.locator("#limits-none")).to_be_visible()


def test_many_settings_are_found_by_name_and_the_history_is_read_once(desk, limiter):
    desk.page.clock.install()
    limiter.config.update({"account_overrides": {f"acc-{n:03}": 2 for n in range(250)}})
    view = desk.open("configuration")
    rows = view.locator("#config-rows tr")
    expect(rows).to_have_count(200)
    expect(view.locator("#config-more")).to_contain_text("filter by name to see them.")
    view.get_by_label("Filter").fill("ACC-249")
    expect(rows).to_have_count(1)
    expect(view.locator("#config-more")).to_be_hidden()
    for _ in range(3):
        with desk.page.expect_request("**/config"):
            desk.page.clock.run_for(2_000)
        desk.wait_until_live()
    assert len([one for one in desk.requests if one.endswith("/config/history")]) == 1
    limiter.config.update({"account_overrides": {"acc-249": 7}})
    with desk.page.expect_request("**/config/history"):
        desk.page.clock.run_for(2_000)
    expect(rows).to_contain_text("7")
    expect(view.locator("#history-rows tr").first).to_contain_text("acc-249: 2 → 7")


def test_a_hand_written_configuration_that_is_wrong_is_told(desk, limiter, redis):
    limiter.config.sync()
    redis.set(f"{PREFIX}:config", '{"global_max": "many"}')
    desk.open()
    expect(desk.page.locator("#notice")).to_contain_text("global_max")
    view = desk.open("configuration")
    expect(desk.page.locator("#notice")).to_contain_text("global_max")
    wrong, valid = view.locator("#history-rows tr").all()
    expect(wrong).to_contain_text("not valid, and not in force")
    expect(wrong.locator(".badge")).to_be_hidden()
    expect(wrong.get_by_role("button")).to_be_hidden()
    # What it left in force can be written in its place.
    expect(valid.locator(".badge")).to_have_text("in force")
    valid.get_by_role("button", name="Roll back").click()
    desk.page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(desk.page.locator("#notice")).to_be_hidden()
    assert json.loads(redis.get(f"{PREFIX}:config"))["global_max"] == 0


def test_each_view_is_shown_from_its_top(desk, limiter):
    for number in range(60):
        hold(limiter, f"t{number}", {})
    desk.open("running")
    desk.page.evaluate("scrollTo(0, 1e6)")
    assert desk.page.evaluate("scrollY") > 0
    desk.page.evaluate("location.hash = 'configuration'")
    desk.view("configuration")
    assert desk.page.evaluate("scrollY") == 0


# -- who runs, who waits


def test_who_runs_is_as_redis_has_it(desk, limiter, redis):
    scenes.busy(limiter)
    view = desk.open("running")
    tokens = redis.zrange(f"{PREFIX}:leases", 0, -1)
    expect(view.locator("tbody tr")).to_have_count(len(tokens))
    shown = cells(view, "#running-rows tr")
    assert sorted(one[5] for one in shown) == sorted(tokens)
    assert {one[2] for one in shown} == {"w1@h"}
    assert "global platform:douyin account:acc0 task_type:publish" in {one[1] for one in shown}
    expect(view.locator("#running-total")).to_have_text(f"{len(tokens)} in all")


def test_who_runs_in_one_limit(desk, limiter, redis):
    scenes.busy(limiter)
    row(desk.open(), "douyin").locator(".measure a").first.click()
    view = desk.view("running")
    expect(view.get_by_role("heading")).to_have_text("Running: platform:douyin")
    held = redis.zrange(f"{PREFIX}:semaphore:platform:douyin", 0, -1)
    assert sorted(one[5] for one in cells(view, "#running-rows tr")) == sorted(held)
    view.get_by_role("link", name="Show all").click()
    expect(view.locator("#running-rows tr")).to_have_count(redis.zcard(f"{PREFIX}:leases"))


def test_pages_of_who_runs(desk, limiter, redis):
    for number in range(120):
        hold(limiter, f"t{number}", {"platform": f"p{number % 2}"})
    view = desk.open("running")
    expect(view.locator("#running-rows tr")).to_have_count(100)
    view.get_by_role("button", name="Next page").click()
    expect(view.locator("#running-rows tr")).to_have_count(20)
    expect(view.locator("#running-total")).to_have_text("120 in all")
    view.get_by_role("button", name="First page").click()
    expect(view.locator("#running-rows tr")).to_have_count(100)


def test_who_waits_in_which_order_for_what(desk, limiter, redis):
    scenes.busy(limiter)
    view = desk.open("waiting")
    shown = cells(view, "#waiting-rows tr")
    assert [one[0] for one in shown] == [
        "publish wait-0", "publish wait-1", "publish wait-2", "publish wait-3",
        "publish wait-same", "batch_publish wait-x", "publish wait-paused",
    ]  # fmt: skip
    assert {one[1] for one in shown} == {"1"}
    assert shown[0][2] == "platform:douyin is full (3 of 3)"
    assert shown[-1][2] == "platform:kuaishou is paused"
    waiting = redis.keys(f"{PREFIX}:waiter:*")
    expect(view.locator("#waiting-total")).to_have_text(f"{len(waiting)} in all")


def test_how_many_places_heavy_tasks_take(desk, limiter):
    limiter.config.update({"platform_max": {"douyin": 3}})
    hold(limiter, "heavy-1", {"platform": "douyin"}, weight=2)
    park(limiter, "heavy-2", {"platform": "douyin"}, weight=3)
    view = desk.open("waiting")
    text = "platform:douyin is full (2 of 3), it takes 3 places"
    expect(row(view, "heavy-2")).to_contain_text(text)
    expect(row(view, "heavy-2")).to_contain_text("3 places")
    view = desk.open("running")
    expect(row(view, "heavy-1")).to_contain_text("2 places")
    view = desk.open("why/heavy-2")
    badges = {name: row(view, name).locator("td .badge").first for name in ("douyin", "global")}
    expect(badges["douyin"]).to_have_text("too few places")
    expect(badges["global"]).to_have_text("has room")


def test_several_messages_of_one_task(desk, limiter):
    holder = hold(limiter, "other", {"account": "a"})
    for retries in range(3):
        park(limiter, "task", {"account": "a"}, retries=retries)
    rows = desk.open("waiting").locator("#waiting-rows tr")
    expect(rows.locator("td.number")).to_have_text(["1", "2", "3"])
    limiter.release(holder)
    expect(rows.locator("td.number")).to_have_text(["1", "2"])


def test_an_address_that_lost_its_id_leads_to_the_list(desk, limiter):
    scenes.busy(limiter)
    desk.page.goto(f"{desk.address}#why/")
    desk.wait_until_live()
    expect(desk.view("waiting").get_by_role("button", name="Cancel").first).to_be_visible()


def test_why_a_task_waits_in_two_clicks(desk, limiter, redis):
    scenes.busy(limiter)
    desk.open()
    desk.page.get_by_role("link", name="Waiting", exact=True).click()
    desk.page.get_by_role("link", name="Why? wait-0").click()
    view = desk.view("why")
    expect(view.locator("#why-answer")).to_contain_text(
        "It waits: platform:douyin is full (3 of 3)."
    )
    expect(view.locator("#why-answer")).to_contain_text("at position 1.")
    full = row(view, "platform:douyin")
    expect(full.locator(".holders li")).to_have_count(3)
    assert full.locator(".holders code").all_inner_texts() == ["run-0", "run-1", "run-2"]
    expect(row(view, "global").locator(".holders li")).to_have_count(0)
    # It goes on by itself: who waits is handed the room.
    limiter.release(redis.zrange(f"{PREFIX}:semaphore:platform:douyin", 0, 0)[0])
    expect(view.locator("#why-answer")).to_contain_text("It was handed room")


@pytest.mark.parametrize("given", ["wait-paused", "wait-p"])
def test_asking_by_a_tasks_id(desk, limiter, given):
    scenes.busy(limiter)
    view = desk.open("waiting")
    view.get_by_label("Task id").fill(given)
    view.get_by_role("button", name="Why does it wait?").click()
    expect(desk.view("why")).to_contain_text(
        re.compile(r"It waits: platform:kuaishou is paused since .+, by \w+ \(\w+\)")
    )
    expect(desk.view("why").locator("#why-answer code").first).to_have_text("wait-paused")
    for nobody in ("nobody", "100%"):
        desk.page.goto(f"{desk.address}#why/{nobody}")
        expect(desk.view("why")).to_contain_text(re.compile(f"{nobody} *This task does not wait"))
    desk.forgive("404")


def test_of_a_task_that_runs_it_says_where_and_asks_less_often_whether_it_waits(desk, limiter):
    desk.page.clock.install()
    begin = desk.page.evaluate("Date.now()")
    hold(limiter, "run-1", {"platform": "douyin"})
    view = desk.open("why/run-1")
    answer = view.locator("#why-answer")
    expect(answer).to_contain_text("This task does not wait")
    expect(answer.locator("li")).to_contain_text("publish run-1w1@h")
    for _ in range(4):
        with desk.page.expect_request("**/tokens?task=run-1"):
            desk.page.clock.run_for(2_000)
        desk.wait_until_live()
    asked, polled = (
        sum(one.endswith(path) for one in desk.requests)
        for path in ("/waiting/run-1", "/tokens?task=run-1")
    )
    # Each ten seconds at most. Time goes on by itself too: on a slow machine some of it.
    assert (asked - 1) * 10_000 < desk.page.evaluate("Date.now()") - begin
    assert asked < polled
    with desk.page.expect_request("**/waiting/run-1"):
        desk.page.clock.run_for(4_000)
    desk.forgive("404")


def test_what_nobody_has_begun_on_says_for_which_task_it_is(desk, limiter, redis):
    token = hold(limiter, "first", {"account": "a"})
    park(limiter, "second", {"account": "a"})
    limiter.release(token)
    expiry = redis.time()[0] + 60
    redis.zadd(f"{PREFIX}:semaphore:account:a", {"senior:collecting": expiry})
    view = desk.open("running/account:a")
    reserved, kept = row(view, "second"), row(view, "senior")
    expect(reserved).to_contain_text("reserved for task second")
    expect(reserved.get_by_role("button", name="Release")).to_be_visible()
    expect(kept).to_contain_text("room kept for task senior")
    expect(kept.get_by_role("button", name="Release")).to_be_hidden()


def test_who_is_alive_and_what_each_holds(desk, limiter, redis):
    scenes.busy(limiter)
    scenes.fleet(limiter)
    # Else a slow machine finds all of them silent.
    for name in ("w1@h", "w2@h"):
        redis.hset(f"{PREFIX}:worker:{name}", "heard", redis.time()[0] + 600)
    view = desk.open("workers")
    shown = cells(view, "#workers-rows tr")
    assert [one[0] for one in shown] == ["w3@h", "w1@h", "w2@h", "4711@h", "w0@h"]
    silent = r"silent for \d\d sec last heard of at [\d:]+, its tokens are taken back after 30 s"
    assert re.fullmatch(silent, shown[0][1])
    assert re.fullmatch(r"alive last heard of at [\d:]+", shown[1][1])
    assert shown[1][2:4] + shown[1][5:6] == ["handoff", "0.1.0 prefork 4", "4"]
    assert shown[1][6].startswith("global platform:douyin task_type:publish account:acc0")
    assert shown[3][1] == "program holds tokens outside of tasks"
    expect(view.locator("#workers-notes li")).to_have_text(
        [
            "Tasks wait in different ways: handoff (1), retry (1).",
            "Workers have different versions: 0.1.0 (1), 0.0.9 (1).",
        ]
    )
    view.get_by_role("link", name="Tokens of w1@h: 4").click()
    view = desk.view("running")
    expect(view.get_by_role("heading")).to_have_text("Running: w1@h")
    expect(view.locator("#running-rows tr")).to_have_count(4)
    # It ends, and another falls silent.
    forget_worker(limiter.keyspace, "w1@h")
    scenes.beat(limiter, "w2@h", silent=5, mode="retry")
    view = desk.open("workers")
    assert [one[0] for one in cells(view, "#workers-rows tr")][:2] == ["w3@h", "w2@h"]
    expect(view.locator("#workers-notes li")).to_have_count(0)


def test_nobody(desk):
    for view, words in (
        ("workers", "No worker is alive, and nobody holds a token."),
        ("running", "No task holds a token."),
        ("waiting", "No task is in the waiting room."),
        ("configuration", "in force"),
    ):
        expect(desk.open(view)).to_contain_text(words)


def test_names_are_texts_and_nothing_else(desk, limiter, redis):
    """What users put into tags and ids can neither run nor lead anywhere else."""
    evil = "<img src=x onerror=alert(1)>/#?%41 '\"&"
    hold(limiter, evil, {"account": evil})
    park(limiter, f"{evil}2", {"account": evil})
    view = desk.open()
    one = row(view, evil)
    expect(one.locator("th")).to_have_text(evil)
    one.locator(".measure a").last.click()
    view = desk.view("waiting")
    expect(view.get_by_role("heading")).to_have_text(f"Waiting: account:{evil}")
    view.get_by_role("link", name="Why?").click()
    expect(desk.view("why")).to_contain_text(f"It waits: account:{evil} is full (1 of 1).")
    assert desk.page.locator("img").count() == 0


def test_no_arguments_of_tasks_are_shown(desk, limiter):
    """Those who park have "a secret" as theirs."""
    scenes.busy(limiter)
    desk.page.route("**/stats/history**", lambda route: route.fulfill(json=statistics()))
    for view in ("running", "waiting", "why/wait-0", "statistics", "configuration"):
        desk.open(view)
        assert "secret" not in desk.page.content()


# -- statistics


def statistics(**data):
    return {"success": True, "data": data or history.made_up(time.time())}


def test_a_day_is_plotted_and_told(desk):
    answer = statistics()
    desk.page.route("**/stats/history**", lambda route: route.fulfill(json=answer))
    view = desk.open("statistics")
    expect(view.locator("canvas")).to_have_count(3)
    points = answer["data"]["points"]
    label = view.locator(".plot").first.get_attribute("aria-label")
    # The last that is over: the one that goes on would look like a drop.
    assert f"acquired {points[-2]['counters']['acquired:total']}, " in label
    # Something is drawn in each: not all of it is one colour.
    for canvas in view.locator("canvas").all():
        assert canvas.evaluate(
            """canvas => new Set(new Uint32Array(canvas.getContext("2d")
                .getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size > 3"""
        )
    view.get_by_text("As a table").nth(1).click()
    newest = view.locator("details").nth(1).locator("tbody tr").first.locator("td")
    times = points[-2]["wait"]["global"]
    expect(newest).to_have_text([f"{times[name]:.4g}" for name in ("p50", "p95", "p99")])


def test_what_is_left_out_is_said(desk, limiter):
    now = limiter.redis.time()[0]
    names = {f"platform:{number}": now for number in range(NAMED_MOST)}
    limiter.redis.zadd("concurrency:stats:named", names)
    expect(desk.open().locator("#limits-left-out")).to_contain_text("as other/platform and")
    answer = statistics()
    answer["data"]["left_out"] = 450
    answer["data"]["points"][-2]["counters"]["acquired:other/platform"] = 7
    desk.page.route("**/stats/history**", lambda route: route.fulfill(json=answer))
    view = desk.open("statistics")
    expect(view.locator("#statistics-left-out")).to_contain_text("450 more are not shown")
    view.get_by_label("Of the limit").select_option("other/platform")
    assert "acquired 7" in view.locator(".plot").first.get_attribute("aria-label")


def test_a_day_of_one_limit(desk):
    answer = statistics()
    desk.page.route("**/stats/history**", lambda route: route.fulfill(json=answer))
    view = desk.open("statistics")
    view.get_by_label("Of the limit").select_option("platform:douyin")
    last = answer["data"]["points"][-2]
    label = view.locator(".plot").first.get_attribute("aria-label")
    assert f"acquired {last['counters']['acquired:platform:douyin']}, " in label
    p99 = last["wait"]["platform:douyin"]["p99"]
    assert f"p99 {p99:.4g}" in view.locator(".plot").nth(1).get_attribute("aria-label")


def test_what_was_counted_just_now_is_in_it(desk, limiter):
    """No fake in between: the API's own history."""
    scenes.busy(limiter)
    view = desk.open("statistics")
    label = view.locator(".plot").first.get_attribute("aria-label")
    assert "acquired 4, denied 7, parked 7" in label
    expect(view.locator("#totals")).to_contain_text(re.compile(r"acquired\s*4"))
    desk.page.get_by_role("link", name="中文").click()
    expect(desk.view("statistics").locator("#totals")).to_contain_text(re.compile(r"放行\s*4"))


def test_the_last_hours_as_many_as_one_asks_for_and_as_finely_as_they_are_kept(desk):
    def answer(route):
        resolution, window = re.findall(r"=(\w+)", route.request.url)
        hours, step = int(window[:-1]), {"1m": 60, "5m": 300}[resolution]
        route.fulfill(json=statistics(**history.made_up(time.time(), hours, step)))

    desk.page.route("**/stats/history**", answer)
    view = desk.open("statistics")
    for name, given, period in (
        ("1 hour", {("1m", "1h"), ("5m", "1h")}, "1 min"),
        ("6 hours", {("5m", "6h")}, "5 min"),
        ("24 hours", {("5m", "24h")}, "5 min"),
    ):
        desk.requests.clear()
        link = view.get_by_role("link", name=name, exact=True)
        link.click()
        expect(link).to_have_attribute("aria-current", "true")
        expect(view.locator("[aria-current]")).to_have_count(1)
        expect(view.locator("figcaption").first).to_have_text(f"Acquired and waited, per {period}")
        expect(view.locator("#title-totals")).to_have_text(f"Totals of {name}")
        asked = "".join(desk.requests)
        assert set(re.findall(r"history\?resolution=(\w+)&window=(\w+?)(?=http|$)", asked)) == given


DRAWN = """canvas => {
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const columns = new Set();
    for (let place = 0; place < data.length; place += 4) {
        const [red, green, blue, opaque] = data.slice(place, place + 4);
        if (opaque === 255 && red === 36 && green === 86 && blue === 201) {
            columns.add((place / 4) % width);
        }
    }
    return columns.size / width;
}"""


def test_all_three_zoom_into_what_one_drags_across(desk):
    answer = statistics()  # the same each time that it is read
    desk.page.route("**/stats/history**", lambda route: route.fulfill(json=answer))
    view = desk.open("statistics")
    plots, whole = view.locator("canvas"), view.get_by_role("button", name="Show all of it")
    expect(plots).to_have_count(3)

    def drawn():
        return [one.evaluate("canvas => canvas.toDataURL()") for one in plots.all()]

    def drag():
        over = view.locator(".u-over").nth(1)
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        desk.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 50)
        desk.page.mouse.down()
        desk.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60, steps=4)
        desk.page.mouse.up()
        expect(whole).to_be_visible()
        return over

    before = drawn()
    drag()
    assert not set(before) & set(drawn())
    whole.click()
    expect(whole).to_be_hidden()
    assert drawn() == before
    drag().dblclick()
    expect(whole).to_be_hidden()
    assert drawn() == before


def test_a_fresh_system_has_no_spike_at_its_edge(desk):
    """One minute of load is some of the width, and nothing is known of before."""
    data = history.made_up(time.time(), 1, 60)
    *before, first, _ = data["points"]
    data["since"] = first["at"] + 1.5
    for point in before:
        point.update(counters={"acquired:total": 0, "released:total": 0}, wait={}, hold={})
    answer = statistics(**data)
    desk.page.route("**/stats/history**", lambda route: route.fulfill(json=answer))
    canvas = desk.open("statistics/1h").locator("canvas").first
    assert 0.04 < canvas.evaluate(DRAWN) < 0.2


def test_limits_of_ones_own_dimensions_are_among_them(desk, limiter):
    limiter.config.update({"dimensions": {"tenant": {"max": 2, "overrides": {"t1": 5}}}})
    limiter.release(hold(limiter, "ran", {"tenant": "t1"}))
    limiter.durations.tally()
    view = desk.open("statistics")
    view.get_by_label("Of the limit").select_option("tenant:t1")
    # It has times, and nobody counts how often it was acquired.
    expect(view.locator("figure:visible figcaption")).to_have_text(
        ["Wait time, in seconds", "Hold time, in seconds"]
    )


def test_a_day_of_nothing(desk):
    answer = statistics(resolution=300, points=[])
    desk.page.route("**/stats/history**", lambda route: route.fulfill(json=answer))
    expect(desk.open("statistics")).to_contain_text("There is no history yet")


# -- for everybody


@pytest.mark.parametrize("locale", ["zh-CN", "en-GB"])
def test_its_language_and_the_switch(desks, serving, limiter, locale):
    scenes.busy(limiter)
    desk = desks(serving.page, locale=locale)
    chinese = locale == "zh-CN"
    words = {True: "platform:douyin 已满（3 / 3）", False: "platform:douyin is full (3 of 3)"}
    expect(desk.open("waiting")).to_contain_text(words[chinese])
    desk.page.get_by_role("link", name="English" if chinese else "中文").click()
    expect(desk.view("waiting")).to_contain_text(words[not chinese])
    # The API answers in the page's language, not in the browser's.
    desk.page.goto(f"{desk.page.url.partition('#')[0]}#why/nobody")
    expect(desk.view("why")).to_contain_text("does not wait" if chinese else "没有在等待")
    desk.forgive("404")


def test_dark_where_the_system_is(desks, serving, limiter):
    backs = []
    for scheme in ("light", "dark"):
        desk = desks(serving.page, color_scheme=scheme)
        desk.open()
        back = desk.page.evaluate("getComputedStyle(document.body).backgroundColor")
        backs.append(sum(int(part) for part in re.findall(r"\d+", back)))
    assert backs[0] > 600
    assert backs[1] < 120


def test_a_narrow_window_scrolls_no_further_than_down(desks, serving, limiter):
    scenes.busy(limiter)
    desk = desks(serving.page, viewport={"width": 360, "height": 740})
    desk.page.route("**/stats/history**", lambda route: route.fulfill(json=statistics()))
    scenes.fleet(limiter)
    for view in (
        "limits", "running", "waiting", "why/wait-0", "workers", "statistics", "configuration"
    ):  # fmt: skip
        desk.open(view)
        assert desk.page.evaluate("document.documentElement.scrollWidth") <= 360, view
        # Nor does any table: its rows are cards, whose cells say what they are.
        for table in desk.page.locator(".table:visible").all():
            assert table.evaluate("one => one.scrollWidth <= one.clientWidth"), view
    cell = desk.open("running").locator("#running-rows td").nth(1)
    label = cell.evaluate("cell => getComputedStyle(cell, '::before').content")
    assert label == '"Worker"'
