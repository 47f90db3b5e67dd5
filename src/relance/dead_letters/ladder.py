"""The ladder for a dead letter that is too large for its topic.

Its promise: what explains the error goes before what was in the record, each step down is written into the
letter (`trimmed`), and content of the record leaves the letter only where the user allowed it and the
original coordinates say where to find it. Where that doesn't help the caller is told, and must stop the
partition: an offset is never committed past a letter that isn't written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from relance.dead_letters.envelope import DeadLetter, encode, metadata_headers

RECORD_OVERHEAD: Final = 128
"""Bytes allowed for framing: 61 for the batch, at most 41 for the record (Kafka's message format, v2)."""

HEADER_OVERHEAD: Final = 10
"""Bytes allowed for the two lengths of one header."""


class Fitted(msgspec.Struct, frozen=True):
    """A letter that fits."""

    letter: DeadLetter
    raw: bytes
    """The letter as `encode` gives it: the record's value."""

    def __repr__(self) -> str:
        return f"<Fitted {self.letter!r}, {len(self.raw)} bytes>"


class TooLarge(msgspec.Struct, frozen=True):
    """A letter that doesn't fit, after all steps that are allowed."""

    size: int
    """Bytes of the smallest form."""
    limit: int


def fit(letter: DeadLetter, limit: int, allow_pointer: bool) -> Fitted | TooLarge:
    """Trim the letter until its record takes at most `limit` bytes (the topic's max.message.bytes).

    The steps: the stack trace, the history of attempts, then, with `allow_pointer` and for a record that
    has coordinates, the value and at last the original headers. A part that is empty is no step.
    """
    raw = encode(letter)
    size = record_size(letter, raw)
    for part, trim in _steps(allow_pointer and _has_coordinates(letter)):
        if size <= limit:
            break
        shorter = trim(letter)
        if shorter is letter:
            continue
        letter = msgspec.structs.replace(shorter, trimmed=(*letter.trimmed, part))
        raw = encode(letter)
        size = record_size(letter, raw)
    return Fitted(letter, raw) if size <= limit else TooLarge(size, limit)


def record_size(letter: DeadLetter, raw: bytes) -> int:
    """Bytes that the letter's record takes in its topic: value, key, headers and framing; never too few."""
    headers = sum(
        len(name.encode()) + len(value or b"") + HEADER_OVERHEAD for name, value in metadata_headers(letter)
    )
    return len(raw) + len(letter.key_bytes() or b"") + headers + RECORD_OVERHEAD


_Trim = Callable[[DeadLetter], DeadLetter]


def _steps(pointer: bool) -> Iterator[tuple[str, _Trim]]:
    yield "stackTrace", _without_trace
    yield "attempts", _without_history
    if pointer:
        yield "originalValue", _without_value
        yield "originalHeaders", _without_headers


def _has_coordinates(letter: DeadLetter) -> bool:
    # Without them (an order refused before it was sent) the letter is the only place where the value is.
    return (
        bool(letter.original_topic)
        and letter.original_partition is not None
        and letter.original_offset is not None
    )


def _without_trace(letter: DeadLetter) -> DeadLetter:
    return letter if letter.stack_trace is None else msgspec.structs.replace(letter, stack_trace=None)


def _without_history(letter: DeadLetter) -> DeadLetter:
    return msgspec.structs.replace(letter, attempts=()) if letter.attempts else letter


def _without_value(letter: DeadLetter) -> DeadLetter:
    if letter.original_value is None:
        return letter
    return msgspec.structs.replace(letter, original_value=None, original_value_encoding="utf-8", pointer=True)


def _without_headers(letter: DeadLetter) -> DeadLetter:
    if not letter.original_headers:
        return letter
    return msgspec.structs.replace(letter, original_headers=(), pointer=True)
