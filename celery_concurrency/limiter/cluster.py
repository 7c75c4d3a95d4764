"""A Redis Cluster: a client of the one node that has all keys of a prefix.

All keys are in one hash slot, so the client needs the slot's master only. Each new connection
asks any node who that is. A node that does not serve the slot says so and does nothing; then the
client connects again, to whoever serves it by then.

While the slot is moved to another node, both have some of its keys. A script declares one key,
the bare prefix, which never exists: so the former node redirects the call before it begins, and
the other one does not know the slot yet. Redirected calls wait until the move is over. No
redirection is followed: a script that ran on one of the two would miss the other's keys.

``async_cluster.py`` has what event loops need, ``client.py`` the client of a single server, and
``connection.py`` the URL.
"""

import re
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final, NamedTuple, TypeVar

from redis.client import Pipeline
from redis.connection import Connection, SSLConnection
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from celery_concurrency.errors import ImproperlyConfigured
from celery_concurrency.limiter.client import Client, OurPipeline, RedisUnavailable
from celery_concurrency.limiter.steps import run

T = TypeVar("T")

#: Seconds that a call waits until a node serves the slot, and the pause between two looks.
SERVED_SECONDS: Final = 2.0
PAUSE: Final = 0.05
#: Seconds after which a connection asks no more nodes who serves the slot.
ASK_SECONDS: Final = 2.0

#: With these a node refuses a command before it has done anything. Where redis-py has no class
#: for one (before 6.0), its name begins the text; UNBLOCKED never has a class.
_REFUSALS: Final = (AskError, ClusterDownError, ReadOnlyError, TryAgainError)
_REFUSAL_NAMES: Final = ("ASK ", "CLUSTERDOWN ", "MOVED ", "TRYAGAIN ", "UNBLOCKED ")
_TAGGED: Final = re.compile(r"[^{]*\{[^}]")


class Elsewhere(RedisUnavailable):
    """No node of the cluster serves the keys now: it fails over, or their slot is being moved."""


class Address(NamedTuple):
    """Where a node listens."""

    host: str
    port: int


class Cluster:
    """What is known of the nodes; shared by all connections of a client, and of its event loops.

    Args:
        seeds: nodes to ask first.
    """

    def __init__(self, seeds: Iterable[Address]) -> None:
        self._seeds = tuple(seeds)
        # Whom to ask, in this order. It is only ever replaced as a whole, so needs no lock.
        self._nodes = self._seeds
        #: Until ``ClusterClient.use`` says which: any.
        self.slot = 0
        #: What the connections of event loops share if they use TLS.
        self.tls: Any = None

    def finding(self) -> Generator[Address, Any, tuple[Address, Address]]:
        """Find the slot's master, in steps (``steps.py``): each wants a node's CLUSTER SLOTS.

        Returns:
            a node, and the master by its account.

        Raises:
            ConnectionError: no node could say.
        """
        problems: dict[str, None] = {}
        ends = time.monotonic() + ASK_SECONDS
        for node in self._nodes:
            try:
                master, named = self._read(node, (yield node))
            except RedisError as exc:
                master = None
                problems[str(exc)] = None
            if master:
                self._nodes = tuple(dict.fromkeys((node, *named, *self._seeds)))
                return node, master
            self.ask_last(node)
            if time.monotonic() > ends:
                break
        # One may be down and another say what is wrong.
        said = "; ".join(problems) or "none has the slot"
        raise ConnectionError(f"no node of the Redis Cluster says who has our keys: {said}")

    def _read(self, asked: Address, ranges: Any) -> tuple[Address | None, list[Address]]:
        """Return the slot's master and all nodes, as a reply to CLUSTER SLOTS names them."""
        master, named = None, []
        for first, last, *nodes in ranges:
            # A node may not know its own address, or hide it.
            addresses = [
                Address(asked.host if host in (None, b"", b"?") else host.decode(), port)
                for host, port, *_ in nodes
            ]
            if first <= self.slot <= last:
                master = addresses[0]
            named += addresses
        return master, named

    def ask_first(self, node: Address) -> None:
        """Ask this node first: it knows best."""
        self._nodes = (node, *(one for one in self._nodes if one != node))

    def ask_last(self, node: Address) -> None:
        """Ask the others first: this node is away, or what it says may be out of date."""
        self._nodes = (*(one for one in self._nodes if one != node), node)


