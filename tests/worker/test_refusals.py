"""Which exception says that a platform refused a run, for how long, and with which words.

That every way of ending tells, with real workers, is in ``integration/test_refusals.py``.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from email.utils import format_datetime

import pytest
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry

from celery_concurrency.limiter.cooldowns import MAX_REASON, MAX_SECONDS
from celery_concurrency.worker.refusal_settings import RefusalEntry
from celery_concurrency.worker.refusals import DEFAULT_SECONDS, Refusals


class PlatformError(Exception):
    """What all errors of a client have in common."""


class RiskControl(PlatformError):
    """Can't be unpickled: Celery keeps a ``PlatformError`` in place of it."""

    def __init__(self, account="a", retry_after=5):
        super().__init__(f"{account} is under risk control")
        self.retry_after = retry_after


class Captcha(RiskControl):
    pass


class Elsewhere(Exception):
    pass


class Refused(Ignore):
    """A user's own kind of ``Ignore``."""


HERE = __name__


def refusals(*classes, **more):
    """Return refusals that map these classes, each to a dimension of its own name."""
    return Refusals(
        {
            f"{HERE}.{cls.__name__}": RefusalEntry(
                **{"dimension": cls.__name__, "seconds": 60, **more}
            )
            for cls in classes
        }
    )


def caught(body):
    """Return the exception that a body ends with."""
    try:
        body()
    except Exception as exc:  # noqa: BLE001
        return exc
    raise AssertionError("it ends with none")


def found(exc, *classes):
    refusal = refusals(*classes).find(exc)
    return refusal and refusal.entry.dimension


# -- which entry


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([RiskControl], "RiskControl"),
        ([PlatformError], "PlatformError"),
        ([PlatformError, RiskControl], "RiskControl"),
        ([RiskControl, PlatformError], "RiskControl"),
        ([Captcha], None),
        ([Elsewhere], None),
        ([], None),
    ],
)
def test_the_most_specific_class_counts(classes, expected):
    assert found(RiskControl(), *classes) == expected


def from_it():
    try:
        raise RiskControl
    except RiskControl as exc:
        raise Elsewhere from exc


def while_it():
    try:
        raise RiskControl
    except RiskControl:
        raise Elsewhere  # noqa: B904


def far_from_it():
    try:
        from_it()
    except Elsewhere as exc:
        raise ValueError from exc


@pytest.mark.parametrize(
    ("body", "expected"), [(from_it, "RiskControl"), (far_from_it, "RiskControl"), (while_it, None)]
)
def test_what_an_error_was_raised_from_counts(body, expected):
    """An error while another one is handled is an error of its own."""
    assert found(caught(body), RiskControl) == expected


def test_the_nearest_cause_counts():
    assert found(caught(from_it), RiskControl, Elsewhere) == "Elsewhere"


def while_handled(make):
    """Return how a task ends that raises something while it handles a refusal."""

    def body():
        try:
            raise RiskControl(retry_after=7)
        except RiskControl as exc:
            raise make(exc)  # noqa: B904

    return caught(body)


def with_cause(exc, cause):
    exc.__cause__ = cause
    return exc


TOLD = {
    "self.retry(exc=exc)": lambda exc: Retry(exc=exc, when=1),
    "self.retry()": lambda exc: Retry(when=1),
    "self.retry(exc=other)": lambda exc: Retry(exc=ValueError("so"), when=1),
    "Ignore()": lambda exc: Ignore(),
    "Ignore(text)": lambda exc: Ignore("refused"),
    "Reject(exc)": lambda exc: Reject(exc, requeue=False),
    "Reject(text)": lambda exc: Reject("refused"),
    "no retries left": lambda exc: MaxRetriesExceededError(),
    "of their own": lambda exc: Refused(),
}


@pytest.mark.parametrize("how", TOLD)
def test_what_celery_ends_a_task_with_tells_what_was_being_handled(how):
    """With its own attributes, though Celery keeps only what can be pickled."""
    ended_by = while_handled(TOLD[how])
    refusal = refusals(RiskControl, PlatformError, seconds="retry_after").find(ended_by)
    assert refusal.entry.dimension == "RiskControl"
    assert refusal.seconds == 7


