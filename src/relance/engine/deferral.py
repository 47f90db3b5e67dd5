"""The retry record's headers: how a record waits in a topic for its next attempt.

Its promise: the original key, value and headers come back exactly as they were, and whatever someone else
wrote into these headers ends in one of three answers, `Deferral`, `NotOurs` or `Unreadable`; never in an
exception, an endless loop or an endless wait.

Pure: the caller brings the clock. Times are seconds since the epoch, UTC; on the wire, milliseconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import msgspec

PREFIX: Final = "relance-"
VERSION: Final = 1
MAX_HISTORY: Final = 20
"""Failed attempts that travel with the record: the last ones, so that the headers don't pile up."""

MAX_ERROR: Final = 1_000
"""Characters kept of the last error."""

MAX_HISTORY_ERROR: Final = 250
"""Characters kept of each error in the history."""

MAX_ATTEMPT: Final = 1_000_000
"""An attempt above this was not written by us: at one a second it takes eleven days to get there."""

_Ours = dict[str, list[bytes | None]]

_MAX_PARTITION: Final = 2**31 - 1
_MAX_INT64: Final = 2**63 - 1
_LAST_MOMENT_MS: Final = 253_402_300_799_999  # the end of the year 9999; datetime knows nothing later
_NO_TIMESTAMP: Final = -1  # as Kafka writes it
_INTEGER: Final = re.compile(rb"-?[0-9]{1,19}")
_TOPIC: Final = re.compile(
    r"[A-Za-z0-9._-]{1,249}"
)  # Kafka's own rule (org.apache.kafka.common.internals.Topic)

_NAMES: Final = (
    "version",
    "id",
    "attempt",
    "due",
    "delay-ms",
    "first-failure",
    "last-error",
    "group",
    "origin-topic",
    "origin-partition",
    "origin-offset",
    "origin-timestamp",
    "history",
)
HEADER_NAMES: Final = frozenset(PREFIX + name for name in _NAMES)
"""The names that are ours, in full. Another name with the prefix (a replay's id) belongs to the record."""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """One failed attempt."""

    attempt: Annotated[int, msgspec.Meta(ge=1, le=MAX_ATTEMPT)]
    """Its number; the first try is 1."""
    error: str
    """As in "TransientError: timed out"."""
    at: Annotated[float, msgspec.Meta(ge=0, le=_LAST_MOMENT_MS / 1000)]
    """When it failed, in seconds since the epoch, UTC."""


class Deferral(msgspec.Struct, frozen=True, kw_only=True):
    """A record that waits for its next attempt."""

    id: str
    """`deferral_id` of the four below: a second copy of the same record has the same."""
    attempt: int
    """The number of the next attempt; the first try was 1."""
    due: float
    """When to try, by the writer's clock; see `wait`."""
    delay: float
    """Seconds between the failure and `due`."""
    first_failure: float
    last_error: str
    group: str
    """The group that deferred it and the only one that takes it."""
    origin_topic: str
    origin_partition: int
    origin_offset: int
    origin_timestamp: int | None
    """The source record's own, in milliseconds, untouched."""
    history: tuple[Failure, ...] = ()
    """The last failed attempts, oldest first, at most MAX_HISTORY."""
    clamped: bool = False
    """True: the headers asked for a longer wait than the caller of `from_headers` allows."""


class NotOurs(msgspec.Struct, frozen=True):
    """The record was deferred by another group that shares the topic: skip it, it counts as finished."""

    group: str


class Unreadable(msgspec.Struct, frozen=True):
    """Nobody can say when or for whom this record waits: dead-letter it, its value untouched."""

    reason: str


def deferral_id(group: str, topic: str, partition: int, offset: int) -> str:
    """The same for each copy of a record, over all its attempts, so that duplicates can be seen."""
    return f"{group}:{topic}:{partition}:{offset}"


