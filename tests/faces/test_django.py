"""The Django app in the site of ``examples/django_site``: its server, commands and checks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.waiting import park
from tests.support.workers import wait_for

SITE = Path(__file__).parents[2] / "examples" / "django_site"
PEOPLE = """
from django.contrib.auth.models import Permission, User
User.objects.create_superuser("ann", password="secret")
reader = User.objects.create_user("bob", password="secret", is_staff=True)
reader.user_permissions.add(Permission.objects.get(codename="view_limits"))
User.objects.create_user("eve", password="secret", is_staff=True)
"""


class Site:
    """A copy of the example on a database of its own.

    Args:
        redis_url: its Redis.
        database: where its users are stored.
    """

    def __init__(self, redis_url: str, database: Path) -> None:
        self.env = {**os.environ, "REDIS_URL": redis_url, "DATABASE": str(database)}
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"

    def manage(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run ``manage.py``."""
        return subprocess.run(
            [sys.executable, SITE / "manage.py", *arguments],
            env={**self.env, **env},
            check=False,
            capture_output=True,
            text=True,
            timeout=180,
        )


class Visitor:
    """Somebody with cookies, not a browser.

    Args:
        site: where they go.
        name: whom they log in as; "" if they don't.
    """

    def __init__(self, site: Site, name: str = "") -> None:
        self.site = site
        self.cookies = CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        if name:
            form = {"username": name, "password": "secret", "next": "/limits/static/icon.svg"}
            self.ask("/admin/login/")
            status, _, _ = self.ask("/admin/login/", {**form, "csrfmiddlewaretoken": self.token()})
            assert status == 200

    def token(self) -> str:
        """Return Django's CSRF token, from its cookie."""
        return next(one.value or "" for one in self.cookies if one.name == "csrftoken")

    def ask(self, path, form=None, *, method=None, data=None, **headers):
        """Return the status, the address that answered and the text of an answer."""
        if data is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(data).encode()
        else:
            body = form and urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(self.site.address + path, body, headers, method=method)
        try:
            with self.opener.open(request, timeout=20) as reply:
                return reply.status, reply.geturl(), reply.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.geturl(), exc.read().decode()

    def change(self, **headers):
        """Ask for a change of the configuration."""
        return self.ask(
            "/limits/api/v1/concurrency/config", method="PUT", data={"account_max": 2}, **headers
        )


@pytest.fixture(scope="module")
def site(server, tmp_path_factory):
    """The site, served by ``manage.py runserver``, with three users."""
    pytest.importorskip("django")
    directory = tmp_path_factory.mktemp("site")
    one = Site(server.url(), directory / "site.sqlite3")
    assert one.manage("migrate", "-v0").returncode == 0
    made = one.manage("shell", "--no-imports", "-c", PEOPLE)
    assert made.returncode == 0, made.stderr
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, SITE / "manage.py", "runserver", "--noreload", str(one.port)],
            env=one.env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    wait_for(lambda: _listens(one), what="Django listens")
    yield one
    process.terminate()
    process.wait(60)


def _listens(site):
    try:
        return Visitor(site).ask("/admin/login/")[0] == 200
    except OSError:
        return False


def test_the_page_needs_a_login_and_the_permission(site, limiter):
    assert "/admin/login/" in Visitor(site).ask("/limits/")[1]
    assert Visitor(site, "eve").ask("/limits/")[0] == 403
    assert "data-csrf-token" in Visitor(site, "bob").ask("/limits/")[2]


def test_the_api_asks_for_the_same_permissions(site, limiter):
    usage = "/limits/api/v1/concurrency/usage"
    for nobody in (Visitor(site), Visitor(site, "eve")):
        status, _, text = nobody.ask(usage)
        assert status == 403
        assert json.loads(text)["error"]["code"] == "forbidden"
    reader = Visitor(site, "bob")
    assert reader.ask(usage)[0] == 200
    caller = json.loads(reader.ask("/limits/api/v1/concurrency/caller")[2])["data"]
    assert caller == {"operator": "bob", "may_change": False}
    assert reader.change(**{"X-CSRFToken": reader.token()})[0] == 403
    assert limiter.config.sync().config.account_max == 1


def test_a_change_needs_the_token_of_the_session(site, limiter):
    ann = Visitor(site, "ann")
    assert ann.change()[0] == 403
    assert ann.change(**{"X-CSRFToken": "x" * 32})[0] == 403
    assert limiter.config.sync().config.account_max == 1
    assert ann.change(**{"X-CSRFToken": ann.token()})[0] == 200
    assert limiter.config.sync().config.account_max == 2


