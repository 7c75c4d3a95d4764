"""The detailed log: every record that docs/logging.md promises, with exactly its fields."""

from __future__ import annotations

import itertools
import json
import logging
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.worker import state as worker_state

from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter.outcomes import Ticket
from celery_concurrency.worker import gate, rescue
from celery_concurrency.worker.apps import limiter_of, settings_of
from celery_concurrency.worker.busy import say_not_replaced
from celery_concurrency.worker.celery_compat import sent_along
from celery_concurrency.worker.heartbeat import Heartbeat
from celery_concurrency.worker.hooks import connect_hooks, gate_all_tasks
from celery_concurrency.worker.housekeeping import Housekeeping
from celery_concurrency.worker.outbox import Sender
from celery_concurrency.worker.run import current_lease
from celery_concurrency.worker.unknown_headers import UnknownHeaders
from tests.support import tracing
from tests.support.floor import Floor
from tests.support.tracing import Message, request_of, trace

TEXT = (Path(__file__).parents[2] / "docs" / "logging.md").read_text("utf-8")
ROW = re.compile(r"^\| `([^`]+)` \| (\w+) \| ([A-Z]+) \|(.*)\|$", re.MULTILINE)
DOCUMENTED = {
    decision: (f"celery_concurrency.{floor}", level, {*re.findall(r"\w+", fields)})
    for decision, floor, level, fields in ROW.findall(TEXT)
}
TAGS = {"platform": "douyin", "account": "a"}


def work():
    return "done"


class Refused(Exception):
    """What a platform's client raises."""


def refuses():
    raise Refused("429")


class Scene:
    """What a record comes from: a limiter, an app on it, and a worker's parts."""

    def __init__(self, redis_url, monkeypatch, redis, client):
        self.app = Celery("log", broker="memory://", backend="cache+memory://")
        self.app.conf.concurrency_redis_url = redis_url
        self.app.conf.concurrency_waiting = "retry"
        self.app.conf.concurrency_refusals = {
            f"{__name__}.Refused": {"dimension": "account", "seconds": 60}
        }
        connect_hooks()
        gate_all_tasks()
        self.app.finalize()
        self.limiter = limiter_of(self.app)
        self.redis, self.client, self.monkeypatch = redis, client, monkeypatch
        self.floor = Floor(self.limiter, redis)

    task_name = "work"

    def run(self, message=None, body=work, **headers):
        trace(self.app, body, message or Message(), self.task_name, **headers)

    def away(self, verb="try_acquire"):
        def fail(*args, **kwargs):
            raise LimiterUnavailable("away")

        self.monkeypatch.setattr(self.limiter, verb, fail)

    def park(self, outcome):
        """Let a denied run park its message, which ends so."""
        self.floor.hold(**TAGS)
        limits = ("global", "platform:douyin", "account:a")
        waiter = SimpleNamespace(limits=limits)
        self.monkeypatch.setattr(gate, "waiter_of", lambda *args, **options: waiter)
        self.monkeypatch.setattr(self.limiter.waiting_room, "park", lambda waiter: outcome)
        self.run(**TAGS)

    def tick(self):
        Housekeeping(self.limiter, Heartbeat(self.limiter, 30)).tick()


def granted(scene):
    scene.run(**TAGS)


def waits(scene):
    scene.floor.hold(**TAGS)
    scene.run(**TAGS)


def runs(scene):
    settings = settings_of(scene.app).model_copy(update={"redis_unavailable": "run"})
    scene.monkeypatch.setattr(gate, "settings_of", lambda app: settings)
    scene.monkeypatch.setattr(scene.limiter, "count_later", lambda *args, **facts: None)
    scene.away()
    scene.run(**TAGS)


def dropped(scene):
    scene.redis.set("concurrency:begun:copy", "ended")
    place = {"score": 1, "as": "copy", "limits": ["global"]}
    scene.run(**TAGS, parked=place)


