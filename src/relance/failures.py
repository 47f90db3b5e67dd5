"""What is done about a record that failed: it is tried again here, goes to a topic, or stops all.

Promise: each failure is counted and judged once, and a record ends only when what its end depends on is
written; with a circuit breaker, a failure that it gives back costs no attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from relance.circuit import Guard, Held, Try
from relance.contracts import Told, Writer
from relance.dead_letters.ladder import TooLarge
from relance.engine.assignment import Assignment
from relance.engine.lanes import Run
from relance.engine.outcome import NO_LETTERS, DeadLetter, Defer, RetryAt, Stop
from relance.engine.owed import Owed, origin_of
from relance.errors import SettingsError
from relance.judge import Judge
from relance.monitor import Monitor
from relance.record import SEALED, Outgoing, Record

__all__ = ["Failures"]

_Outcome = RetryAt | DeadLetter | Stop | tuple[Defer, Outgoing]

_NOT_COUNTED = "its circuit breaker could not tell whether that counts"


class Failures:
    """The failures of one consumer. Called by its workers, without the lock."""

    def __init__(self, monitor: Monitor, judge: Judge) -> None:
        self.writer: Writer | None = None
        self.guard: Guard | None = None
        self.owed = Owed()
        """Attempts that the breaker gave back for records that are on their way to the retry topic."""
        self._monitor = monitor
        self._judge = judge
        self._unwritable: list[tuple[Assignment, Record, Exception, Run | None, int]] = []

    def failed(self, run: Run, record: Record, error: Exception) -> bool:
        """The record at `run.done` raised. True: it is dealt with, go on with the next one of the run."""
        try:
            attempt = self._report(run, record, error)
        except SettingsError as fault:
            return self._stop_all(run, record, error, Stop(fault, _NOT_COUNTED))
        if attempt is None or not attempt.returned:
            outcome = self._judge.judge(record, error, run)
            if attempt is not None and self._held(run, record, error, outcome, attempt):
                return False
            if attempt is not None and _doubtful(outcome, attempt):
                self._wait_here(run, self._pause)
                return False
            if isinstance(outcome, RetryAt):
                self._retry_here(run, record, self._judge.told(error, record, run), outcome.delay, attempt)
                return False
            if isinstance(outcome, Stop):
                return self._stop_all(run, record, error, outcome)
            if self._hand_over(run, record, partial(self._judge.told, error, record, run), outcome, attempt):
                return True
        with self._monitor.lock:
            self._monitor.give_back(run)
        return False

    def failed_together(self, run: Run, failed: list[tuple[Record, Exception]]) -> bool:
        """These, ascending, of what is left of a batch failed. True: dealt with; what is left goes back.

        Each is judged as if it had been handled alone, and each failure has used up an attempt, unless a
        circuit breaker gives it back.
        """
        ended: list[Record] = []
        retries: list[tuple[Record, str, float, Try | None]] = []
        doubtful: list[Record] = []
        stop: tuple[Exception, Told] | None = None
        for record, error in failed:
            attempt: Try | None = None
            try:
                attempt = self._report(run, record, error)
            except SettingsError as fault:
                outcome: _Outcome = Stop(fault, _NOT_COUNTED)
            else:
                if attempt is not None and attempt.returned:
                    continue
                outcome = self._judge.judge(record, error, run)
                if attempt is not None and self._held(run, record, error, outcome, attempt):
                    return False  # a probe, so it was the only one
            if attempt is not None and _doubtful(outcome, attempt):
                doubtful.append(record)
            elif isinstance(outcome, Stop):
                if stop is None:
                    stop = outcome.error, self._judge.why_all_stops(record, error, outcome, run)
            elif isinstance(outcome, RetryAt):
                text = self._judge.told(error, record, run)
                self._judge.log_retry(record, outcome.delay, text.__str__)
                retries.append((record, text, outcome.delay, attempt))
            elif self._hand_over(
                run, record, partial(self._judge.told, error, record, run), outcome, attempt
            ):
                ended.append(record)
        run.reorder(ended)
        run.done += len(ended)
        if stop is None and not retries and not doubtful:
            return True
        with self._monitor.lock:
            if stop is not None:
                self._monitor.halt()  # first: given back, the record would be taken again at once
            now = self._monitor.clock.monotonic()
            waits = []
            for record, text, delay, attempt in retries:
                if self._noted(record, text, attempt):
                    waits.append((record, now + delay, delay))
            self._monitor.counters.retried += len(waits)
            waits += [(record, now + self._pause, self._pause) for record in doubtful]
            waits.sort(key=lambda wait: wait[0].log_offset)
            self._monitor.count_run(run)
            self._monitor.engine.retry_some(run, waits)
            self._monitor.changed.notify_all()
            self._monitor.work.notify_all()
        if stop is not None:
            self._monitor.on_failure(*stop)
        return False

    def returned(self, run: Run, record: Record) -> None:
        """The handler of the record at `run.done` returned and left an outbox: the record ends with that."""
        outbox, record.outbox = record.outbox, SEALED
        with self._monitor.lock:
            if not outbox or not self._monitor.engine.hand_off(run, record):
                return
            self._monitor.counters.handled += 1
        self.write(run.lane.assignment, record.log_offset, *outbox)

    def write_letters(self, run: Run) -> None:
        """Write those that were put aside for this."""
        letters, run.letters = run.letters, None
        for record, error in letters or ():
            self.write_off(run.lane.assignment, record, error, attempts=record.attempt)

    def write_off_again(self) -> None:
        """Try once more to write the dead letters that were too large: their topic may take more now."""
        with self._monitor.lock:
            again, self._unwritable = self._unwritable, []
        for assignment, record, error, run, attempts in again:
            if not assignment.closed:
                self.write_off(assignment, record, error, run, attempts=attempts)

    def write_off(
        self,
        assignment: Assignment,
        record: Record,
        error: Exception,
        run: Run | None = None,
        *,
        attempts: int,
    ) -> None:
        """Write the dead letter of a record that no run holds any more; `run` is the batch it failed in."""
        letter = self._judge.letter(record, error, run, attempts=attempts)
        if letter is None:
            told = self._judge.why_all_stops(record, error, Stop(error, NO_LETTERS), run)
            with self._monitor.lock:
                self._monitor.halt()
                # No letter will be written.
                self._monitor.engine.stop(assignment, told.reason, record.log_offset)
            self._monitor.on_failure(error, told)
            return
        if isinstance(letter, TooLarge):
            topic = self._monitor.plan.paths.dead_letter_topic
            with self._monitor.lock:
                self._unwritable.append((assignment, record, error, run, attempts))
            self._monitor.stop(
                assignment,
                record.log_offset,
                f"its dead letter takes {letter.size} bytes and {topic} takes {letter.limit}",
                f"it goes on once {topic} takes more (max.message.bytes), or with dead_letter_pointer=True",
            )
            return
        self._judge.log_dead_letter(record, letter.topic, error, run, attempts=attempts)
        with self._monitor.lock:
            self._monitor.counters.dead_lettered += 1
        self.write(assignment, record.log_offset, letter)

    def write(self, assignment: Assignment, offset: int, *outgoing: Outgoing) -> None:
        """What must be durable before the record at `offset` is finished."""
        assert self.writer is not None
        self.writer.write(assignment, offset, outgoing)

    def untry(self, attempts: Sequence[Try]) -> None:
        """Called by the breaker: these tries, the oldest first, cost no attempt."""
        with self._monitor.lock:
            for attempt in reversed(attempts):
                if attempt.deferred is not None:
                    self.owed.owe(attempt.deferred)
                elif attempt.failure is not None:
                    attempt.assignment.untry(attempt.offset, attempt.failure)

    def charge(self, attempts: Sequence[Try]) -> None:
        """Called by the breaker: these tries, which were held, cost an attempt after all."""
        for attempt in attempts:
            with self._monitor.lock:
                held, attempt.waits = attempt.waits, None
                # Without: its worker has not let go of it yet, and will see.
                run = None if held is None else self._monitor.engine.take_back(held.lane, held.record)
                if run is not None:  # no handler has it, so it must not look old
                    run.started = self._monitor.clock.monotonic()
            if held is not None and run is not None:
                self._charge(run, held, attempt)

    def _charge(self, run: Run, held: Held, attempt: Try) -> None:
        if isinstance(held.outcome, RetryAt):
            self._retry_here(run, held.record, held.told, held.outcome.delay, attempt)
            return
        run.done += self._hand_over(run, held.record, lambda: held.told, held.outcome, attempt)
        with self._monitor.lock:
            self._monitor.give_back(run)

    @property
    def _pause(self) -> float:
        """How long a record waits that is tried again without having used up an attempt."""
        assert self.guard is not None
        return self.guard.circuit.settings.open_for

    def _held(
        self,
        run: Run,
        record: Record,
        error: Exception,
        outcome: _Outcome,
        attempt: Try,
    ) -> bool:
        """Let a probe's record wait for what its trial shows. False: what the failure costs is known."""
        if not attempt.held:
            return False
        told = self._judge.told(error, record, run)
        with self._monitor.lock:
            if not attempt.held:  # another thread knows by now
                return False
            self._monitor.count_run(run)
            lane = self._monitor.engine.hold(run, self._monitor.clock.monotonic() + self._pause)
            if lane is not None and not isinstance(outcome, DeadLetter | Stop):
                attempt.waits = Held(lane, record, told, outcome)
            self._monitor.changed.notify_all()
            self._monitor.work.notify_all()
        return True

    def _report(self, run: Run, record: Record, error: Exception) -> Try | None:
        """Count a failure. What the breaker calls it, if it counts there; SettingsError if it cannot say."""
        record.outbox = SEALED
        with self._monitor.lock:
            self._monitor.counters.failed += 1
        return None if self.guard is None else self.guard.failed(run, record, error)

    def _noted(self, record: Record, told: str, attempt: Try | None) -> bool:
        """Locked: the failure costs an attempt. False: another thread has opened the breaker since."""
        if attempt is not None and attempt.returned:
            return False
        failure = self._judge.note_failure(record, told)
        if attempt is not None:
            attempt.failure = failure
        return True

    def _stop_all(self, run: Run, record: Record, error: Exception, stop: Stop) -> bool:
        told = self._judge.why_all_stops(record, error, stop, run)
        with self._monitor.lock:
            self._monitor.halt()  # first: given back, the record would be taken again at once
            self._monitor.give_back(run)
        self._monitor.on_failure(stop.error, told)
        return False

    def _retry_here(self, run: Run, record: Record, told: str, delay: float, attempt: Try | None) -> None:
        self._judge.log_retry(record, delay, told.__str__)
        with self._monitor.lock:
            if not self._noted(record, told, attempt):
                self._monitor.give_back(run)
                return
            self._monitor.counters.retried += 1
            self._wait_locked(run, delay)

    def _wait_here(self, run: Run, delay: float) -> None:
        """The record is tried again, and the failure has cost no attempt."""
        with self._monitor.lock:
            self._wait_locked(run, delay)

    def _wait_locked(self, run: Run, delay: float) -> None:
        self._monitor.count_run(run)
        self._monitor.engine.retry(run, self._monitor.clock.monotonic() + delay, delay)
        self._monitor.changed.notify_all()
        self._monitor.work.notify_all()

    def _hand_over(
        self,
        run: Run,
        record: Record,
        told: Callable[[], str],
        outcome: DeadLetter | tuple[Defer, Outgoing],
        attempt: Try | None,
    ) -> bool:
        """The record goes to the retry topic or the dead letters, and ends when it is there.

        False if it does not: another thread has opened the breaker, and the failure is given back.
        """
        with self._monitor.lock:
            if attempt is not None and attempt.returned:
                return False
            if not self._monitor.engine.hand_off(run, record):
                return True
            if isinstance(outcome, tuple):
                self._monitor.counters.retried += 1
                if attempt is not None:
                    attempt.deferred = origin_of(record)
        assignment = run.lane.assignment
        if isinstance(outcome, tuple):
            defer, outgoing = outcome
            self._judge.log_retry(record, defer.delay, told)
            self.write(assignment, record.log_offset, outgoing)
        elif run.letters is not None:
            run.letters.append((record, outcome.error))
        else:
            self.write_off(assignment, record, outcome.error, run, attempts=record.attempt)
        return True


def _doubtful(outcome: _Outcome, attempt: Try) -> bool:
    """Whether it would be the record's end, though its failure may still be an outage's."""
    unjudged = isinstance(outcome, Stop) and isinstance(outcome.error, SettingsError)
    return isinstance(outcome, DeadLetter | Stop) and not attempt.sure and not unjudged
