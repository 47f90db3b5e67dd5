"""Shows the services' logs: one by name, or all of them with the name before each line.

Promise: lines of several logs come in the order of their times, each log's own in their own order; `--follow`
never misses a line: it notices a log that appears later, that was rotated, that was cut.
"""

from __future__ import annotations

import heapq
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stack import services, supervisor
from stack.settings import Settings, UsageError
from stack.up import wanted_consumers

# As services and the broker write it, in UTC.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@dataclass
class Follower:
    """Reads a log file from where it stopped; incomplete lines wait for their end."""

    path: Path
    prefix: str
    _stream: BinaryIO | None = None
    _rest: bytes = b""
    _time: str = ""

    def first(self, tail: int | None) -> list[str]:
        """What the file holds now, its last `tail` lines only if asked."""
        lines = deque(self.more(), maxlen=tail)
        return list(lines)

    def dated(self, lines: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Each line with its time. One without, as of a stack trace, has the time of the line above."""
        for line in lines:
            if found := _TIME.match(line, len(self.prefix)):
                self._time = max(self._time, found[0])
            yield self._time, line

    def more(self) -> list[str]:
        """The complete lines that came since."""
        lines = self._read()
        if self._stream is None or self._replaced():
            self.close()
            try:
                self._stream = self.path.open("rb")
            except FileNotFoundError:
                return lines
            lines += self._read()
        return lines

    def _read(self) -> list[str]:
        if self._stream is None:
            return []
        *lines, self._rest = (self._rest + self._stream.read()).split(b"\n")
        return [self.prefix + line.decode(errors="replace") for line in lines]

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._rest = None, b""

    def _replaced(self) -> bool:
        assert self._stream is not None
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return True
        return there.st_ino != os.fstat(self._stream.fileno()).st_ino or there.st_size < self._stream.tell()


def show(settings: Settings, name: str | None, *, tail: int | None, follow: bool) -> None:
    known = known_names(settings)
    if name is not None and name not in known:
        raise UsageError(f"no log {name!r}; there are: {', '.join(known)}")
    names = [name] if name is not None else known
    width = max(len(one) for one in names)
    prefixes = {one: "" if name is not None else f"{one:<{width}} | " for one in names}
    followers = [Follower(supervisor.log_path(settings, one), prefixes[one]) for one in names]
    _write(_merged([follower.dated(follower.first(tail)) for follower in followers]))
    while follow:
        lines = _merged([follower.dated(follower.more()) for follower in followers])
        if lines:
            _write(lines)
        else:
            time.sleep(0.1)
    for follower in followers:
        follower.close()


def known_names(settings: Settings) -> list[str]:
    """The names of this stack's logs, in the order of the services; then older ones that are still there."""
    wanted = [service.name for service in services.all_services(settings, wanted_consumers(settings))]
    found = sorted(path.stem for path in settings.logs_dir.glob("*.log"))
    names = [*wanted, services.BROKER]
    return [*names, *(name for name in found if name not in names)]


def _merged(logs: Iterable[Iterable[tuple[str, str]]]) -> list[str]:
    return [line for _, line in heapq.merge(*logs, key=lambda dated: dated[0])]


def _write(lines: list[str]) -> None:
    if lines:
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
