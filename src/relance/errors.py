"""What can go wrong, told as one tree; its promise: every message says what happened and what to do next.

* RelanceError                  all that relance itself raises
  · SettingsError               a setting is unknown, has the wrong type, or contradicts another
  · DecodeError                 a record's value does not fit the handler's annotation; never retried
  · MaxRetriesExceededError     the attempts of a record are used up; the class a dead letter carries
  · SendError                   a write was not acknowledged; `maybe_written` says what is known of it
    + HandoffError              ... and that write was a retry or a dead letter: its source offset stays
  · BrokerUnavailableError      no broker answered before the deadline (also a ConnectionError)
  · TopicMissingError           topics do not exist; the message holds the command that makes them
  · AssignmentError             the partition is not (or no longer) ours
  · HandlerTimeoutError         a handler took longer than its timeout (also a TimeoutError)
  · WorkerDiedError             the process that ran a handler ended; always retried
  · CrashLoopError              each process that handled the record died; a class that dead letters carry
  · HandlerExitError            a handler raised SystemExit or the like; the application stops

Apart from the tree stand the handler's words, which a handler raises to override its retry policy. They
are not RelanceErrors, so that an `except RelanceError` around a call to relance never swallows them:

* Retry                         try this record again
* Reject                        this record can never succeed: dead-letter it now
* Fatal                         no record can succeed now: stop, commit nothing more
* BatchError                    these records of a batch failed, the others are handled

and, for the errors of the handler's own services,

* TransientError                subclass it, or raise it: retried by the default policy

Beside the tree, `kafka_error(code)` answers what a Kafka error code means for a client (see
`relance.kafka_errors`).
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from relance.kafka_errors import KAFKA_ERRORS, KafkaErrorKind, KafkaErrorRow, kafka_error

__all__ = [
    "KAFKA_ERRORS",
    "MAX_WAIT",
    "AssignmentError",
    "BatchError",
    "BrokerUnavailableError",
    "CrashLoopError",
    "DecodeError",
    "Fatal",
    "HandlerExitError",
    "HandlerTimeoutError",
    "HandlerWord",
    "HandoffError",
    "KafkaErrorKind",
    "KafkaErrorRow",
    "MaxRetriesExceededError",
    "Reject",
    "RelanceError",
    "Retry",
    "SendError",
    "SettingsError",
    "TopicMissingError",
    "TransientError",
    "WorkerDiedError",
    "held_wait",
    "kafka_error",
]


_MOST_PLACES = 5  # that a message names

MAX_WAIT: Final = 86_400.0
"""The longest wait before a retry, in seconds: a day. A longer one is a slip (milliseconds, infinity), or
a schedule, which a retry topic is not."""


def held_wait(asked: object) -> float | None:
    """A wait in seconds, held to 0..MAX_WAIT (a Retry-After may be past, or absurd); None if it is none.

    bool is an int to Python, but True is a slip, not a second; nan is no number that equals itself.
    """
    if isinstance(asked, bool) or not isinstance(asked, int | float) or asked != asked:
        return None
    return float(min(max(asked, 0.0), MAX_WAIT))


class RelanceError(Exception):
    """The root of all that relance raises itself."""


class SettingsError(RelanceError, ValueError):
    """A setting that cannot be right; raised before anything starts, and exit status 2 on the command line.

    `key` is the setting's name as the user wrote it, `problem` says what is wrong and the way out. Where
    several settings are wrong, `problems` holds them all, and the text has a line for each.
    """

    def __init__(self, key: str, problem: str, *more: tuple[str, str]) -> None:
        super().__init__(key, problem, *more)
        self.key = key
        self.problem = problem

    @property
    def problems(self) -> list[tuple[str, str]]:
        """(key, problem) of everything that was found wrong, this one first."""
        return [(self.key, self.problem), *self.args[2:]]

    def __str__(self) -> str:
        return "\n".join(f"{key}: {problem}" for key, problem in self.problems)


class DecodeError(RelanceError, ValueError):
    """A record's value does not fit the handler's annotation.

    It is a property of the bytes, so a second try would fail in the same way: it is never retried and
    the record is dead-lettered at once, its bytes untouched. The cause is chained as `__cause__`.
    """


class MaxRetriesExceededError(RelanceError):
    """All attempts of a record failed; it goes to the dead-letter topic.

    `attempts` counts every run of the handler, the first included; `last_error` is the error of the last.
    """

    def __init__(self, attempts: int, last_error: BaseException | str | None = None) -> None:
        super().__init__(attempts, last_error)
        self.attempts = attempts
        self.last_error = last_error

    def __str__(self) -> str:
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        if self.last_error is None:
            return f"gave up after {tries}"
        if isinstance(self.last_error, BaseException):
            return f"gave up after {tries}; the last: {type(self.last_error).__name__}: {self.last_error}"
        return f"gave up after {tries}; the last: {self.last_error}"


class SendError(RelanceError):
    """A write was not acknowledged.

    `maybe_written` is False only where the record is known not to be in the topic (refused before it was
    sent, or refused by the broker). True means unknown: it may be there, so a second send may duplicate it.
    `code` is the Kafka error code where there is one (see `kafka_error`).
    """

    def __init__(self, message: str, *, maybe_written: bool, code: int | None = None) -> None:
        super().__init__(message)
        self.maybe_written = maybe_written
        self.code = code

    def __str__(self) -> str:
        tail = "it may have been written all the same" if self.maybe_written else "it was not written"
        return f"{self.args[0]} ({tail})"

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle by positional arguments; a process worker sends its errors home that way.
        return _rebuild_send_error, (type(self), self.args[0], self.maybe_written, self.code)


def _rebuild_send_error(
    kind: type[SendError], message: str, maybe_written: bool, code: int | None
) -> SendError:
    return kind(message, maybe_written=maybe_written, code=code)


class HandoffError(SendError):
    """A retry or dead letter could not be written durably, so its source offset must not be committed."""


class HandlerTimeoutError(RelanceError, TimeoutError):
    """A handler took longer than its `timeout`. As a TimeoutError it is retried by the default policy."""

    def __init__(self, handler: str, seconds: float) -> None:
        super().__init__(handler, seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.args[0]} took longer than its timeout of {self.seconds:g} s"


class WorkerDiedError(RelanceError):
    """The process that ran the handler ended: killed, out of memory, a crash below Python. Always retried.

    `exit_status` as of `multiprocessing.Process.exitcode`: negative for a signal.
    """

    def __init__(self, handler: str, exit_status: int | None) -> None:
        super().__init__(handler, exit_status)
        self.exit_status = exit_status

    @property
    def how(self) -> str:
        """What became of the process, to put behind the handler's name."""
        if self.exit_status is not None and self.exit_status < 0:
            with contextlib.suppress(ValueError):  # a real-time signal has no name
                return f"its process was ended by {signal.Signals(-self.exit_status).name}"
        return f"its process ended with exit status {self.exit_status}"

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.how}"


