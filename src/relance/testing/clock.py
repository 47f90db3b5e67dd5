"""Time that stands still until a test moves it, and a condition whose waiting makes the world go on.

Promise: nothing waits in real time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["VirtualClock", "VirtualCondition"]


class VirtualClock:
    """Both clocks, in seconds; `wall` is UTC since the epoch."""

    def __init__(self, now: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self.now, self.wall = now, wall

    def monotonic(self) -> float:
        """Seconds; its zero means nothing."""
        return self.now

    def time(self) -> float:
        """Seconds since the epoch, UTC."""
        return self.wall

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.wall += seconds


class VirtualCondition(threading.Condition):
    """Stands in for a condition that a runtime waits on: waiting makes the world go on."""

    def __init__(self, lock: Any, go_on: Callable[[float], None]) -> None:
        super().__init__(lock)
        self._held = lock
        self._go_on = go_on

    def wait(self, timeout: float | None = None) -> bool:
        """Let the world go on for at most `timeout` seconds of its time."""
        self._held.release()
        try:
            self._go_on(0.0 if timeout is None else timeout)
        finally:
            self._held.acquire()
        return True

    def notify_all(self) -> None:
        """Nobody waits: there is one thread."""
