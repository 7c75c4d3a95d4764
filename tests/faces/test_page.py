"""The page without a browser: its headers, languages, mounting and access."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from celery import Celery
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from celery_concurrency.api import create_app, create_blueprint, create_page
from celery_concurrency.api.access import bearer
from celery_concurrency.api.page.texts import TEXTS
from celery_concurrency.errors import ImproperlyConfigured
from tests.support.answers import assert_refused

CALLER = "/api/v1/concurrency/caller"

FILES = files("celery_concurrency.api.page")
SCRIPTS = {
    file.name: file.read_text("utf-8")
    for file in (FILES / "static").iterdir()
    if file.name.endswith(".js")
}
TEMPLATE = (FILES / "templates" / "celery_concurrency" / "page.html").read_text("utf-8")


def api_of(response):
    """Return where the page's scripts look for the API, from the page."""
    return re.search(r'<body data-api="([^"]*)">', response.text)[1]


# -- headers


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/static/page.css", "/static/nothing.js"])
def test_nothing_of_others_is_let_in(client, path):
    headers = client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("frame-ancestors") == policy.pop("base-uri") == "'none'"
    assert policy.pop("form-action") == "'none'"
    assert set(policy.values()) == {"'self'"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_nothing_is_inline_or_of_another_server(client):
    html = client.get("/").text
    scripts = re.findall(r"<script\b[^>]*>", html)
    assert [one for one in scripts if "src=" not in one] == [
        '<script id="texts" type="application/json">'
    ]
    assert not re.search(r"<style|\sstyle=|\son\w+=|https?://", html)
    for name, script in SCRIPTS.items():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b|https?://", script
        ), name


