"""When reading stops and goes on: intake bounded in records and bytes, partition by partition for waits.

Two marks each, because pausing drops what the client has fetched and so must be rare.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from relance.engine.assignment import Assignment
from relance.record import TopicPartition

__all__ = ["Flow", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Where intake stops."""

    ready: int = 10_000
    """Records that could start and haven't; intake goes on at half of it."""
    ready_bytes: int = 64 * 1024 * 1024
    """The same in bytes of values, by their mean size."""
    parked: int = 100_000
    """Held by waiting lanes, all partitions of a feed together; each partition may hold its share."""
    settling: int = 10_000
    """Hand-offs in flight: beyond it no new record starts."""


class Flow:
    """The marks of one engine."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._full: dict[str, bool] = {}

    def full(self, feed: str, assignments: Iterable[Assignment]) -> bool:
        """True while `feed` should read nothing more; once full, until half of it is gone."""
        records = size = 0.0
        for assignment in assignments:
            if assignment.feed == feed:
                ready = assignment.queued - assignment.parked
                records += ready
                size += ready * assignment.mean_size
        level = max(records / self._limits.ready, size / self._limits.ready_bytes)
        self._full[feed] = level > 0.5 if self._full.get(feed) else level >= 1.0
        return self._full[feed]

    def pauses(self, feed: str, assignments: Iterable[Assignment]) -> set[TopicPartition]:
        """Partitions that should not be read now: stopped, drained, or holding their share of waits."""
        mine = [a for a in assignments if a.feed == feed]
        share = self._limits.parked // max(1, len(mine))
        return {a.tp for a in mine if a.stopped is not None or a.draining or a.map_full or a.parked >= share}