def keeps_its_slot(scene):
    scene.monkeypatch.setattr(gate, "PAUSES", (0,))
    scene.floor.hold(**TAGS)
    scene.run(Message(OSError("the broker is away")), **TAGS)


def refused(scene):
    scene.run(body=refuses, **TAGS)


def releases_later(scene):
    scene.away("release")
    scene.run(**TAGS)


def released_for_it(scene):
    token = scene.floor.hold(**TAGS)
    Heartbeat(scene.limiter, 30)._release(token)


def lost(scene):
    token = scene.floor.hold(**TAGS)
    scene.floor.lapse(token)
    scene.limiter.waiting_room.sweep(now=True)
    heartbeat = Heartbeat(scene.limiter, 30)
    request = SimpleNamespace(id="task", name="work")
    scene.monkeypatch.setattr(heartbeat, "_active", lambda: {token: request})
    heartbeat.beat()


def rescued(scene):
    request = request_of("task:1234")
    request.app = scene.app
    scene.monkeypatch.setattr(rescue, "_rescue", lambda request, run: "it waits")
    rescuer = rescue._Rescuer()
    rescuer._runs.append((request, sent_along(request)))
    rescuer._round()


def message_lost(scene):
    request = request_of("task:1234")
    rescuer = rescue._Rescuer()
    rescuer._runs.append((request, sent_along(request)))
    rescuer.finish(0)


def revoked(scene):
    scene.floor.hold(**TAGS)
    scene.floor.wait("waits", **TAGS)
    scene.monkeypatch.setattr(worker_state, "revoked", {"waits"})
    scene.tick()


def limit_falls(scene):
    """One worker of two logs it."""
    # No configured maximum is below it.
    entry = {"min": 1, "max": 4}
    scene.limiter.config.update({"account_max": 0, "adaptive": {"account:*": entry}})
    token = scene.floor.hold(**TAGS)
    limits = ("global", "platform:douyin", "account:a")
    scene.limiter.refuse(token, limits, "account:a", 0, reason="429")
    scene.tick()
    scene.tick()


def limit_rises(scene):
    limit_falls(scene)
    scene.limiter.adaptive.reset("account:a", "ann")
    scene.tick()


def skipped(scene):
    scene.floor.hold(**TAGS)
    scene.run(**TAGS, concurrency_busy="skip")


def crowded(scene):
    scene.limiter.config.update({"waiting": {"account:*": {"most": 1}}})
    scene.floor.hold(**TAGS)
    scene.floor.wait("waits", **TAGS)
    scene.run(**TAGS)


def given_up(scene):
    scene.limiter.config.update({"waiting": {"account:*": {"seconds": 60}}})
    scene.floor.hold(**TAGS)
    scene.run(**TAGS, parked={"score": 1, "as": "", "limits": []})


def not_replaced(scene):
    say_not_replaced.cache_clear()
    say_not_replaced(scene.task_name)


def misnamed_header(scene):
    unknown_headers = UnknownHeaders()
    unknown_headers.note(scene.task_name, {"platfrom": "douyin"})
    unknown_headers.judge(scene.limiter.keyspace, ())


def limiter_comes_back(scene):
    ticker = Housekeeping(scene.limiter, Heartbeat(scene.limiter, 30))
    sweep = scene.limiter.waiting_room.sweep

    def fail():
        raise LimiterUnavailable("away")

    scene.monkeypatch.setattr(scene.limiter.waiting_room, "sweep", fail)
    ticker.tick()
    scene.monkeypatch.setattr(scene.limiter.waiting_room, "sweep", sweep)
    ticker.tick()


def broker_comes_back(scene):
    def send_all(app):
        raise OSError("away")

    sender = Sender(lambda: scene.app, lambda: scene.limiter.waiting_room)
    with scene.monkeypatch.context() as patch:
        patch.setattr(sender, "_send_all", send_all)
        sender._round()
    scene.monkeypatch.setattr(sender, "_send_all", lambda app: None)
    sender._round()


