"""Promises 1 to 3, 15 and 16 on a bad line: replies lost, delays, partitions; nothing doubled.

Threads do what workers do, each through a limiter of one of three processes.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from itertools import islice

import pytest
from redis import Redis

from celery_concurrency.errors import LimiterUnavailable, RunEnded
from celery_concurrency.limiter import Limiter
from celery_concurrency.limiter.connection import connect
from celery_concurrency.limiter.outcomes import Denied, Granted, Ticket
from celery_concurrency.scripts.constants import PARKED
from tests.support.proxies import Proxy
from tests.support.recording import RunRecord, by, highest_overlap
from tests.support.starts import exceeded
from tests.support.waiting import QUEUE, waiter_of
from tests.support.workers import wait_for

ACCOUNTS = 3
TASKS = 200
GLOBAL_MAX = 2
LIMITERS = 3
THREADS = 2
#: Of each account; the other rate is never full, and has all starts.
RATE = (12, 1)
RATES = {
    "account:*": [{"max": RATE[0], "per": RATE[1]}],
    "global": [{"max": 10_000, "per": 3600}],
}


class Line:
    """Messages in a queue that loses none, and what their runs recorded."""

    def __init__(self, redis):
        self.redis = redis
        self.records = []
        self.granted = []
        self.done = threading.Event()

    def send(self, number):
        message = {"headers": {"task": f"t{number}", "account": f"a{number % ACCOUNTS}"}}
        self.redis.lpush(QUEUE, json.dumps(message))

    def work(self, limiter, chance):
        """Be a worker's slot until all is done."""
        while not self.done.is_set():
            text = self.redis.rpop(QUEUE)
            if text is None:
                time.sleep(0.01)
                continue
            try:
                self.run(limiter, chance, text)
            except (LimiterUnavailable, RunEnded):
                # As by countdown: it comes again, as another run.
                self.redis.lpush(QUEUE, text)

    def run(self, limiter, chance, text):
        headers = json.loads(text)["headers"]
        token = f"{headers['task']}:{chance.getrandbits(64):x}"
        parked = headers.pop(PARKED, None)
        place = Ticket(parked["score"], parked["as"]) if parked else None
        tags = {"account": headers["account"]}
        answer = limiter.try_acquire(token, tags, lease=60, ticket=place)
        if isinstance(answer, Granted):
            start = time.monotonic()
            time.sleep(chance.uniform(0, 0.02))
            with suppress(LimiterUnavailable):
                limiter.leases.beat({token}, 60)
            self.granted.append((answer, headers["account"]))
            self.records.append(RunRecord(headers["task"], headers, 0, start, time.monotonic()))
            with suppress(LimiterUnavailable):
                limiter.release(token, done=True)
        elif isinstance(answer, Denied):
            self.park(limiter, answer, headers)
        elif answer.token:
            self.redis.lpush(QUEUE, text)

    def park(self, limiter, denied, headers):
        """Find the message its place, however long that takes."""
        message = json.dumps({"headers": headers}).encode()
        waiter = waiter_of(denied, headers["task"], message, hold=5)
        while not self.done.is_set():
            with suppress(LimiterUnavailable):
                limiter.waiting_room.park(waiter)
                return


@pytest.mark.parametrize("seed", [1, 2])
def test_on_a_bad_line_no_token_is_counted_twice_and_none_is_lost(server, limiter, redis, seed):
    """Nor is a start charged twice, or to a run that did not begin."""
    chance = random.Random(seed)
    limiter.config.update({"global_max": GLOBAL_MAX, "rates": RATES})
    proxies = [Proxy(server.port, chance.getrandbits(32)) for _ in range(LIMITERS)]
    clients = [connect(f"redis://127.0.0.1:{proxy.port}/0") for proxy in proxies]
    line = Line(redis)
    threads = []
    for proxy, client in zip(proxies, clients, strict=True):
        proxy.reply_loss, proxy.delay = 0.04, 0.005
        client.connection_pool.connection_kwargs["socket_timeout"] = 2
        one = Limiter(client)
        for _ in range(THREADS):
            arguments = (one, random.Random(chance.getrandbits(32)))
            threads.append(threading.Thread(target=line.work, args=arguments, daemon=True))
    for thread in threads:
        thread.start()
    try:
        numbers = iter(range(TASKS))
        # Each line falls silent for longer than a client waits, so that its calls come late.
        for proxy in chance.sample(proxies, k=LIMITERS):
            proxy.part()
            parted = time.monotonic()
            while time.monotonic() < parted + 2.5:
                for number in islice(numbers, 6):
                    line.send(number)
                limiter.waiting_room.sweep(now=True)
                time.sleep(0.2)
            proxy.join()
        for number in numbers:
            line.send(number)

        def all_ran():
            limiter.waiting_room.sweep(now=True)
            return {record.task_id for record in line.records} == {f"t{n}" for n in range(TASKS)}

        wait_for(all_ran, timeout=90)
        wait_for(lambda: not left(redis, limiter), what="all tokens back")
        begun = {granted.token for granted, _ in line.granted}
        starts = "concurrency:rate:global"
        wait_for(lambda: set(redis.zrange(starts, 0, -1)) == begun, what="no start too many")
    finally:
        line.done.set()
        for proxy in proxies:
            proxy.join()
        for thread in threads:
            thread.join(60)
        for each in (*proxies, *clients):
            each.close()
    assert all(proxy.lost for proxy in proxies)
    runs = Counter(record.task_id for record in line.records)
    assert set(runs.values()) == {1}, "a task ran twice"
    assert highest_overlap(line.records) <= GLOBAL_MAX
    accounts = by(line.records, lambda run: run.headers["account"])
    assert {name: highest_overlap(runs) for name, runs in accounts.items()} == {
        f"a{number}": 1 for number in range(ACCOUNTS)
    }
    for account in accounts:
        moments = [granted.fence for granted, whose in line.granted if whose == account]
        assert exceeded(moments, RATE) == []


def left(redis: Redis, limiter: Limiter) -> list[str]:
    """Return what is left of tokens and of those who wait."""
    limiter.waiting_room.sweep(now=True)
    return [
        *redis.keys("concurrency:semaphore:*"),
        *redis.keys("concurrency:group:*"),
        *redis.zrange("concurrency:leases", 0, -1),
    ]
