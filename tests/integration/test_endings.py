"""However a run ends, its tokens come back; and what waiting looks like by default."""

from __future__ import annotations

import time

import pytest

from tests.support.sites import RAN, site
from tests.support.workers import wait_for


@pytest.fixture(scope="module")
def endings(server, tmp_path_factory):
    with site(server, tmp_path_factory.mktemp("endings"), "endings", COUNTDOWN="0.2") as one:
        one.start(concurrency=4)
        yield one


@pytest.mark.parametrize("late", ["", ".late"], ids=["early", "late"])
def test_tokens_come_back_however_a_body_ends(endings, late):
    """All of them at once; each has had a token for each of its runs."""
    before = endings.limiter.stats.window("total")
    kinds = {function.__name__ + late: end for function, end in endings.tasks.ENDINGS.items()}
    results = {name: endings.tasks.app.send_task(name, headers={"account": name}) for name in kinds}
    runs = sum(runs for _, runs, _ in kinds.values())

    def released():
        return endings.limiter.stats.window("total")["released:total"] - before["released:total"]

    wait_for(lambda: released() >= runs, what=f"{runs} runs")
    endings.wait_until_free()
    assert released() == runs
    states = {name: state for name, (state, _, _) in kinds.items()}
    # That of a task that rejected its message is written by the main process.
    wait_for(lambda: {name: result.state for name, result in results.items()} == states)


def test_a_waiting_task_that_is_revoked_never_runs(endings):
    """It ends REVOKED when its time comes, and has held nothing."""
    endings.redis.delete(RAN)
    with endings.held(account="revoked"):
        result = endings.tasks.slow.apply_async(headers={"account": "revoked"})
        endings.wait_until_waiting(result)
        result.revoke()
        wait_for(lambda: result.state == "REVOKED", timeout=30)
    endings.wait_until_free()
    assert endings.ran() == []


def test_a_warm_shutdown_ends_what_runs_and_gives_its_token_back(server, tmp_path):
    """What waits meanwhile is found by the next worker."""
    with site(server, tmp_path, "endings", db=1, COUNTDOWN="0.2") as other:
        first = other.start(concurrency=2)
        go_on = tmp_path / "go on"
        running = other.tasks.slow.apply_async((str(go_on),), headers={"account": "a"})
        wait_for(other.ran)
        waiting = other.tasks.slow.apply_async(headers={"account": "a"})
        other.wait_until_waiting(waiting)
        first.ask_to_end()
        wait_for(lambda: "Warm shutdown" in first.output())
        go_on.touch()
        assert first.wait_until_ended() == 0
        assert running.state == "SUCCESS"
        assert running.id not in str(other.semaphores())
        if waiting.state != "SUCCESS":  # its turn may have come while the worker stopped
            other.start(concurrency=1)
        assert waiting.get(timeout=30) == "done"
        other.wait_until_free()
        assert other.ran() == ["slow begins", "slow ends"] * 2


def test_by_default_a_denied_task_is_to_run_half_a_minute_later(server, tmp_path, monkeypatch):
    monkeypatch.delenv("COUNTDOWN", raising=False)  # where another site has set it
    with site(server, tmp_path, "endings", db=2) as default:
        default.start(concurrency=1)
        with default.held(account="a"):
            result = default.tasks.slow.apply_async(headers={"account": "a"})
            wait_for(lambda: f"[{result.id}] retry: Retry in 30" in default.output())


def test_a_denied_task_runs_when_its_countdown_is_over(server, tmp_path):
    """It is in state RETRY meanwhile and keeps its retries; expired or revoked ones don't run."""
    with site(server, tmp_path, "endings", db=2, COUNTDOWN="12") as late:
        late.start(concurrency=2)
        flaky = late.tasks.flaky
        with late.held(account="a"):
            sent = time.time()
            result = flaky.apply_async(headers={"account": "a"})
            expired = flaky.apply_async(headers={"account": "a"}, expires=8)
            revoked = flaky.apply_async(headers={"account": "a"})
            late.wait_until_waiting(result, expired, revoked)
            revoked.revoke()
            assert result.state == "RETRY"
            assert str(result.info) == "waits for account:a (1 of 1)"
        with pytest.raises(ValueError, match="no luck"):
            result.get(timeout=60)
        runs = [note.split() for note in late.ran()]
        assert [number for number, _ in runs] == ["0", "1", "2"]
        assert 12 <= float(runs[0][1]) - sent < 30
        wait_for(lambda: expired.state == revoked.state == "REVOKED")
        late.wait_until_free()
