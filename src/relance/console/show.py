"""Turns what lies in Kafka into text for people: JSON indented, bytes as a dump, control characters visible.

Promise: what is shown is what is there. JSON is indented without being re-read (numbers, repeated keys and
escapes stay as written), nothing invisible or direction-changing passes unseen, and what is cut says so.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from relance.dead_letters import DeadLetter, decode
from relance.errors import DecodeError
from relance.kafka.browse import FetchedRecord
from relance.text import visible

__all__ = ["Letter", "RecordView", "Shown", "json_value", "letter_of", "number", "shown", "size", "when"]

PREVIEW = 160
"""Characters of a value in a line of the list."""
INLINE = 8 * 1024
"""Bytes of a value that unfold in the list; the record's own page shows WHOLE of them."""
INDENT = 64 * 1024
"""Bytes of JSON that are indented for the list, though only a part of it is shown there."""
WHOLE = 1024 * 1024
DUMP = 2048
DEPTH = 40  # deeper than this, indentation hides more than it shows

# A string, a sign, or whatever else stands between signs and spaces: what is valid JSON falls apart so.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')

Kind = Literal["null", "empty", "json", "text", "binary"]


@dataclass(frozen=True, slots=True)
class Shown:
    """Bytes made readable. `kind` says as what; `size` counts all bytes, `cut` those that are not shown."""

    kind: Kind
    text: str
    size: int
    cut: int = 0

    @property
    def preview(self) -> str:
        """One line of it."""
        line = " ".join(self.text[: PREVIEW * 4].split())
        return line if len(line) <= PREVIEW else f"{line[: PREVIEW - 1]}…"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter found in a record's value, with its original made readable."""

    letter: DeadLetter
    key: Shown
    value: Shown
    headers: tuple[tuple[str, Shown], ...]

    @property
    def error_class(self) -> str:
        """The class alone: "orders.model.ValidationException" → "ValidationException"."""
        full = self.letter.error_class or self.letter.error_message.partition(":")[0]
        return visible(full.rpartition(".")[2] or "Error")[:200]

    @property
    def message(self) -> str:
        """What it said, without the class that the envelope puts before it."""
        first, colon, rest = self.letter.error_message.partition(": ")
        repeated = colon and first.rpartition(".")[2] == self.error_class
        return visible(rest if repeated else f"{first}{colon}{rest}")


@dataclass(frozen=True, slots=True)
class RecordView:
    """A record as a page shows it; `limit` bytes of its value."""

    record: FetchedRecord
    key: Shown
    value: Shown
    headers: tuple[tuple[str, Shown], ...]
    letter: Letter | None

    @classmethod
    def of(cls, record: FetchedRecord, limit: int) -> RecordView:
        """Make it readable."""
        return cls(
            record=record,
            key=shown(record.key, INLINE, json=False),
            value=shown(record.value, limit),
            headers=tuple(
                (visible(name), shown(value, INLINE, json=False)) for name, value in record.headers
            ),
            letter=letter_of(record.value, limit),
        )


def shown(raw: bytes | None, limit: int, *, json: bool = True) -> Shown:
    """Bytes as text: indented JSON, plain text, or a dump of what isn't UTF-8; of `limit` bytes at most."""
    if raw is None:
        return Shown("null", "null", 0)
    if not raw:
        return Shown("empty", "empty", 0)
    text = head(raw, limit)
    if text is None:
        part = raw[: min(limit, DUMP)]
        return Shown("binary", dump(part), len(raw), len(raw) - len(part))
    if json and len(raw) <= max(limit, INDENT) and text.lstrip()[:1] in ("{", "["):
        whole = raw.decode(errors="replace")
        indented = indent(raw, whole, 2 * limit)
        if indented is not None:
            lines, used = indented
            return Shown("json", visible(lines), len(raw), len(raw) - len(whole[:used].encode()))
    return Shown("text", visible(text), len(raw), max(0, len(raw) - limit))


def head(raw: bytes, limit: int) -> str | None:
    """The first `limit` bytes as text, without a character that the limit cuts in two; None if not UTF-8."""
    part = raw[:limit]
    for back in range(4 if len(raw) > limit else 1):
        try:
            return part[: len(part) - back].decode()
        except UnicodeDecodeError:
            continue
    return None


def letter_of(raw: bytes | None, limit: int) -> Letter | None:
    """The dead letter in a value, or None where it isn't one."""
    # A cheap look first: most records are none, and decoding each of them would cost.
    if raw is None or len(raw) > WHOLE or not (b'"originalTopic"' in raw and b'"errorMessage"' in raw):
        return None
    try:
        letter = decode(raw)
        # Show what is there, masked or not: `value_bytes` of a masked letter raises.
        bare = msgspec.structs.replace(letter, masked=())
        if letter.pointer:
            key, value, headers = bare.key_bytes(), None, []
        else:
            key, value, headers = bare.key_bytes(), bare.value_bytes(), bare.header_items()
    except DecodeError:
        return None  # then it is a record like any other, and shown as one
    return Letter(
        letter=letter,
        key=shown(key, INLINE, json=False),
        value=shown(value, limit),
        headers=tuple((visible(name), shown(item, INLINE, json=False)) for name, item in headers),
    )


def indent(raw: bytes, text: str, room: int) -> tuple[str, int] | None:
    """JSON with line breaks and two spaces a level, every token as it was written; None if it isn't JSON.

    It stops after `room` characters; the number is how far into `text` it came.
    """
    try:
        msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    out: list[str] = []
    depth, length, opened = 0, 0, False
    for token in _TOKEN.finditer(text):
        piece = token.group()
        if piece in "}]":
            depth -= 1
            piece = piece if opened else f"\n{'  ' * depth}{piece}"
        elif opened:
            out.append(f"\n{'  ' * depth}")
        opened = piece in ("{", "[")
        if opened:
            depth += 1
            if depth > DEPTH:
                return None
        elif piece == ",":
            piece = f",\n{'  ' * depth}"
        elif piece == ":":
            piece = ": "
        out.append(piece)
        length += len(piece)
        if length > room:
            return "".join(out), token.end()
    return "".join(out), len(text)


def dump(raw: bytes) -> str:
    """A hexadecimal dump, sixteen bytes a line, as `hexdump -C` writes it."""
    lines = []
    for at in range(0, len(raw), 16):
        part = raw[at : at + 16]
        letters = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"{at:08x}  {part[:8].hex(' '):<23}  {part[8:].hex(' '):<23}  |{letters}|")
    return "\n".join(lines)


def when(moment: datetime | None) -> str:
    """UTC to the millisecond: 2026-11-23 20:16:34.307."""
    return "" if moment is None else moment.replace(tzinfo=None).isoformat(" ", "milliseconds")


def number(value: int | None) -> str:
    """With a narrow no-break space between thousands; a dash for what is unknown."""
    return "–" if value is None else f"{value:,}".replace(",", "\u202f")


def size(count: int) -> str:
    """Bytes in the unit that suits."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"


def json_value(raw: bytes | None) -> tuple[str | None, str]:
    """(text or base64 or None, encoding): how the JSON answers carry bytes, none lost."""
    if raw is None:
        return None, "utf-8"
    try:
        return raw.decode(), "utf-8"
    except UnicodeDecodeError:
        return b64encode(raw).decode(), "base64"
