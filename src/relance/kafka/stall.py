"""Sees that a client no longer takes part, although nothing says so; the promise: silence is not health.

Two things are looked at from outside, with an admin client: whether the group counts the client among its
members, and whether its partitions are read on while records wait in them. What lasts longer than any
rebalance is told and mended by leaving the group and joining it again, which drains and commits as any
revocation does. (Issues of this kind: librdkafka #2703, spring-kafka #2525, aiokafka #1154.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from relance.record import TopicPartition

__all__ = ["Stall"]


@dataclass(slots=True)
class Stall:
    """The observations of one client. Pure: times are passed in, seconds on the monotonic clock."""

    patience: float
    """How long a stall must last, in seconds; above the session timeout and any drain."""
    _absent_since: float | None = None
    _stuck: dict[TopicPartition, tuple[int, float]] = field(default_factory=dict)

    def look(
        self,
        now: float,
        *,
        is_member: bool | None,
        reading: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
    ) -> str | None:
        """Why the client should join again, or None.

        `reading` are the next offsets it reads, `ends` the last stable offsets (what a `read_committed`
        reader can reach: an open transaction is no stall). `is_member` is None where nobody can tell: then
        the client counts as one.
        """
        if is_member is not False:
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        elif now - self._absent_since >= self.patience:
            lasted = now - self._absent_since
            self.forget()
            return f"the group has not counted this client as a member for {lasted:.0f} s"
        behind = {tp: at for tp, at in reading.items() if at < ends.get(tp, 0)}
        for tp in list(self._stuck):
            if behind.get(tp) != self._stuck[tp][0]:
                del self._stuck[tp]
        for tp, at in behind.items():
            since = self._stuck.setdefault(tp, (at, now))[1]
            if now - since >= self.patience:
                self.forget()
                return f"{tp} has stood at offset {at} of {ends[tp]} for {now - since:.0f} s"
        return None

    def forget(self) -> None:
        """Begin anew: after a rejoin, or after an outage in which nothing could be seen."""
        self._absent_since = None
        self._stuck.clear()
