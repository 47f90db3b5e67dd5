"""One consumer at work: the engine behind one lock, between its pollers, its worker and its hand-offs.

Promises: the engine is only touched with the lock held; no user code runs with it held; whoever waits
(a worker for a record, a poller for room, a revocation for what runs) waits for a condition, not a time.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Collection, Sequence

from relance.clock import Clock
from relance.contracts import Counters, HooksLike, Look, Plan, StartLike, Writer
from relance.dead_letters.ladder import TooLarge
from relance.engine import transaction
from relance.engine.assignment import Assignment, Commit
from relance.engine.deferral import Deferral, NotOurs
from relance.engine.deferral import wait as wait_of
from relance.engine.engine import Engine
from relance.engine.frontier import Frontier
from relance.engine.lanes import Run
from relance.engine.offset_map import OffsetMap, decode_map, is_ours
from relance.engine.outcome import RetryAt, Stop
from relance.engine.parallel_consumer import read_parallel_consumer_map
from relance.engine.transaction import Settling, Taken
from relance.errors import DecodeError
from relance.judge import Judge
from relance.outgoing import MAX_RECORD, failure_text, once_more
from relance.record import Outgoing, Record, TopicPartition

__all__ = ["Runtime"]

_handoff_log = logging.getLogger("relance.handoff")


class Runtime:
    """The monitor of one consumer. Pollers call the upper half, workers the lower."""

    def __init__(
        self,
        plan: Plan,
        *,
        clock: Clock,
        random: Callable[[], float],
        hooks: HooksLike,
        topic_id: Callable[[str], str],
        max_record: Callable[[str], int] = lambda topic: MAX_RECORD,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.plan = plan
        self.counters = Counters()
        self.engine = Engine(plan.ordering, plan.limits, batch=plan.batch)
        self.writer: Writer | None = None
        self.on_work: Callable[[], None] = lambda: None
        """Called, without the lock, when there may be something to take."""
        self.on_abandon: Callable[[Run], None] = lambda run: None
        """Called for a run that is still out when its partition must go."""
        self.stop_by: float | None = None
        """The shared deadline of the whole stop, on the monotonic clock, once stopping."""
        self._clock = clock
        self._judge = Judge(plan, clock=clock, random=random, max_record=max_record)
        self._hooks = hooks
        self._topic_id = topic_id
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._changed = threading.Condition(self._lock)
        self._halted = False
        self._stopping = False
        self._unwritable: list[tuple[Assignment, Record, Exception, int]] = []

    # -- for pollers (kafka.poller.Hub) ------------------------------------------------------------

    def topic_id(self, topic: str) -> str:
        """The id of the topic's present incarnation, or "" where brokers have none."""
        return self._topic_id(topic)

    def assigned(self, feed: str, starts: Sequence[StartLike]) -> None:
        """Own these partitions from now on."""
        maps = [_known(start) for start in starts]
        with self._lock:
            for start, known in zip(starts, maps, strict=True):
                frontier = Frontier(start.offset, known)
                assignment = self.engine.assign(start.tp, feed, frontier, start.topic_id)
                if start.problem is not None:
                    self.engine.refuse(assignment, start.problem)
            if self._halted:  # a rebalance need not know that we are leaving
                self.engine.drain([start.tp for start in starts])
        for start in starts:
            if start.problem is not None:
                _log_stopped(start.problem)
        # Cooperative rounds in which nothing comes (KIP-429) are no news to anybody.
        if feed == "source" and starts:
            self._rebalanced()
            self._hooks.assigned([start.tp for start in starts])

    def received(self, feed: str, tp: TopicPartition, records: list[Record]) -> None:
        """Records of one partition, ascending."""
        now, wall = self._clock.monotonic(), self._clock.time()
        with self._lock:
            assignment = self.engine.assignments.get(tp)
            if assignment is None:  # fetched before the partition was taken away
                return
            if feed == "retry":
                unreadable = self._take_deferred(assignment, records, now, wall)
            else:
                unreadable = []
                self.engine.intake(assignment, records, now=now, wall=wall)
            self._work.notify_all()
        self._write_spilled(feed)
        for record, reason in unreadable:
            self._write_off(assignment, record, DecodeError(reason), attempts=0)
        self.on_work()

    def end_reached(self, tp: TopicPartition, offset: int) -> None:
        """Nothing but markers lies between the last record and `offset`."""
        with self._lock:
            self.engine.end_reached(tp, offset)

    def positions(self, feed: str) -> dict[TopicPartition, int]:
        """Where each partition of `feed` reads on."""
        with self._lock:
            owned = self.engine.assignments.items()
            return {tp: a.frontier.position for tp, a in owned if a.feed == feed}

    def full(self, feed: str) -> bool:
        """Whether `feed` should read nothing for now."""
        with self._lock:
            return self.engine.full(feed)

    def wait_for_room(self, feed: str, timeout: float) -> bool:
        """Wait until not `full`, at most `timeout` seconds."""
        with self._lock:
            return self._changed.wait_for(lambda: not self.engine.full(feed), timeout)

    def pauses(self, feed: str, *, crowded: bool = False) -> set[TopicPartition]:
        """Partitions of `feed` that should not be read now; see `Flow.pauses`."""
        with self._lock:
            return self.engine.pauses(feed, crowded=crowded)

    def commits(self, feed: str, only: Sequence[TopicPartition] | None) -> list[Commit]:
        """What may be committed now."""
        now, wall = self._clock.monotonic(), self._clock.time()
        with self._lock:
            found = self.engine.commits(feed, now=now, wall=wall, only=only)
        if only is None:
            self._write_spilled(feed)  # now it is known whose map is full
        return found

    def committed(self, commit: Commit) -> None:
        """The broker has it."""
        with self._lock:
            self.engine.committed(commit)

    def commit_failed(self, commit: Commit, *, too_large: bool = False) -> None:
        """The broker doesn't have it."""
        with self._lock:
            self.engine.commit_failed(commit, too_large=too_large)

    def uncommitted(self, feed: str, tps: Collection[TopicPartition] | None = None) -> bool:
        """Whether there is something to commit for `feed`, or for those of its partitions."""
        with self._lock:
            return transaction.uncommitted(self.engine, feed, tps)

    def settle(self, feed: str, handoffs: Sequence[Settling], without: Collection[str]) -> Taken:
        """Hand-offs and all commits of `feed`, for one transaction; see `engine.transaction`."""
        now, wall = self._clock.monotonic(), self._clock.time()
        with self._lock:
            taken = transaction.settle(self.engine, feed, handoffs, now=now, wall=wall, without=without)
            self._changed.notify_all()
            return taken

    def undo(self, taken: Taken) -> None:
        """The transaction did not take effect."""
        with self._lock:
            transaction.undo(self.engine, taken)

    def confirm(self, taken: Taken) -> None:
        """It did."""
        with self._lock:
            going_on = transaction.confirm(self.engine, taken)
            self._changed.notify_all()
            self._work.notify_all()
        for assignment in going_on:
            _log_going_on(assignment)
        if taken.handoffs:
            self.on_work()

    def revoking(self, feed: str, tps: list[TopicPartition]) -> None:
        """Start nothing more of `tps` and wait for what runs, until the shared deadline."""
        deadline = self._clock.monotonic() + self.plan.drain_timeout
        if self.stop_by is not None:
            deadline = min(deadline, self.stop_by)
        with self._lock:
            found = self.engine.drain(tps)
            self._work.notify_all()
            self._wait_until(lambda: not any(a.busy() for a in found), deadline)
            late = [run for a in found for run in a.running]
        for run in late:
            self.on_abandon(run)
        if feed == "source" and tps:
            self._hooks.revoked(tps, max(0.0, deadline - self._clock.monotonic()))

    def revoked(self, feed: str, tps: list[TopicPartition], *, lost: bool) -> None:
        """Fence `tps`: nothing that still happens for them counts."""
        with self._lock:
            late = [run for tp in tps if (a := self.engine.assignments.get(tp)) for run in a.running]
            self.engine.close(tps)
            self._changed.notify_all()
        if lost:
            for run in late:
                self.on_abandon(run)
        if feed == "source" and tps:
            self._rebalanced()
            if lost:
                self._hooks.lost(tps)

    def fail(self, error: Exception) -> None:
        """Nothing can go on: stop the application with this error."""
        self._on_failure(error)

    # -- for the writer ----------------------------------------------------------------------------

    def settled(self, assignment: Assignment, offset: int) -> None:
        """A hand-off is durable."""
        with self._lock:
            goes_on = self.engine.settled(assignment, offset)
            self._changed.notify_all()
            self._work.notify_all()
        if goes_on:
            _log_going_on(assignment)
        self.on_work()

    def not_settled(self, assignment: Assignment, offset: int, reason: str) -> None:
        """A hand-off failed (and is tried again): its partition must not run ahead."""
        self._stop(assignment, offset, reason, "trying again until it is written")

    def write_off_again(self) -> None:
        """Try once more to write the dead letters that were too large: their topic may take more now."""
        with self._lock:
            again, self._unwritable = self._unwritable, []
        for assignment, record, error, attempts in again:
            if not assignment.closed:
                self._write_off(assignment, record, error, attempts=attempts)

    # -- for workers -------------------------------------------------------------------------------

    def next(self, done: Run | None, max_run: int, *, wait: bool) -> Run | None:
        """Give back `done` and take the next run. None: nothing now (`wait=False`), or stopping."""
        with self._lock:
            if done is not None:
                self._give_back(done)
            while not self._stopping:
                now = self._clock.monotonic()
                self.engine.wake(now)
                run = self.engine.take(max_run)
                if run is not None or not wait:
                    if run is not None and self.plan.timeout is not None:
                        run.started = now
                    return run
                due = self.engine.next_due()
                self._work.wait(None if due is None else max(0.0, due - now))
            return None

    def next_due(self) -> float | None:
        """When a waiting record is due, on the monotonic clock."""
        with self._lock:
            return self.engine.next_due()

    def give_back(self, run: Run) -> None:
        """Give a run back without taking another."""
        with self._lock:
            self._give_back(run)

    def failed(self, run: Run, record: Record, error: Exception) -> bool:
        """The record at `run.done` raised. True: it is dealt with, go on with the next one of the run."""
        record.outbox = None
        outcome = self._judge.judge(record, error)
        if isinstance(outcome, RetryAt):
            self._retry_here(run, record, error, outcome.delay)
            return False
        with self._lock:
            self.counters.failed += 1
        if isinstance(outcome, Stop):
            with self._lock:
                self._halt()  # first: given back, the record would be taken again at once
                self._give_back(run)
            self._on_failure(outcome.error)
            return False
        deferred = isinstance(outcome, tuple)
        with self._lock:
            if not self.engine.hand_off(run, record):
                return True
            if deferred:
                self.counters.retried += 1
        assignment = run.lane.assignment
        if isinstance(outcome, tuple):
            defer, outgoing = outcome
            self._judge.log_retry(record, defer.delay, error)
            self._write(assignment, record.log_offset, outgoing)
        else:
            self._write_off(assignment, record, outcome.error, attempts=record.attempt)
        return True

    def returned(self, run: Run, record: Record) -> None:
        """The handler of the record at `run.done` returned and left an outbox: the record ends with that."""
        outbox, record.outbox = record.outbox, None
        with self._lock:
            if not outbox or not self.engine.hand_off(run, record):
                return
            self.counters.handled += 1
        self._write(run.lane.assignment, record.log_offset, *outbox)

    # -- stopping ----------------------------------------------------------------------------------

    def drain(self, deadline: float) -> None:
        """Start nothing more at all; wait for what runs and settles until `deadline`, then stop workers."""
        self.stop_by = deadline
        with self._lock:
            found = self._halt()
            self._wait_until(lambda: not any(a.busy() for a in found), deadline)
            late = [run for a in found for run in a.running]
            self._stopping = True
            self._work.notify_all()
        for run in late:
            self.on_abandon(run)
        self.on_work()

    @property
    def stopping(self) -> bool:
        """Workers should end."""
        return self._stopping

    # -- for stats and health ----------------------------------------------------------------------

    def owned(self) -> list[TopicPartition]:
        """Every partition that is read now, of source and retry topics."""
        with self._lock:
            return sorted(self.engine.assignments)

    def reading(self, feed: str) -> dict[TopicPartition, int]:
        """Where `feed` reads on, by partition; without those that it should not read now."""
        with self._lock:
            if self.engine.full(feed):
                return {}
            held = self.engine.pauses(feed)
            owned = self.engine.assignments.items()
            return {tp: a.frontier.position for tp, a in owned if a.feed == feed and tp not in held}

    def stale(self, topic: str, topic_id: str) -> list[TopicPartition]:
        """Partitions that were assigned when `topic` had another id; an unknown id counts as the same."""
        with self._lock:
            owned = self.engine.assignments.items()
            return sorted(tp for tp, a in owned if tp.topic == topic and a.topic_id not in ("", topic_id))

    def look(self) -> Look:
        """How things stand at this moment."""
        longest, now = self.plan.timeout or math.inf, self._clock.monotonic()
        with self._lock:
            owned = list(self.engine.assignments.values())
            running = [run for a in owned for run in a.running if run.done < len(run.records)]
            left = [n for a in owned for r in a.running if (n := len(r.records) - r.done)]
            return Look(
                in_flight=len(left),  # a run is handled one record at a time
                waiting=self.engine.waiting(),
                queued=sum(a.queued for a in owned) + sum(left) - len(left),
                settling=self.engine.settling,
                stopped={str(a.tp): a.stopped for a in owned if a.stopped is not None},
                overdue=[
                    f"a handler has been at {run.lane.assignment.tp}, offset {run.records[run.done].offset},"
                    f" for {now - run.started:.0f} s (timeout {longest:g} s)"
                    for run in running
                    if now - run.started > longest
                ],
                map_full=[str(a.tp) for a in owned if a.map_full],
            )

    # -- inside ------------------------------------------------------------------------------------

    def _take_deferred(
        self, assignment: Assignment, records: list[Record], now: float, wall: float
    ) -> list[tuple[Record, str]]:
        unreadable = []
        for record in records:
            found = self._judge.deferral_of(record, wall)
            if isinstance(found, NotOurs):
                self.engine.skip(assignment, record.log_offset)
            elif isinstance(found, Deferral):
                record.deferral = found
                record.topic, record.partition = found.origin_topic, found.origin_partition
                record.offset, record.attempt = found.origin_offset, found.attempt
                record.history = found.history
                due = now + wait_of(found, wall)
                self.engine.wait_at_intake(assignment, record, due, now=now, wall=wall)
            elif self.engine.hand_off_at_intake(assignment, record.log_offset):
                unreadable.append((record, f"retry headers: {found.reason}"))
        return unreadable

    def _write_spilled(self, feed: str) -> None:
        topic = self.plan.paths.retry_topic
        if feed != "retry" or topic is None:
            return
        with self._lock:
            spilled = self.engine.spill(self._clock.monotonic())
        for assignment, record in spilled:
            self._write(assignment, record.log_offset, once_more(record, topic))

    def _retry_here(self, run: Run, record: Record, error: Exception, delay: float) -> None:
        self._judge.log_retry(record, delay, error)
        with self._lock:
            self._judge.note_failure(record, error)
            self._count_run(run)
            self.counters.failed += 1
            self.counters.retried += 1
            self.engine.retry(run, self._clock.monotonic() + delay, delay)
            self._changed.notify_all()
            self._work.notify_all()

    def _write_off(self, assignment: Assignment, record: Record, error: Exception, *, attempts: int) -> None:
        letter = self._judge.letter(record, error, attempts=attempts)
        if letter is None:
            with self._lock:
                self._halt()
                self.engine.stop(assignment, failure_text(error), record.log_offset)  # it will not be written
            self._on_failure(error)
            return
        if isinstance(letter, TooLarge):
            topic = self.plan.paths.dead_letter_topic
            with self._lock:
                self._unwritable.append((assignment, record, error, attempts))
            self._stop(
                assignment,
                record.log_offset,
                f"its dead letter takes {letter.size} bytes and {topic} takes {letter.limit}",
                f"it goes on once {topic} takes more (max.message.bytes), or with dead_letter_pointer=True",
            )
            return
        self._judge.log_dead_letter(record, letter.topic, error, attempts=attempts)
        with self._lock:
            self.counters.dead_lettered += 1
        self._write(assignment, record.log_offset, letter)

    def _write(self, assignment: Assignment, offset: int, *outgoing: Outgoing) -> None:
        assert self.writer is not None
        self.writer.write(assignment, offset, outgoing)

    def _stop(self, assignment: Assignment, offset: int, reason: str, until: str) -> None:
        with self._lock:
            if assignment.closed:
                return
            told = assignment.stopped is not None
            self.engine.stop(assignment, reason, offset)
            self._changed.notify_all()
        if not told:
            _log_stopped(f"{assignment.tp} stops at offset {offset}: {reason}; {until}")

    def _halt(self) -> list[Assignment]:
        """Start nothing more, of whatever partition, for good."""
        self._halted = True
        return self.engine.drain(list(self.engine.assignments))

    def _count_run(self, run: Run) -> None:
        if run.lane.assignment.closed:
            return
        self.counters.handled += run.done - len(run.handed or ())

    def _give_back(self, run: Run) -> None:
        self._count_run(run)
        self.engine.finish(run)
        self._changed.notify_all()

    def _rebalanced(self) -> None:
        with self._lock:
            self.counters.rebalances += 1
            self.counters.last_rebalance = self._clock.time()

    def _wait_until(self, condition: Callable[[], bool], deadline: float) -> None:
        while not condition():
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)


def _log_going_on(assignment: Assignment) -> None:
    _handoff_log.warning("%s goes on: what it waited for is written", assignment.tp)


def _log_stopped(reason: str) -> None:
    _handoff_log.error("%s", reason)


def _known(start: StartLike) -> OffsetMap | None:
    """What is finished above the commit that `start` comes from."""
    if is_ours(start.metadata):
        return decode_map(start.metadata, start.topic_id, start.offset)
    return read_parallel_consumer_map(start.metadata, start.offset)
