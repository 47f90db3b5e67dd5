"""What happened, as lines of JSON in one file for each process; the promise: a kill loses none of them.

Each line is one `write` to a file opened for appending: what the call has returned for outlives the process.
`t` is the monotonic clock, the same for all processes of a machine, in seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

Event = dict[str, Any]


class Log:
    """One process's file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, event: str, **more: Any) -> None:
        """Append one event; any thread may."""
        line = msgspec.json.encode({"event": event, "t": time.monotonic(), **more})
        os.write(self._file, line + b"\n")


def read(path: Path) -> Iterator[Event]:
    """The events of one file. A last line that was cut off is no event."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield msgspec.json.decode(line)


def read_all(folder: Path) -> list[Event]:
    """The events of all files, by time; each gets `who`, the file's name."""
    found = [event | {"who": path.stem} for path in sorted(folder.glob("*.jsonl")) for event in read(path)]
    found.sort(key=lambda event: event["t"])
    return found
