"""Maps of what is finished: ours, made by hand, and those that Parallel Consumer wrote.

The latter as `tests/oracles/parallel_consumer` recorded them.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import NamedTuple

from relance.engine.offset_map import OffsetMap, encode_map

_FILE = Path(__file__).parent / "data" / "parallel_consumer_maps.json"


class Recorded(NamedTuple):
    name: str
    encoding: str
    text: str
    committed: int
    end: int
    incompletes: tuple[int, ...]


def _offsets(ranges: str, committed: int) -> tuple[int, ...]:
    found: list[int] = []
    for part in ranges.split():
        first, _, last = part.partition("-")
        found += range(committed + int(first), committed + int(last or first) + 1)
    return tuple(found)


RECORDED = [
    Recorded(
        f"{entry['made']}: {entry['shape']}, {entry['encoding']}",
        entry["encoding"],
        entry["text"],
        entry["committed"],
        entry["end"],
        _offsets(entry["incompletes"], entry["committed"]),
    )
    for entry in json.loads(_FILE.read_text())["maps"]
]


def our_map(kind: str, payload: bytes | str, topic_id: str = "T0") -> str:
    """A text of ours with that payload. The head is a real one: a map is refused by a wrong head already."""
    head = encode_map(OffsetMap(0, 0), topic_id)[0].removesuffix("-")
    if isinstance(payload, bytes):
        payload = base64.urlsafe_b64encode(payload).decode().rstrip("=")
    return f"{head}{kind}{payload}"


def varint(number: int) -> bytes:
    """As our maps hold numbers."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
