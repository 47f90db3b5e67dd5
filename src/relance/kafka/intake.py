"""What a poller does while its feed has no room: it waits, unless workers have nothing to do.

The client serves one partition after the other, thousands of small records each, so a few may take all the
room; then workers that need more keys, or more partitions, are idle beside a full buffer. Promise: such
partitions are paused, and the others read, as soon as that is so; but pausing drops what was fetched, so
where the others have next to nothing it is tried only now and again.
"""

from __future__ import annotations

import time

from relance.kafka.hub import Hub

__all__ = ["Intake"]

_WAIT = 0.05  # seconds; the longest that the polling thread waits at a time
_PATIENCE = 0.5  # seconds without room before partitions are paused, whether workers are idle or not
_HUNT = 0.1  # seconds in which the others' records should come: some fetches
_WORTH = 500  # records of the others that are worth what was dropped
_FUTILE = 5.0  # seconds before it is tried again where it was not


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
        self._hunt_until: float | None = None
        self._hunted = False  # since it was crowded
        self._found = 0  # records, since then
        self._futile_until = 0.0

    def backed_up(self) -> bool:
        """True if nothing should be read now; it has then waited a moment for room."""
        hub, feed, now = self._hub, self._feed, time.monotonic()
        if not hub.full(feed):
            if self._hunted and self._found < _WORTH:
                self._futile_until = now + _FUTILE
            self.crowded = self.hunting = self._hunted = False
            self._hunt_until = None
            return False
        if not self.crowded:
            self.crowded = True
            self._patient_until = now + _PATIENCE
            self._found = 0
        if self._hunts(now):
            return False
        if now >= self._patient_until:
            return False
        hub.wait_for_room(feed, _WAIT, or_starved=now >= self._futile_until)
        return True

    def took(self, count: int) -> None:
        """So many records were read."""
        self._found += count

    def _hunts(self, now: float) -> bool:
        self.hunting = now >= self._futile_until and self._hub.starved(self._feed)
        if not self.hunting:
            self._hunt_until = None
            return False
        if self._hunt_until is None:
            self._hunt_until = now + _HUNT
            self._hunted = True
        if now >= self._hunt_until:
            self._futile_until = now + _FUTILE
            self.hunting = False
        return self.hunting
