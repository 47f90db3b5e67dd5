"""What waits for its time; its promise: nothing comes out before it is due, and what is due comes in order.

A heap of (due, sequence, item). Due times are seconds on the monotonic clock; the sequence keeps equal due
times in the order they came. What was cancelled is dropped when it surfaces, so cancelling costs nothing.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

__all__ = ["DueHeap"]

T = TypeVar("T")


class DueHeap(Generic[T]):
    """Items by due time. A ticket, from `push`, names one waiting item until it is popped or cancelled."""

    __slots__ = ("_heap", "_live", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._live: set[int] = set()
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._live)

    def push(self, due: float, item: T) -> int:
        """Let `item` wait until `due`; the ticket can cancel it."""
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, item))
        self._live.add(self._sequence)
        return self._sequence

    def cancel(self, ticket: int) -> None:
        """Forget a waiting item. A ticket already popped or cancelled is no error."""
        self._live.discard(ticket)
        # Dead entries hold their items: sweep when they outnumber the living, so memory stays in proportion.
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self._live):
            self._heap = [entry for entry in self._heap if entry[1] in self._live]
            heapq.heapify(self._heap)

    def next_due(self) -> float | None:
        """When the first item is due, or None when nothing waits."""
        heap, live = self._heap, self._live
        while heap and heap[0][1] not in live:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> list[T]:
        """All items due at `now`, earliest first."""
        found: list[T] = []
        heap, live = self._heap, self._live
        while heap and (heap[0][0] <= now or heap[0][1] not in live):
            _, ticket, item = heapq.heappop(heap)
            if ticket in live:
                live.remove(ticket)
                found.append(item)
        return found