def defer(
    *,
    group: str,
    topic: str,
    partition: int,
    offset: int,
    timestamp: int | None,
    attempt: int,
    delay: float,
    now: float,
    error: str,
    first_failure: float | None = None,
    history: Sequence[Failure] = (),
) -> Deferral:
    """Defer a record that failed just now: `attempt` is the next one, to be made in `delay` seconds.

    The coordinates are those of the source record, also where it failed in the retry topic. `history` is
    what was known before; this failure is added to it. `first_failure` is None when this is the first.
    """
    failures = (*history, Failure(max(attempt - 1, 1), _clip(error, MAX_HISTORY_ERROR), now))
    return Deferral(
        id=deferral_id(group, topic, partition, offset),
        attempt=attempt,
        due=now + delay,
        delay=delay,
        first_failure=now if first_failure is None else first_failure,
        last_error=_clip(error, MAX_ERROR),
        group=group,
        origin_topic=topic,
        origin_partition=partition,
        origin_offset=offset,
        origin_timestamp=timestamp,
        history=failures[-MAX_HISTORY:],
    )


def wait(deferral: Deferral, now: float) -> float:
    """Seconds to wait from now on: the rest until `due`, at most the delay itself, never negative.

    The delay bounds what a reader whose clock is behind the writer's would wait (decision 15).
    """
    return max(0.0, min(deferral.delay, deferral.due - now))


