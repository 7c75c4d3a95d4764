"""Mistyped names at each face: done all the same, and told."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.support.answers import out
from tests.support.scenes import busy

BASE = "/api/v1/concurrency"
ENGLISH = {"Accept-Language": "en"}

DOUYN = "no configuration lists platform:douyn, and no run uses it; did you mean platform:douyin?"
DOUYN_IN_CHINESE = "配置中没有 platform:douyn，也没有任务使用它；是否想写 platform:douyin？"


def put(client, change, **headers):
    return client.put(f"{BASE}/config", json=change, headers=headers).json


def test_the_api_warns_of_a_new_name(client, limiter):
    first = put(client, {"platform_max": {"douyn": 2}}, **ENGLISH)
    assert first["warnings"] == [{"field": "platform_max.douyn", "problem": DOUYN}]
    assert first["data"]["platform_max"]["douyn"] == 2
    again = put(client, {"paused": ["platform:douyn"]}, **ENGLISH)
    assert set(again) == {"success", "data", "message"}
    known = put(client, {"platform_max": {"douyin": 2}}, **ENGLISH)
    assert set(known) == {"success", "data", "message"}


def test_the_api_warns_in_chinese(client):
    body = put(client, {"platform_max": {"douyn": 2, "weibo": 1}})
    assert [one["problem"] for one in body["warnings"]] == [
        DOUYN_IN_CHINESE,
        "配置中没有 platform:weibo，也没有任务使用它",
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("platform:douyn", "platform:douyin"), ("platform:new", "platform:new"),
     ("platform:douyin", "platform:douyin")],
)  # fmt: skip
def test_a_dimension_that_is_written_twice(here, name, meant):
    said = here("config", "set", f"platform_max.{name}=2").stderr.splitlines()[-1]
    assert said.endswith(f"; did you mean {meant}?")


def test_the_api_warns_of_a_cool_down(client):
    cool = {"limit": "platform:douyn", "seconds": 60}
    body = client.post(f"{BASE}/cooldowns", json=cool, headers=ENGLISH).json
    assert body["warnings"] == [{"field": "limit", "problem": DOUYN}]
    assert body["data"]["limit"] == "platform:douyn"


@pytest.mark.parametrize(
    "arguments",
    [
        ("config", "set", "platform_max.douyn=2"),
        ("config", "set", "rates.platform:douyn=1/30s", "--json"),
        ("pause", "platform:douyn"),
        ("pause", "platform:douyn", "--json"),
        ("pause", "platform:douyn", "--for", "10m"),
        ("cool", "platform:douyn", "--for", "10m", "--json"),
    ],
)
def test_the_command_line_warns(here, arguments):
    done = here(*arguments)
    assert out(done)
    if "--json" in arguments:
        json.loads(done.stdout)
    assert done.stderr.splitlines()[-1] == f"warning: {DOUYN}"


def test_the_command_line_says_nothing_of_a_known_name(here):
    assert "warning" not in here("pause", "platform:douyin").stderr


def test_the_page_warns(desk, limiter):
    busy(limiter)
    desk.page.clock.install()
    desk.open()
    desk.page.get_by_role("button", name="Set another limit").click()
    dialog = desk.page.get_by_role("dialog")
    dialog.get_by_label("Dimension").select_option("platform")
    dialog.get_by_label("Name", exact=False).first.fill("douyn")
    dialog.get_by_role("button", name="Change it", exact=True).click()
    dialog.wait_for(state="hidden")
    message = desk.page.locator("#message")
    expect(message.locator(".warning")).to_have_text(DOUYN)
    # It stays until somebody has read it.
    desk.page.mouse.move(0, 0)
    desk.page.clock.run_for(60_000)
    expect(message).to_contain_text(DOUYN)
    message.get_by_role("button", name="Close").click()
    expect(message.locator("#done")).to_be_empty()
