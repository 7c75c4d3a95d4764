"""Each private part of kombu that we use is there, and does what we use it for."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace

import kombu
import pytest
from celery import Celery
from kombu import Exchange, Queue

from celery_concurrency.worker import kombu_redis
from tests.worker.test_outbox import KEPT

CHECKS = {}


def uses(*parts):
    """Register a check of the function of its name, under the private parts that it uses."""

    def register(check):
        CHECKS[f"{check.__name__}: {', '.join(parts)}"] = check
        return check

    return register


@pytest.fixture
def app(redis_url):
    app = Celery("compat", broker=redis_url, set_as_current=False)
    direct = Exchange("direct")
    app.conf.task_queues = (
        Queue("celery"),
        Queue("one", direct, "one"),
        Queue("two", direct, "both"),
        Queue("three", direct, "both"),
        Queue("goes", expires=5),
    )
    app.conf.broker_transport_options = {"global_keyprefix": "mine:"}
    yield app
    app.close()


@pytest.fixture
def channel(app):
    with app.connection_for_write() as connection:
        for queue in app.conf.task_queues:
            queue(connection.default_channel).declare()
        yield connection.default_channel


@uses("Channel.conn_or_acquire")
def server_id(app, channel, redis):
    assert kombu_redis.server_id(app) == redis.info("server")["run_id"]
    other = Celery("other", broker="memory://", set_as_current=False)
    assert kombu_redis.server_id(other) is None
    other.close()


@uses("Channel._lookup")
def queue_of(app, channel, redis):
    assert kombu_redis.queue_of(channel, "", "celery") == "celery"
    assert kombu_redis.queue_of(channel, "", "") is None
    assert kombu_redis.queue_of(channel, "direct", "one") == "one"
    assert kombu_redis.queue_of(channel, "direct", "both") is None


@uses("Channel._inplace_augment_message")
def envelope(app, channel, redis):
    """A worker's consumer takes it out as it takes others; each has a tag of its own."""
    texts = [kombu_redis.envelope(channel, KEPT) for _ in range(2)]
    assert texts[0].startswith(b'{"headers": {')
    tags = {json.loads(text)["properties"]["delivery_tag"] for text in texts}
    assert len(tags) == 2
    redis.lpush(kombu_redis.queue_key(channel, "celery"), texts[0])
    got = Queue("celery")(channel).get()
    assert (got.headers, got.body, got.content_type) == (
        KEPT.headers,
        KEPT.body,
        KEPT.content_type,
    )


@uses("Channel._q_for_pri", "Channel.global_keyprefix")
def queue_key(app, channel, redis):
    channel.connection.client.Producer().publish({}, routing_key="celery", exchange="")
    assert kombu_redis.queue_key(channel, "celery") == "mine:celery"
    assert redis.llen("mine:celery") == 1


@uses("Channel._expires", "Channel.prepare_queue_arguments")
def queue_expires(app, channel, redis):
    """Before kombu 5.7 no queue expires."""
    assert kombu_redis.queue_expires(app, channel, "celery") is None
    goes = kombu_redis.queue_expires(app, channel, "goes")
    assert goes == (5000 if kombu.VERSION >= (5, 7) else None)


@uses("Channel._connparams")
def database(app, channel, redis):
    assert kombu_redis.database(channel) == 0
    with app.connection_for_write(url=app.conf.broker_url.replace("/0", "/3")) as other:
        assert kombu_redis.database(other.default_channel) == 3


@uses("Channel.unacked_key", "Channel.unacked_index_key")
def unacked(app, channel, redis):
    channel.connection.client.Producer().publish({}, routing_key="celery", exchange="")
    message = Queue("celery")(channel).get()
    kept = kombu_redis.unacked(message)
    assert redis.hexists(kept["key"], kept["tag"])
    assert redis.zscore(kept["index"], kept["tag"])
    assert kept["db"] == 0


@uses("Channel.active_queues", "Channel._get_message_priority", "Channel._q_for_pri")
def queue_before(app, channel, redis):
    """It is the list that had the message, by its priority too; for others it is unknown."""
    channel.basic_consume("celery", False, None, "tag")
    producer = channel.connection.client.Producer()
    for priority in (None, 4, 9):
        producer.publish({}, routing_key="celery", exchange="", priority=priority)
        [key] = [key for key in redis.keys("mine:celery*") if redis.type(key) == "list"]
        message = Queue("celery")(channel).get()
        assert kombu_redis.queue_before(message) == {"key": key, "db": 0}
    channel.basic_cancel("tag")
    assert kombu_redis.queue_before(message) is None, "it is not read any more"
    producer.publish({}, routing_key="one", exchange="direct")
    assert kombu_redis.queue_before(Queue("one")(channel).get()) is None


@uses("Channel.Message")
def message_of(app, channel, redis):
    text = kombu_redis.envelope(channel, KEPT)
    before = SimpleNamespace(channel=channel, accept={"application/json"})
    message = kombu_redis.message_of(before, text)
    assert (message.headers, message.body) == (KEPT.headers, KEPT.body)
    assert message.accept == before.accept
    assert message.delivery_tag
    assert not redis.exists("mine:unacked")


@uses("Message._state")
def leave_unacked(app, channel, redis):
    before = SimpleNamespace(channel=channel, accept=None)
    message = kombu_redis.message_of(before, kombu_redis.envelope(channel, KEPT))
    request = SimpleNamespace(message=message, acknowledged=False)
    kombu_redis.leave_unacked(request)
    assert message.acknowledged
    assert request.acknowledged


@uses("virtual.QoS.ack", "Message._state")
def note_acked(app, channel, redis):
    """It counts as acknowledged, and nothing is sent."""
    channel.connection.client.Producer().publish({}, routing_key="celery", exchange="")
    message = Queue("celery")(channel).get()
    kombu_redis.note_acked(message)
    assert message.acknowledged
    assert redis.hexists("mine:unacked", message.delivery_tag)
    channel.qos.restore_unacked_once()
    assert redis.llen("mine:celery") == 0, "it is not put back"


@uses("all of them")
def queued(app, channel, redis):
    found = kombu_redis.queued(app, KEPT)
    assert found.pop("message").startswith(b'{"headers": {')
    assert found == {"queue": "mine:outbox", "queue_expires": None, "db": 0}


@pytest.mark.parametrize("part", CHECKS)
def test_the_part_is_there(part, app, channel, redis):
    CHECKS[part](app, channel, redis)


def test_each_function_has_its_check():
    own = {
        name
        for name, what in vars(kombu_redis).items()
        if inspect.isfunction(what) and what.__module__ == kombu_redis.__name__
    }
    assert {check.__name__ for check in CHECKS.values()} == own
