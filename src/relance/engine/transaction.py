"""What one transaction holds: hand-offs that it writes, and the commits that count them as finished.

Promise: hand-offs and commits are one or nothing. What is taken for a transaction counts as finished from
then on, so that the commit says so; if the transaction does not take effect, `undo` makes it unfinished
again, and no later commit counts it. A hand-off that the commit could not tell of (its map has an end) is
not taken: after a crash its record would be handled, and written, again.

Pure, as the engine that it works on; its owner serialises the calls.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from relance.engine.assignment import Assignment, Commit, Tried
from relance.engine.engine import Engine
from relance.engine.offset_map import decode_map

__all__ = ["Settling", "Taken", "confirm", "finished_by", "settle", "uncommitted", "undo"]


class Settling(Protocol):
    """A hand-off, as far as it concerns the engine."""

    @property
    def assignment(self) -> Assignment:
        """Whose record it finishes."""

    @property
    def offset(self) -> int:
        """Where that record lies in its log."""


@dataclass(eq=False, slots=True)
class Taken:
    """What is in one transaction. With `closed` or `beyond` nothing is: it must be aborted."""

    handoffs: Sequence[Settling] = ()
    commits: list[Commit] = field(default_factory=list)
    closed: list[Settling] = field(default_factory=list)
    """Those of partitions that are ours no more: written, they would be another owner's twice."""
    beyond: list[Settling] = field(default_factory=list)
    """Those that the commit cannot tell of, or of a partition that is not committed now."""
    tried: dict[Settling, Tried] = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        """Whether it must be aborted."""
        return bool(self.closed or self.beyond)


def settle(
    engine: Engine,
    feed: str,
    handoffs: Sequence[Settling],
    *,
    now: float,
    wall: float,
    without: Collection[str] = (),
) -> Taken:
    """Count `handoffs` as finished, and make the commits of `feed` that say so; none of topics `without`."""
    closed = [h for h in handoffs if h.assignment.closed or h.offset not in h.assignment.settling]
    beyond = [h for h in handoffs if h.assignment.tp.topic in without]
    if closed or beyond:
        return Taken(closed=closed, beyond=beyond)
    taken = Taken(handoffs)
    for handoff in handoffs:
        assignment, offset = handoff.assignment, handoff.offset
        if offset in assignment.tried:
            taken.tried[handoff] = assignment.tried[offset]
        assignment.settling.remove(offset)
        engine.settling -= 1
        if offset in assignment.aside:
            assignment.aside.remove(offset)
            engine.aside -= 1
        engine.finished(assignment, [offset])
    taken.commits = engine.commits(feed, now=now, wall=wall, without=without)
    beyond = [h for h in handoffs if not h.assignment.tells_of(h.offset)]
    if not beyond:
        return taken
    undo(engine, taken)
    for handoff in beyond:
        if handoff.offset not in handoff.assignment.aside:
            handoff.assignment.aside.add(handoff.offset)
            engine.aside += 1
    return Taken(beyond=beyond)


def undo(engine: Engine, taken: Taken) -> None:
    """It did not take effect: its hand-offs are unfinished again, its commits were never made."""
    again: dict[Assignment, list[int]] = {}
    for handoff in taken.handoffs:
        assignment = handoff.assignment
        if not assignment.closed:
            again.setdefault(assignment, []).append(handoff.offset)
            if handoff in taken.tried:
                assignment.tried[handoff.offset] = taken.tried[handoff]
    for assignment, offsets in again.items():
        assignment.frontier.reopen(offsets)
        assignment.settling.update(offsets)
        engine.settling += len(offsets)
    for commit in taken.commits:
        engine.commit_failed(commit)
        if commit.assignment.unanswered is commit:
            commit.assignment.unanswered = None


def confirm(engine: Engine, taken: Taken) -> list[Assignment]:
    """It took effect. The partitions that go on, because what they waited for is written."""
    for commit in taken.commits:
        engine.committed(commit)
    going_on = []
    for handoff in taken.handoffs:
        assignment = handoff.assignment
        if handoff.offset in assignment.failing and not assignment.closed:
            assignment.failing.discard(handoff.offset)
            if not assignment.failing:
                engine.resume(assignment)
                going_on.append(assignment)
    return going_on


def uncommitted(engine: Engine, feed: str, tps: Collection[object] | None = None) -> bool:
    """Whether there is something to commit for `feed`, or for those of its partitions."""
    for tp, assignment in engine.assignments.items():
        if assignment.feed != feed or (tps is not None and tp not in tps):
            continue
        for run in assignment.running:
            engine.report(run)
        if assignment.changed or (assignment.ending and assignment.told):  # the mark of a clean end
            return True
    return False


def finished_by(assignment: Assignment, offset: int, committed: int, metadata: str) -> bool:
    """Whether a commit (negative: none) with its metadata says that `offset` is finished."""
    if offset < committed:
        return True
    known = decode_map(metadata, assignment.topic_id, committed) if committed >= 0 else None
    return known is not None and offset < known.end and offset not in set(known.unfinished)
