"""Loggers for what comes often; their promise: a flood of records, or of answers, is not a flood of lines."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from relance.clock import Clock

__all__ = ["BurstLog", "LastingLog"]

_TELL_AGAIN = 30.0  # seconds


class BurstLog:
    """For lines of one kind, one for each record.

    The first `limit` of each second are written, the rest is counted and told in one line.
    """

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


class LastingLog:
    """For conditions that last: one line for each in half a minute, not one for each time it is seen."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = logging.getLogger(name)
        self._clock = clock
        self._again: dict[object, float] = {}

    def warning(self, what: object, text: str) -> None:
        """Write `text` if the condition `what` was not told just now."""
        now = self._clock()
        if now >= self._again.get(what, float("-inf")):
            self._again[what] = now + _TELL_AGAIN
            self._log.warning("%s", text)
