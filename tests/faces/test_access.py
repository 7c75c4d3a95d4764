"""Who gets in: tokens, other sites' pages, other names of loopback."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery
from flask import Flask

from celery_concurrency.api import create_app, create_blueprint
from celery_concurrency.api.access import bearer, is_loopback
from tests.support.answers import all_keys, assert_refused, refusal
from tests.support.serving import Serving

BASE = "/api/v1/concurrency"
CONFIG = f"{BASE}/config"
READS = [("GET", "/config"), ("HEAD", "/usage"), ("GET", "/tokens"), ("OPTIONS", "/config")]
WRITES = [
    ("PUT", "/config"),
    ("POST", "/reset"),
    ("POST", "/config/rollback"),
    ("DELETE", "/tokens/t:1"),
]
BODIES = {"/config": {"global_max": 1}, "/config/rollback": {"version": 1}}


def call(client, route, **headers):
    method, path = route
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.open(BASE + path, method=method, json=BODIES.get(path), headers=headers)


@pytest.fixture
def guarded(redis_url):
    """Makes clients of an app that asks for these tokens."""

    def make(token=None, read_token=None):
        app = Celery("guarded", broker=redis_url, set_as_current=False)
        return create_app(app, bearer(token, read_token)).test_client()

    return make


# -- tokens

WRONG = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Bearer wrong",
    "Bearer secre",
    "Bearer secretx",
    "Bearer SECRET",
    "bearer  ",
    "Basic secret",
    "Basic c2VjcmV0OnNlY3JldA==",
    "secret",
    'Bearer token="secret"',
    "Bearer \xe9",
]


@pytest.mark.parametrize("route", [*READS, *WRITES, ("GET", "/nope"), ("GET", "")])
def test_without_the_token_nobody_gets_in(guarded, redis_url, route):
    client = guarded("secret", "look")
    for wrong in WRONG:
        response = call(client, route, **({} if wrong is None else {"Authorization": wrong}))
        assert response.status_code == 401, wrong
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="concurrency"'
        if route[0] != "HEAD":
            assert_refused(response, 401, "unauthorized")
    assert all_keys(redis_url) == {}


@pytest.mark.parametrize("route", [*READS, *WRITES])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_token_opens_everything(guarded, limiter, route, scheme):
    client = guarded("secret", "look")
    limiter.config.sync()
    limiter.try_acquire("t:1", {})
    assert call(client, route, Authorization=f"{scheme} secret").status_code == 200


@pytest.mark.parametrize("tokens", [("secret", "look"), (None, "look")])
def test_the_read_token_opens_what_reads(guarded, limiter, redis_url, tokens):
    client = guarded(*tokens)
    limiter.config.sync()
    limiter.try_acquire("t:1", {})
    for route in READS:
        assert call(client, route, Authorization="Bearer look").status_code == 200
    before = all_keys(redis_url)
    for route in WRITES:
        response = call(client, route, Authorization="Bearer look")
        assert_refused(response, 403, "read_only")
    assert all_keys(redis_url) == before
    # Without a token that opens everything, no empty one does.
    for wrong in ("Bearer ", "Bearer None"):
        assert_refused(call(client, WRITES[0], Authorization=wrong), 401, "unauthorized")


def test_an_empty_token_opens_nothing(guarded):
    for tokens in (("", ""), (None, None), ("", "look")):
        for shown in ("Bearer ", "Bearer", ""):
            response = call(guarded(*tokens), READS[0], Authorization=shown)
            assert_refused(response, 401, "unauthorized")


# -- other sites' pages

FOREIGN = [
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "cross-site", "Origin": "http://localhost"},
    {"Sec_Fetch_Site": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost:8000"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://["},
    {"Origin": "localhost"},
    {"Origin": "://localhost"},
    {"Origin": "evil://localhost"},
    {"Origin": "chrome-extension://localhost"},
    {"Origin": "http://localhost/"},
    {"Origin": "http://evil.com@localhost"},
    {"Origin": "http://localhost, http://evil.com"},
    {"Origin": "http://a, b", "Host": "a, b"},
    {"Origin": "http://a@b", "Host": "a@b"},
    {"Origin": "http://", "Host": ""},
]
OWN = [
    {"Sec_Fetch_Site": "same-origin"},
    {"Sec_Fetch_Site": "none"},
    # A proxy may have changed the host; the browser knows better.
    {"Sec_Fetch_Site": "same-origin", "Origin": "https://admin.example"},
    {"Origin": "http://localhost"},
    {"Origin": "https://localhost"},
    {"Origin": "http://my_app.example:8000", "Host": "my_app.example:8000"},
    {"Origin": "http://[::1]:7000", "Host": "[::1]:7000"},
    {},
]


@pytest.fixture
def mounted(celery_app):
    """A client of a user's app with the blueprint in it."""
    app = Flask("the-users-own")
    app.register_blueprint(create_blueprint(celery_app))
    return app.test_client()


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_pages_of_other_sites_change_nothing(client, mounted, limiter, redis_url, headers):
    limiter.config.sync()
    limiter.try_acquire("t:1", {})
    before = all_keys(redis_url)
    for one in (client, mounted):
        for route in WRITES:
            assert_refused(call(one, route, **headers), 403, "cross_site")
        for route in READS:
            assert call(one, route, **headers).status_code == 200
    assert all_keys(redis_url) == before


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_our_own_pages_and_programs_do(client, limiter, headers):
    limiter.config.sync()
    limiter.try_acquire("t:1", {})
    for route in WRITES:
        assert call(client, route, **headers).status_code == 200


