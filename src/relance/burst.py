"""Log lines that come one for each record; its promise: a flood of records is not a flood of lines.

The first `limit` lines of each second are written, the rest is counted and told in one line.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from relance.clock import Clock

__all__ = ["BurstLog"]


class BurstLog:
    """A logger for lines of one kind."""

    def __init__(self, name: str, clock: Clock, limit: int = 50) -> None:
        self._log = logging.getLogger(name)
        self._clock = clock
        self._limit = limit
        self._lock = threading.Lock()
        self._second = 0.0
        self._written = 0
        self._held = 0

    def warning(self, text: str, args: Callable[[], tuple[object, ...]] = tuple) -> None:
        """Write the line, or count it. `args` is asked for what goes into it, if it is written."""
        if not self._log.isEnabledFor(logging.WARNING):
            return
        now = self._clock.monotonic()
        with self._lock:
            held = 0
            if now - self._second >= 1.0:
                self._second, self._written = now, 0
                held, self._held = self._held, 0
            self._written += 1
            if self._written > self._limit:
                self._held += 1
                return
        if held:
            self._log.warning("... and %d more lines like these", held)
        self._log.warning(text, *args())
