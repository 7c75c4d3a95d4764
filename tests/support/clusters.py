"""A Redis Cluster on loopback: three masters, each with a replica, each a process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from celery_concurrency.testing.server import Server
from tests.support.certificates import Certificates, server_with_tls
from tests.support.ports import free_port
from tests.support.workers import wait_for

MASTERS = 3
SLOTS = 16_384
#: Seconds of silence after which the others take a node for dead.
DOWN_AFTER = 2
#: The name that nodes with TLS announce.
NAME = "localhost"
#: Where nodes with TLS are asked by the tests, in their own directory.
SOCKET = "socket"
#: Seconds after which a replica is told again to take over. One that was elected some seconds ago
#: takes that election for the new one, and is a replica again at once (seen with Redis 7.0).
ASK_AGAIN = 1.0
#: Keys that one step of a migration moves.
STEP = 100


class Node(Server):
    """A server in cluster mode.

    By itself no replica takes over, as on a busy machine it might for no reason: then writes
    that were acknowledged are lost. ``Cluster.kill`` lets one.

    Args:
        tls: its certificates. Then it speaks nothing but TLS, to other nodes as well, and announces
            a name, since its certificate has no address.

    Attributes:
        bus: the port on which the nodes talk to each other.
    """

    def __init__(self, tls: Certificates | None = None) -> None:
        self.bus, port = free_port(), free_port()
        self._tls = tls
        super().__init__(
            *("--cluster-enabled", "yes", "--cluster-port", str(self.bus)),
            *("--cluster-node-timeout", str(1000 * DOWN_AFTER)),
            *("--cluster-require-full-coverage", "no", "--cluster-replica-no-failover", "yes"),
            *("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"),
            # Redis names a replica in CLUSTER SLOTS once it has had something, if only a ping.
            *("--repl-ping-replica-period", "1"),
            *(self._only_tls(port, tls) if tls else ()),
            port=port,
            program=server_with_tls() if tls else None,
        )

    def _only_tls(self, port: int, tls: Certificates) -> tuple[str, ...]:
        return (
            *("--port", "0", "--tls-port", str(port), "--tls-cluster", "yes"),
            *("--tls-replication", "yes", "--tls-auth-clients", "no"),
            *("--tls-ca-cert-file", str(tls.ca), "--tls-cert-file", str(tls.cert)),
            *("--tls-key-file", str(tls.key), "--cluster-announce-hostname", NAME),
            *("--cluster-preferred-endpoint-type", "hostname", "--unixsocket", SOCKET),
        )

    def client(self, **options: Any) -> Redis:
        """Return a plain client of it; ``options`` are redis-py's own."""
        if not self._tls:
            return super().client(**options)
        # Each connection by TLS takes tens of milliseconds, and tests look often.
        return Redis(unix_socket_path=str(self._dir / SOCKET), **options)

    def ask(self, *command: Any) -> Any:
        """Return a node's answer to a command."""
        # By default a dead node is asked for four seconds.
        once = Retry(NoBackoff(), 0)
        with self.client(socket_timeout=20, retry=once) as client:
            return client.execute_command(*command)

    @property
    def name(self) -> str:
        """The id by which the nodes know it."""
        return str(self.ask("CLUSTER", "MYID").decode())

    def is_master(self) -> bool:
        """Return whether it is one by its own account."""
        return bool(self.ask("ROLE")[0] == b"master")

    def redirected(self) -> int:
        """Return how many calls it has refused because the slot is on its way to another."""
        with self.client() as client:
            stats: Any = client.info("errorstats")
        return sum(stats.get(f"errorstat_{one}", {}).get("count", 0) for one in ("ASK", "TRYAGAIN"))


