"""The page with names and ids that lead astray: those of every object's parts, and of any text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from celery_concurrency.api import page
from tests.faces.test_page_actions import click, confirm, used
from tests.support.hostile import FORGED, FORMATS, IDS
from tests.support.waiting import hold, park, put_back

#: What every object of a script has, beside what is its own.
INHERITED = [
    "constructor",
    "toString",
    "valueOf",
    "hasOwnProperty",
    "__proto__",
    "__defineGetter__",
]
OWN_DIMENSIONS = [name for name in INHERITED if not name.startswith("_")]
STATIC = Path(page.__file__).parent / "static"


@pytest.fixture
def named(limiter):
    """Limits of these names in every dimension, in use and waited for."""
    limiter.config.update({"dimensions": {name: {"max": 7} for name in OWN_DIMENSIONS}})
    limiter.config.update(
        {
            "platform_max": dict.fromkeys(INHERITED, 3),
            "task_type_max": dict.fromkeys(INHERITED, 4),
            "account_overrides": dict.fromkeys(INHERITED, 5),
            "dimensions": {
                name: {"overrides": dict.fromkeys(INHERITED, 6)} for name in OWN_DIMENSIONS
            },
        }
    )
    for name in INHERITED:
        tags = {"platform": name, "type": name, "account": name}
        hold(limiter, name, {**tags, **dict.fromkeys(OWN_DIMENSIONS, name)})
    limiter.config.update({"account_overrides": dict.fromkeys(INHERITED, 1)})
    for name in INHERITED:
        park(limiter, f"{name}-waits", {"account": name})


def limits_of_all():
    dimensions = ["platform", "task_type", "account", *OWN_DIMENSIONS]
    return [f"{dimension}:{name}" for dimension in dimensions for name in INHERITED]


def test_limits_of_such_names(desk, limiter, named):
    view = desk.open()
    expect(view.locator("tr.group")).to_have_text(
        ["Platform", "Task type", "Account", *OWN_DIMENSIONS], ignore_case=True
    )
    maxima = {"platform": 3, "task_type": 4, "account": 1}
    for limit in limits_of_all():
        most = maxima.get(limit.partition(":")[0], 6)
        expect(used(desk, limit)).to_contain_text(f"1 of {most}")
    for limit in ("platform:__proto__", "account:constructor", "toString:__proto__"):
        before = limiter.config.sync().config.max_of(limit)
        dialog = click(desk, f"Edit: {limit}")
        expect(dialog.get_by_label("New limit")).to_have_value(str(before))
        dialog.get_by_label("New limit").fill("9")
        expect(dialog).to_contain_text(f"{limit} goes from {before} to 9")
        confirm(dialog, "Change it")
        expect(used(desk, limit)).to_contain_text(" of 9")  # who waited goes on
        assert limiter.config.sync().config.max_of(limit) == 9


def test_the_configuration_of_such_names(desk, limiter, named):
    view = desk.open("configuration")
    shown = view.locator("#config-rows th code").all_inner_texts()
    assert {*limits_of_all(), *(f"{name}:*" for name in OWN_DIMENSIONS)} <= {*shown}
    row = view.locator("#config-rows tr", has=desk.page.get_by_text("constructor:*", exact=True))
    expect(row).to_contain_text("7")
    expect(view.locator("#history-rows")).to_contain_text("account:__proto__: 5 → 1")
    confirm(click(desk, "Remove: platform:__proto__"), "Remove")
    expect(view.locator("#config-rows")).not_to_contain_text("platform:__proto__")
    assert "__proto__" not in limiter.config.sync().config.platform_max
    # The first version has none of them: each goes, and is told as it is.
    dialog = click(desk, "Roll back: 1", exact=True)
    expect(dialog).to_contain_text("platform:constructor: 3 → not set")
    expect(dialog).to_contain_text("task_type:__proto__: 4 → not set")
    expect(dialog).not_to_contain_text("native code")
    confirm(dialog, "Roll back")
    assert limiter.config.sync().config.dimensions == {}


@pytest.mark.parametrize("dimension", ["constructor", "toString"])
def test_setting_another_limit_of_such_a_dimension(desk, limiter, named, dimension):
    desk.open()
    dialog = click(desk, "Set another limit")
    dialog.get_by_label("Dimension").select_option(dimension)
    dialog.get_by_label("Name (*").fill("valueOf2")
    dialog.get_by_label("New limit").fill("2")
    expect(dialog).to_contain_text(f"{dimension}:valueOf2 goes from 7 to 2")
    confirm(dialog, "Change it")
    assert limiter.config.sync().config.max_of(f"{dimension}:valueOf2") == 2


def test_statistics_of_such_names(desk):
    times = {"count": 1, "p50": 1, "p95": 2, "p99": 3}
    by_name = {f"platform:{name}": times for name in INHERITED}
    point = {
        "at": 1_700_000_000,
        "counters": {"acquired:total": 1, **{f"acquired:platform:{name}": 1 for name in INHERITED}},
        "wait": {"global": times, **by_name},
        "hold": {"global": times},
    }
    made_up = {"success": True, "data": {"resolution": 300, "points": [point]}}
    desk.page.route("**/stats/history**", lambda route: route.fulfill(json=made_up))
    view = desk.open("statistics")
    for name in INHERITED:
        view.get_by_label("Limit").select_option(f"platform:{name}")
    assert "native code" not in desk.page.content()


@pytest.mark.parametrize(
    "id", [FORGED, ".", "..", "a/../b", "%2E%2E", "a\nb", "//", "__proto__", "?#"]
)
def test_a_task_of_any_id_is_asked_about_and_cancelled(desk, limiter, redis, id):
    hold(limiter, "h", {"account": "a"})
    park(limiter, id, {"account": "a"}, task=f"proj.{id}")
    view = desk.open("waiting")
    code = view.locator("#waiting-rows code")
    expect(code).to_have_count(1)
    assert code.text_content().isprintable()
    view.get_by_role("link", name="Why?").click()
    answer = desk.view("why").locator("#why-answer")
    expect(answer).to_contain_text("It waits: account:a is full (1 of 1).")
    assert answer.text_content().isprintable()
    answer.get_by_role("button", name="Cancel").click()
    dialog = desk.page.get_by_role("dialog")
    dialog.wait_for()
    assert dialog.text_content().replace("\n", " ").isprintable()
    confirm(dialog, "Cancel the task")
    expect(desk.page.locator("#done")).to_contain_text("waiting → cancelled")
    assert desk.page.locator("#done").text_content().isprintable()
    assert [message["headers"]["id"] for message in put_back(redis)] == [id]
    desk.problems = [one for one in desk.problems if "404" not in one]  # it does not wait any more


def test_names_with_format_characters_are_shown_escaped(desk, limiter):
    names = [f"{char}x" for char in FORMATS]
    limiter.config.update({"dimensions": {name: {"max": 1} for name in names}})
    for name in names:
        hold(limiter, "t", {"platform": name, names[0]: name})
    for view, rows in (("limits", "#limits-table th"), ("running", "#running-rows li")):
        shown = desk.open(view).locator(rows)
        expect(shown.filter(has_text=repr(names[0])[1:-1]).first).to_be_visible()
        for text in shown.all_inner_texts():
            assert text.replace("\n", " ").isprintable()


def test_who_runs_with_any_id(desk, limiter):
    for id in IDS:
        if len(id) < 100:
            hold(limiter, id, {"platform": "p"})
    view = desk.open("running")
    rows = view.locator("#running-rows tr")
    expect(rows).to_have_count(len([id for id in IDS if len(id) < 100]))
    for text in view.locator("#running-rows code").all_inner_texts():
        assert text.isprintable()


#: Look-ups by what is no user's name: a place in a list, or a key that is checked.
CHECKED = {
    *("at[place]", "lists[place]", "list[place]", "DASHES[place]", "BORDERS[place - 1]"),
    *("samples[place - 1]", "kinds[place]", "kinds[one]", "kinds[other]", "series[place]"),
    *("data[place + 1]", "BORDERS[order[place - 1]"),
    "heads[cell.cellIndex]",
    *("map[name]", "point[times]", "config[MAPS.get(dimension)]"),
    *("VIEWS[name]", "TEXTS[key]", "usage[name]"),
}


def test_scripts_look_nothing_up_by_names_in_plain_objects():
    """``names.js`` has ``entry`` for it. As far as a pattern can see that."""
    found = set()
    for file in STATIC.glob("*.js"):
        code = re.sub(r"^\s*(?://|/?\*).*", "", file.read_text("utf-8"), flags=re.MULTILINE)
        found |= set(re.findall(r"[\w.)]+\??\.?\[(?!\d+\])[^\]\"']+\]", code)) - CHECKED
        found |= set(re.findall(r"[(!&|?] ?\w+ in \w+", code))
    assert found == set()


@pytest.mark.parametrize("line", ["own[dimension]", "a?.[name]", "f(x)[name]", "(name in values)"])
def test_such_a_look_up_is_seen(line, tmp_path, monkeypatch):
    tmp_path.joinpath("a.js").write_text(f"const x = {line};")
    monkeypatch.setattr("tests.faces.test_page_names.STATIC", tmp_path)
    with pytest.raises(AssertionError):
        test_scripts_look_nothing_up_by_names_in_plain_objects()