def test_a_name_in_an_address_arrives_as_it_is(site, limiter):
    ann = Visitor(site, "ann")
    for name in ("账号 1", "a/b", "a%2Fb", "ä+ö"):
        limit = urllib.parse.quote(f"account:{name}", safe="")
        limiter.cooldowns.set(f"account:{name}", 60, reason="429", by="ann")
        lifted = ann.ask(
            f"/limits/api/v1/concurrency/cooldowns?limit={limit}",
            method="DELETE",
            **{"X-CSRFToken": ann.token()},
        )
        assert lifted[0] == 200, lifted
    limiter.config.pause("account:acc1")
    park(limiter, "任务/1", {"account": "acc1"})
    why = ann.ask("/limits/api/v1/concurrency/waiting/" + urllib.parse.quote("任务/1", safe=""))
    assert why[0] == 200, why


def test_an_operator_changes_a_limit_in_the_browser(site, limiter, desks):
    desk = desks(f"{site.address}/limits/")
    desk.page.goto(f"{site.address}/limits/")
    desk.page.fill("#id_username", "ann")
    desk.page.fill("#id_password", "secret")
    desk.page.click("[type=submit]")
    desk.wait_until_live()
    view = desk.open("limits")
    view.get_by_role("row", name=re.compile("platform:douyin")).get_by_role(
        "button", name="Pause"
    ).click()
    desk.page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    wait_for(
        lambda: limiter.config.sync().config.paused == ["platform:douyin"], what="it is paused"
    )
    assert limiter.config.history()[0].operator == "ann"
    # Django's login page has no icon; not every browser looks for one.
    desk.problems = [one for one in desk.problems if "404" not in one]


def test_manage_py_has_the_commands(site, limiter):
    shown = site.manage("concurrency", "usage", "--json")
    assert json.loads(shown.stdout)["accounts"] == {}, shown.stderr
    refused = site.manage("concurrency", "release", "nobody")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "nobody" in refused.stderr
    assert "manage.py concurrency" in site.manage("concurrency", "--help").stdout
    called = site.manage(
        *("shell", "--no-imports", "-c"),
        "from django.core.management import call_command; "
        "call_command('concurrency', 'config', 'set', 'account_max=3')",
    )
    assert called.returncode == 0, called.stderr
    assert limiter.config.sync().config.account_max == 3


def path_with(directory):
    """Return where Python looks for modules, with one more directory."""
    return os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])


def check(site, tmp_path, settings):
    """Return what ``manage.py check`` says of the site with other settings."""
    (tmp_path / "other.py").write_text(f"from mysite.settings import *\n{settings}\n")
    done = site.manage("check", DJANGO_SETTINGS_MODULE="other", PYTHONPATH=path_with(tmp_path))
    return done.returncode, done.stdout + done.stderr


def test_the_check_names_mistakes(site, tmp_path):
    assert check(site, tmp_path, "")[0] == 0
    status, said = check(site, tmp_path, "CELERY_CONCURRENCY_WAITNG = 'retry'")
    assert status == 1
    assert "celery_concurrency.E002" in said
    assert "concurrency_waitng" in said.lower()
    # Whoever only sends tasks need not say which of the namespaces it is; each is checked.
    eu = "CELERY_CONCURRENCY_NAMESPACES = {'eu': {'queues': ['eu'], 'redis_url': '%s'}}"
    assert check(site, tmp_path, eu % "redis://eu")[0] == 0
    assert "concurrency_namespaces.eu.redis_url can't be" in check(site, tmp_path, eu % "eu")[1]
    status, said = check(site, tmp_path, "CELERY_IMPORTS = ()")
    assert status == 0
    assert "celery_concurrency.W001" in said


def test_a_site_without_a_celery_app_is_told_so(site, tmp_path):
    (tmp_path / "bare.py").write_text(
        "SECRET_KEY = 'x'\nUSE_TZ = True\n"
        "INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.auth', "
        "'celery_concurrency.django']\n"
    )
    bare = {"DJANGO_SETTINGS_MODULE": "bare", "PYTHONPATH": path_with(tmp_path)}
    assert "celery_concurrency.E001" in site.manage("check", **bare).stderr
    refused = site.manage("concurrency", "usage", **bare)
    assert refused.returncode == 1
    assert "__init__.py" in refused.stderr
