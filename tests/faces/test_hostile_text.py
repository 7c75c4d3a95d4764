"""Text from outside: names that can't be printed are refused, ids are found, and logs are lines."""

from __future__ import annotations

import json
import logging
from urllib.parse import quote

import pytest

from celery_concurrency.errors import InvalidConfig, InvalidOperator, InvalidTag, LimiterUnavailable
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.log import API_LOG, LIMITER_LOG, WORKER_LOG
from celery_concurrency.text import json_line, printable
from tests.project.test_floors import PACKAGE
from tests.support.answers import all_keys, assert_refused, out, refusal
from tests.support.hostile import CHARACTERS, FORGED, FORMATS, HARMLESS, IDS
from tests.support.serving import Serving
from tests.support.waiting import hold, park, put_back, waiters
from tests.support.wire import connect, rest_of

BASE = "/api/v1/concurrency"
SURROGATE = "\ud800"
NAMES = [f"x{char}y" for char in CHARACTERS]
ACCOUNT = {"account": "a"}


def short(value):
    return repr(value)[:30]


# -- names


@pytest.mark.parametrize("name", [*NAMES, f"x{SURROGATE}y"], ids=short)
def test_a_name_that_cant_be_printed_is_refused_by_the_library(limiter, name):
    for tags in ({"platform": name}, {"account": name}, {"type": name}):
        with pytest.raises(InvalidTag, match="can't be printed"):
            limiter.try_acquire("t:1", tags)
    limiter.config.update({"dimensions": {"tenant": {"max": 1}}})
    with pytest.raises(InvalidTag, match="tag 'tenant' has"):
        limiter.try_acquire("t:1", {"tenant": name})
    for change in changes(name).values():
        with pytest.raises(InvalidConfig) as refused:
            limiter.config.update(change)
        assert str(refused.value).isprintable()
    with pytest.raises(InvalidOperator, match="the operator's name has"):
        Author(operator=name)


@pytest.mark.parametrize("name", HARMLESS, ids=short)
def test_a_name_that_people_write_is_taken(limiter, name):
    for change in changes(name).values():
        if name not in change:
            limiter.config.update(change)
    assert limiter.try_acquire("t:1", {"platform": name, "tenant": name})
    assert printable(name) == name


def changes(name):
    """Return changes of the configuration with a name in them, by the field that has it."""
    return {
        f"platform_max.{name}": {"platform_max": {name: 1}},
        f"task_type_max.{name}": {"task_type_max": {name: 1}},
        f"account_overrides.{name}": {"account_overrides": {name: 1}},
        f"dimensions.{name}": {"dimensions": {name: {"max": 1}}},
        f"dimensions.tenant.overrides.{name}": {"dimensions": {"tenant": {"overrides": {name: 1}}}},
        "paused": {"paused": [f"platform:{name}"]},
        f"{name}": {name: 1},
    }


@pytest.mark.parametrize("char", FORMATS, ids=short)
def test_a_name_with_a_format_character_is_taken_and_shown_escaped(limiter, here, char):
    name = f"{char}x"  # as of a cell that was copied
    for change in changes(name).values():
        if name not in change:
            limiter.config.update(change)
    limiter.config.resume(f"platform:{name}")
    hold(limiter, "t", {"platform": name})
    assert Author(operator=name).operator == name
    for arguments in (("usage",), ("config", "get"), ("config", "history"), ("tokens",)):
        lines = out(here(*arguments)).splitlines()
        assert all(line.isprintable() for line in lines), arguments
    assert f"platform:{printable(name)}" in out(here("usage"))


@pytest.mark.parametrize("name", NAMES, ids=short)
@pytest.mark.usefixtures("english")
def test_a_name_that_cant_be_printed_is_refused_over_http(client, redis_url, name):
    client.get(f"{BASE}/config")
    before = all_keys(redis_url)

    def assert_unprintable(response, field):
        [detail] = assert_refused(response, 400, "unprintable")
        assert detail == {
            "field": printable(field),
            "problem": f"has '{printable(name[1])}', which can't be printed: remove it",
        }

    for field, change in changes(name).items():
        assert_unprintable(client.put(f"{BASE}/config", json=change), field)
    for limit in (f"platform:{name}", f"{name}:x", name):
        query = {"limit": limit}
        assert_unprintable(client.get(f"{BASE}/waiting", query_string=query), "limit")
        assert_unprintable(client.delete(f"{BASE}/waiting", query_string=query), "limit")
        assert_unprintable(client.get(f"{BASE}/tokens", query_string=query), "limit")
    # A header is bytes, and has no line ends.
    if name.isascii() is False or name[1] == "\x1b":
        value = name.encode().decode("latin-1")
        refused = client.put(f"{BASE}/config", json={}, headers={"X-Operator": value})
        [detail] = assert_refused(refused, 400, "invalid_operator")
        assert "can't be printed" in detail["problem"]
    assert all_keys(redis_url) == before