class HandlerExitError(RelanceError):
    """A handler raised what ends a process: SystemExit, KeyboardInterrupt, GeneratorExit or the like.

    The application stops with it, and it counts as a death of the process (see `max_crashes`). `status` is
    the exit status that `App.run` leaves with: that of the SystemExit, but never 0.
    """

    def __init__(self, handler: str, places: Sequence[str], text: str, status: int = 1) -> None:
        super().__init__(handler, tuple(places), text, status)
        self.status = status

    def __str__(self) -> str:
        handler, places, text, _ = self.args
        some = "; ".join(places[:_MOST_PLACES]) + ("; ..." if len(places) > _MOST_PLACES else "")
        where = f"handler {handler} at {some}" if places else f"handler {handler}"
        whose = " in a task of one of these" if len(places) > 1 else ""
        return (
            f"{where}: {text}, raised{whose}, ends the process and counts as one of its deaths (max_crashes);"
            " a handler that means to stop the application raises Fatal or calls App.stop"
        )


class CrashLoopError(RelanceError):
    """The process died `crashes` times while this record was the only one it handled; it was given up.

    Nobody catches it: no handler has run. It is the class that the record's dead letter names.
    """

    def __init__(self, crashes: int) -> None:
        super().__init__(crashes)
        self.crashes = crashes

    def __str__(self) -> str:
        times = "once" if self.crashes == 1 else f"{self.crashes} times"
        return f"the process died {times} while it handled this record; replay it where its handler is mended"


