"""After a death: what of the ready lanes may start, in all careful assignments of one engine together.

The rules for one assignment are `crashes`; here they meet the line of ready lanes, and the one rule that
concerns all: a suspect whose next death would be its last runs while nothing else does. The order matters:
nothing else runs, then a commit names it, then it runs, then a commit doesn't name it, then others run. So
whoever dies while a commit names it dies of it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from relance.engine.assignment import Assignment, Commit
from relance.engine.crashes import WINDOW, Careful
from relance.engine.lanes import Lane, Run
from relance.record import TopicPartition

__all__ = ["Caution"]


class Caution:
    """The careful mode of one engine; `ready` is its line, which lanes come back to."""

    def __init__(self, ready: deque[Lane]) -> None:
        self.calmed: list[TopicPartition] = []
        """Partitions whose careful mode has ended since somebody emptied this."""
        self._ready = ready
        self._alone: Assignment | None = None  # whose suspect must be the only record that runs

    def holds_all(self, in_flight: int) -> bool:
        """Whether nothing may start: a suspect is to be alone, and it is not its turn yet."""
        return self._alone is not None and not self._may_go_on(self._alone, in_flight)

    @property
    def has_one_alone(self) -> bool:
        """Whether a suspect is to run while nothing else does; where `holds_all` allows it, it is first."""
        return self._alone is not None

    def startable(self, lane: Lane, careful: Careful, length: int) -> int:
        """How many of the lane's first records may start; if none, the lane is kept until it may."""
        first = lane.queue[0].log_offset
        if careful.end is None:
            length = careful.startable(r.log_offset for r in islice(lane.queue, length))
            if length == 0:
                careful.short = lane.assignment.changed = True
                careful.beyond.append(lane)
            return length
        if first >= careful.end:
            careful.beyond.append(lane)
        elif lane is careful.suspect and first == careful.offset and careful.named:
            careful.out = True
            return 1
        elif careful.suspect is None and careful.tried < WINDOW:
            careful.choose(lane, first)
            if careful.needs_to_be_alone(first):
                self._alone = lane.assignment
            else:
                careful.asked = lane.assignment.changed = True
        elif lane is not careful.suspect:
            careful.inside.append(lane)
        return 0

    def came_back(self, careful: Careful, run: Run) -> None:
        """A run of a careful assignment has ended, and the process lives."""
        if run.lane is careful.suspect:
            run.lane.assignment.changed = True
            lane = careful.drop_suspect()
            if lane is not None:
                self._ready.appendleft(lane)

    def look_after(self, assignment: Assignment, careful: Careful, now: float) -> None:
        """Before a commit: whether it goes on, and how."""
        frontier = assignment.frontier
        level = careful.level
        if not careful.goes_on(now, frontier.base, frontier.position):
            assignment.careful = None
            self._ready.extend(careful.close())
            self.calmed.append(assignment.tp)
        elif careful.level == level:
            return
        assignment.changed = True

    def end_without_need(self, assignment: Assignment, careful: Careful) -> None:
        """Nobody has died after all."""
        alone = self._alone is assignment  # so it is for `holds_all` to put its suspect in line
        if careful.suspect is not None and not careful.out and (alone or not careful.named):
            self._ready.append(careful.suspect)  # else it is in line already
        assignment.careful = None
        assignment.changed = True
        self._ready.extend(careful.close())

    def acknowledged(self, careful: Careful, commit: Commit) -> bool:
        """The broker has `commit`. True if something may start now that could not before."""
        assignment = commit.assignment
        lanes = careful.acknowledged(commit.mark)
        if self._alone is assignment and careful.suspect is not None:
            return True  # `holds_all` puts it first itself, because others may be due by then
        self._ready.extendleft(reversed(lanes))
        return bool(lanes) or self._alone is assignment

    def _may_go_on(self, assignment: Assignment, in_flight: int) -> bool:
        """Whether the suspect of `assignment` is first in line now, or all is over."""
        careful = assignment.careful
        if careful is None:
            self._alone = None
            return True
        stopped = assignment.draining or assignment.stopped is not None
        if stopped and not careful.out and (lane := careful.suspect) is not None:
            if careful.asked:  # and perhaps named by a commit that is on its way
                careful.clean, assignment.changed = False, True
            following = careful.drop_suspect()
            self._ready.extend([lane] if following is None else [lane, following])
        if careful.suspect is None:
            if not careful.clean:
                return False
            self._alone = None
            return True
        if careful.out:
            return False
        if not careful.asked and in_flight == 0:
            careful.asked = assignment.changed = True
        if not careful.named:
            return False
        self._ready.appendleft(careful.suspect)
        return True