def test_the_remedy_is_said_in_the_callers_language(client):
    for language, words in (("zh", "请去掉后重试"), ("en", "remove them")):
        refused = client.delete(
            f"{BASE}/waiting?limit=platform:x%0A", headers={"Accept-Language": language}
        )
        assert_refused(refused, 400, "unprintable")
        assert words in refused.json["message"]


@pytest.mark.parametrize("name", [FORGED, "a\u2028b", "a\x9b2Jb"], ids=short)
def test_a_name_that_cant_be_printed_is_refused_by_the_command_line(here, limiter, redis_url, name):
    limiter.config.sync()
    before = all_keys(redis_url)
    for arguments in (
        ("pause", f"platform:{name}"),
        ("resume", f"{name}:x"),
        ("config", "set", f"platform_max.{name}=1"),
        ("config", "set", f"{name}=1"),
        ("config", "set", json.dumps("paused")[1:-1] + f"={json.dumps([name])}"),
        ("config", "set", "global_max=1", "--operator", name),
        ("config", "reset", "--operator", name),
        ("config", "get", name),
        ("tokens", "--limit", f"platform:{name}"),
        ("waiting", "--limit", f"platform:{name}"),
        ("release", name),
        ("cancel", name),
        ("waiting", name),
    ):
        assert refusal(here(*arguments)).isprintable(), arguments
    assert all_keys(redis_url) == before


def test_a_configuration_written_by_hand_has_printable_names(limiter, redis, here):
    limiter.config.sync()
    redis.set("concurrency:config", json.dumps({"platform_max": {FORGED: 1}}))
    problem = limiter.config.sync().problem
    assert "can't be printed" in problem
    assert problem.isprintable()
    for arguments in (("usage",), ("config", "get"), ("config", "history")):
        done = here(*arguments)
        assert all(line.isprintable() for line in (done.stdout + done.stderr).splitlines())


def test_what_is_no_utf8_is_a_line(here):
    """The shell's arguments are bytes."""
    for arguments in (("cancel", "\udcff"), ("waiting", "\udcff"), ("release", "\udcff")):
        assert "is not UTF-8 text" in refusal(here(*arguments))


# -- ids are Celery's, and whatever it takes is found


@pytest.mark.parametrize("id", IDS, ids=short)
def test_a_task_of_any_id_is_found_over_http(client, limiter, redis, id):
    token = hold(limiter, id, ACCOUNT)
    park(limiter, id, ACCOUNT)
    address = f"{BASE}/waiting/{quote(id, safe='')}"
    assert client.get(f"{BASE}/waiting").json["data"]["waiting"][0]["task_id"] == id
    data = client.get(address).json["data"]
    assert (data["task_id"], data["blocked_by"]["reason"]) == (id, "full")
    assert client.get(f"{BASE}/waiting/-", query_string={"id": id}).json["data"] == data
    [run] = client.get(f"{BASE}/tokens", query_string={"task": id}).json["data"]["tokens"]
    assert run["token"] == token
    assert client.delete(address).json["data"] == {"cancelled": 1}
    assert waiters(redis) == set()
    assert [message["headers"]["id"] for message in put_back(redis)] == [id]
    assert_refused(client.delete(address), 404, "not_waiting")
    assert_refused(client.get(address), 404, "not_waiting")
    park(limiter, id, ACCOUNT)
    by_query = client.delete(f"{BASE}/waiting/-", query_string={"id": id})
    assert by_query.json["data"] == {"cancelled": 1}
    released = client.delete(f"{BASE}/tokens/{quote(token, safe='')}")
    assert released.json["data"]["task_id"] == id
    assert_refused(client.delete(f"{BASE}/tokens/{quote(token, safe='')}"), 404, "not_held")


def test_other_addresses_with_line_ends_are_answered_as_ours(celery_app):
    """In the user's own app it would be their page."""
    from flask import Flask

    from celery_concurrency.api import create_blueprint

    app = Flask("the-users-own")
    app.register_blueprint(create_blueprint(celery_app))
    assert_refused(app.test_client().get(f"{BASE}/no%0Ape"), 404, "not_found")
    assert_refused(app.test_client().put(f"{BASE}/waiting/a%0Ab"), 405, "method_not_allowed")


@pytest.mark.parametrize("id", [one for one in IDS if one != "\0"], ids=short)
def test_a_task_of_any_id_is_found_on_the_command_line(here, limiter, id):
    token = hold(limiter, id, ACCOUNT)
    park(limiter, id, ACCOUNT)
    for arguments in (("waiting",), ("tokens",), ("waiting", "--", id)):
        lines = out(here(*arguments)).splitlines()
        assert all(line.isprintable() for line in lines)
        assert any(printable(id) in line for line in lines)
    assert json.loads(out(here("waiting", "--json")))["waiting"][0]["task_id"] == id
    assert out(here("cancel", "--", id)) == f"cancelled {printable(id)}\n"
    assert out(here("release", "--", token)).startswith(f"released {printable(token)}: ")


