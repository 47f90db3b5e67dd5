"""The two clocks, behind one name so that tests can turn them.

Waits are measured on the monotonic clock, which no operator steps; times that travel in records are UTC.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Seconds, as floats."""

    def monotonic(self) -> float:
        """Never steps; its zero means nothing."""

    def time(self) -> float:
        """Since the epoch, UTC."""


class SystemClock:
    """This machine's."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
