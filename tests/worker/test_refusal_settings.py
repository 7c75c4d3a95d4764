"""``concurrency_refusals``: what an entry may be, and what a worker says at its start."""

from __future__ import annotations

import sys

import pytest
from celery import Celery

from celery_concurrency.errors import ImproperlyConfigured
from celery_concurrency.worker.apps import settings_of
from celery_concurrency.worker.refusals import refusals_of

ENTRY = {"dimension": "account", "seconds": 600}
PATH = "builtins.OSError"


def app_of(refusals):
    app = Celery("refusals", set_as_current=False)
    app.conf.update(broker_url="redis://nowhere", concurrency_refusals=refusals)
    return app


def problem(refusals):
    with pytest.raises(ImproperlyConfigured) as caught:
        refusals_of(app_of(refusals))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"seconds": 5}, "dimension is missing"),
        ({"dimension": "account"}, "seconds is missing"),
        (5, "must be a dict, such as {'dimension': 'account', 'seconds': 600}"),
        ({**ENTRY, "secnds": 5}, "'secnds' is not a valid key; use seconds"),
        ({**ENTRY, "colour": 5}, "'colour' is not a valid key; use dimension, seconds, "),
        ({**ENTRY, 5: 5}, "5 is not a valid key"),
        ({**ENTRY, "dimension": ""}, "dimension is ''"),
        ({**ENTRY, "dimension": 5}, "dimension is 5"),
        ({**ENTRY, "dimension": "account:a"}, "dimension is 'account:a': has a colon"),
        ({**ENTRY, "dimension": "a\n"}, r"dimension is 'a\n'"),
        ({**ENTRY, "seconds": True}, "seconds is True: must be 0 to 604800 seconds"),
        ({**ENTRY, "seconds": -1}, "seconds is -1"),
        ({**ENTRY, "seconds": 604_801}, "seconds is 604801"),
        ({**ENTRY, "seconds": float("nan")}, "seconds is nan"),
        ({**ENTRY, "seconds": "600"}, "seconds is '600'"),
        ({**ENTRY, "seconds": "a.b"}, "or the name of an attribute"),
        ({**ENTRY, "seconds": None}, "seconds is None"),
        ({**ENTRY, "grow": 0.9}, "grow is 0.9"),
        ({**ENTRY, "grow": True}, "grow is True"),
        ({**ENTRY, "grow": "2"}, "grow is '2'"),
        ({**ENTRY, "grow": float("inf")}, "grow is inf"),
        ({**ENTRY, "most": 599}, "most must be at least seconds, which is 600"),
        ({**ENTRY, "most": True}, "most is True"),
        ({**ENTRY, "most": 604_801}, "most is 604801"),
        ({**ENTRY, "default": 5}, "default needs seconds to name an attribute"),
        ({**ENTRY, "seconds": "retry_after", "default": True}, "default is True"),
        ({**ENTRY, "seconds": "retry_after", "default": -1}, "default is -1"),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_wrong(entry, said):
    """Also where nothing is imported, as in a web process."""
    wrong = problem({"builtins.ValueError": ENTRY, PATH: entry})
    assert wrong.startswith(f"concurrency_refusals['{PATH}']: ")
    assert said in wrong
    with pytest.raises(ImproperlyConfigured):
        settings_of(app_of({PATH: entry}))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.errors.RiskControl", "No module named 'nowhere'"),
        ("celery.nowhere.RiskControl", "has no attribute 'nowhere'"),
        ("celery.exceptions.RiskControl", "has no attribute 'RiskControl'"),
        ("celery.Task.RiskControl", "has no attribute 'RiskControl'"),
        ("os.path", "is not an exception class"),
        ("os.path.join", "is not an exception class"),
        ("builtins.int", "is not an exception class"),
        ("builtins.SystemExit", "is not an exception class"),
        ("builtins.EnvironmentError", "is the same class as 'builtins.OSError'"),
        ("RiskControl", "is not the dotted path of a class, such as 'proj.errors.RiskControl'"),
        ("proj.errors:RiskControl", "is not the dotted path"),
        ("", "is not the dotted path"),
        ("a..b", "is not the dotted path"),
        (5, "is not the dotted path"),
    ],
)
def test_a_path_that_leads_to_no_exception_is_named(path, said):
    wrong = problem({PATH: ENTRY, path: ENTRY})
    assert wrong.startswith(f"concurrency_refusals[{path!r}]: ")
    assert said in wrong


def test_a_class_in_the_place_of_its_path_is_told_its_path():
    assert "write its dotted path: 'builtins.ValueError'" in problem({ValueError: ENTRY})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two\\nlines"),
    ],
)
def test_a_module_that_can_not_be_imported_is_told_why(tmp_path, monkeypatch, text, said):
    """It is no class inside another class."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").touch()
    (tmp_path / "theirs" / "errors.py").write_text(text)
    wrong = problem({"theirs.errors.RiskControl": ENTRY})
    sys.modules.pop("theirs", None)
    assert wrong.startswith("concurrency_refusals['theirs.errors.RiskControl']: can't be imported")
    assert said in wrong


@pytest.mark.parametrize(
    "entry",
    [
        ENTRY,
        {"dimension": "type", "seconds": 0},
        {"dimension": "tenant", "seconds": 0.5, "grow": 1, "most": 0.5},
        {"dimension": "global", "seconds": 86_400},
        {"dimension": "platform", "seconds": "retry_after", "default": 0, "grow": 1.5, "most": 5},
    ],
)
def test_right_entries(entry):
    [(path, found)] = settings_of(app_of({PATH: entry})).refusals.items()
    assert path == PATH
    assert {key: getattr(found, key) for key in entry} == entry
    refusals_of(app_of({PATH: entry}))


def test_a_class_inside_another_class():
    app = app_of({"celery.Task.MaxRetriesExceededError": ENTRY})
    assert refusals_of(app).find(app.Task.MaxRetriesExceededError())
