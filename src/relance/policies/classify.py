"""Whether an error is worth another try; the promise: one rule, in one order, and never a guess.

`classify(error, policy)` asks in this order, and the first answer counts:

1. the handler's words: `Retry`, `Reject`, `Fatal`;
2. `DecodeError`: not retryable, because the bytes will not change;
3. the policy's `fatal` and `non_retryable` types;
4. what the error says of itself: `non_retryable` is True, or `next_retry_delay` (seconds or a timedelta) is
   set (the names of Temporal's ApplicationError);
5. relance's own errors and Kafka's: a `KafkaException`, or a failed send that has a code, by the table of
   `relance.kafka_errors`; a broker that is away is retryable, a topic that is missing is fatal;
6. the policy's `retry_on`, entry by entry;
7. otherwise: not retryable.

Kafka's table goes before `retry_on`, because `retry_on=Exception` is common and must not turn a wrong
password into a topic full of dead letters.

An exception group is judged by its leaves: fatal if one is, else not retryable if one is, else retryable
after the longest wait that a leaf asks for.

What is not an `Exception` (KeyboardInterrupt, SystemExit, asyncio.CancelledError) is no error of the record:
it ends the program or the task. `is_record_error` tells the two apart, and `classify` refuses the latter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final, Protocol, TypeGuard

from relance.errors import (
    BrokerUnavailableError,
    DecodeError,
    Fatal,
    KafkaErrorKind,
    Reject,
    Retry,
    SendError,
    SettingsError,
    TopicMissingError,
    WorkerDiedError,
    held_wait,
    kafka_error,
)
from relance.policies.retry import RetryPolicy
from relance.text import name_of, said, shown

__all__ = ["RuleFaultError", "Verdict", "VerdictKind", "answer_of", "classify", "is_record_error"]


class VerdictKind(Enum):
    """The three things to do with an error."""

    RETRYABLE = "retryable"
    """Try the record again, while attempts remain."""
    NON_RETRYABLE = "non-retryable"
    """Dead-letter the record now."""
    FATAL = "fatal"
    """Stop: the next record would fail too. Dead-letter nothing, commit nothing more."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an error means for its record."""

    kind: VerdictKind
    delay: float | None = None
    """Seconds to wait before the retry, 0 to a day; None leaves the wait to the policy."""
    reason: str = ""
    """Which rule answered, for a log line."""
    fault: SettingsError | None = None
    """Why a callable of `retry_on` could not answer: a fault of the policy, and so fatal."""

    @property
    def retryable(self) -> bool:
        """Whether the record may be tried again."""
        return self.kind is VerdictKind.RETRYABLE

    @property
    def fatal(self) -> bool:
        """Whether the consumer must stop."""
        return self.kind is VerdictKind.FATAL


_SEVERITY: Final = {VerdictKind.RETRYABLE: 0, VerdictKind.NON_RETRYABLE: 1, VerdictKind.FATAL: 2}
_UNKNOWN_TO_THE_POLICY: Final = Verdict(VerdictKind.NON_RETRYABLE, None, "no rule of retry_on knows it")


def is_record_error(error: BaseException) -> bool:
    """Whether the error is one of the record's handling, and not the end of the task or of the program."""
    return isinstance(error, Exception)


def classify(error: BaseException, policy: RetryPolicy) -> Verdict:
    """What `error` means under `policy`. Pure, except for what the callables of `retry_on` do.

    A callable of `retry_on` that raises, or answers what it may not, is a fault of the policy and not of the
    record, so the verdict is fatal: guessing would dead-letter records that nobody judged.

    Raises TypeError for what is no error of a record (see `is_record_error`).
    """
    if not isinstance(error, Exception):
        raise TypeError(f"{type(error).__name__} is not an error of a record and is never classified")
    if not isinstance(error, ExceptionGroup):
        return _classify_one(error, policy)
    worst: Verdict | None = None
    for leaf in _leaves(error):
        verdict = _classify_one(leaf, policy)
        if worst is None or _weight(verdict) > _weight(worst):
            worst = verdict
    return worst or _UNKNOWN_TO_THE_POLICY


def _weight(verdict: Verdict) -> tuple[int, float]:
    return _SEVERITY[verdict.kind], -1.0 if verdict.delay is None else verdict.delay


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    waiting: list[Exception] = [group]  # a stack of our own: groups can be nested deeper than Python recurses
    while waiting:
        error = waiting.pop()
        if isinstance(error, ExceptionGroup):
            waiting.extend(reversed(error.exceptions))
        else:
            yield error


def _classify_one(error: Exception, policy: RetryPolicy) -> Verdict:
    if isinstance(error, Retry):
        return Verdict(VerdictKind.RETRYABLE, error.after, "the handler raised Retry")
    if isinstance(error, Reject):
        return Verdict(VerdictKind.NON_RETRYABLE, None, "the handler raised Reject")
    if isinstance(error, Fatal):
        return Verdict(VerdictKind.FATAL, None, "the handler raised Fatal")
    if isinstance(error, DecodeError):
        return Verdict(VerdictKind.NON_RETRYABLE, None, "a value that does not decode will not the next time")
    if isinstance(error, policy.fatal):
        return Verdict(VerdictKind.FATAL, None, f"fatal names {type(error).__name__}")
    if isinstance(error, policy.non_retryable):
        return Verdict(VerdictKind.NON_RETRYABLE, None, f"non_retryable names {type(error).__name__}")
    return _own_words(error) or _infrastructure(error) or _asked(error, policy) or _UNKNOWN_TO_THE_POLICY


