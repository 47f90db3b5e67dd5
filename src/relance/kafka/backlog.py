"""What goes into the next transaction: the hand-offs that none has written yet.

Promise: one that spoils transactions is never in one with others for long: it is known by its refusal, or
found by halving; then it goes alone, at its own pace (`Suspects`). None is taken that a commit could not tell
of. Pure: times are passed in, and the owner serialises the calls.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from relance.engine.assignment import Assignment
from relance.errors import SendError
from relance.kafka.suspects import Suspects
from relance.record import Outgoing, TopicPartition

__all__ = ["Backlog", "Pending"]

_BATCH = 2000  # hand-offs in a transaction: so that it takes a fraction of its time


@dataclass(eq=False, slots=True)
class Pending:
    """A hand-off that no transaction has written yet."""

    assignment: Assignment
    offset: int
    outgoing: tuple[Outgoing, ...]
    topics: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.topics = frozenset(o.topic for o in self.outgoing)


class Backlog:
    """The hand-offs of one feed, in the order in which they came."""

    def __init__(self) -> None:
        self._pending: list[Pending] = []
        self._suspects = Suspects[Pending]()
        self._probed = False
        self._most = _BATCH
        """In the next transaction: half as many after an abort that named none, or one that took too long;
        twice as many after one that was as large as it might be."""

    def add(self, pending: Pending) -> str | None:
        """Why it has to wait, or None."""
        self._pending.append(pending)
        return self._suspects.reason(pending)

    def choose(self, now: float, without: Collection[str]) -> tuple[list[Pending], bool]:
        """All that may well succeed, or one that was refused (True), in turns; none of topics `without`."""
        self._pending = [p for p in self._pending if not p.assignment.closed]
        self._suspects.forget_closed(self._pending)
        usable = self.usable(without)
        probe = None if self._probed and usable else self._suspects.due(self._telling(without), now)
        self._probed = probe is not None
        return ([probe], True) if probe is not None else (usable[: self._most], False)

    def usable(
        self, without: Collection[str], tps: Collection[TopicPartition] | None = None
    ) -> list[Pending]:
        """Those that may go together; all, or those of `tps`."""
        return [
            p
            for p in self._telling(without)
            if not self._suspects.holds(p) and (tps is None or p.assignment.tp in tps)
        ]

    def next_due(self, without: Collection[str]) -> float | None:
        """When one that was refused is to be tried alone."""
        return self._suspects.next_due(self._telling(without))

    def hurry(self, assignments: Collection[Assignment], without: Collection[str]) -> list[Pending]:
        """Those of `assignments` that were refused, which are due from now on, after what may go together."""
        held = [p for p in self._telling(without) if p.assignment in assignments and self._suspects.holds(p)]
        self._suspects.hurry(held)
        self._probed = True
        return held

    def written(self, batch: Sequence[Pending]) -> None:
        """A transaction with these took effect."""
        done = set(batch)
        self._pending = [p for p in self._pending if p not in done]
        for pending in batch:
            self._suspects.written(pending)
        if len(batch) >= self._most:
            self._most = min(_BATCH, 2 * self._most)

    def refused(
        self, pending: Pending, topic: str, problem: SendError, now: float
    ) -> list[tuple[Pending, str]]:
        """`topic` refused it: all that have to wait, and why. What is due is not told: its turn comes."""
        self._suspects.refused(pending, topic, problem, now)
        return [(p, reason) for p in self._pending if (reason := self._suspects.waits(p, now)) is not None]

    def halve(self, batch: Sequence[Pending]) -> None:
        """One of these spoiled the transaction, and nobody says which; or they were too many for its time."""
        self._most = max(1, len(batch) // 2)

    def _telling(self, without: Collection[str]) -> list[Pending]:
        """Those that a commit made now can tell of."""
        return [
            p
            for p in self._pending
            if not (a := p.assignment).closed and a.tells_of(p.offset) and a.tp.topic not in without
        ]
