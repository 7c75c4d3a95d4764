"""The log: one logger per floor, and records that programs can read.

Each record of a decision has an attribute ``concurrency``, an object of fields whose
``decision`` says what happened. ``docs/logging.md`` lists them. The text of every record
is one printable line, whatever names are in it (``text.py``).
"""

import logging
from typing import Any, Final

from celery_concurrency.text import printable

#: The limiter, without Celery: configuration, and calls repeated in the background.
LIMITER_LOG: Final = "celery_concurrency.limiter"
#: In Celery: what becomes of each run, and the worker's housekeeping.
WORKER_LOG: Final = "celery_concurrency.worker"
#: HTTP: who changed something, and what went wrong.
API_LOG: Final = "celery_concurrency.api"


class OneLine(logging.Filter):
    """Escapes what can't be printed in a record's text; tracebacks keep their lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - the handler says what is wrong with its arguments
            return True
        if not text.isprintable():
            record.msg, record.args = printable(text), None
        return True


# On the loggers, so that callers need not think of it.
for _name in (LIMITER_LOG, WORKER_LOG, API_LOG):
    logging.getLogger(_name).addFilter(OneLine())


def fields(decision: str, **more: Any) -> dict[str, Any]:
    """Return the ``extra`` of a record.

    Args:
        decision: what happened.
        more: its other fields; None for a field without a value here.
    """
    return {"concurrency": {"decision": decision, **more}}


class Outage:
    """Logs one line when a server goes away, and one when it is back.

    Args:
        logger: where to log.
        server: the server's name, for the decisions ``<server> away`` and ``<server> back``.
        meanwhile: the rest of the first line: what happens until the server is back.

    Attributes:
        is_on: whether the server is away, as far as we know.
    """

    def __init__(self, logger: logging.Logger, server: str, meanwhile: str = "") -> None:
        self._logger = logger
        self._server = server
        self._meanwhile = meanwhile
        self.is_on = False

    def begin(self, reason: Exception) -> None:
        """Note that the server is away, and why."""
        if not self.is_on:
            extra = fields(f"{self._server} away", reason=str(reason))
            self._logger.warning(
                "the %s is away%s: %s", self._server, self._meanwhile, reason, extra=extra
            )
        self.is_on = True

    def end(self) -> None:
        """Note that the server answers."""
        if self.is_on:
            extra = fields(f"{self._server} back")
            self._logger.warning("the %s is back", self._server, extra=extra)
        self.is_on = False
