"""The text of the Lua scripts: where includes and names of keys stand, and what a verb says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from celery_concurrency import scripts
from celery_concurrency.limiter.keys import Keys
from celery_concurrency.scripts import constants

HOME = Path(scripts.__file__).parent
VERBS = sorted(HOME.glob("*.lua"))
FILES = [*VERBS, *sorted((HOME / "lib").glob("*.lua"))]
#: A line that the loader puts something in for, as it would be seen anywhere in a file.
LOADED = re.compile(r"^\s*-- (?:include|constants)\b.*$", re.MULTILINE)


KEYS = (HOME / "lib" / "keys.lua").read_text("utf-8")


def name_of(path: Path) -> str:
    return str(path.relative_to(HOME))


def code_of(path: Path) -> str:
    """Return a file without its comments."""
    return re.sub(r"^ *--.*$", "", path.read_text("utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_includes_stand_at_the_top(path):
    text = path.read_text("utf-8")
    code = re.search(r"^(?!--|$)", text, re.MULTILINE)
    assert code
    assert LOADED.findall(text[code.start() :]) == []


@pytest.mark.parametrize("path", VERBS, ids=name_of)
def test_what_is_included_is_put_in(path):
    assert LOADED.findall(scripts.source(path.stem)) == []


def test_a_library_is_put_in_once():
    """Of several that include it; and once more in each function that others are put in as."""
    assert scripts.source("park").count("local function parse(") == 1
    release = scripts.source("release")
    functions = re.split(r"^local function \w+\(\.\.\.\)$", release, flags=re.M)
    assert len(functions) > 5
    assert max(part.count("local function drop_orphans(") for part in functions) == 1


@pytest.mark.parametrize("path", VERBS, ids=name_of)
def test_each_verb_begins_with_keys_time_and_memory(path):
    source = scripts.source(path.stem)
    assert source.startswith(KEYS)
    begin = ("function key(", "time =", "function never_refuse(")
    assert [source.count(f"local {name}") for name in begin] == [1, 1, 1]


def test_each_key_that_is_used_is_listed_once():
    listed = re.findall(r"^--   ([a-z:]+)(<.*>)?  *\S", KEYS, re.MULTILINE)
    used = set()
    for path in FILES:
        for name, comma in re.findall(r"\bkey\((?:[^']*? and )?'([a-z:]+)'(,?)", code_of(path)):
            used.add(name + ":" * bool(comma))
        used.update(re.findall(r"\bkey\([^']*' or '([a-z:]+)'\)", code_of(path)))
    assert len(listed) == len(set(listed))
    assert used == {name for name, _ in listed}


def test_python_has_no_other_keys():
    """But some that no script uses."""
    keys = Keys("")
    names = {value for value in vars(keys).values() if value}
    builders = [name for name, of in vars(Keys).items() if callable(of) and name[0] != "_"]
    names.update(getattr(keys, name)("") for name in builders)
    listed = {f":{name}" for name, _ in re.findall(r"^--   ([a-z:]+)(<.*>)?  *\S", KEYS, re.M)}
    assert names - listed == {
        ":config:defaults", ":moments:watched", ":actions", ":stats:misnamed", ":stats:backlog",
    }  # fmt: skip
    assert len(builders) > 5


def test_keys_are_built_in_one_place():
    assert [name_of(path) for path in FILES if re.search(r"\bprefix\b|KEYS\b", code_of(path))] == [
        "lib/keys.lua"
    ]


@pytest.mark.parametrize("path", VERBS, ids=name_of)
def test_each_verb_says_what_a_second_copy_does_and_what_it_does_out_of_memory(path):
    text = path.read_text("utf-8")
    assert text.startswith(f"-- {path.stem}: ")
    headings = re.findall(r"^-- (KEYS|ARGV|Reply|Cost|Again|OOM)\b", text, re.MULTILINE)
    assert headings == ["KEYS", "ARGV", "Reply", "Cost", "Again", "OOM"]


def test_constants_are_written_as_lua():
    source = scripts.source("park")
    assert 'local SHARED_DIMENSIONS = { "platform", "task_type" }\n' in source
    assert f"local MESSAGE_START = {json.dumps(constants.MESSAGE_START)}\n" in scripts.source(
        "cancel"
    )
    assert f"local RANK = {constants.RANK}\n" in scripts.source("acquire")