@pytest.mark.parametrize(
    "ended_by",
    [
        Retry(exc=RiskControl(), when=1),
        Reject(RiskControl(), requeue=False),
        with_cause(Ignore(), RiskControl()),
        Ignore(RiskControl()),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_what_they_were_given_counts_outside_of_a_handler(ended_by):
    assert found(ended_by, RiskControl) == "RiskControl"


def test_what_they_were_given_counts_before_what_was_being_handled():
    ended_by = while_handled(lambda exc: Retry(exc=Elsewhere(), when=1))
    assert found(ended_by, RiskControl, Elsewhere) == "Elsewhere"


def test_from_none_says_that_nothing_caused_it():
    def body():
        try:
            raise RiskControl
        except RiskControl:
            raise Ignore from None

    assert found(caught(body), RiskControl) is None


@pytest.mark.parametrize(
    "ended_by", [Retry(when=1), Ignore(), Reject()], ids=lambda exc: type(exc).__name__
)
def test_a_task_that_is_only_retried_is_no_refusal_even_if_every_exception_is(ended_by):
    every = Refusals({"builtins.Exception": RefusalEntry(dimension="account", seconds=1)})
    assert every.find(ended_by) is None
    assert every.find(ValueError())


def test_a_users_own_kind_of_ignore_may_be_a_refusal():
    assert found(Refused(), Refused) == "Refused"
    assert found(Ignore(), Refused) is None


def test_causes_in_a_circle_or_without_end_are_looked_at_within_bounds():
    one, other = Elsewhere(), ValueError()
    one.__cause__, other.__cause__ = other, one
    assert found(one, RiskControl) is None
    long = RiskControl()
    for _ in range(1000):
        long = with_cause(ValueError(), long)
    assert found(long, RiskControl) is None


@pytest.mark.parametrize("returned", ["text", None, RuntimeError])
def test_what_is_no_exception_is_no_refusal(returned):
    assert found(returned, RiskControl) is None


# -- for how long


def seconds_of(value, **more):
    refusal = refusals(RiskControl, seconds="retry_after", **more).find(
        RiskControl(retry_after=value)
    )
    return refusal.seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (5, 5),
        (0, 0),
        (2.5, 2.5),
        (Decimal("2.5"), 2.5),
        ("120", 120),
        (" 1.5 ", 1.5),
        (b"30", 30),
        (timedelta(minutes=2), 120),
        (10**9, MAX_SECONDS),
    ],
)
def test_seconds_of_an_attribute(value, seconds, caplog):
    assert seconds_of(value) == seconds
    assert caplog.records == []


@pytest.mark.parametrize(
    "in_an_hour",
    [
        lambda: datetime.now(UTC) + timedelta(hours=1),
        lambda: datetime.now(timezone(timedelta(hours=8))) + timedelta(hours=1),
        lambda: datetime.now() + timedelta(hours=1),
        lambda: format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True),
    ],
    ids=["utc", "elsewhere", "naive", "header"],
)
def test_a_moment_is_so_many_seconds_away(in_an_hour, caplog):
    assert 3500 < seconds_of(in_an_hour()) <= 3600
    assert caplog.records == []


class Unspeakable:
    def __repr__(self):
        raise RuntimeError


BAD = [
    "soon", "", True, -1, "-5", float("nan"), float("inf"), [], {}, object(), Unspeakable(),
    datetime(2020, 1, 1, tzinfo=UTC), timedelta(-1),
]  # fmt: skip


@pytest.mark.parametrize(
    "value", BAD, ids=[f"{type(one).__name__} {n}" for n, one in enumerate(BAD)]
)
@pytest.mark.parametrize("default", [None, 9])
def test_an_attribute_that_says_no_seconds_is_warned_of_once_and_by_its_entry(
    value, default, caplog
):
    some = refusals(RiskControl, seconds="retry_after", default=default)
    for _ in range(3):
        refusal = some.find(RiskControl(retry_after=value))
        assert refusal.seconds == (DEFAULT_SECONDS if default is None else default)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert f"concurrency_refusals['{HERE}.RiskControl']" in record.getMessage()


def test_none_is_expected_where_a_default_says_what_it_means(caplog):
    assert seconds_of(None, default=0) == 0
    assert caplog.records == []
    assert seconds_of(None) == DEFAULT_SECONDS
    assert len(caplog.records) == 1


class Broken(Exception):
    """Nothing of it can be read."""

    @property
    def retry_after(self):
        raise RuntimeError("no response")

    def __str__(self):
        raise RuntimeError("no text")


class Bare(Exception):
    pass


@pytest.mark.parametrize("cls", [Broken, Bare])
def test_an_exception_that_can_not_be_read_is_a_refusal_all_the_same(cls, caplog):
    refusal = refusals(cls, seconds="retry_after").find(cls())
    assert (refusal.seconds, refusal.reason) == (DEFAULT_SECONDS, cls.__name__)
    assert len(caplog.records) == 1


# -- with which words


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("429", "Bare: 429"),
        ("", "Bare"),
        ("  429 slow down \n\nand more", "Bare: 429 slow down"),
        ("red \x1b[31m", "Bare: red \\x1b[31m"),
        ("账号被风控", "Bare: 账号被风控"),
    ],
)
def test_people_are_shown_a_class_and_the_first_line_of_its_text(text, reason):
    assert refusals(Bare).find(Bare(text)).reason == reason


@pytest.mark.parametrize("text", ["x" * 10**6, "\x1b" * 1000, "\n" * 10**5 + "x"])
def test_what_people_are_shown_has_an_end(text):
    reason = refusals(Bare).find(Bare(text)).reason
    assert len(reason) <= MAX_REASON
    assert reason.isprintable()
