"""What a poller does while its feed has no room: it waits, unless workers have nothing to do.

The client serves one partition after the other, thousands of small records each, so a few may take all the
room; then workers that need more keys, or more partitions, are idle beside a full buffer. Promise: such
partitions are paused, and the others read, as soon as that is so; but pausing drops what was fetched, so
where the others have next to nothing it is tried only now and again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import Message

from relance.engine.flow import RECORD_BYTES
from relance.kafka.hub import Hub
from relance.message import mean_size

__all__ = ["Intake"]

_WAIT = 0.05  # seconds; the longest that the polling thread waits at a time
_PATIENCE = 0.5  # seconds without room before partitions are paused, whether workers are idle or not
_HUNT = 0.3  # seconds in which the others' records should come: some fetches, from a broker that is far away
_WORTH = 256 * 1024  # bytes of the others' records: a sixteenth of what may have been dropped for them
_FUTILE = 5.0  # seconds before it is tried again where it was not worth it


class Intake:
    """The patience of one poller, on the machine's monotonic clock."""

    def __init__(self, hub: Hub, feed: str) -> None:
        self._hub = hub
        self._feed = feed
        self.crowded = False
        """Partitions that hold their share should be paused, and the others read."""
        self.hunting = False
        """Workers have nothing to do, and it is the others' records that they wait for."""
        self._patient_until = 0.0  # while crowded
        self._hunted_since: float | None = None  # while crowded
        self._found = 0.0  # bytes, while crowded
        self._found_at = 0.0
        self._futile_until = 0.0

    def backed_up(self) -> bool:
        """True if nothing should be read now; it has then waited a moment for room."""
        hub, feed, now = self._hub, self._feed, time.monotonic()
        if not hub.full(feed):
            if self._hunted_since is not None and self._found < _WORTH:
                self._futile_until = now + _FUTILE
            self.crowded = self.hunting = False
            return False
        if not self.crowded:
            self.crowded = True
            self._patient_until = now + _PATIENCE
            self._hunted_since = None
            self._found = 0.0
        hopeful = self._hopeful(now)
        self.hunting = hopeful and hub.starved(feed)
        if self.hunting:
            if self._hunted_since is None:
                self._hunted_since = now
            return False
        if now >= self._patient_until:
            return False
        hub.wait_for_room(feed, _WAIT, or_starved=hopeful)
        return True

    def took(self, messages: Sequence[Message]) -> None:
        """These were read."""
        if self.crowded:
            self._found += (mean_size(messages, Message.value) + RECORD_BYTES) * len(messages)
            self._found_at = time.monotonic()

    def reassigned(self) -> None:
        """Other partitions may have more."""
        self._futile_until = 0.0

    def _hopeful(self, now: float) -> bool:
        """Whether a hunt may begin, or go on: for a while, and as long as it is worth it."""
        if now < self._futile_until:
            return False
        if self._hunted_since is None:
            return True
        if self._found >= _WORTH:
            return now - self._found_at < _HUNT
        if now - self._hunted_since < _HUNT:
            return True
        self._futile_until = now + _FUTILE
        return False
