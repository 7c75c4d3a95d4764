"""The names of the keys that Python uses; ``docs/redis-keys.md`` says what each holds.

The keys that scripts use are in ``scripts/lib/keys.lua``; a test compares both with the docs.
"""


class Keys:
    """The keys under one prefix.

    Args:
        prefix: with a hash tag, such as ``{concurrency}``, all keys share one cluster slot.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.config = f"{prefix}:config"
        self.config_flat = f"{prefix}:config:flat"
        self.config_adaptive = f"{prefix}:config:adaptive"
        self.config_version = f"{prefix}:config:version"
        self.config_history = f"{prefix}:config:history"
        self.config_defaults = f"{prefix}:config:defaults"
        self.actions = f"{prefix}:actions"
        self.leases = f"{prefix}:leases"
        self.workers = f"{prefix}:workers"
        self.epoch = f"{prefix}:epoch"
        self.sweep_next = f"{prefix}:sweep:next"
        self.cooldowns = f"{prefix}:cooldowns"
        self.probes = f"{prefix}:probes"
        self.adaptive = f"{prefix}:adaptive"
        self.adaptive_unlogged = f"{prefix}:adaptive:unlogged"
        self.adaptive_history = f"{prefix}:adaptive:history"
        self.moments = f"{prefix}:moments"
        self.moments_watched = f"{prefix}:moments:watched"
        self.groups = f"{prefix}:groups"
        self.names = f"{prefix}:names"
        self.waiting_walk = f"{prefix}:waiting:walk"
        self.ticket = f"{prefix}:ticket"
        self.collecting = f"{prefix}:collecting"
        self.counters = f"{prefix}:stats:counters"
        self.counters_history = f"{prefix}:stats:history"
        self.named = f"{prefix}:stats:named"
        self.misnamed = f"{prefix}:stats:misnamed"
        self.backlog = f"{prefix}:stats:backlog"
        self.durations = f"{prefix}:stats:times"
        self.ended = f"{prefix}:stats:ended"

    def semaphore(self, limit: str) -> str:
        """The tokens that hold a limit."""
        return f"{self.prefix}:semaphore:{limit}"

    def rate(self, limit: str) -> str:
        """The starts in a limit that has rates."""
        return f"{self.prefix}:rate:{limit}"

    def observed(self, entry: str) -> str:
        """What an observed maximum or rate would have turned away."""
        return f"{self.prefix}:observed:{entry}"

    def cooldown(self, limit: str) -> str:
        """Why a limit cools down, and who started it."""
        return f"{self.prefix}:cooldown:{limit}"

    def adaptive_of(self, limit: str) -> str:
        """The state of an adaptive limit."""
        return f"{self.prefix}:adaptive:{limit}"

    def moves(self, limit: str) -> str:
        """The moves of an adaptive limit."""
        return f"{self.prefix}:moves:{limit}"

    def token(self, token: str) -> str:
        """The record of a token."""
        return f"{self.prefix}:token:{token}"

    def worker(self, name: str) -> str:
        """What a worker says of itself."""
        return f"{self.prefix}:worker:{name}"

    def waiting(self, limit: str) -> str:
        """The waiters of a limit with bounds on waiting."""
        return f"{self.prefix}:waiting:{limit}"

    def group(self, group: str) -> str:
        """The waiters of a group."""
        return f"{self.prefix}:group:{group}"

    def waiter(self, name: str) -> str:
        """The record of a waiter."""
        return f"{self.prefix}:waiter:{name}"

    def retried(self, task_id: str) -> str:
        """The waiters of a task whose names differ from its id."""
        return f"{self.prefix}:retried:{task_id}"

    def call(self, caller_id: str) -> str:
        """The list that tells a caller outside of tasks that it has room."""
        return f"{self.prefix}:call:{caller_id}"

    def durations_from(self, start: int) -> str:
        """The histograms of the interval that begins at these Unix seconds."""
        return f"{self.durations}:{start}"