def original_headers(headers: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """The headers without ours: names, order, repeats and null values as they were."""
    return [(name, value) for name, value in headers if name not in HEADER_NAMES]


def to_headers(
    deferral: Deferral, original: Iterable[tuple[str, bytes | None]]
) -> list[tuple[str, bytes | None]]:
    """The retry record's headers: the original ones, less any of ours from an earlier deferral, then ours."""
    history = [
        Failure(item.attempt, _clip(item.error, MAX_HISTORY_ERROR), item.at)
        for item in deferral.history[-MAX_HISTORY:]
    ]
    timestamp = _NO_TIMESTAMP if deferral.origin_timestamp is None else deferral.origin_timestamp
    ours: dict[str, bytes] = {
        "version": _digits(VERSION),
        "id": deferral.id.encode(),
        "attempt": _digits(deferral.attempt),
        "due": _digits(_milliseconds(deferral.due)),
        "delay-ms": _digits(_milliseconds(deferral.delay)),
        "first-failure": _digits(_milliseconds(deferral.first_failure)),
        "last-error": _clip(deferral.last_error, MAX_ERROR).encode(),
        "group": deferral.group.encode(),
        "origin-topic": deferral.origin_topic.encode(),
        "origin-partition": _digits(deferral.origin_partition),
        "origin-offset": _digits(deferral.origin_offset),
        "origin-timestamp": _digits(timestamp),
        "history": msgspec.json.encode(history),
    }
    return [*original_headers(original), *((PREFIX + name, value) for name, value in ours.items())]


def from_headers(
    headers: Iterable[tuple[str, bytes | None]], *, group: str, now: float, max_delay: float
) -> Deferral | NotOurs | Unreadable:
    """Read a record of the retry topic; none of its headers is trusted.

    `group` is the reader's, `max_delay` the longest wait in seconds that the reader can have asked for: a
    due time past `now + max_delay` and a longer delay are cut to it, and flagged. A record that names no
    group, or the empty one, which there can't be, is Unreadable rather than NotOurs: else it would vanish,
    since no group would take it.
    """
    try:
        return _read(_ours(headers), group, now, max_delay)
    except _UnreadableError as problem:
        return Unreadable(str(problem))


class _UnreadableError(Exception):
    """Carries the reason from wherever it is found to `from_headers`, and no further."""


def _read(ours: _Ours, group: str, now: float, max_delay: float) -> Deferral | NotOurs:
    theirs = _text(ours, "group")
    if not theirs:
        raise _UnreadableError(f"{PREFIX}group is empty")
    if theirs != group:
        return NotOurs(theirs)
    version = _integer(ours, "version", 0, _MAX_INT64)
    if version != VERSION:
        raise _UnreadableError(f"{PREFIX}version {version} is unknown; this relance reads {VERSION}")
    topic = _text(ours, "origin-topic")
    if not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise _UnreadableError(f"{PREFIX}origin-topic is not a topic's name: {_shown(topic)}")
    partition = _integer(ours, "origin-partition", 0, _MAX_PARTITION)
    offset = _integer(ours, "origin-offset", 0, _MAX_INT64)
    identity = _text(ours, "id")
    if identity != deferral_id(group, topic, partition, offset):
        raise _UnreadableError(f"{PREFIX}id does not name its own origin: {_shown(identity)}")
    timestamp = _integer(ours, "origin-timestamp", _NO_TIMESTAMP, _MAX_INT64)
    due = _integer(ours, "due", 0, _MAX_INT64) / 1000
    delay = _integer(ours, "delay-ms", 0, _MAX_INT64) / 1000
    return Deferral(
        id=identity,
        attempt=_integer(ours, "attempt", 1, MAX_ATTEMPT),
        due=min(due, now + max_delay),
        delay=min(delay, max_delay),
        first_failure=_integer(ours, "first-failure", 0, _LAST_MOMENT_MS) / 1000,
        last_error=_clip(_text(ours, "last-error"), MAX_ERROR),
        group=group,
        origin_topic=topic,
        origin_partition=partition,
        origin_offset=offset,
        origin_timestamp=None if timestamp == _NO_TIMESTAMP else timestamp,
        history=_history(_raw(ours, "history")),
        clamped=due > now + max_delay or delay > max_delay,
    )


def _ours(headers: Iterable[tuple[str, bytes | None]]) -> _Ours:
    ours: _Ours = {}
    for name, value in headers:
        if name in HEADER_NAMES:
            ours.setdefault(name, []).append(value)
    return ours


def _raw(ours: _Ours, name: str) -> bytes:
    # Judged one by one as they are read, so that what another group wrote stays that group's business.
    values = ours.get(PREFIX + name, [])
    if len(values) != 1:
        raise _UnreadableError(f"{PREFIX}{name} is {'there more than once' if values else 'missing'}")
    if values[0] is None:
        raise _UnreadableError(f"{PREFIX}{name} is null")
    return values[0]


def _text(ours: _Ours, name: str) -> str:
    try:
        return _raw(ours, name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _UnreadableError(f"{PREFIX}{name} is not UTF-8") from error


def _integer(ours: _Ours, name: str, low: int, high: int) -> int:
    raw = _raw(ours, name)
    # Not int() alone: it takes "1_000", " 7 " and digits of other scripts, and is slow on a million of them.
    if not _INTEGER.fullmatch(raw):
        raise _UnreadableError(f"{PREFIX}{name} is not a whole number: {_shown(raw)}")
    number = int(raw)
    if not low <= number <= high:
        raise _UnreadableError(f"{PREFIX}{name} is {number}, not from {low} to {high}")
    return number


def _history(raw: bytes) -> tuple[Failure, ...]:
    try:
        failures = _HISTORY_DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _UnreadableError(f"{PREFIX}history: {_clip(str(error), MAX_HISTORY_ERROR)}") from error
    return tuple(
        Failure(item.attempt, _clip(item.error, MAX_HISTORY_ERROR), item.at)
        for item in failures[-MAX_HISTORY:]
    )


_HISTORY_DECODER: Final = msgspec.json.Decoder(list[Failure])


def _digits(number: int) -> bytes:
    return str(number).encode("ascii")


def _milliseconds(seconds: float) -> int:
    # Up, because early is wrong and late is not; after rounding off what floats add to a whole millisecond.
    return math.ceil(round(seconds * 1000, 2))


def _clip(text: str, limit: int) -> str:
    # Lone surrogates, which an error's text may hold, have no UTF-8.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _shown(value: str | bytes) -> str:
    return _clip(repr(value), 80)
