"""What Parallel Consumer wrote, as `tests/oracles/parallel_consumer` recorded it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

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
