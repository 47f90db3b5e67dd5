"""Partitions whose last owner died: which records may start, and which killed their process too often.

The rules are `engine.crashes`; here they meet the log and the dead letters.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from relance.contracts import StartLike, Told
from relance.dead_letters.errortext import failure
from relance.engine.assignment import Assignment
from relance.engine.crashes import CALM, Careful, careful_after, read_mark
from relance.engine.lanes import Run
from relance.engine.offset_map import mark_text
from relance.errors import CrashLoopError, HandlerExitError
from relance.failures import Failures
from relance.monitor import Monitor
from relance.outgoing import told_with
from relance.record import Record, TopicPartition

__all__ = ["AfterCrash"]

_log = logging.getLogger("relance.crashes")


@dataclass(frozen=True, slots=True)
class _Begun:
    """A partition that begins carefully."""

    tp: TopicPartition
    feed: str
    offset: int
    careful: Careful
    died: bool
    """By what its last owner said."""
    since: float
    """When it was assigned, on the monotonic clock."""
    owners: tuple[str, ...]
    """Whom to look for among the members of the group; none where that is not to be asked for."""


class AfterCrash:
    """What one consumer does about them."""

    def __init__(self, monitor: Monitor, failures: Failures) -> None:
        self._monitor = monitor
        self._failures = failures
        self._asked: dict[TopicPartition, _Begun] = {}  # whose owner may live

    def how(self, feed: str, starts: Sequence[StartLike]) -> dict[TopicPartition, Careful]:
        """How to begin at `starts`, given what the last owners said, where not as usual; says so."""
        found = {start.tp: one for start in starts if (one := self._one(feed, start)) is not None}
        self._tell([one for one in found.values() if not one.owners])
        self._asked = {tp: one for tp, one in self._asked.items() if one.feed != feed or tp not in found}
        self._asked |= {tp: one for tp, one in found.items() if one.owners}
        return {tp: one.careful for tp, one in found.items()}

    def members_seen(self, feed: str, client_ids: Collection[str] | None, since: float) -> bool:
        """The members of the group since then, None if it cannot be asked: tell of owners that died.

        Those that are members have lost a partition to us, as after an outage of brokers, and live. True if
        records may start that could not before.
        """
        with self._monitor.lock:
            due = [one for one in self._asked.values() if one.feed == feed and one.since <= since]
            for one in due:
                del self._asked[one.tp]
            alive = {part for name in client_ids or () for part in name.split("-")}
            dead = []
            freed = False
            for one in due:
                gone = [owner for owner in one.owners if owner not in alive]
                if gone:
                    one.careful.dead = gone[0]
                    dead.append(one)
                else:
                    freed |= self._monitor.engine.nobody_died(one.tp, one.careful)
            if freed:
                self._monitor.work.notify_all()
            assignments = self._monitor.engine.assignments
            ours = {tp for tp, assignment in assignments.items() if not assignment.draining}
        self._tell([one for one in dead if one.tp in ours])
        return freed

    def _one(self, feed: str, start: StartLike) -> _Begun | None:
        mark = read_mark(mark_text(start.metadata, start.topic_id))
        if mark is None or start.problem is not None:
            return None
        plan, now = self._monitor.plan, self._monitor.clock.monotonic()
        if mark.open and mark.owner and mark.owner == plan.owner:
            mark = dataclasses.replace(mark, open=False)  # it comes back to us
        careful = careful_after(mark, start.offset, plan.max_crashes)
        if careful is None:
            return None
        owners = ([mark.owner] if mark.open else []) + ([mark.dead] if mark.level else [])
        # With a suspect, or with deaths before, that is to be known at once.
        if not plan.owner or not all(owners) or mark.suspect is not None or mark.crashes:
            owners = []
        careful.dead = owners[0] if owners else ""
        return _Begun(start.tp, feed, start.offset, careful, mark.open, now, tuple(owners))

    def _tell(self, begun: Sequence[_Begun]) -> None:
        """One line for all partitions of one death."""
        told: dict[tuple[str, bool], list[_Begun]] = {}
        for one in begun:
            told.setdefault((one.careful.told(), one.died), []).append(one)
        for (how, died), some in told.items():
            alone = len(some) == 1
            why = "an owner before the last one died"
            if died:
                why = "its last owner died (or lost it)" if alone else "their last owner died (or lost them)"
            _log.warning(
                "%s: %s from offset%s %s on: %s%s",
                ", ".join(str(one.tp) for one in some),
                how,
                "" if alone else "s",
                ", ".join(str(one.offset) for one in some),
                why,
                "".join(
                    f"; the process died {n}x at offset {o}" + ("" if alone else f" of {one.tp}")
                    for one in some
                    for o, n in sorted(one.careful.crashes.items())
                ),
            )

    def ended_by(self, run: Run, error: BaseException) -> None:
        """The handler of the record at `run.done` raised what ends the process: all stops."""
        record, assignment = run.records[run.done], run.lane.assignment
        run.seal()
        with self._monitor.lock:
            self._monitor.halt()  # first: given back, the record would be taken again at once
            if not assignment.closed:
                assignment.deaths.add(record.log_offset)
                assignment.changed = True
            self._monitor.give_back(run)
        self._stop([record], error, run.records if self._monitor.plan.batch > 1 else [record])

    def ended_somewhere(self, error: BaseException) -> None:
        """The same, raised in a task of one of the handlers that are out; whose it was is not known."""
        with self._monitor.lock:
            self._monitor.halt()
            runs = [run for a in self._monitor.engine.assignments.values() for run in a.running]
            for run in runs:
                run.lane.assignment.unclean = run.lane.assignment.changed = True
        out = [record for run in runs for record in run.records[run.done : run.done + 1]]
        self._stop(out, error, [record for run in runs for record in run.records])

    def _stop(self, records: list[Record], error: BaseException, quoted: list[Record]) -> None:
        """`quoted` are those that the error may quote."""
        plan = self._monitor.plan
        places = [f"{record.topic}-{record.partition} at offset {record.offset}" for record in records]
        code = error.code if isinstance(error, SystemExit) else None
        status = code if isinstance(code, int) and 0 < code < 256 else 1
        teller = told_with(plan.mask, *quoted)
        ended = HandlerExitError(plan.handler, places, teller.failure(error), status)
        ended.__cause__ = error
        self._monitor.on_failure(ended, Told(failure(ended), teller.trace(error)))

    def take(
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
                self._monitor.engine.intake(assignment, records[start:i], now=now, wall=wall)
                start = i + 1
                if self._monitor.engine.hand_off_at_intake(assignment, record.log_offset):
                    known = waits.get(record.log_offset)
                    record.attempt = 1 if known is None else known.tries + 1
                    condemned.append(record)
        self._monitor.engine.intake(assignment, records[start:], now=now, wall=wall)

    def condemn(self, assignment: Assignment, record: Record) -> None:
        """Dead-letter a record that killed its process too often, without handling it."""
        careful = assignment.careful
        if careful is None:  # taken away since
            return
        crashes = careful.crashes[record.log_offset]
        error = CrashLoopError(crashes)
        if self._monitor.plan.paths.dead_letter_topic is not None:
            self._failures.write_off(assignment, record, error, attempts=record.attempt - 1 + crashes)
            return
        until = "mend its handler, and then set max_crashes higher; or give it a dead_letter_topic"
        self._monitor.stop(assignment, record.log_offset, failure(error), until)

    def calmed(self) -> bool:
        """Tell of partitions whose careful mode has ended; whether what waited there may start."""
        with self._monitor.lock:
            calmed = self._monitor.engine.calmed()
            if calmed:
                self._monitor.work.notify_all()
        for tp in calmed:
            _log.info("%s: careful no more, %.0f s went by without a crash", tp, CALM)
        return bool(calmed)
