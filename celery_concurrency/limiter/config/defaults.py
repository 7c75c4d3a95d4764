"""The default configuration: the built-in one, with the changes of the first process.

It is in force where there is no other (``store.py``), and after a reset.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from celery_concurrency.errors import InvalidConfig, OutOfMemory
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.log import LIMITER_LOG

logger = logging.getLogger(LIMITER_LOG)


class Defaults:
    """The defaults.

    Args:
        changes: to the built-in ones. The first process with changes stores its defaults for
            all; a later one with others logs that.

    Raises:
        InvalidConfig: the changes are not valid.
    """

    def __init__(self, keyspace: Keyspace, changes: Mapping[str, Any] | None = None) -> None:
        self._redis = keyspace.redis
        self._key = keyspace.keys.config_defaults
        self._has_changes = bool(changes)
        self._ours = Config().merged(changes or {})
        self._checked = False

    def store(self) -> None:
        """Store this process's defaults, once, if it has changes and none are stored."""
        if self._has_changes and not self._checked:
            self.read()

    def read(self) -> Config:
        """Return the stored defaults; store this process's first, as ``store`` does."""
        stored: Any = self._redis.get(self._key)
        if stored is None and self._has_changes:
            # Out of memory, they are in force here for now; the next call stores them.
            with suppress(OutOfMemory):
                self._redis.set(self._key, self._ours.to_json(), nx=True)
                stored = self._redis.get(self._key)
        problem = None
        try:
            defaults = self._ours if stored is None else Config.parse(stored)
        except InvalidConfig as exc:
            defaults, problem = self._ours, f"is not valid ({exc}), so this process's own is used"
        else:
            if self._has_changes and defaults != self._ours:
                problem = "differs from concurrency_default_config here, and stays in force"
        if problem and not self._checked:
            logger.warning(
                "the stored default configuration %s; to have the next process that starts store "
                "its own, delete the key %s",
                problem,
                self._key,
            )
        self._checked = stored is not None or not self._has_changes
        return defaults
