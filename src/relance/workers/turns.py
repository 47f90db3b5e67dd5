"""Whether others have had their turn on a loop: who suspended has let them, and need not do it once more.

Promise: two equal numbers mean that between them the loop ran nobody else.
"""

from __future__ import annotations

import asyncio

__all__ = ["Turns"]


class Turns:
    """The turns of a loop, counted only where somebody asks: a callback a turn, not one a record."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked = False
        self.count = 0
        """The number of the present turn, if it is asked for by `now`."""

    def now(self) -> int:
        """The number of this turn; it is another one when the loop has come round."""
        if not self._asked:
            self._asked = True
            self._loop.call_soon(self._ends)
        return self.count

    def _ends(self) -> None:
        self._asked = False
        self.count += 1