def configured(scene):
    scene.client.put(
        "/api/v1/concurrency/config", json={"global_max": 9}, headers={"X-Operator": "ann"}
    )


def invalid(scene):
    scene.redis.set("concurrency:config", "{not json")
    scene.limiter.config.sync()


def released_by_operator(scene):
    scene.client.delete(f"/api/v1/concurrency/tokens/{scene.floor.hold(**TAGS)}")


def cancelled_by_operator(scene):
    scene.floor.hold(**TAGS)
    scene.floor.wait("waits", **TAGS)
    scene.client.delete("/api/v1/concurrency/waiting/waits")


def limit_cancelled_by_operator(scene):
    scene.floor.hold(**TAGS)
    scene.floor.wait("waits", **TAGS)
    scene.client.delete("/api/v1/concurrency/waiting?limit=account:a")


def cooled_down_by_operator(scene):
    body = {"limit": "account:a", "seconds": 60, "reason": "429"}
    scene.client.post("/api/v1/concurrency/cooldowns", json=body)


def cool_down_lifted_by_operator(scene):
    cooled_down_by_operator(scene)
    scene.client.delete("/api/v1/concurrency/cooldowns?limit=account:a")


def adaptive_reset_by_operator(scene):
    limit_falls(scene)
    scene.client.delete("/api/v1/concurrency/adaptive?limit=account:a")


SCENES = {
    "granted": granted,
    "waits": waits,
    "runs": runs,
    "dropped": dropped,
    "parked": lambda scene: scene.park("parked"),
    "handed over": lambda scene: scene.park("handed over"),
    "skipped": skipped,
    "replaced": lambda scene: scene.park("replaced"),
    "not replaced": not_replaced,
    "refused as crowded": crowded,
    "crowded": lambda scene: scene.park("crowded"),
    "given up": given_up,
    "sent on": waits,
    "keeps its slot": keeps_its_slot,
    "refused": refused,
    "released": granted,
    "releases later": releases_later,
    "released for it": released_for_it,
    "lost": lost,
    "rescued": rescued,
    "message lost": message_lost,
    "revoked": revoked,
    "limit falls": limit_falls,
    "limit rises": limit_rises,
    "misnamed header": misnamed_header,
    "limiter away": limiter_comes_back,
    "limiter back": limiter_comes_back,
    "broker away": broker_comes_back,
    "broker back": broker_comes_back,
    "statistics full": lambda scene: scene.limiter.stats._tell(full=True),
    "configured": configured,
    "configuration invalid": invalid,
    "released by operator": released_by_operator,
    "cancelled by operator": cancelled_by_operator,
    "limit cancelled by operator": limit_cancelled_by_operator,
    "cooled down by operator": cooled_down_by_operator,
    "cool-down lifted by operator": cool_down_lifted_by_operator,
    "adaptive limit reset by operator": adaptive_reset_by_operator,
}


@pytest.fixture
def scene(redis_url, redis, limiter, client, monkeypatch, caplog):
    caplog.set_level("DEBUG", logger="celery_concurrency")
    scene = Scene(redis_url, monkeypatch, redis, client)
    yield scene
    scene.app.close()


def records(caplog, decision):
    return [
        record
        for record in caplog.records
        if getattr(record, "concurrency", {}).get("decision") == decision
    ]


@pytest.mark.parametrize("decision", SCENES)
def test_a_record_has_the_documented_fields(scene, caplog, decision):
    SCENES[decision](scene)
    name, level, fields = DOCUMENTED[decision]
    found = records(caplog, decision)[-1]
    assert (found.name, found.levelname) == (name, level)
    assert set(found.concurrency) == {"decision", *fields}
    json.dumps(found.concurrency)  # of nothing but what JSON has


