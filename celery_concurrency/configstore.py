"""Where the configuration is kept: the JSON, the flat copy, and who changes them.

``<prefix>:config`` is the user's JSON and ``<prefix>:config:flat`` what the
scripts read. A JSON that somebody wrote by hand is taken over by ``sync``; one
that is not valid leaves the last valid one in force and says so.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis
from redis.exceptions import ResponseError

from celery_concurrency import scripts
from celery_concurrency.config import Config, parse_json
from celery_concurrency.connection import asking
from celery_concurrency.errors import ConfigConflict, InvalidConfig

logger = logging.getLogger(__name__)

#: How often a change is tried while others change the configuration too, and for
#: how long at most one pauses in between: many at once would not get anywhere.
TRIES: Final = 20
PAUSE: Final = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Stored:
    """A configuration as it is stored.

    Attributes:
        config: what is in force.
        version: a number that grows with every change.
        problem: what is wrong with a JSON written by hand, which is not in
            force therefore; None where nothing is.
    """

    config: Config
    version: int
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """What is in Redis.

    Attributes:
        raw: the JSON; None where there is no key, or something else than a string.
        foreign: there is something else than a string.
        version: as in ``Stored``; "0" before the first.
        source: SHA-1 of the JSON that the flat copy follows.
        last: the last valid configuration, if the flat copy has one that this
            version understands.
        problem: as in ``Stored``.
    """

    raw: bytes | None
    foreign: bool
    version: str
    source: str | None
    last: Config | None
    problem: str | None

    @property
    def digest(self) -> str:
        return "" if self.raw is None else _sha1(self.raw)

    @property
    def judged(self) -> bool:
        """The flat copy has followed what is there, or says what is wrong with it."""
        followed = self.raw is not None and self.source == self.digest
        return self.last is not None and (followed or self.foreign)


class ConfigStore:
    """Reads and changes the configuration of one prefix.

    Args:
        redis: see ``connection.connect``.
        prefix: that of all keys.
        default_changes: changes to the built-in defaults. The first process that
            has any stores them for all; one that comes later with others is logged.
    """

    def __init__(
        self, redis: Redis, prefix: str, default_changes: Mapping[str, Any] | None = None
    ) -> None:
        self._redis = redis
        self._prefix = prefix
        self._default_changes = dict(default_changes or {})
        Config().merged(self._default_changes)  # a bad one is told now, not later
        self._defaults_checked = False
        self._told: str | None = None

    def sync(self) -> Stored:
        """Return what is in force, after taking over what was written by hand.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        if self._default_changes and not self._defaults_checked:
            self.defaults()
        stored = self._settle(lambda found: None)
        self._tell(stored.problem)
        return stored

    def update(self, change: object) -> Stored:
        """Merge a change in (``Config.merged``) and put the result in force.

        Raises:
            InvalidConfig: the result is not valid; nothing is changed.
            ConfigConflict: others changed it at the same time, ``TRIES`` times.
            LimiterUnavailable: Redis can't be asked.
        """
        return self._settle(lambda found: self._in_force(found)[0].merged(change))

    def reset(self) -> Stored:
        """Put the defaults in force. Raises as ``update``."""
        return self._settle(lambda found: self.defaults())

    def defaults(self) -> Config:
        """Return the defaults: the built-in ones with the stored changes.

        Raises:
            LimiterUnavailable: Redis can't be asked.
        """
        key = f"{self._prefix}:config:defaults"
        ours = Config().merged(self._default_changes)
        with asking():
            if self._default_changes:
                self._redis.set(key, ours.to_json(), nx=True)
            stored = self._redis.get(key)
        problem = None
        try:
            defaults = ours if stored is None else Config.parse(stored)
        except InvalidConfig as exc:
            defaults, problem = ours, f"is not valid ({exc}), so this process's own is used"
        else:
            if self._default_changes and defaults != ours:
                problem = "is not what concurrency_default_config says here, and stays in force"
        if problem and not self._defaults_checked:
            logger.warning(
                "the default configuration that was stored first %s; to store that of the "
                "next process that starts, delete the key %s",
                problem,
                key,
            )
        self._defaults_checked = True
        return defaults

    def _settle(self, wanted: Callable[[_Found], Config | None]) -> Stored:
        """Bring the store to ``wanted``, or to what it says itself where that is None."""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(random.uniform(0, PAUSE))  # noqa: S311 - no secret
            found = self._find()
            config = wanted(found)
            if config is not None:
                raw, problem = config.to_json(), None
            else:
                config, problem = self._in_force(found)
                if found.judged:
                    return Stored(config, int(found.version), problem)
                raw = config.to_json() if found.raw is None and not found.foreign else ""
            stored = self._write(found, config, raw, problem)
            if stored:
                return stored
        raise ConfigConflict()

    def _find(self) -> _Found:
        with asking():
            pipe = self._redis.pipeline(transaction=True)
            pipe.get(f"{self._prefix}:config")
            pipe.get(f"{self._prefix}:config:version")
            pipe.hmget(f"{self._prefix}:config:flat", "source", "json", "problem")
            raw, version, flat = pipe.execute(raise_on_error=False)
            foreign = isinstance(raw, ResponseError) and str(raw).startswith("WRONGTYPE")
            for reply in (version, flat, None if foreign else raw):
                if isinstance(reply, Exception):
                    raise reply
        source, in_force, problem = flat
        return _Found(
            raw=None if foreign else raw,
            foreign=foreign,
            version=(version or b"0").decode(),
            source=source.decode() if source is not None else None,
            last=_last(in_force),
            problem=problem.decode() if problem is not None else None,
        )

    def _in_force(self, found: _Found) -> tuple[Config, str | None]:
        """Return the configuration that counts, and what is wrong with the JSON found."""
        if found.foreign:
            return found.last or self.defaults(), f"the key {self._prefix}:config holds no string"
        if found.raw is None:
            return self.defaults(), None
        if found.last and found.judged:
            return found.last, found.problem
        try:
            return Config.parse(found.raw), None
        except InvalidConfig as exc:
            return found.last or self.defaults(), str(exc)

    def _tell(self, problem: str | None) -> None:
        """Log what is wrong with the stored configuration when that begins."""
        if problem and problem != self._told:
            logger.error(
                "the configuration at %s:config is not valid (%s); the last valid one stays "
                "in force. Correct it, or send it to the API, which says more",
                self._prefix,
                problem,
            )
        self._told = problem

    def _write(self, found: _Found, config: Config, raw: str, problem: str | None) -> Stored | None:
        fields = {**config.flat(), "json": config.to_json()}
        if problem:
            fields["problem"] = problem
        arguments = [text for pair in fields.items() for text in pair]
        version = scripts.call(
            self._redis, "configure", self._prefix, found.version, found.digest, raw, *arguments
        ).reply
        if not version:
            return None
        logger.info("configuration %d in force: %s", version, fields["json"][:2000])
        return Stored(config, version, problem)


def _last(in_force: bytes | None) -> Config | None:
    if in_force is None:
        return None
    try:
        # Not Config.parse: it was short enough as it was written by hand.
        return Config.of(parse_json(in_force))
    except InvalidConfig:
        return None  # another version of this package wrote it


def _sha1(raw: bytes) -> str:
    # To compare with what Redis computes; nothing secret about it.
    return hashlib.sha1(raw, usedforsecurity=False).hexdigest()
