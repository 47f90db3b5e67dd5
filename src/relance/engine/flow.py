"""When reading stops and goes on: intake bounded in records and bytes, partition by partition for waits.

Two marks each, because pausing drops what the client has fetched. When it is worth that: `kafka.intake`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from relance.engine.assignment import Assignment
from relance.record import TopicPartition

__all__ = ["RECORD_BYTES", "Flow", "Limits"]

# Bytes, measured (`bench/`, the work `memory`): what a record takes beside its value, that is the client's
# message and ours; and what a lane takes, with its place among those that wait.
RECORD_BYTES = 500
_LANE = 400


@dataclass(frozen=True, slots=True)
class Limits:
    """Where intake stops."""

    ready: int = 10_000
    """Records that could start and haven't; intake goes on at half of it."""
    ready_bytes: int = 64 * 1024 * 1024
    """The same in bytes of values, by their mean size."""
    parked: int = 250_000
    """Held by waiting lanes, all partitions of a feed together; each partition may hold its share."""
    parked_bytes: int = 128 * 1024 * 1024
    """The same in bytes of values and of what it takes to hold them."""
    settling: int = 10_000
    """Hand-offs in flight: beyond it no new record starts."""


class Flow:
    """The marks of one engine."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._full: dict[str, bool] = {}
        self._crowding: set[TopicPartition] = set()

    def full(self, feed: str, assignments: Iterable[Assignment]) -> bool:
        """True while `feed` should read nothing more; once full, until half of it is gone."""
        records = size = 0.0
        for assignment in assignments:
            if assignment.feed == feed:
                ready = assignment.queued - assignment.parked
                records += ready
                size += ready * assignment.mean_size
        level = self._level(records, size)
        self._full[feed] = level > 0.5 if self._full.get(feed) else level >= 1.0
        return self._full[feed]

    def pauses(
        self, feed: str, assignments: Iterable[Assignment], *, crowded: bool = False, idle: bool = False
    ) -> set[TopicPartition]:
        """Partitions that should not be read now: stopped, drained, or holding their share of waits.

        While `crowded` (full for long, or `lopsided`), also those that hold their share of what could start,
        until half of it is gone: else the one that fetched first would fill all the room again, and starve
        the others. Not, though, while workers are `idle` and there is room.
        """
        mine = [a for a in assignments if a.feed == feed]
        owners = len(mine)
        found = {a.tp for a in mine if self._held_up(a, owners)}
        if idle and not self._full.get(feed):
            self._crowding.difference_update(a.tp for a in mine)
        for assignment in mine:
            level = self._level_of(assignment, owners)
            if level > 0.5 and (assignment.tp in self._crowding or (crowded and level >= 1.0)):
                self._crowding.add(assignment.tp)
                found.add(assignment.tp)
            else:
                self._crowding.discard(assignment.tp)
        return found

    def lopsided(self, feed: str, assignments: Iterable[Assignment]) -> bool:
        """Whether a partition that may be read holds less than half of its share of what could start."""
        mine = [a for a in assignments if a.feed == feed]
        owners = len(mine)
        return any(self._level_of(a, owners) < 0.5 and not self._held_up(a, owners) for a in mine)

    def holds_its_share(self, assignment: Assignment, owners: int) -> bool:
        """Whether as much waits in it as may, being one of `owners` partitions of its feed."""
        limits, parked = self._limits, assignment.parked
        size = parked * (assignment.mean_size + RECORD_BYTES) + len(assignment.waiting) * _LANE
        return parked >= limits.parked // owners or size >= limits.parked_bytes / owners

    def _held_up(self, assignment: Assignment, owners: int) -> bool:
        return (
            assignment.stopped is not None
            or assignment.draining
            or assignment.map_full
            or self.holds_its_share(assignment, owners)
        )

    def _level_of(self, assignment: Assignment, owners: int) -> float:
        """Of one partition: 1.0 is its share of the whole."""
        ready = assignment.queued - assignment.parked
        return self._level(ready, ready * assignment.mean_size) * owners

    def _level(self, records: float, size: float) -> float:
        return max(records / self._limits.ready, size / self._limits.ready_bytes)
