"""The engine of one consumer: which record may run, what is finished, what may be committed.

A pure state machine: no I/O, no threads, no clock of its own (`now` is passed in). Its owner serialises the
calls (`runtime.Runtime` with a lock, the test world by being single-threaded). Its promises:

* a record is out with at most one worker, and no two records of a lane are out together;
* what is committed is never past an unfinished record, and never goes back within an assignment;
* a record whose hand-off (retry topic, dead letter) is not acknowledged is unfinished;
* a completion that belongs to a closed assignment changes nothing;
* a waiting record is not started before it is due;
* of a careful assignment (`crashes`) nothing starts that the broker was not told of.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import islice
from operator import attrgetter
from typing import Literal

from relance.engine.assignment import Assignment, Commit, Tried
from relance.engine.caution import Caution
from relance.engine.crashes import Careful
from relance.engine.due import DueHeap
from relance.engine.flow import Flow, Limits
from relance.engine.frontier import Frontier
from relance.engine.lanes import Lane, LaneState, Run
from relance.engine.metadata_room import MetadataRoom
from relance.record import Record, TopicPartition

__all__ = ["Engine", "Ordering"]

Ordering = Literal["partition", "key", "none"]

_SOON = 10.0  # seconds; a wait that is not worth writing again


class Engine:
    """Lanes, due times and frontiers of all partitions that one consumer owns."""

    def __init__(
        self, ordering: Ordering, limits: Limits | None = None, *, batch: int = 1, owner: str = ""
    ) -> None:
        self.ordering = ordering
        self._owner = owner  # the process, as marks name it
        self._batch = batch  # records without order that share a lane, because one call may take them all
        self.limits = limits or Limits()
        self.assignments: dict[TopicPartition, Assignment] = {}
        self.room = MetadataRoom()
        self._unbegun: set[Assignment] = set()
        self._ready: deque[Lane] = deque()
        self._due: DueHeap[Lane] = DueHeap()
        self._epoch = 0
        self._flow = Flow(self.limits)
        self._caution = Caution(self._ready)
        self.settling = 0
        self.aside = 0
        """Hand-offs that wait for room in a map, so perhaps for records that wait: they hold up no other."""
        self.in_flight = 0
        """Runs that are out with workers."""

    # -- ownership ---------------------------------------------------------------------------------

    def assign(
        self,
        tp: TopicPartition,
        feed: str,
        frontier: Frontier,
        topic_id: str = "",
        careful: Careful | None = None,
        *,
        home: str = "",
    ) -> Assignment:
        """Own `tp` from now on. An ownership that was not given back is fenced first."""
        self.close([tp])
        self.room.forget()
        self._epoch += 1
        assignment = Assignment(tp, feed, self._epoch, frontier, topic_id, home, self._owner, careful=careful)
        assignment.committed = frontier.base
        self.assignments[tp] = assignment
        return assignment

    def drain(self, tps: Iterable[TopicPartition]) -> list[Assignment]:
        """Start nothing more of `tps`: what is queued or waits is dropped, what runs may end its record."""
        found = []
        for tp in tps:
            assignment = self.assignments.get(tp)
            if assignment is None:
                continue
            found.append(assignment)
            if assignment.draining:
                continue
            # The waits must still be in the last commit, so they are dropped only when it is closed.
            assignment.draining = True
            for run in assignment.running:
                run.cancel()
        return found

    def close(self, tps: Iterable[TopicPartition]) -> None:
        """Fence `tps`: whatever still runs or settles for them counts for nothing."""
        for tp in tps:
            assignment = self.assignments.pop(tp, None)
            if assignment is None:
                continue
            self._unbegun.discard(assignment)
            assignment.closed = assignment.draining = True
            for run in assignment.running:
                run.cancel()
            for lane in assignment.waiting:
                self._due.cancel(lane.ticket)
            self.settling -= len(assignment.settling)
            self.aside -= len(assignment.aside)
            self.in_flight -= len(assignment.running)
            assignment.waiting.clear()
            assignment.running.clear()
            assignment.settling.clear()
            assignment.aside.clear()
            assignment.lanes.clear()
            assignment.held.clear()
            assignment.careful = None
            assignment.tried.clear()
            assignment.later.clear()

    # -- intake ------------------------------------------------------------------------------------

    def intake(self, assignment: Assignment, records: list[Record], *, now: float, wall: float) -> None:
        """Records read from the partition, ascending. Those finished by an earlier owner are skipped.

        `now` is the monotonic clock, `wall` the time of day (seconds, UTC).
        """
        frontier = assignment.frontier
        if assignment.closed or not records:
            return
        last = records[-1].log_offset
        if records[0].log_offset < frontier.position:  # read again after a reconnection
            records = [r for r in records if r.log_offset >= frontier.position]
        waits: dict[int, float] | None = None
        if frontier.replaying():
            records = [r for r in records if not frontier.was_finished(r.log_offset)]
            waits = assignment.recall(records, now, wall)
            assignment.changed = True
        if not assignment.draining:
            if records:
                frontier.open(_offsets(records))
            assignment.queued += len(records)
            assignment.weigh(records)
            self._queue(assignment, records, waits)
            frontier.advance(last + 1)
            if not records:
                assignment.changed = True

    def wait_at_intake(
        self, assignment: Assignment, record: Record, due: float, *, now: float, wall: float
    ) -> None:
        """One record (of a retry topic) that may not run before `due`; it has no order."""
        if assignment.closed or assignment.draining or record.log_offset < assignment.frontier.position:
            return
        if assignment.frontier.was_finished(record.log_offset):
            self.skip(assignment, record.log_offset)
            return
        if assignment.frontier.replaying():
            due = max(due, assignment.recall([record], now, wall).get(record.log_offset, due))
        assignment.frontier.open([record.log_offset])
        assignment.queued += 1
        assignment.weigh([record])
        lane = Lane(assignment, None, keyed=False)
        lane.queue.append(record)
        self._wait(lane, due)

    def skip(self, assignment: Assignment, offset: int) -> None:
        """The record at `offset` needs no work here."""
        if not assignment.closed and not assignment.draining:
            assignment.frontier.advance(offset + 1)
            assignment.changed = True

    def end_reached(self, tp: TopicPartition, offset: int) -> None:
        """The log's end: what lies between the last record and `offset` are markers."""
        assignment = self.assignments.get(tp)
        if assignment is None or assignment.draining:
            return
        if offset > assignment.frontier.position:
            self.skip(assignment, offset - 1)
        if assignment.careful is not None and offset >= assignment.frontier.position:
            assignment.careful.log_ends_at(offset)

    # -- work --------------------------------------------------------------------------------------

    def wake(self, now: float) -> bool:
        """Make ready what is due, before all that is merely queued. True if anything was."""
        # A draining lane stays in `waiting`, so that the last commit still tells the next owner of its wait.
        lanes = [lane for lane in self._due.pop_due(now) if not lane.assignment.draining]
        for lane in lanes:
            self._ready_from_wait(lane)
        self._ready.extendleft(reversed(lanes))
        return bool(lanes)

    def next_due(self) -> float | None:
        """When `wake` has something to do next, on the monotonic clock."""
        return self._due.next_due()

    def others_wait(self, now: float) -> bool:
        """Whether there are lanes that `wake` and `take` would look at."""
        due = self._due.next_due()
        return bool(self._ready) or (due is not None and due <= now)

    def heads(self) -> Iterator[Record]:
        """The first records of the lanes that could start, in their order."""
        for lane in self._ready:
            if not lane.assignment.draining and lane.assignment.stopped is None:
                yield lane.queue[0]

    def take(self, max_run: int, rank: Callable[[Record], float | None] | None = None) -> Run | None:
        """The next run, of at most `max_run` records, or None when nothing may start now.

        With `rank`, of the lane whose first record has the lowest; one that has none (None) does not start.
        """
        ready = self._ready
        if self.settling - self.aside >= self.limits.settling:
            return None
        if self._caution.holds_all(self.in_flight):
            return None
        if self._caution.has_one_alone:
            rank = None  # it is first in line, and no other may go before it
        while ready:
            if rank is not None and not self._bring_forward(rank):
                return None
            lane = ready.popleft()
            assignment = lane.assignment
            if assignment.draining:
                continue
            if assignment.stopped is not None:
                assignment.held.append(lane)
                continue
            length = min(len(lane.queue), max_run)
            if assignment.later:
                length = self._startable(lane, length)
                if length == 0:
                    continue
            if assignment.careful is not None:
                length = self._caution.startable(lane, assignment.careful, length)
                if length == 0:
                    if self._caution.holds_all(self.in_flight):
                        return None
                    continue
            return self._start(lane, length)
        return None

    def report(self, run: Run) -> None:
        """Count what a run has done so far, while it goes on."""
        done, told = run.done, run.reported
        if done > told:
            assignment = run.lane.assignment
            run.reported = done
            records = run.records
            if not run.handed and not run.reordered and not assignment.tried:
                first, last = records[told].log_offset, records[done - 1].log_offset
                if assignment.frontier.finish_span(first, last, done - told):
                    assignment.changed = True
                    return
            some = records[told:done]
            offsets = [r.log_offset for r in some] if run.reordered else _offsets(some)
            if run.handed:
                if isinstance(offsets, range) and not assignment.tried:
                    offsets = assignment.frontier.finish_but(offsets, run.handed)
                else:
                    offsets = [o for o in offsets if o not in run.handed]
            self.finished(assignment, offsets)

    def finish(self, run: Run) -> None:
        """The worker gives the run back: `done` records are handled, the others go back to their lane."""
        if self._give_back(run):
            self._ready_again(run.lane)

    def retry(self, run: Run, due: float, delay: float) -> None:
        """As `finish`, and the first record that is not done waits in its lane until `due`, for `delay`.

        Its `attempt` is the next one already, or the same if the try has cost none.
        """
        if self._give_back(run):
            _note_tries(run.lane.assignment, run.lane.queue[0], due, delay)
            self._wait(run.lane, due)

    def retry_some(self, run: Run, waits: list[tuple[Record, float, float]]) -> None:
        """As `finish`, and each of these records waits until its `due`, for its `delay`; ascending.

        A batch has several that failed. Where there is order, each also waits for those before it; where
        there is none, each waits alone.
        """
        lane, assignment = run.lane, run.lane.assignment
        if not self._give_back(run):
            return
        for record, due, delay in waits:
            _note_tries(assignment, record, due, delay)
        if lane.keyed:
            assignment.later.update((record.log_offset, due) for record, due, _ in waits)
            if self._startable(lane, len(lane.queue)):
                self._ready_again(lane)
            return
        waiting = {record.log_offset for record, _, _ in waits}
        lane.queue = [record for record in lane.queue if record.log_offset not in waiting]
        for record, due, _ in waits:
            alone = Lane(assignment, None, keyed=False)
            alone.queue.append(record)
            self._wait(alone, due)
        if lane.queue:
            self._ready_again(lane)

    def hold(self, run: Run, due: float) -> Lane | None:
        """As `finish`, and the first record that is not done waits until `due`, as if it had not been tried.

        The lane that it waits in, for `take_back`; None if it is not ours any more.
        """
        lane = run.lane
        if not self._give_back(run):
            return None
        if not lane.keyed and len(lane.queue) > 1:
            self._ready_again(lane)
            alone = Lane(lane.assignment, None, keyed=False)
            alone.queue.extend(lane.take(1))
            lane = alone
        self._wait(lane, due)
        return lane

    def take_back(self, lane: Lane, record: Record) -> Run | None:
        """A run of `record` alone, which heads `lane` and waits or could start; None if that is over."""
        assignment = lane.assignment
        if assignment.draining or not lane.queue or lane.queue[0] is not record:
            return None
        if lane in assignment.waiting:
            self._due.cancel(lane.ticket)
            self._ready_from_wait(lane)
        elif lane in self._ready:
            self._ready.remove(lane)
        else:  # it runs again, or its partition is stopped
            return None
        return self._start(lane, 1)

    def hand_off(self, run: Run, record: Record) -> bool:
        """`record` (the one at `done`) is finished when its hand-off is: see `settled`. False: not ours."""
        assignment = run.lane.assignment
        if assignment.closed:
            return False
        if run.handed is None:
            run.handed = set()
        run.handed.add(record.log_offset)
        assignment.settling.add(record.log_offset)
        self.settling += 1
        return True

    def hand_off_at_intake(self, assignment: Assignment, offset: int) -> bool:
        """The same for a record that no handler will see (its headers are unreadable)."""
        if assignment.closed or assignment.draining or offset < assignment.frontier.position:
            return False
        if assignment.frontier.was_finished(offset):
            self.skip(assignment, offset)
            return False
        assignment.frontier.open([offset])
        assignment.settling.add(offset)
        self.settling += 1
        return True

    def spill(self, now: float) -> list[tuple[Assignment, Record]]:
        """Records of the retry topic to be written there again, so that nearer ones find room.

        Where a partition holds its share of waits, or its map is full, a tenth of them go, those that are due
        last; each is handed off (see `settled`). What is due soon stays: it makes room by itself.
        """
        mine = [a for a in self.assignments.values() if a.feed == "retry"]
        found = []
        for assignment in mine:
            if assignment.draining or assignment.stopped is not None:
                continue
            if assignment.map_full or self._flow.holds_its_share(assignment, len(mine)):
                # One that has failed here knows more than its headers, so it stays.
                waiting, tried = assignment.waiting, assignment.tried
                can_go = [lane for lane in waiting if lane.queue[0].log_offset not in tried]
                last = nlargest(len(waiting) // 10 + 1, can_go, key=attrgetter("due"))
                found += [(assignment, self._spill(lane)) for lane in last if lane.due > now + _SOON]
        return found

    def settled(self, assignment: Assignment, offset: int) -> bool:
        """The hand-off of `offset` is durable, so it is finished. True if its partition now goes on."""
        if offset in assignment.settling:
            assignment.settling.remove(offset)
            self.settling -= 1
            self.finished(assignment, [offset])
            if assignment.failing:
                assignment.failing.discard(offset)
                if not assignment.failing:
                    self.resume(assignment)
                    return True
        return False

    # -- stopping one partition --------------------------------------------------------------------

    def stop(self, assignment: Assignment, reason: str, offset: int | None = None) -> None:
        """Start nothing of this partition: it must not pass a record that isn't safe.

        With `offset`, until that one is settled, and every other that stopped it; else until `resume`.
        """
        assignment.stopped = reason
        assignment.failing.add(offset)
        if offset is not None:
            assignment.trying.discard(offset)
        for run in assignment.running:
            run.cancel()

    def refuse(self, assignment: Assignment, reason: str) -> None:
        """Own it, but take nothing in and commit nothing: where to start is for a person to decide."""
        assignment.stopped = reason
        assignment.draining = True
        assignment.changed = False

    def begin_with_commit(self, assignment: Assignment) -> None:
        """Read nothing of it before the broker has its first commit: that says where its group began."""
        self._unbegun.add(assignment)

    def resume(self, assignment: Assignment) -> None:
        """Go on where `stop` held."""
        assignment.stopped = None
        assignment.failing.clear()
        self._ready.extend(assignment.held)
        assignment.held.clear()

    # -- commits and flow --------------------------------------------------------------------------

    def commits(
        self,
        feed: str,
        *,
        now: float,
        wall: float,
        only: Iterable[TopicPartition] | None = None,
        without: Collection[str] = (),
    ) -> list[Commit]:
        """What has changed since the last call and may be committed for `feed`.

        With `only`, for these partitions and for the last time: also what is on its way, because its answer
        would come too late to try again. None of the topics `without`.
        """
        found = []
        tps = self.assignments if only is None else only
        for tp in tps:
            assignment = self.assignments.get(tp)
            if assignment is None or assignment.feed != feed or tp.topic in without:
                continue
            for run in assignment.running:
                self.report(run)
            if assignment.careful is not None:
                self._caution.look_after(assignment, assignment.careful, now)
            last = assignment.draining and (only is not None or assignment.ending)
            untold = last and assignment.told is True
            if not (assignment.changed or untold) and (only is None or assignment.unanswered is None):
                continue
            commit = assignment.commit(now=now, wall=wall, last=last, limit=self.room.limit)
            if commit.offset < assignment.committed:
                raise AssertionError(f"{tp}: frontier went back, {assignment.committed} -> {commit.offset}")
            found.append(commit)
        return found

    def urgent(self, feed: str) -> bool:
        """True while a commit should not wait: records wait for it, or nobody knows yet that we work."""
        return any(
            not a.heard or (a.careful is not None and a.careful.wants_commit)
            for a in self.assignments.values()
            if a.feed == feed and not a.draining
        )

    def calmed(self) -> list[TopicPartition]:
        """Partitions whose careful mode has ended since this was asked."""
        found, self._caution.calmed = self._caution.calmed, []
        return found

    def nobody_died(self, tp: TopicPartition, careful: Careful) -> bool:
        """The owner before lives, so `tp` is careful for nothing. True if something may start now."""
        assignment = self.assignments.get(tp)
        if assignment is None or assignment.careful is not careful:
            return False
        self._caution.end_without_need(assignment, careful)
        return True

    def careful(self, feed: str) -> bool:
        """True while a partition of `feed` is careful."""
        return any(a.careful is not None and a.feed == feed for a in self.assignments.values())

    def committed(self, commit: Commit) -> bool:
        """The broker has acknowledged `commit`. True if something may start now that could not before."""
        assignment = commit.assignment
        self.room.took(len(commit.metadata))
        assignment.committed = max(assignment.committed, commit.offset)
        assignment.heard = True
        self._unbegun.discard(assignment)
        if assignment.unanswered is commit:
            assignment.unanswered = None
        careful = assignment.careful
        return careful is not None and self._caution.acknowledged(careful, commit)

    def commit_failed(self, commit: Commit, *, too_large: bool = False) -> None:
        """It has not: the next call of `commits` makes a new one; if it was `too_large`, a shorter one."""
        commit.assignment.changed = True
        if too_large:
            self.room.refused(len(commit.metadata))

    def full(self, feed: str) -> bool:
        """True while `feed` should read nothing more; once full, until half of it is gone."""
        return self._flow.full(feed, self.assignments.values())

    def lopsided(self, feed: str) -> bool:
        """Whether a partition of `feed` that may be read has less than half of its share of the room."""
        return self._flow.lopsided(feed, self.assignments.values())

    def pauses(self, feed: str, *, crowded: bool = False, idle: bool = False) -> set[TopicPartition]:
        """Partitions that should not be read now; see `Flow.pauses`."""
        found = self._flow.pauses(feed, self.assignments.values(), crowded=crowded, idle=idle)
        return found | {a.tp for a in self._unbegun if a.feed == feed}

    def pauses_in_outage(self, feed: str, *, all_of_it: bool) -> set[TopicPartition]:
        """Partitions of which nothing more need be read while nothing starts: all, or those that are one lane
        and have it."""
        one_lane = self.ordering == "partition" and feed != "retry"
        mine = [a for a in self.assignments.values() if a.feed == feed]
        return {a.tp for a in mine if all_of_it or (one_lane and a.lanes)}

    def waiting(self) -> int:
        """How many lanes wait for a retry."""
        return len(self._due)

    # -- inside ------------------------------------------------------------------------------------

    def _queue(self, assignment: Assignment, records: list[Record], waits: dict[int, float] | None) -> None:
        lanes = assignment.lanes
        if self.ordering == "partition" and not waits and assignment.feed != "retry":
            if records:
                lane = lanes.get(None)
                if lane is None:
                    lane = lanes[None] = Lane(assignment, None, keyed=True)
                    self._ready.append(lane)
                lane.queue.extend(records)
                if lane.state is LaneState.WAITING:
                    assignment.parked += len(records)
            return
        if self.ordering == "none" and self._batch > 1 and not waits and assignment.feed != "retry":
            for i in range(0, len(records), self._batch):
                lane = Lane(assignment, None, keyed=False)
                lane.queue.extend(records[i : i + self._batch])
                self._ready.append(lane)
            return
        for record in records:
            keyed = self.ordering != "none" and assignment.feed != "retry"
            key = record.key if self.ordering == "key" else None
            if self.ordering == "key" and key is None:
                keyed = False  # null keys have no order
            lane = lanes.get(key) if keyed else None
            if lane is None:
                lane = Lane(assignment, key, keyed=keyed)
                if keyed:
                    lanes[key] = lane
                lane.queue.append(record)
                due = waits.get(record.log_offset) if waits else None
                if due is None:
                    self._ready.append(lane)
                else:
                    self._wait(lane, due)
            else:
                lane.queue.append(record)
                if waits and record.log_offset in waits:
                    assignment.later[record.log_offset] = waits[record.log_offset]
                if lane.state is LaneState.WAITING:
                    assignment.parked += 1

    def _spill(self, lane: Lane) -> Record:
        assignment = lane.assignment
        self._due.cancel(lane.ticket)
        assignment.waiting.discard(lane)
        [record] = lane.queue
        lane.queue.clear()
        assignment.queued -= 1
        assignment.parked -= 1
        assignment.settling.add(record.log_offset)
        self.settling += 1
        return record

    def _bring_forward(self, rank: Callable[[Record], float | None]) -> bool:
        """Let the lane with the lowest rank come first; False where none has any."""
        best, place = math.inf, -1
        for i, lane in enumerate(self._ready):
            assignment = lane.assignment
            # Such a lane does not start, `take` only puts it aside.
            aside = assignment.draining or assignment.stopped is not None
            found = 0 if aside else rank(lane.queue[0])
            if found is not None and found < best:
                best, place = found, i
                if found <= 0:
                    break
        if place < 0:
            return False
        lane = self._ready[place]
        del self._ready[place]
        self._ready.appendleft(lane)
        return True

    def _start(self, lane: Lane, length: int) -> Run:
        records = lane.take(length)
        lane.assignment.queued -= len(records)
        lane.state = LaneState.RUNNING
        run = Run(lane, records)
        lane.assignment.running.add(run)
        self.in_flight += 1
        return run

    def _give_back(self, run: Run) -> bool:
        """Take a run's result. False if its lane has nothing left to do."""
        lane = run.lane
        assignment = lane.assignment
        if run not in assignment.running:  # fenced: another assignment owns the partition now
            return False
        assignment.running.remove(run)
        self.in_flight -= 1
        self.report(run)
        if assignment.careful is not None and not assignment.unclean:
            self._caution.came_back(assignment.careful, run)
        rest = run.records[run.done :]
        if rest:
            if run.reordered:
                rest.sort(key=attrgetter("log_offset"))
            lane.put_back(rest)
            assignment.queued += len(rest)
        if lane.queue:
            return True
        if lane.keyed:
            del assignment.lanes[lane.key]
        return False

    def _startable(self, lane: Lane, length: int) -> int:
        """How many of the lane's first records may start; if none, the lane now waits for its first."""
        later = lane.assignment.later
        due = later.pop(lane.queue[0].log_offset, None)
        if due is not None:
            self._wait(lane, due)
            return 0
        return next((i for i, r in enumerate(islice(lane.queue, length)) if r.log_offset in later), length)

    def finished(self, assignment: Assignment, offsets: Sequence[int]) -> None:
        """These open offsets of an assignment that is not closed need no more work."""
        assignment.frontier.finish_all(offsets)
        assignment.changed = True
        tried = assignment.tried
        if tried:
            for offset in offsets:
                tried.pop(offset, None)

    def _ready_again(self, lane: Lane) -> None:
        lane.state = LaneState.READY
        self._ready.append(lane)

    def _wait(self, lane: Lane, due: float) -> None:
        assignment = lane.assignment
        lane.state = LaneState.WAITING
        lane.due = due
        lane.ticket = self._due.push(due, lane)
        assignment.waiting.add(lane)
        assignment.parked += len(lane.queue)
        assignment.changed = True

    def _ready_from_wait(self, lane: Lane) -> None:
        assignment = lane.assignment
        lane.state = LaneState.READY
        assignment.waiting.discard(lane)
        assignment.parked -= len(lane.queue)


def _note_tries(assignment: Assignment, record: Record, due: float, delay: float) -> None:
    if record.attempt > 1:
        assignment.tried[record.log_offset] = Tried(record.attempt - 1, due, delay, record)


def _offsets(records: list[Record]) -> Sequence[int]:
    """Of records that ascend."""
    first, last = records[0].log_offset, records[-1].log_offset
    if last - first == len(records) - 1:  # they ascend, so there are no gaps
        return range(first, last + 1)
    return [r.log_offset for r in records]
