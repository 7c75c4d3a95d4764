"""Real workers: what the seed promises, as the tasks themselves recorded it."""

from __future__ import annotations

from tests.support.recording import by, highest_overlap, read_records


def test_two_of_one_account_never_run_at_once_and_both_accounts_are_busy(
    project, worker, redis_url
):
    """Promise 1, the seed's heart: twenty 0.1 s tasks over two accounts on four processes."""
    tasks = project("plain")
    worker("plain", concurrency=4)
    results = [
        tasks.publish.apply_async((0.1,), headers={"account": f"acc{number % 2}"})
        for number in range(20)
    ]
    assert [result.get(timeout=60) for result in results] == [result.id for result in results]

    records = read_records(redis_url)
    assert len(records) == 20
    accounts = by(records, lambda record: record.headers["account"])
    assert {name: highest_overlap(runs) for name, runs in accounts.items()} == {
        "acc0": 1,
        "acc1": 1,
    }
    assert highest_overlap(records) == 2
