"""Partitions whose last owner died: which records may start, and which killed their process too often.

The rules are `engine.crashes`; here they meet the log and the dead letters.
"""

from __future__ import annotations

import logging

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
from relance.record import Record

__all__ = ["AfterCrash"]

_log = logging.getLogger("relance.crashes")


class AfterCrash:
    """What one consumer does about them."""

    def __init__(self, monitor: Monitor, failures: Failures) -> None:
        self._monitor = monitor
        self._failures = failures

    def how(self, start: StartLike) -> Careful | None:
        """How to begin at `start`, given what its last owner said; says so."""
        mark = read_mark(mark_text(start.metadata, start.topic_id))
        careful = careful_after(mark, start.offset, self._monitor.plan.max_crashes)
        if careful is None or mark is None or start.problem is not None:
            return None
        _log.warning(
            "%s: %s from offset %d on: %s%s",
            start.tp,
            careful.told(),
            start.offset,
            "its last owner died (or lost it)" if mark.open else "an owner before the last one died",
            "".join(f"; the process died {n}x at offset {o}" for o, n in sorted(careful.crashes.items())),
        )
        return careful

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
