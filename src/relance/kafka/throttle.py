"""What brokers say of how long they make a client wait; the promise: slow by a quota is not stuck.

A broker holds back what a client asks for when it is past its quota (KIP-13, KIP-124, KIP-219), for tens of
seconds if an answer was large, and tells the client so. It is told once, shows in health while it lasts, and
is no reason to join again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Throttle", "ThrottleEvent"]

_log = logging.getLogger("relance.kafka")

_LEAST = 0.1  # seconds; less is no news
_LINGER = 5.0  # seconds after the end of a wait in which it still counts: the next one is near
_AGAIN = 300.0  # seconds without a wait, after which one is told again


class ThrottleEvent(Protocol):
    """What confluent_kafka tells."""

    broker_id: int
    throttle_time: float
    """Seconds."""


class Throttle:
    """The waits of one client, called `name`. Written by its polling thread; any thread may look."""

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self._longest = 0.0
        self._over = -math.inf
        """When the last of the waits is over, of any broker."""

    def note(self, event: ThrottleEvent) -> None:
        """The client's `throttle_cb`."""
        if event.throttle_time < _LEAST:
            return
        now = self._clock()
        if now > self._over + _AGAIN:
            _log.warning(
                "%s: throttled by the broker, which holds it back for %d ms: a quota of the cluster on this"
                " user or client id; it goes on as fast as that allows",
                self.name,
                round(event.throttle_time * 1000),
            )
        if now > self._over:
            self._longest = 0.0
        self._longest = max(self._longest, event.throttle_time)
        self._over = max(self._over, now + event.throttle_time)

    def told(self) -> str | None:
        """What health says of it; None where no broker holds it back."""
        if self._clock() > self._over + _LINGER:
            return None
        return f"throttled by the broker, for {round(self._longest * 1000)} ms (a quota of the cluster)"
