"""What an application tells of itself: counters and health, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

__all__ = ["CircuitBreakerOpen", "CircuitBreakerStats", "Health", "InFlight", "Stats"]


@dataclass(frozen=True, slots=True)
class CircuitBreakerOpen:
    """A circuit breaker has opened: what `App.on_breaker_open` hooks are given. Stats keep the last.

    Times are UTC.
    """

    name: str
    """The breaker's, or the handler's whose own it is."""
    since: datetime
    until: datetime
    """When it lets the first probe through."""
    calls: int
    """How many calls it was judged by; `failed` and `slow` of them."""
    failed: int
    slow: int
    times_opened: int
    """How often it has opened, this time included."""
    reason: str
    last_error: str | None
    """The last error that counted, `ClassName: text`."""


@dataclass(frozen=True, slots=True)
class CircuitBreakerStats:
    """How a circuit breaker stands. Times are UTC."""

    name: str
    state: Literal["closed", "open", "half-open"]
    since: datetime
    """When it came into this state; of one that never opened, the start."""
    until: datetime | None
    """Open until then; None unless it is open."""
    calls: int
    """Calls in its window, or, half-open, probes that were counted; `failed` and `slow` of them."""
    failed: int
    slow: int
    probing: int
    """Probes that have not come back."""
    times_opened: int
    opened: CircuitBreakerOpen | None
    """The last time it opened."""
    last_error: str | None
    """The last error that counted, `ClassName: text`."""

    def details(self) -> dict[str, Any]:
        """As health tells it: JSON values only."""
        return {
            "state": self.state,
            "since": self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "calls": self.calls,
            "failed": self.failed,
            "slow": self.slow,
            "times_opened": self.times_opened,
            "reason": None if self.state == "closed" or self.opened is None else self.opened.reason,
            "last_error": self.last_error,
        }


@dataclass(frozen=True, slots=True)
class InFlight:
    """A record that its handler has now; of a batch, the first that is not done."""

    handler: str
    topic: str
    partition: int
    offset: int
    attempt: int
    seconds: float
    """Since it, or the run of quick records that it came with, was given to the handler."""

    def details(self) -> dict[str, Any]:
        """As health tells it: JSON values only."""
        return {
            "handler": self.handler,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "attempt": self.attempt,
            "seconds": round(self.seconds, 1),
        }


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
    oldest_in_flight: InFlight | None = None
    """The one that its handler has had for the longest, or None."""
    waiting: int = 0
    """Ordering keys, and records of the retry topic, that wait for their due time."""
    queued: int = 0
    """Records read and not started."""
    circuit_breakers: tuple[CircuitBreakerStats, ...] = ()
    """Those of the handlers; one that they share by its name is here once."""


@dataclass(frozen=True, slots=True)
class Health:
    """UP, or DOWN with the reasons. Waiting retries, no partitions or backpressure are no reason."""

    status: Literal["UP", "DOWN"]
    reasons: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
