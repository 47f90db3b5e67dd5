"""Reads what a visitor put into the address; its promise: a value in range, or a BadInputError that names it.

The ranges are Kafka's: a partition is an int32, an offset an int64, both from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relance.kafka.browse import FetchedRecord

__all__ = ["BadInputError", "Look", "cursor_text", "look"]

PAGE_SIZES = (25, 50, 100, 200)
MAX_PAGE = 500
MAX_PARTITION = 2**31 - 1
MAX_OFFSET = 2**63 - 1
MAX_TEXT = 256


class BadInputError(ValueError):
    """A parameter that can't be right; `status` is 400 for what can't be read, 422 for what can't be used."""

    def __init__(self, name: str, problem: str, status: int = 422) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.status = status


@dataclass(frozen=True, slots=True)
class Look:
    """What of a topic is asked for. Hashable: it is also the key under which the answer is kept."""

    limit: int
    partition: int | None = None
    key: str = ""
    before: tuple[tuple[int, int], ...] = ()

    def matches(self, record: FetchedRecord) -> bool:
        """Whether the record's key holds the text, case aside."""
        return self.key.encode().lower() in (record.key or b"").lower()


def look(query: Mapping[str, str], *, default_limit: int = 50) -> Look:
    """`limit`, `partition`, `key`, and either the cursor `before` or an `offset` to start from."""
    limit = integer(query, "limit", 1, MAX_PAGE)
    partition = integer(query, "partition", 0, MAX_PARTITION)
    offset = integer(query, "offset", 0, MAX_OFFSET)
    key = query.get("key", "")
    if len(key) > MAX_TEXT:
        raise BadInputError("key", f"must be at most {MAX_TEXT} characters")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise BadInputError("key", "is not valid Unicode") from None
    before = cursor(query.get("before", ""))
    if offset is not None:
        if partition is None:
            raise BadInputError("offset", "needs a partition: each partition counts its own")
        if before:
            raise BadInputError("offset", "and before exclude each other")
        before = ((partition, min(offset + 1, MAX_OFFSET)),)
    return Look(limit=default_limit if limit is None else limit, partition=partition, key=key, before=before)


def integer(query: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    """A decimal number from `low` to `high`; None where it is absent or empty, as forms send it."""
    text = query.get(name, "").strip()
    if not text:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise BadInputError(name, f"must be a whole number, not {text[:40]!r}")
    # Twenty digits hold an int64; a longer text would only keep the interpreter busy.
    value = int(text) if len(digits) <= 20 else None
    if value is None or not low <= value <= high:
        raise BadInputError(name, f"must be from {low} to {high}, not {text[:40]}")
    return value


def cursor(text: str) -> tuple[tuple[int, int], ...]:
    """`0:113,1:117` as ((0, 113), (1, 117)): read each partition below that offset."""
    if not text:
        return ()
    found: dict[int, int] = {}
    for part in text.split(","):
        left, colon, right = part.partition(":")
        good = colon and all(side.isascii() and side.isdigit() and len(side) <= 19 for side in (left, right))
        if not good or int(left) > MAX_PARTITION or int(right) > MAX_OFFSET or int(left) in found:
            raise BadInputError(
                "before", f"is not a cursor: {text[:40]!r}; take it from the answer before", 400
            )
        found[int(left)] = int(right)
    return tuple(sorted(found.items()))


def cursor_text(before: Mapping[int, int] | None) -> str:
    """The cursor as it stands in an address; empty at the end."""
    return ",".join(f"{p}:{offset}" for p, offset in sorted((before or {}).items()))