class ToMaster:
    """A connection to the slot's master: what it knows of the cluster, however it asks.

    Args:
        cluster: knows the nodes.
        options: redis-py's own.
    """

    plain: Any
    host: str
    port: int

    def __init__(self, *, cluster: Cluster, **options: Any) -> None:
        self.cluster = cluster
        self._options = options
        # The node that named the master.
        self._informant: Address | None = None
        super().__init__(**options)

    def plain_to(self, node: Address) -> Any:
        """Return one of redis-py's own connections to a node."""
        return self.plain(**{**self._options, "host": node.host, "port": node.port})

    def turn_to(self, informant: Address, master: Address) -> None:
        """Connect to this master, which another node has named."""
        self._informant = informant
        self.host, self.port = master

    def doubt(self) -> None:
        """Ask others than the node that named this master, next time."""
        informant, self._informant = self._informant, None
        if informant:
            self.cluster.ask_last(informant)

    def elsewhere(self, refusal: ResponseError) -> Elsewhere | None:
        """Return what to raise if the node does not serve the slot; None for any other refusal."""
        text = str(refusal)
        if not isinstance(refusal, _REFUSALS) and not text.startswith(_REFUSAL_NAMES):
            return None
        self.doubt()
        if isinstance(refusal, MovedError) or text.startswith("MOVED "):
            self.cluster.ask_first(Address(self.host, self.port))
        return Elsewhere(
            f"{self.host}:{self.port} does not serve slot {self.cluster.slot} of the Redis "
            f"Cluster now ({text}): it fails over, or the slot is being moved"
        )


class _Blocking(ToMaster):
    """A connection that looks for the slot's master whenever it connects.

    ``_connect``: redis-py 5.2 to 8.1.
    """

    def _connect(self) -> Any:
        self.turn_to(*run(self.cluster.finding(), self._ask))
        parent: Any = super()
        try:
            return parent._connect()
        except BaseException:
            self.doubt()
            raise

    def _ask(self, node: Address) -> Any:
        one = self.plain_to(node)
        try:
            one.connect()
            one.send_command("CLUSTER", "SLOTS")
            return one.read_response()
        finally:
            one.disconnect()

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply; if the node refuses the command, disconnect and say so.

        Raises:
            Elsewhere: the node did nothing.
        """
        parent: Any = super()
        try:
            return parent.read_response(*args, **options)
        except ResponseError as exc:
            elsewhere = self.elsewhere(exc)
            if not elsewhere:
                raise
            self.disconnect()
            raise elsewhere from exc

    def disconnect(self, *args: Any, **options: Any) -> None:
        """Close it."""
        self.doubt()
        parent: Any = super()
        parent.disconnect(*args, **options)


class ClusterConnection(_Blocking, Connection):
    """A connection to the slot's master."""

    plain = Connection


class ClusterSSLConnection(_Blocking, SSLConnection):
    """A connection to the slot's master, by TLS."""

    plain = SSLConnection


class ClusterClient(Client):
    """A client of the one node that has all keys of a prefix.

    What a node refused, because it does not serve the slot, is sent again for
    ``SERVED_SECONDS``: nothing was done.
    """

    _prefix: str | None = None

    def use(self, prefix: str) -> str:
        """Serve the keys of a prefix from now on, before anything is sent.

        Returns:
            the prefix with a hash tag, so that all keys are in one slot.

        Raises:
            ImproperlyConfigured: another prefix is in use, or it can't be a hash tag.
        """
        tagged = prefix if _TAGGED.match(prefix) else f"{{{prefix}}}"
        if not _TAGGED.match(tagged):
            raise ImproperlyConfigured(
                f"concurrency_key_prefix can't be {prefix!r} in a Redis Cluster: "
                "it needs a hash tag, as in '{concurrency}'"
            )
        if self._prefix not in (None, tagged):
            raise ImproperlyConfigured(
                f"this client of a Redis Cluster serves the prefix {self._prefix!r}: "
                f"connect again for {tagged!r}"
            )
        self._prefix = tagged
        cluster: Cluster = self.get_connection_kwargs()["cluster"]
        cluster.slot = key_slot(tagged.encode())
        return tagged

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, again while no node serves the slot."""
        return _when_served(lambda: super(ClusterClient, self).execute_command(*args, **options))

    def _call_script(self, *command: Any) -> Any:
        return _when_served(lambda: super(ClusterClient, self)._call_script(*command))

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Return a pipeline; its commands may be sent twice."""
        return _ClusterPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class _ClusterPipeline(OurPipeline):
    """A pipeline of ``ClusterClient``.

    It is sent again as a whole, even if only some commands were refused: the limiter's pipelines
    only read, or write what may be written twice (a count of misnamed headers may be off).
    """

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = list(self.command_stack)

        def execute() -> list[Any]:
            self.command_stack = list(commands)
            return super(_ClusterPipeline, self).execute(raise_on_error)

        return _when_served(execute)


def _when_served(call: Callable[[], T]) -> T:
    """Make a call, again while no node serves the slot; a refused one has done nothing."""
    ends = time.monotonic() + SERVED_SECONDS
    while True:
        try:
            return call()
        except Elsewhere:
            if time.monotonic() > ends:
                raise
        time.sleep(PAUSE)
