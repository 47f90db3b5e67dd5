"""Partitions in which another producer's transaction stays open. Promise: what cannot be read is told.

A `read_committed` reader gets nothing behind the first open transaction (the last stable offset), so where a
producer never ends one its readers stand still, with a lag that they cannot work off.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from relance.record import TopicPartition

__all__ = ["OpenTransactions"]

_log = logging.getLogger("relance.kafka")

_EVERY = 6.0  # seconds between two questions, while nothing stands
_PATIENCE = 5.0  # seconds; a transaction takes milliseconds


@dataclass(slots=True)
class OpenTransactions:
    """What one client waits for. Times are passed in, seconds on the monotonic clock."""

    _since: dict[TopicPartition, tuple[int, float]] = field(default_factory=dict)
    """The stable offset at which each stands, and since when."""
    told: dict[TopicPartition, str] = field(default_factory=dict)
    """Of those that have stood for some seconds; replaced, never changed."""
    _next: float = -math.inf

    def due(self, now: float) -> bool:
        """Whether it is time for a look. It costs a question about each partition that is read to its end."""
        return bool(self._since) or now >= self._next

    def look(
        self, now: float, stable: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> None:
        """`stable` are the last stable offsets of what is read to there, `ends` the high watermarks."""
        self._next = now + _EVERY
        open_at = {tp: at for tp, at in stable.items() if at < ends.get(tp, 0)}
        self._since = {
            tp: seen if (seen := self._since.get(tp, (at, now)))[0] == at else (at, now)
            for tp, at in open_at.items()
        }
        told = {
            tp: f"a producer has not ended its transaction for {now - since:.0f} s: what lies from offset"
            f" {at} to {ends[tp]} cannot be read before it does, and this consumer cannot reduce that lag"
            for tp, (at, since) in self._since.items()
            if now - since >= _PATIENCE
        }
        for tp in told.keys() - self.told.keys():
            _log.warning("%s: %s", tp, told[tp])
        for tp in self.told.keys() - told.keys():
            _log.info("%s: no open transaction holds it up any more", tp)
        self.told = told
