"""The stored configuration: the JSON and its flat copy, and how they change.

``<prefix>:config`` is the user's JSON, ``<prefix>:config:flat`` the copy that scripts read.
``sync`` takes over a JSON written by hand; while that is not valid, the last valid one stays
in force. ``defaults.py`` says what is in force without JSON, ``history.py`` what was before.
"""

import logging
import random
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha1
from typing import Any, Final

from redis.exceptions import ResponseError

from celery_concurrency.errors import (
    ConfigConflict,
    InvalidConfig,
    LimiterUnavailable,
    VersionMismatch,
)
from celery_concurrency.limiter.client import our_errors
from celery_concurrency.limiter.config.defaults import Defaults
from celery_concurrency.limiter.config.flat import flat_of
from celery_concurrency.limiter.config.history import (
    Author,
    Version,
    configuration_of,
    read_history,
)
from celery_concurrency.limiter.config.observing import put_in_force
from celery_concurrency.limiter.config.schema import Config, parse_json
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.mistyped import Doubt, doubts_of_change
from celery_concurrency.log import LIMITER_LOG, fields

logger = logging.getLogger(LIMITER_LOG)

#: How often a change is tried while others change the configuration too, and the longest
#: pause in between, in seconds: many at once would not get anywhere.
TRIES: Final = 20
PAUSE: Final = 0.05

