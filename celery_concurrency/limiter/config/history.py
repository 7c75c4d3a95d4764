"""The configuration's history: who changed what, when, and what came of it.

``configure.lua`` writes an entry with each change, in the same step; here they are read. The
history is a stream whose entries are numbered by version.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from celery_concurrency.errors import InvalidOperator, UnknownVersion
from celery_concurrency.limiter.config.schema import Config, parse_json
from celery_concurrency.limiter.keyspace import Keyspace
from celery_concurrency.limiter.limits import MAX_TAG_LENGTH, name_problem

#: Versions that are listed; one more is kept, to say what the last of them changed.
LISTED: Final = 100
#: Of many changes at once, no more than this are listed.
MAX_CHANGES: Final = 100
#: Versions that are read at a time, where one of the last is looked for.
READ_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes the configuration.

    Attributes:
        source: how: ``api``, ``cli``, ``library``, ``reset``, ``rollback``;
            ``default``, ``hand-written`` and ``recovered`` where it was taken over.
        operator: a person's name, as far as somebody said one.

    Raises:
        InvalidOperator: this is no name.
    """

    source: str = "library"
    operator: str | None = None

    def __post_init__(self) -> None:
        problem = name_problem(self.operator) if self.operator else None
        if problem:
            raise InvalidOperator(
                f"the operator's name {problem}: "
                f"give it 1 to {MAX_TAG_LENGTH} characters that can be printed"
            )


class Change(BaseModel):
    """What became of one field.

    Attributes:
        field: as ``"platform_max.douyin"``.
        before, after: its values; None where it was not there.
    """

    field: str
    before: Any
    after: Any


class Version(BaseModel):
    """One version of the configuration.

    Attributes:
        version: its number; they only grow.
        at: when it came into force, in Unix seconds of the Redis server.
        operator, source: see ``Author``.
        problem: what is wrong with the JSON that was written by hand then, which
            left in force what was; None where nothing is.
        config: what was in force, as it was stored.
        changed: in what it differs from the version before, the first
            ``MAX_CHANGES`` differences; None where that one is not kept any more.
        changed_total: how many there are.
    """

    version: int
    at: float
    operator: str | None
    source: str
    problem: str | None
    config: dict[str, Any]
    changed: list[Change] | None
    changed_total: int | None


class Pause(NamedTuple):
    """Who paused a limit.

    Attributes:
        at: when, in Unix seconds of the Redis server.
        operator, source: see ``Author``.
    """

    at: float
    operator: str | None
    source: str


def read_pauses(keyspace: Keyspace, limits: Iterable[str]) -> dict[str, Pause]:
    """Return who paused these limits, as far as they are paused and the history goes back."""
    asked = set(limits)
    oldest: dict[str, Pause] = {}
    found: dict[str, Pause] = {}
    for entry_id, fields in _from_the_newest(keyspace) if asked else ():
        paused = asked.intersection(parse_json(fields[b"json"]).get("paused", ()))
        # What was not paused in this version was by the one after it.
        found |= {limit: oldest[limit] for limit in asked - paused if limit in oldest}
        oldest |= dict.fromkeys(paused, _pause(fields))
        asked = paused
        if entry_id == b"1-0":
            found |= {limit: oldest[limit] for limit in paused}
        if not asked:
            break
    return found


def _from_the_newest(keyspace: Keyspace) -> Iterator[tuple[bytes, Any]]:
    before = "+"
    while True:
        entries: Any = keyspace.redis.xrevrange(
            keyspace.keys.config_history, before, count=READ_AT_ONCE
        )
        yield from entries
        if len(entries) < READ_AT_ONCE:
            return
        before = f"({entries[-1][0].decode()}"


def _pause(fields: Any) -> Pause:
    operator, source = fields[b"operator"].decode(), fields[b"source"].decode()
    return Pause(float(fields[b"at"]), operator or None, source)


def read_history(keyspace: Keyspace) -> list[Version]:
    """Return the last ``LISTED`` versions, the newest first."""
    entries: Any = keyspace.redis.xrevrange(keyspace.keys.config_history, count=LISTED + 1)
    configs = [parse_json(fields[b"json"]) for _, fields in entries]
    return [
        _version(entry, config, before)
        for entry, config, before in zip(entries, configs, [*configs[1:], None], strict=True)
    ][:LISTED]


def configuration_of(keyspace: Keyspace, version: int) -> Config:
    """Return the configuration of a version.

    Raises:
        UnknownVersion: it is not kept.
        InvalidConfig: another version of this package wrote it, and it is not valid here.
    """
    entry_id = f"{version}-0"
    entries: Any = keyspace.redis.xrange(keyspace.keys.config_history, entry_id, entry_id)
    if not entries:
        raise UnknownVersion(
            f"there is no version {version} of the configuration any more, or there never was; "
            "its history lists those that are kept"
        )
    # Merged with nothing: what is too long for a change is too long to come back.
    return Config.of(parse_json(entries[0][1][b"json"])).merged({})


def _version(entry: Any, config: dict[str, Any], before: dict[str, Any] | None) -> Version:
    entry_id, fields = entry
    changes = None if before is None else list(differences(before, config))
    return Version(
        version=int(entry_id.partition(b"-")[0]),
        at=float(fields[b"at"]),
        operator=fields[b"operator"].decode() or None,
        source=fields[b"source"].decode(),
        problem=fields[b"problem"].decode() or None,
        config=config,
        changed=None if changes is None else changes[:MAX_CHANGES],
        changed_total=None if changes is None else len(changes),
    )


def differences(before: Any, after: Any, field: str = "") -> Iterator[Change]:
    """Yield what becomes of each field from one configuration, as JSON, to another."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in {**before, **after}:
            inner = f"{field}.{name}" if field else name
            yield from differences(before.get(name), after.get(name), inner)
    elif before != after:
        yield Change(field=field, before=before, after=after)
