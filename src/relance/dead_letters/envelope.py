"""The dead-letter envelope: what is written about a record that could not be handled.

Its promise: no byte is lost. The key, the value and every header can be read back from the JSON exactly
as they stood in the original record, whatever they hold; and nothing in an error (an endless message, a
`__str__` that raises, text that is not valid Unicode) can keep a letter from being written.

Pure: no clock, no I/O. The field names are the contract of `docs/architecture.md`.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec

from relance.dead_letters.errortext import class_path
from relance.dead_letters.fingerprint import fingerprint
from relance.dead_letters.telling import OPEN, Teller
from relance.errors import DecodeError
from relance.text import clip, iso, iso_ms, plain

VERSION: Final = 1
"""The format that `encode` writes and the only one that `decode` reads."""

MAX_HISTORY: Final = 100
"""Attempts kept in a letter: the last ones. A policy may allow thousands."""

MAX_HISTORY_ERROR: Final = 500
"""Characters kept of each error in the history."""

Encoding = Literal["utf-8", "base64"]
Partition = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class PastAttempt(Protocol):
    """What `build` reads of an earlier attempt; `relance.engine.deferral.Failure` is one."""

    @property
    def attempt(self) -> int:
        """Its number; the first try is 1."""
        ...

    @property
    def error(self) -> str:
        """What it failed with, as in "TransientError: timed out"."""
        ...

    @property
    def at(self) -> float:
        """When it failed, in seconds since the epoch, UTC."""
        ...


class Attempt(msgspec.Struct, frozen=True):
    """One failed attempt, as the letter tells it."""

    attempt: Count
    error: str = ""
    at: str | None = None
    """ISO 8601, UTC; null where the time that came along was no time."""


class Header(msgspec.Struct, frozen=True, array_like=True):
    """One original header, on the wire `[name, text|null, encoding]`."""

    name: str
    value: str | None = None
    encoding: Encoding = "utf-8"

    def __repr__(self) -> str:
        return f"<Header {self.name!r}>"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A record that could not be handled, and why.

    In JSON the names are in camel case, the first nine in the order of the course's document. Every field
    has a default, because letters of other writers know only some of them.
    """

    original_topic: str = ""
    """Empty only in a letter of another writer that didn't say."""
    original_partition: Partition | None = None
    """None for a letter that never was a record (an order refused before it was sent)."""
    original_offset: Offset | None = None
    original_key: str | None = None
    """As text in `original_key_encoding`; for the bytes see `key_bytes`."""
    original_value: str | None = None
    """As text in `original_value_encoding`; for the bytes see `value_bytes`."""
    error_message: str = ""
    """Class, colon, text: "ValidationException: Invalid amount"."""
    error_timestamp: str | None = None
    """ISO 8601, UTC, milliseconds, Z."""
    retry_count: Count = 0
    """Attempts after the first one."""
    stack_trace: str | None = None
    error_class: str | None = None
    """The qualified name: "orders.model.ValidationException"."""
    original_headers: tuple[Header, ...] = ()
    original_timestamp: str | None = None
    consumer_group: str | None = None
    attempts: tuple[Attempt, ...] = ()
    """The history, oldest first."""
    fingerprint: str | None = None
    """The same for the same bug, whatever the ids in its message."""
    original_value_encoding: Encoding = "utf-8"
    original_key_encoding: Encoding = "utf-8"
    version: int = VERSION
    pointer: bool = False
    """True: the value is not in the letter but must be read at the original coordinates."""
    trimmed: tuple[str, ...] = ()
    """The parts that were left out to make the letter fit its topic, in the order in which they went."""
    masked: tuple[str, ...] = ()
    """The parts of the record in which `Mask` has hidden something: "originalValue", "originalHeaders"."""

    def __repr__(self) -> str:
        # Where it was and what failed, but nothing that the record held: it may end in anybody's log.
        where = f"{self.original_topic}-{self.original_partition} offset {self.original_offset}"
        return f"<DeadLetter of {where}: {self.error_class}, {self.retry_count} retries>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("of", repr(self))]

    def value_bytes(self) -> bytes | None:
        """The original value, exactly; None is a null value, which is not an empty one.

        Raises DecodeError where it is masked, and for a pointer letter: its null would pass for a tombstone.
        """
        self._held("originalValue")
        return _bytes(self.original_value, self.original_value_encoding, "originalValue")

    def key_bytes(self) -> bytes | None:
        """The original key, exactly; None is a null key."""
        return _bytes(self.original_key, self.original_key_encoding, "originalKey")

    def header_items(self) -> list[tuple[str, bytes | None]]:
        """The original headers, exactly, in their order, repeats and null values included.

        Raises DecodeError for a pointer letter that had to leave them out, and where they are masked.
        """
        self._held("originalHeaders")
        return [
            (header.name, _bytes(header.value, header.encoding, "originalHeaders"))
            for header in self.original_headers
        ]

    def _held(self, part: str) -> None:
        # A pointer that doesn't say what it lacks lacks everything: to guess would be to lose it.
        if part in self.trimmed or (self.pointer and not self.trimmed):
            what = f"is a pointer without {part}"
        elif part in self.masked:
            what = f"has {part} masked"
        else:
            return
        where = f"{self.original_topic}-{self.original_partition}@{self.original_offset}"
        raise DecodeError(f"the letter {what}: read the original record at {where}")


