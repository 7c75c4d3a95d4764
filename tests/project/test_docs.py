"""What the documentation shows runs, and what it lists is all there is."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from shutil import which

import pytest
from pydantic import TypeAdapter

from celery_concurrency.api import URL_PREFIX
from celery_concurrency.api.blueprint import ROUTES
from celery_concurrency.api.envelope import MESSAGES
from celery_concurrency.api.errors import _CODES as HTTP_CODES
from celery_concurrency.cli import concurrency
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.worker.settings import PREFIX, Settings
from tests.support import scenes
from tests.support.answers import out
from tests.support.blocks import Page, blocks_of
from tests.support.waiting import park
from tests.support.workers import settle

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for path in [*ROOT.glob("README*.md"), ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
    if not {"_build", "_generated"} & set(path.relative_to(ROOT).parts)
)


def blocks_in(path, *languages):
    """Return the blocks of a page that are not left out."""
    blocks = blocks_of(path.read_text("utf-8"))
    return [block for block in blocks if block.language in languages and not block.not_run]


#: The Chinese README has the blocks of the English one: see test_both_readmes_say_the_same.
SAME = ROOT / "README.zh-CN.md"
RUN = [path for path in PAGES if path != SAME and blocks_in(path, "python", "bash")]
SHOWN = [path for path in PAGES if blocks_in(path, "console")]


@pytest.mark.parametrize("path", RUN, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_code_block_runs(path, server, redis, tmp_path):
    blocks = blocks_in(path, "python", "bash")
    for tool in ("redis-cli", "curl"):
        if any(re.search(rf"\b{tool}\b", block.text) for block in blocks) and not which(tool):
            pytest.skip(f"{tool} is not installed")
    settle(redis)
    with Page(path, tmp_path, server.port, dict(os.environ)) as page:
        for block in blocks:
            page.run(block)


def test_the_pages_that_are_run_are_many():
    """No mistake in how blocks are found passes for pages without any."""
    assert len(RUN) > 20
    assert len(SHOWN) >= 3
    for page in ("README.md", "docs/quickstart.md", "docs/zh/scenarios.md"):
        assert ROOT / page in RUN


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_command_is_shown_to_answer_it_answers(path, limiter, here):
    tags = {"platform": "douyin", "account": "acc1"}
    limiter.try_acquire("09ab:5ec69b566cc7d5ed", tags, task="proj.publish", worker="w1@host")
    limiter.try_acquire("another:1", {})
    # Heard of later than now: else a slow machine finds it silent.
    scenes.beat(limiter, "w1@host", silent=-60)
    park(limiter, "5f1c", tags, task="proj.publish")
    for block in blocks_in(path, "console"):
        command, _, answer = block.text.partition("\n")
        if "concurrency adaptive" in command:
            limiter.config.update({"adaptive": {"platform:douyin": {"min": 1, "max": 10}}})
            limits = ("global", "platform:douyin")
            limiter.refuse("another:1", limits, limits[1], 0, reason="429")
        arguments = command.removeprefix("$ celery -A proj concurrency ").split()
        assert without_times(out(here(*arguments))) == without_times(answer)


def without_times(text):
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\(\d+ s\)", "<time>", text)


def test_every_block_has_a_language():
    without = [
        f"{path.relative_to(ROOT)}:{block.line}"
        for path in PAGES
        for block in blocks_of(path.read_text("utf-8"))
        if not block.language
    ]
    assert not without


def test_both_readmes_say_the_same():
    """As far as a program can tell: chapters, tables' rows, links and code blocks."""
    english, chinese = (
        (ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md")
    )
    assert list(blocks_text(english)) == list(blocks_text(chinese))
    for text in (r"^#+ ", r"^\| [^|]*", r"^- ", r"\]\("):
        assert len(re.findall(text, english, re.MULTILINE)) == len(
            re.findall(text, chinese, re.MULTILINE)
        ), text


def test_the_original_description_s_chapters_are_found_again():
    chapters = re.findall(r"^## \W*(\w.*)$", (ROOT / "tests/seed.md").read_text("utf-8"), re.M)
    found = re.findall(r"^#+ (.+)$", (ROOT / "README.zh-CN.md").read_text("utf-8"), re.M)
    assert chapters
    assert [chapter for chapter in chapters if not any(chapter in name for name in found)] == []


def blocks_text(page):
    """Yield the blocks without their comments, which are in the page's language."""
    return (re.sub(r" *# .*", "", block.text) for block in blocks_of(page))


def settings_of(page):
    return re.findall(r"^\| `(concurrency_\w+)` \|", page, re.MULTILINE)


def test_every_key_is_documented():
    page = (DOCS / "redis-keys.md").read_text("utf-8")
    code = "".join(
        path.read_text("utf-8")
        for path in (ROOT / "celery_concurrency").rglob("*")
        if path.suffix in (".py", ".lua")
    )
    keys = set(re.findall(r"(?:prefix\}:|\bkey\(')([a-z:]+)", code))
    assert {"config:flat", "token:"} <= keys
    assert [key for key in sorted(keys) if f"`concurrency:{key}" not in page] == []


HTTP = (DOCS / "reference" / "http.md").read_text("utf-8")


def test_the_answers_that_are_shown_are_answers():
    shown = re.findall(r"^`GET (/\S+?)`.*?^```json\n(.*?)^```", HTTP, re.MULTILINE | re.DOTALL)
    assert len(shown) == 8
    routes = {route.path: route for route in ROUTES if route.method == "GET"}
    for path, text in shown:
        answer = json.loads(text)
        adapter = TypeAdapter(routes[path].data)
        model = adapter.validate_python(answer["data"])
        assert set(answer) <= {"success", "data", "message"}
        # A field that no answer has is passed over by the model.
        assert adapter.dump_python(model, by_alias=True, exclude_unset=True) == answer["data"]


def test_the_error_codes_are_all_there():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", HTTP, re.MULTILINE)
    successes = {
        *("updated", "reset", "released", "cancelled", "rolled_back", "same_version"),
        *("cooled_down", "cool_down_lifted", "adaptive_reset", "adaptive_at_max"),
    }
    assert {code for _, code in rows} == set(MESSAGES) - successes
    assert {(str(status), code) for status, code in HTTP_CODES.items()} <= set(rows)


@pytest.mark.parametrize("name", ["reference/http.md", "zh/reference.md"])
def test_every_route_is_listed(name):
    page = (DOCS / name).read_text("utf-8")
    rows = re.findall(rf"^\| `([A-Z]+) {URL_PREFIX}([^`?]+)", page, re.MULTILINE)
    listed = {(method, re.sub("<.*?>", "<>", path)) for method, path in rows}
    assert listed == {(route.method, re.sub("<.*?>", "<>", route.path)) for route in ROUTES}


def test_the_default_configuration_is_the_default():
    page = (ROOT / "README.md").read_text("utf-8")
    shown = next(block.text for block in blocks_of(page) if block.language == "json")
    assert json.loads(shown) == Config().to_dict()


def test_every_command_is_listed_in_both_languages():
    for name in ("reference/command-line.md", "zh/reference.md"):
        page = (DOCS / name).read_text("utf-8")
        table = page.partition("| `usage`")[2].partition("\n\n")[0]
        listed = set(re.findall(r"`([a-z]+)[` ]", f"`usage`{table}"))
        assert set(concurrency.list_commands(None)) <= listed, name


def test_the_settings_are_all_there_in_chinese():
    chinese = settings_of((DOCS / "zh" / "reference.md").read_text("utf-8"))
    assert chinese == settings_of((DOCS / "reference" / "settings.md").read_text("utf-8"))


def test_the_settings_are_all_there_with_their_defaults():
    page = (DOCS / "reference" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", page, re.MULTILINE))
    fields = dict(Settings.model_fields)
    del fields["redis_options"], fields["namespace"]
    assert set(rows) == {PREFIX + name for name in fields}
    for name, field in fields.items():
        if not field.is_required():
            assert rows[PREFIX + name] == f"`{field.default}`"


def test_the_configuration_fields_are_all_there():
    page = (DOCS / "reference" / "configuration.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(Config.model_fields)
