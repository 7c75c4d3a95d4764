"""Steps: what to ask Redis for and what to make of the replies, written once for two ways to ask.

A generator of steps yields a request, is sent the reply, and returns its result. ``keyspace.py``
answers the requests on a client that blocks, ``event_loop.py`` on one of asyncio. A method that
has steps is named for them: ``WaitingRoom.park`` runs those of ``WaitingRoom.parking``.
"""

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Script(NamedTuple):
    """Call a script; the reply is a ``scripts.Answer``."""

    verb: str
    args: tuple[str | int | bytes, ...]


class Commands(NamedTuple):
    """Send commands in one round trip; the reply is the list of their replies."""

    commands: tuple[tuple[str | int | bytes, ...], ...]


class Pop(NamedTuple):
    """Wait for an element of a list; the reply is the list's key and the element, or None."""

    key: str
    seconds: float


class Arrival(NamedTuple):
    """Wait for a caller's message, which another task reads; the reply is it, or None."""

    caller: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Blocking:
    """Do what is rarely needed and has no steps; the reply is what it returns."""

    work: Callable[[], object]


Request = Script | Commands | Pop | Arrival | Blocking
Steps = Generator[Request, Any, T]


def run(steps: Generator[Any, Any, T], answer: Callable[[Any], Any]) -> T:
    """Take the steps; return their result.

    Args:
        answer: does what a request asks for. Whatever it raises is raised where the steps
            asked, and so is what a signal raises here: they may have to clean up.
    """
    send: Callable[[Any], Any] = steps.send
    value: Any = None
    while True:
        try:
            request = send(value)
            send, value = steps.send, answer(request)
        except StopIteration as done:
            result: T = done.value
            return result
        except BaseException as exc:
            if getgeneratorstate(steps) == GEN_CLOSED:
                raise  # their own
            send, value = steps.throw, exc


async def run_async(steps: Generator[Any, Any, T], answer: Callable[[Any], Awaitable[Any]]) -> T:
    """Do what ``run`` does, for an ``answer`` that is awaited."""
    send: Callable[[Any], Any] = steps.send
    value: Any = None
    while True:
        try:
            request = send(value)
            send, value = steps.send, await answer(request)
        except StopIteration as done:
            result: T = done.value
            return result
        except BaseException as exc:
            if getgeneratorstate(steps) == GEN_CLOSED:
                raise  # their own
            send, value = steps.throw, exc