@pytest.mark.parametrize("decision", SCENES)
def test_a_record_is_a_line_whatever_its_task_is_called(scene, caplog, decision, monkeypatch):
    evil = "x\nWARNING all is well\x1b[2J\u202e"
    numbers = itertools.count()
    monkeypatch.setattr(tracing, "uuid", lambda: f"{evil}{next(numbers)}")
    monkeypatch.setattr(scene, "task_name", evil)
    SCENES[decision](scene)
    ours = [record for record in caplog.records if record.name.startswith("celery_concurrency")]
    assert records(caplog, decision)
    for record in ours:
        assert record.getMessage().isprintable()
    # Its fields are for programs, and are as they are.
    named = [record.concurrency["task_name"] for record in ours if hasattr(record, "concurrency")
             and "tags" in record.concurrency]  # fmt: skip
    assert {*named} <= {evil}


@pytest.mark.parametrize(
    ("place", "level", "text"),
    [
        (
            "parked",
            "INFO",
            "parked and starts as soon as there is room, without a countdown: waits",
        ),
        ("handed over", "INFO", "handed over at once, without a countdown"),
        ("merged", "DEBUG", "merged"),
    ],
)
def test_beside_celerys_countdown_it_says_what_comes_of_it(scene, caplog, place, level, text):
    scene.park(place)
    [record] = records(caplog, place)
    assert (record.levelname, text in record.getMessage()) == (level, True)
    assert ("account:a (1 of 1)" in record.getMessage()) == (place == "parked")


def test_every_documented_record_is_tested_and_every_tested_one_documented():
    assert set(DOCUMENTED) == set(SCENES)


def test_all_loggers_are_those_of_a_floor():
    package = Path(gate.__file__).parent
    named = {
        name
        for file in package.rglob("*.py")
        for name in re.findall(r"getLogger\(([^)]*)\)", file.read_text("utf-8"))
    }
    assert named <= {"WORKER_LOG", "LIMITER_LOG", "API_LOG", '"celery_concurrency"'}


def test_what_was_waited_and_held(scene, caplog):
    scene.run(**TAGS)
    [first] = records(caplog, "granted")
    assert first.concurrency["waited"] == 0
    assert first.concurrency["limits"] == ["global", "platform:douyin", "account:a"]
    asked = (scene.redis.time()[0] - 500) * 1000
    place = {"score": 2**43 * 3 + asked, "as": "parked", "limits": ["global"]}
    scene.run(**TAGS, parked=place)
    second = records(caplog, "granted")[-1]
    assert 500 <= second.concurrency["waited"] < 560
    released = records(caplog, "released")[-1].concurrency
    assert 0 <= released["held"] < 60
    assert (released["waited"], released["limits"]) == (
        second.concurrency["waited"],
        second.concurrency["limits"],
    )
    assert released["expired"] is False
    assert Ticket(2**43 * 3 + 1500).asked == 1.5


def test_what_a_run_waits_for(scene, caplog):
    waits(scene)
    [record] = records(caplog, "waits")
    told = record.concurrency
    assert (told["limit"], told["current"], told["max"]) == ("account:a", 1, 1)
    assert told["tags"] == TAGS
    assert "account:a" in told["reason"]


def test_a_run_that_waits_as_others_came_before(scene, caplog):
    scene.floor.hold(**TAGS)
    scene.floor.wait("first", **TAGS)
    scene.floor.change({"account_max": 2})
    scene.run(**TAGS)
    told = records(caplog, "waits")[-1].concurrency
    assert (told["limit"], told["current"], told["max"]) == ("account:a", None, None)


def test_the_tags_of_ones_own_dimensions(scene, caplog):
    scene.limiter.config.update({"dimensions": {"tenant": {"max": 1}}})
    scene.run(tenant="acme", other="no dimension")
    scene.floor.hold(tenant="acme")
    scene.run(tenant="acme", type="publish")
    assert records(caplog, "granted")[-1].concurrency["tags"] == {"tenant": "acme"}
    [waits] = records(caplog, "waits")
    assert waits.concurrency["tags"] == {"type": "publish", "tenant": "acme"}
    assert "(type=publish tenant=acme)" in waits.getMessage()


