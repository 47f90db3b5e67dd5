"""Attempts that a circuit breaker gives back when their records are on their way to the retry topic already.

Promise: such a record gets them back before it is tried again, if it comes round in this process, and each of
them once. What comes round elsewhere keeps the count in its headers.
"""

from __future__ import annotations

from relance.record import Record

__all__ = ["Origin", "Owed", "origin_of"]

Origin = tuple[str, int, int]
"""Where a record was first written: topic, partition, offset."""

_LIMIT = 10_000  # records; beyond it the oldest are forgotten, which most likely came round elsewhere


def origin_of(record: Record) -> Origin:
    """The same for a record of the source topic and for its retries."""
    return record.topic, record.partition, record.offset


class Owed:
    """How many attempts each record is still to be given back. False if there are none."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._tries: dict[Origin, int] = {}

    def __bool__(self) -> bool:
        return bool(self._tries)

    def owe(self, origin: Origin) -> None:
        """One attempt more."""
        self._tries[origin] = self._tries.pop(origin, 0) + 1
        if len(self._tries) > self._limit:
            del self._tries[next(iter(self._tries))]

    def pay(self, record: Record) -> None:
        """Give a record of the retry topic back what it is owed, its last tries first."""
        if record.deferral is None:
            return
        tries = min(self._tries.pop(origin_of(record), 0), record.attempt - 1)
        if tries > 0:
            record.attempt -= tries
            record.history = record.history[:-tries]
