"""One consumer at work: the engine behind one lock, between its pollers, its worker and its hand-offs.

Promises: the engine is only touched with the lock held; no user code runs with it held; whoever waits
(a worker for a record, a poller for room, a revocation for what runs) waits for a condition, not a time.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Collection, Sequence

from relance.circuit import Circuit, Guard, Try
from relance.clock import Clock
from relance.contracts import Counters, HooksLike, Look, Plan, StartLike, Writer
from relance.dead_letters.ladder import TooLarge
from relance.engine import transaction
from relance.engine.assignment import Assignment, Commit
from relance.engine.crashes import CALM, Careful, careful_after, read_mark
from relance.engine.deferral import Deferral, NotOurs
from relance.engine.deferral import wait as wait_of
from relance.engine.engine import Engine
from relance.engine.frontier import Frontier
from relance.engine.lanes import Run
from relance.engine.offset_map import OffsetMap, decode_map, is_ours, mark_text
from relance.engine.outcome import DeadLetter, Defer, RetryAt, Stop
from relance.engine.owed import Owed, origin_of
from relance.engine.parallel_consumer import read_parallel_consumer_map
from relance.engine.transaction import Settling, Taken
from relance.errors import CrashLoopError, DecodeError, SettingsError
from relance.judge import Judge
from relance.outgoing import MAX_RECORD, failure_text, once_more
from relance.record import Outgoing, Record, TopicPartition

__all__ = ["Runtime"]

_crash_log = logging.getLogger("relance.crashes")
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
        circuit: Circuit | None = None,
        condition: Callable[[threading.Lock], threading.Condition] = threading.Condition,
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
        self._changed = condition(self._lock)  # what a drain waits for
        self._halted = False
        self._stopping = False
        self._unwritable: list[tuple[Assignment, Record, Exception, int]] = []
        self._owed = Owed()
        self._guard = (
            None if circuit is None else circuit.guard(plan.retry, untry=self._untry, wake=self._wake)
        )

    # -- for pollers (kafka.poller.Hub) ------------------------------------------------------------

    def topic_id(self, topic: str) -> str:
        """The id of the topic's present incarnation, or "" where brokers have none."""
        return self._topic_id(topic)

    def assigned(self, feed: str, starts: Sequence[StartLike]) -> None:
        """Own these partitions from now on."""
        found = [(start, _known(start), self._careful(start)) for start in starts]
        with self._lock:
            for start, known, careful in found:
                frontier = Frontier(start.offset, known)
                assignment = self.engine.assign(start.tp, feed, frontier, start.topic_id, careful)
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
            condemned: list[Record] = []
            unreadable: list[tuple[Record, str]] = []
            if feed == "retry":
                unreadable = self._take_deferred(assignment, records, now, wall, condemned)
            elif assignment.careful is None:
                self.engine.intake(assignment, records, now=now, wall=wall)
            else:
                self._take_carefully(assignment, records, now, wall, condemned)
            self._work.notify_all()
        self._write_spilled(feed)
        for record, reason in unreadable:
            self._write_off(assignment, record, DecodeError(reason), attempts=0)
        for record in condemned:
            self._condemn(assignment, record)
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
            return self._pauses(feed, crowded=crowded)

    def commits(self, feed: str, only: Sequence[TopicPartition] | None) -> list[Commit]:
        """What may be committed now."""
        now, wall = self._clock.monotonic(), self._clock.time()
        with self._lock:
            found = self.engine.commits(feed, now=now, wall=wall, only=only)
        self._look_for_calm()
        if only is None:
            self._write_spilled(feed)  # now it is known whose map is full
        return found

    def urgent(self, feed: str) -> bool:
        """Whether a commit should be made at once."""
        with self._lock:
            return self.engine.urgent(feed)

    def careful(self, feed: str) -> bool:
        """Whether records of `feed` wait for commits, now and again."""
        with self._lock:
            return self.engine.careful(feed)

    def committed(self, commit: Commit) -> None:
        """The broker has it."""
        with self._lock:
            goes_on = self.engine.committed(commit)
            if goes_on:
                self._work.notify_all()
        if goes_on:
            self.on_work()

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
        self._look_for_calm()
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
            self._work.notify_all()
        self.on_work()  # one of them may have had to be alone
        if self._guard is not None:
            for run in late:
                self._guard.ended(run)
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
        guard = self._guard
        if guard is not None and done is not None:
            guard.ended(done)
        try:
            with self._lock:
                if done is not None:
                    self._give_back(done)
                while not self._stopping:
                    now = self._clock.monotonic()
                    self.engine.wake(now)
                    if guard is None:
                        run = self.engine.take(max_run)
                    else:
                        run = self._take_permitted(guard, max_run, now)
                    if run is not None or not wait:
                        if run is not None and self.plan.timeout is not None:
                            run.started = now
                        return run
                    due = self._next_due(now)
                    self._work.wait(None if due is None else max(0.0, due - now))
                return None
        finally:
            if guard is not None:
                guard.tell()

    def due_in(self) -> float | None:
        """In how many seconds a waiting record is due, or an open breaker over."""
        now = self._clock.monotonic()
        with self._lock:
            due = self._next_due(now)
        return None if due is None else max(0.0, due - now)

    def began(self, run: Run) -> None:
        """Only now the handler of a run is called: what came before was not its time."""
        if self.plan.timeout is not None:
            run.started = self._clock.monotonic()
        if self._guard is not None:
            self._guard.began(run)

    def called(self, run: Run, good: Sequence[Record], bad: Sequence[tuple[Record, Exception]]) -> bool:
        """One of several calls of a run has ended; all are judged later. Whether the next may be made."""
        return self._guard is None or self._guard.called(run, len(good), bad)

    def give_back(self, run: Run) -> None:
        """Give a run back without taking another."""
        if self._guard is not None:
            self._guard.ended(run)
        with self._lock:
            self._give_back(run)

    def failed(self, run: Run, record: Record, error: Exception) -> bool:
        """The record at `run.done` raised. True: it is dealt with, go on with the next one of the run."""
        try:
            attempt = self._report(run, record, error)
        except SettingsError as fault:
            return self._stop_all(run, fault)
        if attempt is None or not attempt.returned:
            outcome = self._judge.judge(record, error)
            if isinstance(outcome, RetryAt):
                self._retry_here(run, record, error, outcome.delay, attempt)
                return False
            if isinstance(outcome, Stop):
                return self._stop_all(run, outcome.error)
            if self._hand_over(run, record, error, outcome, attempt):
                return True
        with self._lock:
            self._give_back(run)
        return False

    def failed_together(self, run: Run, failed: list[tuple[Record, Exception]]) -> bool:
        """These, ascending, of what is left of a batch failed. True: dealt with; what is left goes back.

        Each is judged as if it had been handled alone, and each failure has used up an attempt, unless a
        circuit breaker gives it back.
        """
        ended: list[Record] = []
        retries: list[tuple[Record, Exception, float, Try | None]] = []
        stop: Stop | None = None
        for record, error in failed:
            try:
                attempt = self._report(run, record, error)
            except SettingsError as fault:
                stop = stop or Stop(fault)
                continue
            if attempt is not None and attempt.returned:
                continue
            outcome = self._judge.judge(record, error)
            if isinstance(outcome, Stop):
                stop = stop or outcome
            elif isinstance(outcome, RetryAt):
                self._judge.log_retry(record, outcome.delay, error)
                retries.append((record, error, outcome.delay, attempt))
            elif self._hand_over(run, record, error, outcome, attempt):
                ended.append(record)
        run.reorder(ended)
        run.done += len(ended)
        if stop is None and not retries:
            return True
        with self._lock:
            if stop is not None:
                self._halt()  # first: given back, the record would be taken again at once
            waits = []
            for record, error, delay, attempt in retries:
                if self._noted(record, error, attempt):
                    waits.append((record, self._clock.monotonic() + delay, delay))
            self.counters.retried += len(waits)
            self._count_run(run)
            self.engine.retry_some(run, waits)
            self._changed.notify_all()
            self._work.notify_all()
        if stop is not None:
            self._on_failure(stop.error)
        return False

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
            held = self._pauses(feed)
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
                    f"a handler has been at {record.topic}-{record.partition}, offset {record.offset},"
                    f" for {now - run.started:.0f} s (timeout {longest:g} s)"
                    for run in running
                    if now - run.started > longest
                    for record in run.records[run.done : run.done + 1]  # none if it ends at this moment
                ],
                map_full=[str(a.tp) for a in owned if a.map_full],
                careful={str(a.tp): a.careful.told() for a in owned if a.careful is not None},
            )

    # -- inside ------------------------------------------------------------------------------------

    def _look_for_calm(self) -> None:
        """Tell of partitions whose careful mode has ended; all that waited there may start."""
        with self._lock:
            calmed, self.engine.calmed = self.engine.calmed, []
            if calmed:
                self._work.notify_all()
        for tp in calmed:
            _crash_log.info("%s: careful no more, %.0f s went by without a crash", tp, CALM)
        if calmed:
            self.on_work()

    def _take_carefully(
        self,
        assignment: Assignment,
        records: list[Record],
        now: float,
        wall: float,
        condemned: list[Record],
    ) -> None:
        """As the engine's intake, but those that killed their process too often go to `condemned`."""
        assert assignment.careful is not None
        never = assignment.careful.condemned
        waits = assignment.frontier.waits
        start = 0
        for i, record in enumerate(records):
            if record.log_offset in never:
                self.engine.intake(assignment, records[start:i], now=now, wall=wall)
                start = i + 1
                if self.engine.hand_off_at_intake(assignment, record.log_offset):
                    known = waits.get(record.log_offset)
                    record.attempt = 1 if known is None else known.tries + 1
                    condemned.append(record)
        self.engine.intake(assignment, records[start:], now=now, wall=wall)

    def _condemn(self, assignment: Assignment, record: Record) -> None:
        """Dead-letter a record that killed its process too often, without handling it."""
        careful = assignment.careful
        if careful is None:  # taken away since
            return
        crashes = careful.crashes[record.log_offset]
        error = CrashLoopError(crashes)
        if self.plan.paths.dead_letter_topic is not None:
            self._write_off(assignment, record, error, attempts=record.attempt - 1 + crashes)
            return
        until = "mend its handler, and then set max_crashes higher; or give it a dead_letter_topic"
        self._stop(assignment, record.log_offset, failure_text(error), until)

    def _careful(self, start: StartLike) -> Careful | None:
        """How to begin at `start`, given what its last owner said; says so."""
        mark = read_mark(mark_text(start.metadata, start.topic_id))
        careful = careful_after(mark, start.offset, self.plan.max_crashes)
        if careful is None or mark is None or start.problem is not None:
            return None
        _crash_log.warning(
            "%s: %s from offset %d on: %s%s",
            start.tp,
            careful.told(),
            start.offset,
            "its last owner died (or lost it)" if mark.open else "an owner before the last one died",
            "".join(f"; the process died {n}x at offset {o}" for o, n in sorted(careful.crashes.items())),
        )
        return careful

    def _take_deferred(
        self,
        assignment: Assignment,
        records: list[Record],
        now: float,
        wall: float,
        condemned: list[Record],
    ) -> list[tuple[Record, str]]:
        unreadable = []
        never = assignment.careful.condemned if assignment.careful is not None else set()
        for record in records:
            found = self._judge.deferral_of(record, wall)
            if isinstance(found, NotOurs):
                self.engine.skip(assignment, record.log_offset)
            elif isinstance(found, Deferral):
                record.deferral = found
                record.attempt, record.history = found.attempt, found.history
                if record.log_offset in never:
                    if self.engine.hand_off_at_intake(assignment, record.log_offset):
                        condemned.append(record)
                    continue
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

    def _pauses(self, feed: str, *, crowded: bool = False) -> set[TopicPartition]:
        if self._guard is not None and self._guard.is_open(self._clock.monotonic()):
            return {tp for tp, a in self.engine.assignments.items() if a.feed == feed}
        return self.engine.pauses(feed, crowded=crowded)

    def _take_permitted(self, guard: Guard, max_run: int, now: float) -> Run | None:
        # One record at a time, so that none starts after the breaker has opened.
        run = guard.take(self.engine.take, max_run if self.plan.batch > 1 else 1, now)
        if run is not None and self._owed:
            for record in run.records:
                self._owed.pay(record)
        return run

    def _next_due(self, now: float) -> float | None:
        due = self.engine.next_due()
        return due if self._guard is None else self._guard.next_due(due, now)

    def _wake(self) -> None:
        """Called by the breaker: what was held may start."""
        with self._lock:
            self._work.notify_all()
        self.on_work()

    def _untry(self, attempts: Sequence[Try]) -> None:
        """Called by the breaker: these tries, the oldest first, cost no attempt."""
        with self._lock:
            for attempt in reversed(attempts):
                if attempt.deferred is not None:
                    self._owed.owe(attempt.deferred)
                elif attempt.failure is not None:
                    attempt.assignment.untry(attempt.offset, attempt.failure)

    def _report(self, run: Run, record: Record, error: Exception) -> Try | None:
        """Count a failure. What the breaker calls it, if it counts there; SettingsError if it cannot say."""
        record.outbox = None
        with self._lock:
            self.counters.failed += 1
        return None if self._guard is None else self._guard.failed(run, record, error)

    def _noted(self, record: Record, error: Exception, attempt: Try | None) -> bool:
        """Locked: the failure costs an attempt. False: another thread has opened the breaker since."""
        if attempt is not None and attempt.returned:
            return False
        failure = self._judge.note_failure(record, error)
        if attempt is not None:
            attempt.failure = failure
        return True

    def _stop_all(self, run: Run, error: Exception) -> bool:
        with self._lock:
            self._halt()  # first: given back, the record would be taken again at once
            self._give_back(run)
        self._on_failure(error)
        return False

    def _retry_here(
        self, run: Run, record: Record, error: Exception, delay: float, attempt: Try | None
    ) -> None:
        self._judge.log_retry(record, delay, error)
        with self._lock:
            if not self._noted(record, error, attempt):
                self._give_back(run)
                return
            self._count_run(run)
            self.counters.retried += 1
            self.engine.retry(run, self._clock.monotonic() + delay, delay)
            self._changed.notify_all()
            self._work.notify_all()

    def _hand_over(
        self,
        run: Run,
        record: Record,
        error: Exception,
        outcome: DeadLetter | tuple[Defer, Outgoing],
        attempt: Try | None,
    ) -> bool:
        """The record goes to the retry topic or the dead letters, and ends when it is there.

        False if it does not: another thread has opened the breaker, and the failure is given back.
        """
        with self._lock:
            if attempt is not None and attempt.returned:
                return False
            if not self.engine.hand_off(run, record):
                return True
            if isinstance(outcome, tuple):
                self.counters.retried += 1
                if attempt is not None:
                    attempt.deferred = origin_of(record)
        assignment = run.lane.assignment
        if isinstance(outcome, tuple):
            defer, outgoing = outcome
            self._judge.log_retry(record, defer.delay, error)
            self._write(assignment, record.log_offset, outgoing)
        else:
            self._write_off(assignment, record, outcome.error, attempts=record.attempt)
        return True

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
            self.engine.stop(assignment, f"{assignment.tp} is stopped at offset {offset}: {reason}", offset)
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
