"""One consumer at work: the engine behind one lock, between its pollers, its worker and its hand-offs.

Promises: the engine is only touched with the lock held; no user code runs with it held; whoever waits
(a worker for a record, a poller for room, a revocation for what runs) waits for a condition, not a time.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Collection, Sequence

from relance.after_crash import AfterCrash
from relance.circuit import Circuit, Guard
from relance.clock import Clock
from relance.contracts import HooksLike, Look, OnFailure, Plan, StartLike, Writer
from relance.endings import of_the_handler
from relance.engine import transaction
from relance.engine.assignment import Assignment, Commit
from relance.engine.deferral import Deferral, NotOurs
from relance.engine.deferral import wait as wait_of
from relance.engine.frontier import Frontier
from relance.engine.lanes import Run
from relance.engine.offset_map import OffsetMap, decode_map, read_head
from relance.engine.parallel_consumer import read_parallel_consumer_map
from relance.engine.transaction import Settling, Taken
from relance.errors import DecodeError
from relance.failures import Failures
from relance.forks import forgotten_by_children, leave
from relance.hangs import Held
from relance.judge import Judge
from relance.monitor import Monitor, log_stopped
from relance.outgoing import MAX_RECORD, once_more
from relance.record import FORKED, Record, TopicPartition
from relance.stats import InFlight

__all__ = ["Runtime"]

_commit_log = logging.getLogger("relance.kafka")
_handoff_log = logging.getLogger("relance.handoff")

_SHARE = 0.25  # of the drain's time, for one more try of what was refused


class Runtime:
    """The monitor of one consumer. Pollers call the upper half, workers the lower."""

    def __init__(
        self,
        plan: Plan,
        *,
        clock: Clock,
        random: Callable[[], float],
        hooks: HooksLike,
        max_record: Callable[[str], int] = lambda topic: MAX_RECORD,
        on_failure: OnFailure,
        circuit: Circuit | None = None,
        condition: Callable[[threading.Lock], threading.Condition] = threading.Condition,
    ) -> None:
        self.plan = plan
        self._monitor = Monitor(plan, clock=clock, on_failure=on_failure, condition=condition)
        self._judge = Judge(plan, clock=clock, random=random, max_record=max_record)
        self._failures = Failures(self._monitor, self._judge)
        self._after_crash = AfterCrash(self._monitor, self._failures)
        self.engine = self._monitor.engine
        self.counters = self._monitor.counters
        self._lock, self._work, self._changed = self._monitor.lock, self._monitor.work, self._monitor.changed
        self.failed = self._failures.failed
        self.failed_together = self._failures.failed_together
        self.returned = self._failures.returned
        self.ended_somewhere = self._after_crash.ended_somewhere
        self.write_letters = self._failures.write_letters
        self.write_off_again = self._failures.write_off_again
        self.of_the_handler: Callable[[BaseException], bool] = of_the_handler
        """Whether what is no Exception, and came out of a handler, is its doing."""
        self.fail = on_failure
        """Nothing can go on: stop the application with this error."""
        self.on_work: Callable[[], None] = lambda: None
        """Called, without the lock, when there may be something to take."""
        self.on_abandon: Callable[[Run], None] = lambda run: None
        """Called for a run that is still out when its partition must go."""
        self.stop_by: float | None = None
        """The shared deadline of the whole stop, on the monotonic clock, once stopping."""
        self.late: list[InFlight] = []
        """What handlers still had at that deadline."""
        self._clock = clock
        self._hooks = hooks
        self._stopping = False
        self._hungry = False  # a worker asked in vain, and nothing that could start has been seen since
        self._guard = (
            None
            if circuit is None
            else circuit.guard(
                plan.retry,
                untry=self._failures.untry,
                charge=self._failures.charge,
                wake=self._wake,
                text=self._judge.told,
            )
        )
        self._failures.guard = self._guard
        forgotten_by_children(self.forget)

    @property
    def writer(self) -> Writer | None:
        """Where hand-offs go; whoever it is must be set before the first record comes."""
        return self._failures.writer

    @writer.setter
    def writer(self, writer: Writer | None) -> None:
        self._failures.writer = writer

    # -- for pollers (kafka.poller.Hub) ------------------------------------------------------------

    def assigned(self, feed: str, starts: Sequence[StartLike]) -> None:
        """Own these partitions from now on."""
        careful_ones = self._after_crash.how(feed, starts)
        found = [(start, _known(start), careful_ones.get(start.tp)) for start in starts]
        with self._lock:
            for start, known, careful in found:
                frontier = Frontier(start.offset, known)
                assignment = self.engine.assign(
                    start.tp, feed, frontier, start.topic_id, careful, home=start.home
                )
                if start.problem is not None:
                    self.engine.refuse(assignment, start.problem)
                elif start.unbegun:
                    self.engine.begin_with_commit(assignment)
            if self._monitor.halted:  # a rebalance need not know that we are leaving
                self.engine.drain([start.tp for start in starts])
        for start in starts:
            if start.problem is not None:
                log_stopped(start.problem)
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
                self._after_crash.take(assignment, records, now, wall, condemned)
            self._hungry = False
            self._work.notify_all()
        self._write_spilled(feed)
        if feed == "retry":
            for record in records:
                self._judge.log_clamped(record)
        for record, reason in unreadable:
            self._failures.write_off(assignment, record, DecodeError(reason), attempts=0)
        for record in condemned:
            self._after_crash.condemn(assignment, record)
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

    def starved(self, feed: str) -> bool:
        """Whether workers have nothing to do though `feed` is full, as few of its partitions fill it."""
        with self._lock:
            return self._starved(feed)

    def wait_for_room(self, feed: str, timeout: float, *, or_starved: bool = False) -> bool:
        """Wait until not `full`, or perhaps `starved`, at most `timeout` seconds."""
        with self._lock:
            return self._changed.wait_for(
                lambda: not self.engine.full(feed) or (or_starved and self._starved(feed)), timeout
            )

    def pauses(self, feed: str, *, crowded: bool = False) -> set[TopicPartition]:
        """Partitions of `feed` that should not be read now; see `Flow.pauses`."""
        with self._lock:
            return self._pauses(feed, crowded=crowded)

    def members_seen(self, feed: str, client_ids: Collection[str] | None, since: float) -> None:
        """The members of the group of `feed`, as asked at `since` on the monotonic clock; None: not known."""
        if self._after_crash.members_seen(feed, client_ids, since):
            self.on_work()

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
            news = self.engine.room.news()
        _tell(news)
        if goes_on:
            self.on_work()

    def commit_failed(self, commit: Commit, *, too_large: bool = False) -> None:
        """The broker doesn't have it."""
        with self._lock:
            self.engine.commit_failed(commit, too_large=too_large)
            news = self.engine.room.news()
        _tell(news)

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
            news = self.engine.room.news()
            self._changed.notify_all()
            self._work.notify_all()
        _tell(news)
        for assignment in going_on:
            _log_going_on(assignment)
        self._write_spilled("retry")  # the commit has shown whose map is full
        self.on_work()

    def revoking(self, feed: str, tps: list[TopicPartition]) -> None:
        """Start nothing more of `tps` and wait for what runs, until the shared deadline."""
        deadline = self._clock.monotonic() + self.plan.drain_timeout
        if self.stop_by is not None:
            deadline = min(deadline, self.stop_by)
        with self._lock:
            found = self.engine.drain(tps)
            self._work.notify_all()
        # Where all stops, what was refused has had its last try.
        late = self._drained(found, deadline, hurry=self.stop_by is None)
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
                self._guard.abandoned(run)
        if lost:
            for run in late:
                self.on_abandon(run)
        if feed == "source" and tps:
            self._rebalanced()
            if lost:
                self._hooks.lost(tps)

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
        self._monitor.stop(assignment, offset, reason, "trying again until it is written")

    def tried_again(self, assignment: Assignment, offset: int) -> None:
        """A hand-off that failed is under way again: the drain waits for its answer, for a while."""
        with self._lock:
            if offset in assignment.settling:
                assignment.trying.add(offset)

    # -- for workers -------------------------------------------------------------------------------

    def next(self, done: Run | None, max_run: int, *, wait: bool) -> Run | None:
        """Give back `done` and take the next run. None: nothing now (`wait=False`), or stopping."""
        guard = self._guard
        if guard is not None and done is not None:
            guard.ended(done)
        try:
            with self._lock:
                if done is not None:
                    self._monitor.give_back(done)
                while not self._stopping:
                    now = self._clock.monotonic()
                    self.engine.wake(now)
                    if guard is None:
                        run = self.engine.take(max_run)
                    else:
                        run = self._take_permitted(guard, max_run, now)
                    self._notice_hunger(run, now)
                    if run is not None or not wait:
                        if run is not None:
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

    def others_wait(self) -> bool:
        """Whether a worker that has handled some of a run should give it back for the sake of others."""
        if self._guard is not None:  # a breaker judges the calls of a run when it ends
            return True
        now = self._clock.monotonic()
        with self._lock:
            return self.engine.others_wait(now)

    def began(self, run: Run) -> None:
        """Only now the handler of a run is called: what came before was not its time."""
        run.started = self._clock.monotonic()
        if self._guard is not None:
            self._guard.began(run)

    def called(self, run: Run, good: Sequence[Record], bad: Sequence[tuple[Record, Exception]]) -> bool:
        """One of several calls of a run has ended; all are judged later. Whether the next may be made."""
        return self._guard is None or self._guard.called(run, len(good), bad)

    def ended_by(self, run: Run, error: BaseException) -> None:
        """The handler of the record at `run.done` raised what ends the process; the run is given back."""
        if self._guard is not None:
            self._guard.ended(run)
        self._after_crash.ended_by(run, error)

    def out(self) -> list[Run]:
        """Runs that are with a worker, which has some of their records still to handle."""
        with self._lock:
            owned = self.engine.assignments.values()
            return [run for a in owned for run in a.running if run.done < len(run.records)]

    def give_back(self, run: Run) -> None:
        """Give a run back without taking another."""
        if self._guard is not None:
            self._guard.ended(run)
        with self._lock:
            self._monitor.give_back(run)

    # -- stopping ----------------------------------------------------------------------------------

    def drain(self, deadline: float) -> None:
        """Start nothing more at all; wait for what runs and settles until `deadline`, then stop workers."""
        self.stop_by = deadline
        with self._lock:
            found = self._monitor.halt()
        late = self._drained(found, deadline, hurry=True)
        now = self._clock.monotonic()
        with self._lock:
            self.late = [one.record for run in late if (one := self._held(run, now)) is not None]
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
            held = [one for run in running if (one := self._held(run, now)) is not None]
            return Look(
                in_flight=len(left),  # a run is handled one record at a time
                waiting=self.engine.waiting(),
                queued=sum(a.queued for a in owned) + sum(left) - len(left),
                settling=self.engine.settling,
                stopped={str(a.tp): a.stopped for a in owned if a.stopped is not None},
                oldest=max((one.record for one in held), key=lambda record: record.seconds, default=None),
                overdue=[
                    f"a handler has been at {one.record.topic}-{one.record.partition}, offset"
                    f" {one.record.offset}, for {one.record.seconds:.0f} s (timeout {longest:g} s)"
                    for one in held
                    if one.record.seconds > longest
                ],
                map_full=[str(a.tp) for a in owned if a.map_full],
                careful={str(a.tp): a.careful.told() for a in owned if a.careful is not None},
                metadata=self.engine.room.cost(),
            )

    def forget(self) -> None:
        """In a forked child: no other record starts, nothing more is sent, and what comes back here ends."""
        for assignment in self.engine.assignments.values():
            for run in assignment.running:
                run.cancel()
                for record in run.records[run.done :]:
                    record.outbox = FORKED
        for name in ("next", "give_back", "returned", "called", "began", "others_wait", "due_in"):
            setattr(self, name, lambda *_given, **_options: leave())
        for name in ("failed", "ended_by", "of_the_handler", "fail"):
            setattr(self, name, lambda *given: leave(given[-1]))
        setattr(self, "failed_together", lambda _run, failed: leave(failed[0][1]))  # noqa: B010  it never returns
        self.write_letters = lambda run: None

    def held_for(self, seconds: float) -> list[Held]:
        """Records that their handlers have had for so long."""
        now = self._clock.monotonic()
        with self._lock:
            owned = self.engine.assignments.values()
            late = [run for a in owned for run in a.running if now - run.started >= seconds]
            return [one for run in late if (one := self._held(run, now)) is not None]

    # -- inside ------------------------------------------------------------------------------------

    def _held(self, run: Run, now: float) -> Held | None:
        done = run.done
        for record in run.records[done : done + 1]:  # none if it ends at this moment
            place = record.topic, record.partition, record.offset
            told = InFlight(self.plan.handler, *place, record.attempt, max(0.0, now - run.started))
            return Held(run, done, told)
        return None

    def _look_for_calm(self) -> None:
        if self._after_crash.calmed():
            self.on_work()

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
            self._failures.write(assignment, record.log_offset, once_more(record, topic))

    def _notice_hunger(self, run: Run | None, now: float) -> None:
        if run is not None and not self._hungry:
            return
        before, self._hungry = self._hungry, not self.engine.others_wait(now)
        if self._hungry and not before:
            self._changed.notify_all()  # a poller may wait for room

    def _starved(self, feed: str) -> bool:
        return self._hungry and self.engine.lopsided(feed)

    def _pauses(self, feed: str, *, crowded: bool = False) -> set[TopicPartition]:
        found = self.engine.pauses(feed, crowded=crowded, idle=self._hungry)
        if self._guard is not None:
            short = self._guard.short_of_probes(self.engine.heads, self._clock.monotonic())
            if short is not None:  # it is open
                found |= self.engine.pauses_in_outage(feed, all_of_it=not short)
        return found

    def _take_permitted(self, guard: Guard, max_run: int, now: float) -> Run | None:
        # One record at a time, so that none starts after the breaker has opened.
        most = max_run if self.plan.batch > 1 else 1
        run = guard.take(self.engine.take, most, self.engine.heads, now)
        if run is not None and self._failures.owed:
            for record in run.records:
                self._failures.owed.pay(record)
        return run

    def _next_due(self, now: float) -> float | None:
        due = self.engine.next_due()
        return due if self._guard is None else self._guard.next_due(due, now)

    def _wake(self) -> None:
        """Called by the breaker: what was held may start."""
        with self._lock:
            self._work.notify_all()
        self.on_work()

    def _rebalanced(self) -> None:
        with self._lock:
            self.counters.rebalances += 1
            self.counters.last_rebalance = self._clock.time()

    def _drained(self, found: Sequence[Assignment], deadline: float, *, hurry: bool) -> list[Run]:
        """Wait for what runs and settles of `found`, which drain; the runs that are out at the deadline.

        With `hurry`, what was refused is tried once more; it gets a part of the time, for hooks and commits
        need some of it, too.
        """
        soon = min(deadline, self._clock.monotonic() + _SHARE * self.plan.drain_timeout)
        if hurry and self._failures.writer is not None:
            self._failures.writer.hurry(found)
        with self._lock:
            if hurry:
                self._wait_until(lambda: not any(a.tries_again() for a in found), soon)
            self._wait_until(lambda: not any(a.busy() for a in found), deadline)
            return [run for a in found for run in a.running]

    def _wait_until(self, condition: Callable[[], bool], deadline: float) -> None:
        while not condition():
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)


def _log_going_on(assignment: Assignment) -> None:
    _handoff_log.warning("%s goes on: what it waited for is written", assignment.tp)


def _tell(news: str | None) -> None:
    if news is not None:
        _commit_log.warning("%s", news)


def _known(start: StartLike) -> OffsetMap | None:
    """What is finished above the commit that `start` comes from."""
    if read_head(start.metadata) is not None:
        return decode_map(start.metadata, start.topic_id, start.offset)
    return read_parallel_consumer_map(start.metadata, start.offset)
