"""What becomes of a record that failed: the outcome, what is to be written, what is logged.

`engine.outcome.decide` is the rule; here it meets what cannot be known from the error alone (a record too
large to be deferred, headers that cannot be read). Promise: nothing is performed here but log lines, so the
runtime may ask without its lock.
"""

from __future__ import annotations

from collections.abc import Callable

from relance.burst import BurstLog
from relance.clock import Clock
from relance.contracts import Plan, Told
from relance.dead_letters.ladder import TooLarge
from relance.dead_letters.telling import Teller
from relance.engine.deferral import Deferral, Failure, NotOurs, Unreadable, from_headers
from relance.engine.lanes import Run
from relance.engine.outcome import DeadLetter, Defer, RetryAt, Stop, decide
from relance.errors import MaxRetriesExceededError, SettingsError
from relance.outgoing import dead_letter, read_headers, retry_record, told_with
from relance.record import Outgoing, Record
from relance.text import key_name, one_line

__all__ = ["Judge"]

_LONGEST_DUE = 86_400.0  # seconds; what a retry record's headers may ask for beyond the policy's own maximum
_KEPT_FAILURES = 10  # of a record that is tried for ever: the first, which says since when, and the last ones


class Judge:
    """The verdicts of one consumer.

    Methods take the `run` that a record failed in, because an error of a batch may quote any of its records.
    """

    def __init__(
        self, plan: Plan, *, clock: Clock, random: Callable[[], float], max_record: Callable[[str], int]
    ) -> None:
        self._plan = plan
        self._clock = clock
        self._random = random
        self._max_record = max_record
        self._longest = max(plan.retry.max_delay, _LONGEST_DUE)
        self._retry_log = BurstLog("relance.retry", clock)
        self._dlt_log = BurstLog("relance.dlt", clock)
        # What is hidden of a record is found once, though its error is told several times.
        self._last: tuple[Record | None, Teller] = None, told_with(plan.mask)

    def teller(self, record: Record, run: Run | None = None) -> Teller:
        """The teller of the errors of `record`, or of the batch `run`."""
        if run is not None and self._plan.batch > 1 and self._plan.mask.hides_values:
            if run.teller is None:
                run.teller = told_with(self._plan.mask, *run.records)
            return run.teller
        last, teller = self._last
        if last is not record and self._plan.mask.hides_values:
            teller = told_with(self._plan.mask, record)
            self._last = record, teller
        return teller

    def told(self, error: BaseException, record: Record, run: Run | None = None) -> str:
        """What an error says, as far as anybody may read it."""
        return self.teller(record, run).failure(error)

    def why_all_stops(self, record: Record, error: Exception, stop: Stop, run: Run | None = None) -> Told:
        """What is told when `error` of `record` ends the application."""
        teller = self.teller(record, run)
        why = f"failed with {teller.failure(error)}"
        if isinstance(stop.error, MaxRetriesExceededError):
            why += f" in the last of {stop.error.attempts} attempts"
        why += f"; {stop.why}"
        if isinstance(stop.error, SettingsError) and stop.error is not error:
            why += f": {teller.text(str(stop.error))}"
        place = f"{record.topic}-{record.partition}, offset {record.offset}, {key_name(record.key)}"
        return Told(
            f"{place}: {self._plan.handler} {why}; nothing is committed past the record, and the next start"
            " handles it again",
            teller.trace(stop.error),
        )

    def judge(
        self, record: Record, error: Exception, run: Run | None = None
    ) -> RetryAt | DeadLetter | Stop | tuple[Defer, Outgoing]:
        """The outcome of the try that raised `error`; a deferral comes with the record to write."""
        plan = self._plan
        outcome = decide(
            error, attempt=record.attempt, policy=plan.retry, paths=plan.paths, random=self._random
        )
        if not isinstance(outcome, Defer):
            return outcome
        assert plan.paths.retry_topic is not None
        deferred = retry_record(
            record,
            error,
            topic=plan.paths.retry_topic,
            group=plan.group,
            delay=outcome.delay,
            now=self._clock.time(),
            limit=self._max_record(plan.paths.retry_topic),
            teller=self.teller(record, run),
        )
        if deferred is None:
            return RetryAt(outcome.delay)  # it cannot go, so it waits here and holds its lane
        return outcome, deferred

    def note_failure(self, record: Record, told: str) -> Failure:
        """`record` will be tried again here: the next attempt, with this failure in its history."""
        past, text = record.history, told[:500]
        if past and past[-1].error == text:
            text = past[-1].error  # a hundred thousand records may fail in the same way for hours
        failure = Failure(record.attempt, text, self._clock.time())
        if len(past) >= _KEPT_FAILURES:
            past = past[0], *past[2:]
        record.history = (*past, failure)
        record.attempt += 1
        return failure

    def letter(
        self, record: Record, error: Exception, run: Run | None = None, *, attempts: int
    ) -> Outgoing | TooLarge | None:
        """The dead letter of `record` after `attempts` tries; None where there is no topic for it."""
        paths = self._plan.paths
        if paths.dead_letter_topic is None:
            return None
        return dead_letter(
            record,
            error,
            topic=paths.dead_letter_topic,
            group=self._plan.group,
            now=self._clock.time(),
            attempts=attempts,
            limit=self._max_record(paths.dead_letter_topic),
            allow_pointer=paths.pointer,
            mask=self._plan.mask,
            teller=self.teller(record, run),
        )

    def deferral_of(self, record: Record, wall: float) -> Deferral | NotOurs | Unreadable:
        """What the headers of a record from the retry topic say; `wall` in UTC seconds."""
        headers = read_headers(record)
        if headers is None:
            return Unreadable("the client cannot read them")
        return from_headers(headers, group=self._plan.group, now=wall, max_delay=self._longest)

    def log_retry(self, record: Record, delay: float, told: Callable[[], str]) -> None:
        """The line that the course greps for; before `note_failure`.

        `told` gives the text of the error; it is called only if the line is written.
        """
        tries = self._plan.retry.max_attempts
        self._retry_log.warning(
            "[RETRY] Retry %d/%d (attempt %d/%d) %s in %dms: %s",
            lambda: (
                record.attempt,
                tries - 1,
                record.attempt + 1,
                tries,
                record.name,
                round(delay * 1000),
                one_line(told()),
            ),
        )

    def log_dead_letter(
        self, record: Record, topic: str, error: Exception, run: Run | None = None, *, attempts: int
    ) -> None:
        """The same for a record that was given up."""
        last = error.__cause__ if isinstance(error, MaxRetriesExceededError) else None
        self._dlt_log.warning(
            "[DLT] %s -> %s (%s after %d attempt%s): %s",
            lambda: (
                record.name,
                topic,
                type(error).__name__,
                attempts,
                "" if attempts == 1 else "s",
                one_line(self.told(last or error, record, run)),
            ),
        )

    def log_clamped(self, record: Record) -> None:
        """Say so if it came with headers that ask for a later time than any retry may have."""
        if record.deferral is not None and record.deferral.clamped:
            self._retry_log.warning(
                "[RETRY] %s: its headers are damaged or forged, they ask for a wait beyond all measure;"
                " it waits %.0f s at most",
                lambda: (record.name, self._longest),
            )
