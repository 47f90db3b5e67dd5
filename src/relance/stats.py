"""What an application tells of itself: counters and health, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

__all__ = ["Health", "Stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters of this process since it started."""

    handled: int = 0
    """Records whose handler returned."""
    failed: int = 0
    """Failed attempts; a record that fails three times counts three."""
    retried: int = 0
    """Retries scheduled, in memory or through the retry topic."""
    dead_lettered: int = 0
    """Records given up and written (or being written) to the dead-letter topic."""
    rebalances: int = 0
    """How often partitions came or went."""
    last_rebalance: datetime | None = None
    in_flight: int = 0
    """Records with a handler now."""
    waiting: int = 0
    """Ordering keys, and records of the retry topic, that wait for their due time."""
    queued: int = 0
    """Records read and not started."""


@dataclass(frozen=True, slots=True)
class Health:
    """UP, or DOWN with the reasons. Waiting retries, no partitions or backpressure are no reason."""

    status: Literal["UP", "DOWN"]
    reasons: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