class BrokerUnavailableError(RelanceError, ConnectionError):
    """No broker answered before the deadline. As a ConnectionError it is retried by the default policy."""

    command: str = ""
    """What starts a broker, where that is for whoever reads this to do: at a prompt, for this machine."""


class TopicMissingError(RelanceError):
    """Topics that must exist do not, and relance may not make them.

    `topics` are all of them, `topic` is the first; `partitions` is the number to suggest, in the command that
    the message holds.
    """

    def __init__(
        self,
        topic: str,
        *others: str,
        partitions: int = 1,
        replication_factor: int = 1,
        bootstrap_servers: str = "localhost:9092",
    ) -> None:
        super().__init__(topic, *others)
        self.topic = topic
        self.topics = (topic, *others)
        self.partitions = partitions
        self.replication_factor = replication_factor
        self.bootstrap_servers = bootstrap_servers

    @property
    def command(self) -> str:
        """The command that makes the topics."""
        copies = f" --replication-factor {self.replication_factor}" if self.replication_factor != 1 else ""
        return (
            f"relance topics create {' '.join(self.topics)} --partitions {self.partitions}{copies}"
            f" --bootstrap {self.bootstrap_servers}"
        )

    def __str__(self) -> str:
        if len(self.topics) == 1:
            told = f"topic {self.topic!r} does not exist on {self.bootstrap_servers}; create it"
        else:
            names = ", ".join(map(repr, self.topics))
            told = f"topics {names} do not exist on {self.bootstrap_servers}; create them"
        return f"{told}: {self.command} (or all that an App needs: relance topics ensure MODULE:APP)"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_topic_missing, (
            type(self),
            self.topics,
            self.partitions,
            self.replication_factor,
            self.bootstrap_servers,
        )


def _rebuild_topic_missing(
    kind: type[TopicMissingError],
    topics: tuple[str, ...],
    partitions: int,
    replication_factor: int,
    bootstrap_servers: str,
) -> TopicMissingError:
    return kind(
        *topics,
        partitions=partitions,
        replication_factor=replication_factor,
        bootstrap_servers=bootstrap_servers,
    )


class AssignmentError(RelanceError):
    """Something was asked of a partition that this consumer does not own (any more)."""


class HandlerWord(Exception):  # noqa: N818 (a word of the handler, no error: Retry, Reject, Fatal)
    """The root of what a handler raises to speak to relance rather than to report an error."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(HandlerWord):
    """Try this record again, in `after` seconds; None leaves the wait to the retry policy.

    It overrides `retry_on`, not `max_attempts`: the attempt counts, and without a policy there is only one.
    `after` is held to 0 to MAX_WAIT (a day): a Retry-After may be past, or absurd. Raises SettingsError where
    it is no number.
    """

    def __init__(self, after: float | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.after = held_wait(after)
        if self.after is None and after is not None:
            raise SettingsError("Retry.after", f"must be seconds, or None, not {after!r}")

    def __str__(self) -> str:
        wait = "" if self.after is None else f" after {self.after:g}s"
        return f"retry{wait}: {self.reason}" if self.reason else f"retry{wait} asked for by the handler"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.after, self.reason)


class BatchError(HandlerWord):
    """Some records of a batch have failed, all others have been handled.

    `errors`: by index in the list that the handler was given, what each failed with; judged one by one as if
    each had been handled alone. Where there is order (`ordering` is not "none"), also name those of the same
    key or partition behind one that is to be tried again, and don't handle them: whoever isn't named is
    handled, and they would be so before it.
    """

    def __init__(self, errors: Mapping[int, Exception]) -> None:
        if not isinstance(errors, Mapping):
            raise TypeError(f"BatchError takes {{index: error}}, not {errors!r:.60}")
        super().__init__(f"{len(errors)} of a batch failed")
        self.errors = dict(errors)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.errors,)


class Reject(HandlerWord):
    """This record can never succeed: dead-letter it now, whatever the policy says."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class Fatal(HandlerWord):
    """No record can succeed now (a bad key, a missing table): stop the consumer and commit nothing more."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class TransientError(Exception):
    """An error that goes away by itself: a service is down, a limit is reached. Retried by default."""