# -- other names of loopback


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:7000", "127.0.0.1", "127.0.0.1:7000", "127.1.2.3"),
        *("[::1]", "[::1]:7000", "[0:0::1]"),
    ],
)
def test_loopback_answers_to_its_names(celery_app, host):
    client = create_app(celery_app, loopback=True).test_client()
    assert client.get(CONFIG, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7000",
        "localhost.evil.example",
        "10.0.0.1",
        "[::2]",
        "[",
        "x@y",
        *("127.0.0.1:80@evil.com", "localhost@evil.com", "evil.com@localhost", "localhost:80:80"),
        *("[::1]x.evil.com", "x[::1]", "[::1", "::1", "[::1]:", "[::1%lo]", "[127.0.0.1]", "[]"),
        *("localhost:7000, evil.com", "evil.com, localhost", "localhost,localhost", "localhost "),
        *(
            "localhost.",
            "localhost:",
            "localhost:x",
            "localhost:123456",
            "localhost:-1",
            "local_host",
        ),
        *("127.0.0.1.evil.com", "127.0.0.1.", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.01"),
        *("2130706433", "127.0.0.1/evil.com", "127.0.0.1#", "127.0.0.1?", "127.0.0.1\\evil", ""),
        *("lócalhost", "ｌocalhost", "127.0.0.１", "localhost%00", "localhost\x0b", "0.0.0.0"),
    ],
    ids=repr,
)
def test_loopback_answers_to_no_other_name(celery_app, redis_url, host):
    client = create_app(celery_app, loopback=True).test_client()
    for path in (CONFIG, "/", f"{BASE}/nope"):
        # As WSGI has it: in Latin-1.
        named = {"HTTP_HOST": host.encode().decode("latin-1")}
        [detail] = assert_refused(client.get(path, environ_overrides=named), 403, "foreign_host")
        assert detail["field"] == "Host"
        assert "localhost" in detail["problem"]
    assert all_keys(redis_url) == {}


def test_two_hosts_are_none(redis_url):
    """One that is ours and another: no matter which of them somebody else goes by."""
    with Serving(redis_url) as serving:
        for hosts in (("localhost", "evil.com"), ("evil.com", "localhost"), ("localhost",) * 2, ()):
            connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=20)
            connection.putrequest("GET", CONFIG, skip_host=True)
            for host in hosts:
                connection.putheader("Host", host)
            connection.endheaders()
            assert connection.getresponse().status == 400
            connection.close()


