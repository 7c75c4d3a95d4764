"""A master with its replica, and three sentinels that watch over them, each a process."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

from redis import Redis

from celery_concurrency.testing.lifeline import Child
from celery_concurrency.testing.server import Server
from tests.support.ports import free_port
from tests.support.workers import wait_for

NAME = "mymaster"
#: Seconds of silence after which a sentinel takes a server for dead: at first, so that on a busy
#: machine none takes over for no reason, and once one may.
PATIENT, DOWN_AFTER = 3600, 1


class Sentinel(Server):
    """A sentinel: the same program, told so by an option and by a file that it rewrites."""

    def __init__(self, directory: Path, master: int) -> None:
        port = free_port()
        self._conf = directory / f"sentinel{port}.conf"
        self._conf.write_text(
            "bind 127.0.0.1\n"
            f"dir {directory}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {master} 2\n"
            f"sentinel down-after-milliseconds {NAME} {PATIENT * 1000}\n"
            f"sentinel failover-timeout {NAME} 4000\n"
        )
        super().__init__(port=port)

    def _launch(self) -> Child:
        command = [self._program, str(self._conf), "--sentinel", "--port", str(self.port)]
        return Child(command, self._dir / "log", signal.SIGTERM)


class Trio:
    """Three sentinels, a master and its replica; a context manager that ends them all.

    Attributes:
        url: for a limiter.
        master, replica: as they began.
    """

    def __init__(self, directory: Path) -> None:
        self._stack = ExitStack()
        try:
            self.master = self._stack.enter_context(Server("--repl-diskless-sync-delay", "0"))
            follow = ("--replicaof", "127.0.0.1", str(self.master.port))
            self.replica = self._stack.enter_context(Server(*follow))
            self.sentinels = [
                self._stack.enter_context(Sentinel(directory, self.master.port)) for _ in range(3)
            ]
            addresses = ";".join(f"sentinel://127.0.0.1:{one.port}" for one in self.sentinels)
            self.url = f"{addresses}?master_name={NAME}"
            for one in self.sentinels:
                wait_for(lambda one=one: self._knows_all(one), what="sentinels know each other")
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Trio:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _knows_all(self, sentinel: Server) -> bool:
        with Redis(port=sentinel.port) as client:
            seen = client.sentinel_master(NAME)
        return seen["num-slaves"] == 1 and seen["num-other-sentinels"] == 2

    def let_fail_over(self) -> None:
        """Let the replica take over from now on, once it has all that the master has acknowledged.

        Whoever calls this ends the master.
        """
        with Redis(port=self.master.port) as client:
            client.set("written", 1)
            assert client.wait(1, 60_000) == 1
        for one in self.sentinels:
            with Redis(port=one.port) as client:
                client.sentinel_set(NAME, "down-after-milliseconds", DOWN_AFTER * 1000)