class Cluster:
    """The nodes of a cluster; a context manager that ends them all.

    Args:
        tls: the certificates of all nodes, for ``localhost``. The test is skipped where no server
            can do TLS.

    Attributes:
        nodes: the masters as they began, then a replica of each, in their order.
        url: for a limiter: the first two masters.
    """

    def __init__(self, tls: Certificates | None = None) -> None:
        self._stack = ExitStack()
        try:
            self.nodes = [self._stack.enter_context(Node(tls)) for _ in range(2 * MASTERS)]
            ports = [one.port for one in self.nodes]
            if tls:
                options = f"ssl_cert_reqs=required&ssl_ca_certs={tls.ca}"
                self.url = f"rediss+cluster://{NAME}:{ports[0]},{NAME}:{ports[1]}?{options}"
            else:
                self.url = f"redis+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
            self._join()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _join(self) -> None:
        masters, replicas = self.nodes[:MASTERS], self.nodes[MASTERS:]
        for number, master in enumerate(masters):
            first, after = (SLOTS * one // MASTERS for one in (number, number + 1))
            master.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            master.ask("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
        for one in self.nodes[1:]:
            masters[0].ask("CLUSTER", "MEET", "127.0.0.1", one.port, one.bus)
        for master, replica in zip(masters, replicas, strict=True):
            name = master.name
            wait_for(lambda one=replica: self._knows_all(one), what="the nodes know each other")
            replica.ask("CLUSTER", "REPLICATE", name)
        for one in self.nodes:
            wait_for(lambda one=one: self._is_whole(one), what="the cluster is whole")

    def _knows_all(self, node: Node) -> bool:
        with node.client() as client:
            known: Any = client.cluster("NODES")
        return len(known) == len(self.nodes)

    def _is_whole(self, node: Node) -> bool:
        """Return whether a node sees three masters with a replica each; as a replica, its own."""
        ranges = node.ask("CLUSTER", "SLOTS")
        masters = {master[2] for _, _, master, *replicas in ranges if len(replicas) == 1}
        role = node.ask("ROLE")
        return len(masters) == MASTERS and (role[0] == b"master" or role[3] == b"connected")

    def master_of(self, key: str) -> Node:
        """Return the node that serves a key, by its own account."""

        def found() -> Node | None:
            return next((one for one in self.nodes if self._serves(one, key)), None)

        node: Node = wait_for(found, what=f"a node serves {key}")
        return node

    def _serves(self, node: Node, key: str) -> bool:
        try:
            return node.is_master() and node.ask("EXISTS", key) is not None
        except RedisError:
            return False  # it is dead, or another one does

    def others(self, node: Node) -> list[Node]:
        """Return the masters beside this one."""
        return [one for one in self.nodes if one is not node and one.is_master()]

    def replica_of(self, master: Node) -> Node:
        """Return the replica of a master, once it has all that the master has acknowledged."""

        def found() -> Node | None:
            for one in self.nodes:
                role = one.ask("ROLE")
                if role[0] == b"slave" and role[2] == master.port and role[3] == b"connected":
                    return one
            return None

        replica: Node = wait_for(found, what="a replica")
        offset = master.ask("ROLE")[1]
        wait_for(lambda: replica.ask("ROLE")[4] >= offset, what="the replica has all")
        return replica

    def fail_over(self, key: str) -> None:
        """Let the replica of a key's master take its place, in good order."""
        master = self.master_of(key)
        replica = self.replica_of(master)
        asked = 0.0

        def took_over() -> bool:
            nonlocal asked
            # For a moment both say that they are the master.
            if self._serves(replica, key) and not master.is_master():
                return True
            if time.monotonic() > asked + ASK_AGAIN and not replica.is_master():
                replica.ask("CLUSTER", "FAILOVER")
                asked = time.monotonic()
            return False

        wait_for(took_over, what="the replica took over")

    def kill(self, key: str) -> None:
        """Kill the master of a key, once its replica, which will take over, has all."""
        master = self.master_of(key)
        self.replica_of(master).ask("CONFIG", "SET", "cluster-replica-no-failover", "no")
        master.kill()

    def empty(self) -> None:
        """Delete everything, after whoever was killed is back."""
        for one in self.nodes:
            one.start()
        for one in self.nodes:
            wait_for(lambda one=one: self._is_whole(one), what="the cluster is whole again")
            one.ask("CONFIG", "SET", "cluster-replica-no-failover", "yes")
        for one in self.nodes:
            if one.is_master():
                one.ask("FLUSHALL")

    @contextmanager
    def migrating(self, key: str, target: Node) -> Iterator[list[bytes]]:
        """Move a key's slot to another master: its keys one by one, in the end the slot.

        Yields:
            after half of the keys, all of them.
        """
        slot, source = key_slot(key.encode()), self.master_of(key)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.name)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.name)
        keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100_000)
        self._move(source, target, keys[: len(keys) // 2])
        yield keys
        while left := source.ask("CLUSTER", "GETKEYSINSLOT", slot, STEP):
            self._move(source, target, left)
        for one in (target, source, *self.others(source)):
            one.ask("CLUSTER", "SETSLOT", slot, "NODE", target.name)

    def migrate_at_once(self, key: str, target: Node) -> bool:
        """Begin to move a key's slot as a whole; return False if the server can't."""
        slot = key_slot(key.encode())
        ask = ("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.name)
        try:
            self.master_of(key).ask(*ask)
        except ResponseError as exc:
            if "unknown subcommand" not in str(exc).lower():
                raise
            return False
        return True

    def _move(self, source: Node, target: Node, keys: list[bytes]) -> None:
        for first in range(0, len(keys), STEP):
            some = keys[first : first + STEP]
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *some)
