"""Time that stands still until a test moves it, on both clocks and on an event loop.

Promise: nothing waits in real time, and nothing runs before it is due.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["VirtualClock", "VirtualCondition", "VirtualLoop"]


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


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a clock's; `run_ready` runs what can run at this instant."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._patience = _Patience()
        super().__init__(self._patience)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """The clock's, not the machine's."""
        return self._clock.now

    def run_ready(self) -> float | None:
        """Run all that can run now; in how many seconds the next timer is due, or None.

        Nothing happens between that and now, unless somebody calls in from outside.
        """
        self._patience.idle = lambda: self.call_soon(self.stop)
        try:
            self.run_forever()
        finally:
            self._patience.idle = None
        return self._patience.next_timer


class _Patience(selectors.DefaultSelector):
    """A selector that never waits: asked to, it says so, and for how long it would have."""

    idle: Callable[[], object] | None = None
    next_timer: float | None = None

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and (timeout is None or timeout > 0) and self.idle is not None:
            self.next_timer = timeout
            idle, self.idle = self.idle, None
            idle()
        return found
