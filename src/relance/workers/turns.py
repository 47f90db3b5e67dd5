"""How long a task has kept its loop: who suspends lets others have their turn, and need not do it once more.

Promise: what is taken for a suspension is one. Where a record's handler suspended, what it did after that is
not counted: no task is told when it goes on.
"""

from __future__ import annotations

import asyncio

__all__ = ["SLICE", "Hold", "Turns"]

SLICE = 0.005  # seconds that a task may keep the loop from others


class Turns:
    """The turns of a loop, counted only where somebody asks: a callback a turn, not one a record."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked = False
        self.count = 0
        """The number of this turn, to be compared with what `now` said before."""

    def now(self) -> int:
        """The number of this turn; it will be another one when the loop has come round."""
        if not self._asked:
            self._asked = True
            self._loop.call_soon(self._end)
        return self.count

    def _end(self) -> None:
        self._asked = False
        self.count += 1


class Hold:
    """The account of one task. Times are seconds, as `time.perf_counter` gives them."""

    __slots__ = ("_turn", "_turns", "since")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._turn: int | None = None
        self.since = 0.0
        """When it took the loop."""

    def begin(self, now: float) -> None:
        """It has the loop from now on."""
        self._turn, self.since = self._turns.now(), now

    def suspended(self) -> bool:
        """Whether it has been suspended since it began, or never began."""
        return self._turn != self._turns.count
