"""The limiter's own user may have fewer rights than the broker's: nothing is lost by that."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.support.workers import wait_for

#: Enough for the limiter, as docs/howto/servers.md says.
RIGHTS = ("~concurrency*", "&*", "+@all", "-@dangerous", "+info")


@pytest.fixture
def as_user(redis_url, server):
    """Makes a user with these rights; returns the URL with its name."""
    with Redis.from_url(redis_url) as admin:

        def make(*rights):
            admin.execute_command("ACL", "SETUSER", "few", "reset", "on", ">secret", *rights)
            return f"redis://few:secret@127.0.0.1:{server.port}/0"

        yield make
        admin.acl_deluser("few")


@pytest.mark.parametrize("waiting", ["auto", "handoff"])
def test_who_may_not_write_the_queues_lets_the_broker_do_that(
    as_user, project, worker, limiter, waiting
):
    """A script that may not put a message back would lose it after it has taken it out."""
    tasks = project("plain", WAITING=waiting, COUNTDOWN="600", REDIS_URL=as_user(*RIGHTS))
    with limiter.acquire(account="a"):
        one = worker("plain", concurrency=2)
        results = [tasks.publish.apply_async((0.05,), headers={"account": "a"}) for _ in range(4)]
        wait_for(lambda: all(result.state == "RETRY" for result in results), what="they wait")
    assert [result.get(timeout=60) for result in results] == [result.id for result in results]
    wait_for(lambda: "may not write" in one.output())


def test_who_may_do_nothing_is_told_what_it_needs(as_user, project, worker, limiter):
    project("plain", REDIS_URL=as_user("~others:*", "&*", "+@all"))
    one = worker("plain")
    wait_for(lambda: "ACL SETUSER" in one.output(), what="the remedy is in the log")