def build(
    *,
    topic: str,
    partition: int | None,
    offset: int | None,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | None]] = (),
    timestamp: datetime | int | None = None,
    group: str | None,
    error: BaseException,
    attempts: int,
    history: Iterable[PastAttempt] = (),
    now: datetime | float,
    teller: Teller = OPEN,
) -> DeadLetter:
    """The letter for one failed record. `teller` tells `error`; the texts in `history` are told already.

    `timestamp` is the record's own: a datetime, or Kafka's milliseconds, where a negative number means
    none. `attempts` counts all tries, the first included; 0 for what never was tried. `history` holds the
    failed tries, oldest first. `now` is a datetime or milliseconds; one without a zone is taken as UTC.
    """
    key_text, key_encoding = text_of(key)
    value_text, value_encoding = text_of(value)
    return DeadLetter(
        original_topic=plain(topic),
        original_partition=_coordinate(partition),
        original_offset=_coordinate(offset),
        original_key=key_text,
        original_value=value_text,
        error_message=teller.summary(error, attempts),
        error_timestamp=_iso(now),
        retry_count=max(attempts - 1, 0),
        stack_trace=teller.trace(error),
        error_class=class_path(error),
        original_headers=tuple(Header(plain(name), *text_of(item)) for name, item in headers),
        original_timestamp=_iso(timestamp),
        consumer_group=None if group is None else plain(group),
        attempts=_history(history),
        fingerprint=fingerprint(error, teller.text),
        original_value_encoding=value_encoding,
        original_key_encoding=key_encoding,
    )


def metadata_headers(letter: DeadLetter) -> list[tuple[str, bytes | None]]:
    """The headers of the dead-letter record itself, so that a reader can filter without parsing JSON.

    The original headers are not repeated here: they are in the envelope.
    """
    named = (
        ("relance-error-class", letter.error_class),
        ("relance-origin-topic", letter.original_topic),
        ("relance-group", letter.consumer_group),
    )
    return [(name, plain(text).encode()) for name, text in named if text]


def encode(letter: DeadLetter) -> bytes:
    """The letter as JSON in UTF-8, without line breaks: one letter, one line of the console consumer."""
    return _ENCODER.encode(letter)


def decode(raw: bytes | None) -> DeadLetter:
    """Read an envelope of ours or of the original course, which knows only some of the fields.

    Raises DecodeError, saying why, for anything else: what lies in a dead-letter topic is not trusted.
    A letter that decodes has key, value and headers that can be read back.
    """
    if raw is None:
        raise DecodeError("not a dead letter: the record has no value")
    try:
        # Two passes: a later version may have changed the type of any field, but it still says its number.
        version = _VERSION_DECODER.decode(raw).version
        if version != VERSION:
            raise DecodeError(f"dead letter of unknown version {version}; this relance reads {VERSION}")
        letter = _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a dead letter: {plain(str(error))}") from error
    except RecursionError as error:
        raise DecodeError("not a dead letter: the JSON is nested too deeply") from error
    if not (letter.original_topic or letter.original_value is not None or letter.error_message):
        raise DecodeError("not a dead letter: no originalTopic, originalValue or errorMessage")
    _bytes(letter.original_key, letter.original_key_encoding, "originalKey")
    _bytes(letter.original_value, letter.original_value_encoding, "originalValue")
    for header in letter.original_headers:
        _bytes(header.value, header.encoding, "originalHeaders")
    return letter


def not_a_letter(key: bytes | None, value: bytes | None, reason: str) -> DeadLetter:
    """A letter that stands for a record in the topic which is none: its own bytes, and why."""
    key_text, key_encoding = text_of(key)
    value_text, value_encoding = text_of(value)
    return DeadLetter(
        original_key=key_text,
        original_value=value_text,
        error_message=reason,
        original_key_encoding=key_encoding,
        original_value_encoding=value_encoding,
    )


class _Versioned(msgspec.Struct):
    version: int = VERSION


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(DeadLetter)
_VERSION_DECODER: Final = msgspec.json.Decoder(_Versioned)


def text_of(raw: bytes | None) -> tuple[str | None, Encoding]:
    """Bytes as a letter holds them: as text where they are UTF-8, else in base64."""
    if raw is None:
        return None, "utf-8"
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return b64encode(raw).decode("ascii"), "base64"


def _bytes(text: str | None, encoding: Encoding, part: str) -> bytes | None:
    if text is None:
        return None
    if encoding == "utf-8":
        return text.encode("utf-8")
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError(f"not a dead letter: {part} is not base64 ({error})") from error


def _coordinate(number: int | None) -> int | None:
    # librdkafka says "none" with negative numbers (-1, -1001), the letter with null.
    return None if number is None or number < 0 else number


def _history(history: Iterable[PastAttempt]) -> tuple[Attempt, ...]:
    past: Sequence[PastAttempt] = tuple(history)[-MAX_HISTORY:]
    return tuple(
        Attempt(item.attempt, clip(plain(item.error), MAX_HISTORY_ERROR), _iso(item.at * 1000))
        for item in past
    )


def _iso(when: datetime | float | None) -> str | None:
    """ISO 8601 with milliseconds and Z; a number is milliseconds since the epoch, negative means none."""
    if when is None:
        return None
    try:
        if isinstance(when, datetime):
            return iso(when)
        return iso_ms(when) if when >= 0 else None
    except (OverflowError, ValueError, OSError):
        # Kafka takes any 64-bit number as a timestamp; one past the year 9999 has no ISO form.
        return None
