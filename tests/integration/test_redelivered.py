"""A message that the broker delivered again is known as that after it has waited, too."""

from __future__ import annotations

import json

import pytest

from tests.support.sites import site
from tests.support.workers import wait_for


@pytest.mark.parametrize("waiting", ["handoff", "retry"])
def test_what_has_succeeded_meanwhile_does_not_run_again(server, tmp_path, waiting):
    """``worker_deduplicate_successful_tasks`` goes by what the broker says of the delivery."""
    with site(server, tmp_path, "door", db=8, WAITING=waiting, COUNTDOWN="8") as one:
        with one.held(account="a"):
            again = one.tasks.late.apply_async(headers={"account": "a"})
            other = one.tasks.late.apply_async(headers={"account": "b"})
            deliver_again(one.redis)
            one.start(concurrency=2)
            one.wait_until_waiting(again)
            other.get(timeout=30)
            # Its first delivery, whose worker was only slow, has come to its end.
            one.tasks.app.backend.store_result(again.id, None, "SUCCESS")
        # It comes once more, now that there is room; unacked until it has ended.
        wait_for(lambda: one.output().count(f"[{again.id}] received") >= 2)
        wait_for(lambda: not one.redis.hlen("unacked"))
        assert [line for line in one.ran() if not line.startswith("retry ")] == [other.id]


def deliver_again(redis):
    """Let the broker say of what lies in the queue that it was delivered before."""
    for number, text in enumerate(redis.lrange("celery", 0, -1)):
        message = json.loads(text)
        message["properties"]["delivery_info"]["redelivered"] = True
        redis.lset("celery", number, json.dumps(message))