def test_elsewhere_any_name_will_do(client):
    assert client.get(CONFIG, headers={"Host": "admin.example"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "yes"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("127.1", False),
        ("my-machine", False),
        ("localhost.example", False),
    ],
)
def test_what_is_loopback(host, yes):
    assert is_loopback(host) is yes


# -- served


def ask(port, method="GET", path=CONFIG, body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    if body is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(body)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1"])
def test_elsewhere_than_on_loopback_it_does_not_start_without_a_token(cli, host):
    said = refusal(cli("serve", "--host", host, "--port", "0", CONCURRENCY_TOKEN=" "))
    for remedy in ("--token-file", "CONCURRENCY_TOKEN", "openssl rand -hex 32", "--host"):
        assert remedy in said


def test_elsewhere_it_asks_for_the_token(redis_url, tmp_path):
    """From a file, and the read token from the environment; any host's name will do there."""
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    arguments = ("--host", "0.0.0.0", "--port", "0", "--token-file", str(file))
    env = {"CONCURRENCY_READ_TOKEN": "look", "CONCURRENCY_TOKEN": "overruled"}
    with Serving(redis_url, *arguments, env=env) as serving:
        port = serving.port
        assert ask(port)[1]["error"]["code"] == "unauthorized"
        assert ask(port, Authorization="Bearer overruled")[0] == 401
        assert ask(port, Authorization="Bearer s3cret", Host="admin.example")[0] == 200
        assert ask(port, Authorization="Bearer look")[0] == 200
        change = {"method": "PUT", "body": {"global_max": 3}}
        assert ask(port, **change, Authorization="Bearer look")[0] == 403
        assert ask(port, **change, Authorization="Bearer s3cret")[0] == 200
        said = "".join(map(str, serving.stop()))
    for token in ("s3cret", "look", "overruled"):
        assert token not in said


def test_on_loopback_it_asks_where_there_is_a_token(redis_url):
    env = {"CONCURRENCY_TOKEN": "s3cret"}
    with Serving(redis_url, "--port", "0", env=env) as serving:
        assert ask(serving.port)[0] == 401
        assert ask(serving.port, Authorization="Bearer s3cret")[0] == 200


def test_on_loopback_without_a_token_it_is_open_to_this_machine_alone(redis_url):
    with Serving(redis_url) as serving:
        assert ask(serving.port)[0] == 200
        assert ask(serving.port, Host="localhost:7000")[0] == 200
        status, body = ask(serving.port, Host="evil.example")
        assert (status, body["error"]["code"]) == (403, "foreign_host")
        status, body = ask(serving.port, "POST", f"{BASE}/reset", Origin="http://evil.example")
        assert (status, body["error"]["code"]) == (403, "cross_site")


def test_many_at_once_are_nothing_to_log(redis_url):
    with Serving(redis_url) as serving:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, [serving.port] * 64))
        assert {status for status, _ in answers} == {200}
        errors = serving.stop()[2]
    assert "queue" not in errors


def test_nobody_fills_the_disk_with_a_body_that_is_never_read(redis_url):
    """It is refused by what it says of its length, and not waited for."""
    with Serving(redis_url) as serving:
        connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=20)
        connection.putrequest("PUT", CONFIG)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(2**29))
        connection.endheaders(b"{")
        assert connection.getresponse().status == 413
        connection.close()


@pytest.mark.parametrize("option", ["--token-file", "--read-token-file"])
def test_a_token_file_that_has_none(here, tmp_path, option):
    file = tmp_path / "token"
    assert "No such file" in refusal(here("serve", option, str(file)))
    for content in (b"", b"\n\n", b"two words", b"two\nlines", "密码".encode(), b"\xff\xfe"):
        file.write_bytes(content)
        said = refusal(here("serve", option, str(file)))
        assert str(file) in said
        assert "words" not in said


def test_a_read_token_that_opens_everything_is_refused(here, tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("same")
    monkeypatch.setenv("CONCURRENCY_READ_TOKEN", "same")
    assert "another value" in refusal(here("serve", "--token-file", str(file)))