def test_how_an_adaptive_limit_moved_is_told_once_by_all_workers(scene, caplog):
    limit_rises(scene)
    [falls], [rises] = records(caplog, "limit falls"), records(caplog, "limit rises")
    assert falls.getMessage() == "limit account:a falls from 4 to 2: refused: 429"
    assert rises.getMessage() == "limit account:a rises from 2 to 4: reset by ann"
    fields = {name: falls.concurrency[name] for name in ("limit", "before", "after", "reason")}
    assert fields == {"limit": "account:a", "before": 4, "after": 2, "reason": "refused: 429"}
    at = scene.limiter.adaptive.moves("account:a")[0].at
    assert falls.concurrency["at"] == pytest.approx(at, abs=0.1)


def test_a_move_that_nobody_was_there_to_log_says_when_it_was(scene, caplog, monkeypatch):
    monkeypatch.setattr("celery_concurrency.worker.housekeeping.LATE", -60)
    limit_falls(scene)
    [falls] = records(caplog, "limit falls")
    when = time.ctime(falls.concurrency["at"])
    assert falls.getMessage() == f"limit account:a falls from 4 to 2 at {when}: refused: 429"


def test_who_changed_the_configuration(scene, caplog):
    configured(scene)
    told = records(caplog, "configured")[-1].concurrency
    assert (told["source"], told["operator"]) == ("api", "ann")
    assert told["version"] == scene.limiter.config.sync().version


def test_the_json_formatter_of_the_documentation(scene, caplog):
    code = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[-1]
    names = {}
    exec(code.replace("@after_setup_logger.connect\n", ""), names)
    logger = logging.Logger("made up")
    logger.addHandler(logging.NullHandler())
    names["log_json"](logger)
    [handler] = logger.handlers
    granted(scene)
    line = json.loads(handler.formatter.format(records(caplog, "released")[-1]))
    assert line["logger"] == "celery_concurrency.worker"
    assert line["decision"] == "released"
    assert line["tags"] == TAGS
    assert "released" in line["message"]


def test_what_a_refusal_asked_for(scene, caplog):
    refused(scene)
    [record] = records(caplog, "refused")
    told = record.concurrency
    now = scene.redis.time()[0]
    assert (told["limit"], told["seconds"], told["reason"]) == ("account:a", 60, "Refused: 429")
    assert told["until"] == pytest.approx(now + 60, abs=30)
    assert "refused for account:a: Refused: 429" in record.getMessage()


@pytest.mark.parametrize("away", [False, True])
def test_what_a_run_tells_itself_is_logged_once_with_the_same_fields(scene, caplog, away):
    def tells():
        if away:
            scene.away("refusing")
        for _ in range(2):
            current_lease().refused("account", 60, reason="429")

    scene.run(body=tells, **TAGS)
    [record] = records(caplog, "refused")
    told = record.concurrency
    assert (record.name, record.levelname) == ("celery_concurrency.limiter", "WARNING")
    assert set(told) == {"decision", *DOCUMENTED["refused"][2]}
    assert told["token"] == records(caplog, "granted")[-1].concurrency["token"]
    assert told["task_id"] == records(caplog, "granted")[-1].concurrency["task_id"]
    assert (told["tags"], told["limit"], told["seconds"]) == (TAGS, "account:a", 60)
    assert (told["until"] is None) == away
    assert "refused for account:a: 429" in record.getMessage()
    assert ("later" in record.getMessage()) == away


def test_a_refusal_that_redis_is_told_later(scene, caplog):
    scene.away("refuse")
    refused(scene)
    [record] = records(caplog, "refused")
    assert record.concurrency["until"] is None
    assert "later: away" in record.getMessage()