_NOBODY: Final = Author()


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored configuration.

    Attributes:
        config: what is in force.
        version: a number that grows with every change.
        problem: what is wrong with a JSON written by hand, which is therefore not in force;
            None where nothing is.
        is_new: this call has put it in force: before, something else was.
        before: what was in force before this call; None where it changed nothing.
        doubts: limits that this change names first, which may be mistyped.
    """

    config: Config
    version: int
    problem: str | None = None
    is_new: bool = field(default=False, compare=False)
    before: Config | None = field(default=None, compare=False)
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """What is in Redis."""

    raw: bytes | None  # the JSON
    foreign: bool  # the JSON's key is no string
    version: str  # "0" before the first
    followed: str | None  # SHA-1 of the JSON that the flat copy follows
    last: Config | None  # in the flat copy, where this version of the package understands it
    problem: str | None

    @property
    def digest(self) -> str:
        """Identifies the JSON; the SHA-1 that Redis computes."""
        return "" if self.raw is None else sha1(self.raw, usedforsecurity=False).hexdigest()

    @property
    def judged(self) -> bool:
        """Whether the flat copy follows the JSON, or says what is wrong with it."""
        up_to_date = self.raw is not None and self.followed == self.digest
        return self.last is not None and (up_to_date or self.foreign)

    @property
    def source(self) -> str:
        """Where a JSON comes from that the flat copy does not follow yet."""
        if self.raw is None and not self.foreign:
            return "default"
        # Without a flat copy of this version of the package, nobody can tell.
        return "hand-written" if self.last or self.version == "0" else "recovered"


class ConfigStore:
    """Reads and changes the configuration.

    Args:
        default_changes: changes to the built-in defaults (``Defaults``).
        changed: called when another configuration came in force.
    """

    def __init__(
        self,
        keyspace: Keyspace,
        default_changes: Mapping[str, Any] | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._keyspace = keyspace
        self._defaults = Defaults(keyspace, default_changes)
        self._changed = changed
        self._told: str | None = None

    def sync(self) -> Stored:
        """Return what is in force, after taking over what was written by hand."""
        self._defaults.store()
        stored = self._settle()[1]
        if stored.problem and stored.problem != self._told:
            logger.error(
                "the configuration at %s is not valid (%s); the last valid one stays "
                "in force. Correct it, or send it to the API for a detailed error",
                self._keyspace.keys.config,
                stored.problem,
                extra=fields("configuration invalid", reason=stored.problem),
            )
        self._told = stored.problem
        return stored

    def update(
        self, change: object, by: Author = _NOBODY, expected: Collection[int] | None = None
    ) -> Stored:
        """Merge a change in (``Config.merged``) and put the result in force.

        What changes nothing makes no new version.

        Args:
            change: a parsed JSON object.
            by: who changes it, for the history.
            expected: versions one of which has to be in force; None is any.

        Raises:
            InvalidConfig: the result is not valid; nothing is changed.
            VersionMismatch: another version is in force; nothing is changed.
            ConfigConflict: others changed it at the same time, ``TRIES`` times.
            LimiterUnavailable: Redis can't be asked.
        """
        return self._change_doubting(lambda config: config.merged(change), by, expected)

    def defaults(self) -> Config:
        """Return what a reset puts in force."""
        return self._defaults.read()

    def reset(self, by: Author = _NOBODY, expected: Collection[int] | None = None) -> Stored:
        """Put the defaults in force. Takes and raises what ``update`` does."""
        return self._change(lambda config: self._defaults.read(), by, expected)

    def rollback(
        self, version: int, by: Author = _NOBODY, expected: Collection[int] | None = None
    ) -> Stored:
        """Put an earlier version's configuration in force again, as a new version.

        Takes and raises what ``update`` does.

        Raises:
            UnknownVersion: it is not in the history, or not any more.
        """
        config = configuration_of(self._keyspace, version)
        return self._change(lambda _: config, by, expected)

    def pause(self, limit: str, by: Author = _NOBODY) -> Stored:
        """Let a limit admit nobody for now. Takes and raises what ``update`` does."""
        return self._change_doubting(
            lambda config: config.merged({"paused": [*config.paused, limit]}), by
        )

    def resume(self, limit: str, by: Author = _NOBODY) -> Stored:
        """Let a paused limit admit again. Takes and raises what ``update`` does.

        Raises:
            InvalidConfig: it is not paused.
        """

        def without(config: Config) -> Config:
            if limit not in config.paused:
                raise InvalidConfig(
                    f"{limit} is not paused; paused are: {', '.join(config.paused) or 'none'}"
                )
            return config.merged({"paused": [one for one in config.paused if one != limit]})

        return self._change(without, by)

    def enforce(self, limit: str, by: Author = _NOBODY) -> Stored:
        """Put in force what is observed of a limit or wildcard. Takes and raises what ``update``
        does.

        Raises:
            InvalidConfig: nothing of it is observed.
        """
        return self._change(lambda config: put_in_force(config, limit), by)

    def history(self) -> list[Version]:
        """Return the last versions, the newest first."""
        self.sync()  # what was written by hand belongs to it
        return read_history(self._keyspace)

    def _change_doubting(
        self,
        wanted: Callable[[Config], Config],
        by: Author,
        expected: Collection[int] | None = None,
    ) -> Stored:
        """Do what ``_change`` does, and say which limits that names first."""
        doubts: list[Doubt] = []

        def doubted(config: Config) -> Config:
            changed = wanted(config)
            # Before it is stored: where Redis can't be asked, nothing is changed.
            doubts[:] = doubts_of_change(self._keyspace, config, changed)
            return changed

        return replace(self._change(doubted, by, expected), doubts=tuple(doubts))

    def _change(
        self,
        wanted: Callable[[Config], Config],
        by: Author,
        expected: Collection[int] | None = None,
    ) -> Stored:
        """Put in force what ``wanted`` makes of the present configuration: compare and set."""
        for _ in _tries():
            # What was written by hand becomes a version of its own first.
            found, stored = self._settle()
            if expected is not None and stored.version not in expected:
                raise VersionMismatch(stored.version)
            config = wanted(stored.config)
            if config == stored.config and not stored.problem:
                return stored
            version = self._write(found, config, config.to_json(), None, by)
            if version:
                return Stored(config, version, is_new=True, before=stored.config)
        raise ConfigConflict()

    def _settle(self) -> tuple[_Found, Stored]:
        """Take over what was written by hand; return what is there then."""
        for _ in _tries():
            found = self._find()
            config, problem = self._in_force(found)
            if found.judged:
                return found, Stored(config, int(found.version), problem)
            raw = config.to_json() if found.raw is None and not found.foreign else ""
            self._write(found, config, raw, problem, Author(found.source))
        raise ConfigConflict()

    def _find(self) -> _Found:
        # No transaction is needed: what changes in between, the compare-and-set of a change sees.
        pipe = self._keyspace.pipeline()
        pipe.get(self._keyspace.keys.config)
        pipe.get(self._keyspace.keys.config_version)
        pipe.hmget(self._keyspace.keys.config_flat, "source", "json", "problem")
        raw, version, flat = pipe.execute(raise_on_error=False)
        foreign = isinstance(raw, ResponseError) and str(raw).startswith("WRONGTYPE")
        for reply in (version, flat, None if foreign else raw):
            if isinstance(reply, Exception):
                with our_errors():
                    raise reply
        followed, in_force, problem = flat
        return _Found(
            raw=None if foreign else raw,
            foreign=foreign,
            version=(version or b"0").decode(),
            followed=followed.decode() if followed is not None else None,
            last=_last(in_force),
            problem=problem.decode() if problem is not None else None,
        )

    def _in_force(self, found: _Found) -> tuple[Config, str | None]:
        """Return the configuration in force, and what is wrong with the JSON found."""
        if found.foreign:
            problem = f"the key {self._keyspace.keys.config} is not a string"
            return found.last or self._defaults.read(), problem
        if found.raw is None:
            return self._defaults.read(), None
        if found.last and found.judged:
            return found.last, found.problem
        try:
            return Config.parse(found.raw), None
        except InvalidConfig as exc:
            return found.last or self._defaults.read(), str(exc)

    def _write(
        self, found: _Found, config: Config, raw: str, problem: str | None, by: Author
    ) -> int:
        """Put a configuration in force; return its version, 0 if others changed it first."""
        flat = {**flat_of(config), "json": raw or config.to_json()}
        if problem:
            flat["problem"] = problem
        version: int = self._keyspace.call(
            "configure",
            *(found.version, found.digest, raw, uuid.uuid4().hex, by.source, by.operator or ""),
            *(text for pair in flat.items() for text in pair),
        ).reply
        if version:
            logger.info(
                "configuration %d in force: %s (%s, by %s)",
                version,
                flat["json"][:2000],
                by.source,
                by.operator or "unknown",
                extra=fields("configured", version=version, source=by.source, operator=by.operator),
            )
            # The change is in force, whether that succeeds now or not.
            with suppress(LimiterUnavailable):
                self._changed()
        return version


def _tries() -> Iterator[int]:
    """Count tries, with a pause before each but the first."""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(random.uniform(0, PAUSE))  # noqa: S311 - no secret
        yield attempt


# Each look reads it again, and nearly always it is the same: a megabyte takes 0.2 s.
@lru_cache(maxsize=2)
def _last(in_force: bytes | None) -> Config | None:
    if in_force is None:
        return None
    try:
        # Not Config.parse: the JSON written by hand was short enough, this may be longer.
        return Config.of(parse_json(in_force))
    except InvalidConfig:
        return None  # another version of this package wrote it