def _own_words(error: Exception) -> Verdict | None:
    if _attribute(error, "non_retryable") is True:
        return Verdict(VerdictKind.NON_RETRYABLE, None, "the error says that it is non_retryable")
    asked = _attribute(error, "next_retry_delay")
    if asked is None:
        return None
    delay = _seconds(asked)
    if delay is None:  # an attribute that only happens to have that name
        return None
    return Verdict(VerdictKind.RETRYABLE, delay, "the error names its next_retry_delay")


def _attribute(of: object, name: str) -> object:
    try:
        return getattr(of, name, None)
    except Exception:  # noqa: BLE001  a user's property may raise anything; then it says nothing
        return None


def _infrastructure(error: Exception) -> Verdict | None:
    if isinstance(error, WorkerDiedError):
        return Verdict(VerdictKind.RETRYABLE, None, "the process that ran the handler ended")
    if isinstance(error, TopicMissingError):
        return Verdict(VerdictKind.FATAL, None, "a topic is missing")
    if isinstance(error, BrokerUnavailableError):
        return Verdict(VerdictKind.RETRYABLE, None, "no broker answers")
    if isinstance(error, SendError):
        if error.code is None:
            return Verdict(VerdictKind.RETRYABLE, None, "a write was not acknowledged")
        return _by_code(error.code)
    inner = error.args[0] if error.args else None
    if not _is_kafka_error(inner):
        return None
    if inner.fatal():
        return Verdict(VerdictKind.FATAL, None, "the Kafka client calls the error fatal")
    return _by_code(inner.code())


class _KafkaError(Protocol):
    """The shape of confluent_kafka.KafkaError: this room knows no Kafka client."""

    def code(self) -> int: ...
    def fatal(self) -> bool: ...


def _is_kafka_error(inner: object) -> TypeGuard[_KafkaError]:
    return all(callable(_attribute(inner, name)) for name in ("code", "name", "fatal", "retriable"))


def _by_code(code: int) -> Verdict | None:
    row = kafka_error(code)
    reason = f"Kafka error {row.name} ({row.code}) is {row.kind.value}: {row.action}"
    if row.retriable:
        return Verdict(VerdictKind.RETRYABLE, None, reason)
    if row.kind is KafkaErrorKind.FATAL:
        return Verdict(VerdictKind.FATAL, None, reason)
    if row.kind is KafkaErrorKind.RECORD:
        return Verdict(VerdictKind.NON_RETRYABLE, None, reason)
    return None


def _asked(error: Exception, policy: RetryPolicy) -> Verdict | None:
    for rule in policy.retry_on:
        if isinstance(rule, type):
            if isinstance(error, rule):
                return Verdict(VerdictKind.RETRYABLE, None, f"retry_on names {rule.__name__}")
            continue
        verdict = _ask(rule, error)
        if verdict is not None:
            return verdict
    return None


class RuleFaultError(Exception):
    """A user's rule raised: its name and what it said; `__cause__` is what it raised."""


def answer_of(rule: Callable[[Exception], object], error: Exception) -> object:
    """What a user's rule answers for `error`. Raises RuleFaultError; KeyboardInterrupt is a person's."""
    try:
        return rule(error)
    except KeyboardInterrupt:
        raise
    except BaseException as fault:  # sys.exit, too
        if fault.__context__ is None and fault is not error:
            fault.__context__ = error  # so that whoever sees the one sees the other
        text = f"{name_of(rule)} raised {said(fault)}; it must answer for every error"
        raise RuleFaultError(text) from fault


def _ask(rule: Callable[[Exception], bool | float | timedelta | None], error: Exception) -> Verdict | None:
    name = name_of(rule)
    try:
        answer = answer_of(rule, error)
    except RuleFaultError as wrong:
        return _at_fault(str(wrong), wrong.__cause__)
    if answer is None or answer is False:
        return None
    if answer is True:
        return Verdict(VerdictKind.RETRYABLE, None, f"retry_on's {name} said so")
    delay = _seconds(answer)
    if delay is None:
        given = shown(answer, 100)
        return _at_fault(f"{name} answered {given}; it may answer bool, seconds, a timedelta or None", error)
    return Verdict(VerdictKind.RETRYABLE, delay, f"retry_on's {name} asked for {delay:g}s")


def _at_fault(problem: str, cause: BaseException | None) -> Verdict:
    fault = SettingsError("retry_on", problem)
    fault.__cause__ = cause
    return Verdict(VerdictKind.FATAL, None, f"retry_on's {problem}", fault)


def _seconds(asked: object) -> float | None:
    """A foreign wait, which may be a timedelta, too; None if it is none."""
    return held_wait(asked.total_seconds() if isinstance(asked, timedelta) else asked)