def test_an_upgrade_shows_with_the_next_load(client):
    first = client.get("/static/main.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get("/static/main.js", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304


def test_all_files_are_there(client):
    html = client.get("/").text
    for address in re.findall(r'(?:src|href)="(static/[^"]+)"', html):
        assert client.get(f"/{address}").status_code == 200, address
    for name, script in SCRIPTS.items():
        for imported in re.findall(r'from "\./([^"]+)"', script):
            assert imported in SCRIPTS, (name, imported)
        assert "javascript" in client.get(f"/static/{name}").content_type


# -- languages


@pytest.mark.parametrize(
    ("accepted", "query", "language"),
    [
        ("", "", "zh-CN"),
        ("fr", "", "zh-CN"),
        ("en-US,en;q=0.9", "", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "", "zh-CN"),
        ("zh-TW,en;q=0.5", "", "zh-CN"),
        ("zh-Hant-TW;q=0.3,EN-us;q=0.5", "", "en"),
        ("en;q=0", "", "zh-CN"),
        ("fr,en;q=0.2,*;q=0.1", "", "en"),
        ("en", "?lang=zh", "zh-CN"),
        ("zh", "?lang=en", "en"),
        ("en", "?lang=xx", "en"),
    ],
)
def test_its_language_is_that_of_the_reader_unless_they_switch(client, accepted, query, language):
    response = client.get(f"/{query}", headers={"Accept-Language": accepted})
    assert f'<html lang="{language}">' in response.text
    assert "Accept-Language" in response.headers["Vary"]


def test_both_languages_have_every_text():
    for key, both in TEXTS.items():
        chinese, english = both
        assert chinese.strip(), key
        assert english.strip(), key
        assert english.isascii(), key
        names = [sorted(set(re.findall(r"\{(\w+)\}", text))) for text in both]
        assert names[0] == names[1], key


def test_every_text_that_is_used_is_there_and_no_other():
    used = set(re.findall(r"\bt\.(\w+)", TEMPLATE))
    # The views' names are their titles' keys as well.
    listed = re.search(r"for view in \(([^)]*)\)", TEMPLATE)[1]
    used |= set(re.findall(r'"(\w+)"', listed))
    quoted = set()
    for script in SCRIPTS.values():
        used |= set(re.findall(r'\bt\("(\w+)"', script))
        quoted |= set(re.findall(r'"(\w+)"', script))
    assert used <= TEXTS.keys()
    assert TEXTS.keys() - used <= quoted


# -- where it can be mounted


def test_it_is_at_the_root_of_the_admin_app(client):
    assert api_of(client.get("/")) == "api/v1/concurrency"


@pytest.mark.parametrize(
    ("prefix", "path", "api"),
    [
        (None, "/concurrency/", "../api/v1/concurrency"),
        ("/ops/limits", "/ops/limits/", "../../api/v1/concurrency"),
    ],
)
def test_it_is_mounted_beside_the_blueprint(celery_app, prefix, path, api):
    app = Flask("the-users-own")
    app.register_blueprint(create_blueprint(celery_app))
    app.register_blueprint(create_page(), **({"url_prefix": prefix} if prefix else {}))
    client = app.test_client()
    assert api_of(client.get(path)) == api
    assert client.get(f"{path}static/main.js").status_code == 200
    # Addresses in it are seen from its last slash.
    assert client.get(path.rstrip("/")).status_code == 308


def test_it_is_mounted_below_another_app(celery_app):
    app = Flask("the-users-own")
    app.register_blueprint(create_blueprint(celery_app), url_prefix="/limits-api")
    app.register_blueprint(create_page())
    outer = Client(DispatcherMiddleware(Flask("outer"), {"/inner": app}))
    assert api_of(outer.get("/inner/concurrency/")) == "../limits-api"


def test_without_the_api_it_says_what_is_missing():
    app = Flask("the-users-own")
    app.testing = True
    app.register_blueprint(create_page())
    with pytest.raises(ImproperlyConfigured, match="create_blueprint"):
        app.test_client().get("/concurrency/")


# -- its access


def test_it_is_a_shell_that_needs_no_token_and_has_no_data(redis_url, limiter):
    limiter.try_acquire("t:1", {"account": "secret-account"})
    app = Celery("guarded", broker=redis_url, set_as_current=False)
    client = create_app(app, bearer("s3cret", "look")).test_client()
    page = client.get("/")
    assert page.status_code == 200
    assert "secret-account" not in page.text
    assert_refused(client.get(CALLER), 401, "unauthorized")


def test_it_answers_to_no_other_name_on_loopback(celery_app):
    client = create_app(celery_app, loopback=True).test_client()
    for path in ("/", "/static/main.js"):
        response = client.get(path, headers={"Host": "evil.example"})
        assert_refused(response, 403, "foreign_host")


@pytest.mark.parametrize(("token", "may"), [("s3cret", True), ("look", False)])
def test_callers_are_told_what_they_may_do(redis_url, token, may):
    app = Celery("guarded", broker=redis_url, set_as_current=False)
    client = create_app(app, bearer("s3cret", "look")).test_client()
    response = client.get(CALLER, headers={"Authorization": f"Bearer {token}"})
    assert response.json["data"] == {"operator": None, "may_change": may}


def test_a_callable_is_asked_about_a_change_that_nobody_makes(celery_app, limiter):
    asked = []

    def authorize(request):
        asked.append((request.method, request.path, request.headers["X-Team"]))
        return "anna" if request.method == "GET" else request.headers["X-Team"] == "ops"

    client = create_app(celery_app, authorize).test_client()
    for team, may in (("ops", True), ("others", False)):
        response = client.get(CALLER, headers={"X-Team": team})
        assert response.json["data"] == {"operator": "anna", "may_change": may}
    assert asked[:2] == [("GET", CALLER, "ops"), ("PUT", "/api/v1/concurrency/config", "ops")]
    assert [version.source for version in limiter.config.history()] == ["default"]


def test_without_authorize_everybody_may(client):
    assert client.get(CALLER).json["data"] == {"operator": None, "may_change": True}