def test_ids_are_found_through_the_server(redis_url, limiter):
    """The address as it is on the wire, with nothing made good by a client's library."""
    hold(limiter, "h", ACCOUNT)
    with Serving(redis_url) as serving:
        for id in IDS:
            park(limiter, id, ACCOUNT)
            address = f"{BASE}/waiting/{quote(id, safe='')}"
            for method in ("GET", "DELETE"):
                head = (
                    f"{method} {address} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                one = connect(serving.port, head.encode())
                answer = rest_of(one)
                one.close()
                assert answer.startswith(b"HTTP/1.1 200 OK"), (method, id[:30], answer)
        errors = serving.stop()[2].splitlines()
    assert len(errors) == len(IDS)  # a line for each that was cancelled
    for line in errors:
        assert line.isprintable()
        assert " WARNING waiting task " in line


# -- what is logged


@pytest.mark.parametrize("name", [LIMITER_LOG, WORKER_LOG, API_LOG])
@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (FORGED, ()),
        ("task %s", (FORGED,)),
        ("task %r and %s", (FORGED, ValueError(FORGED))),
        ("task %(id)s", ({"id": FORGED},)),
        (f"%d {FORGED}", (1,)),
        ("%s", (SURROGATE,)),
    ],
)
def test_every_record_is_a_line(caplog, name, message, arguments):
    logger = logging.getLogger(name)
    logger.warning(message, *arguments)
    logger.warning("as %s", "it is")
    first, second = caplog.records
    assert first.getMessage().isprintable()
    assert (second.msg, second.args) == (
        "as %s",
        ("it is",),
    )  # what groups records finds its template


def test_a_traceback_keeps_its_lines(caplog):
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger(WORKER_LOG).exception("task %s failed", FORGED)
    [record] = caplog.records
    assert record.getMessage().isprintable()
    assert "Traceback (most recent call last):\n" in caplog.text
    assert caplog.text.endswith("ValueError: first\nsecond\n")


def test_a_record_that_is_wrong_breaks_nobody(caplog):
    class Broken:
        def __str__(self):
            raise ValueError("no text")

    logger = logging.getLogger(WORKER_LOG)
    logger.addFilter(lambda record: False)  # for the handlers, which say it on stderr
    try:
        logger.warning("%s", Broken())
        logger.warning("%d", "x")
    finally:
        logger.filters.pop()


def test_what_the_routes_log_is_a_line_each(client, limiter, caplog, monkeypatch):
    limiter.config.sync()
    caplog.set_level("DEBUG", logger="celery_concurrency")
    token = hold(limiter, FORGED, ACCOUNT)
    park(limiter, FORGED, ACCOUNT)
    for path in (f"/waiting/{quote(FORGED)}", f"/tokens/{quote(token)}"):
        assert client.delete(BASE + path).status_code == 200
    assert len(caplog.records) == 2

    failures = [LimiterUnavailable(FORGED), RuntimeError(FORGED)]

    def fail(*args, **kwargs):
        raise failures.pop()

    monkeypatch.setattr("celery_concurrency.api.waiting_routes.explain", fail)
    while failures:
        assert client.get(f"{BASE}/waiting/{quote(FORGED)}").status_code >= 500
    assert len(caplog.records) == 4
    for record in caplog.records:
        assert record.getMessage().isprintable()


# -- structure


def test_the_loggers_are_got_by_names_of_log_py_alone():
    """So each of them has the filter; ``tests/worker/test_logging.py`` sees to the names."""
    for name in (LIMITER_LOG, WORKER_LOG, API_LOG):
        assert [type(one).__name__ for one in logging.getLogger(name).filters] == ["OneLine"]


def test_commands_print_by_output_py_alone():
    found = {
        (path.name, call)
        for path in (PACKAGE / "cli").glob("*.py")
        for call in ("click.echo(", "click.secho(", "print(", "ClickException(", "UsageError(")
        if call in path.read_text("utf-8").replace("_print(", "").replace("print_", "")
    }
    assert {name for name, _ in found} == {"output.py"}


@pytest.mark.parametrize("value", [{FORGED: [FORGED, SURROGATE, "任务", "\U000e0041"]}, FORGED, 1])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_can_be_printed_and_read_back(value, indent):
    text = json_line(value, indent)
    assert all(line.isprintable() for line in text.split("\n"))
    assert json.loads(text) == value
    assert ("任务" in text) == ("任务" in str(value))
