"""When calls to a service that is down stop, and start again; the promise: one bad record is no outage.

A circuit breaker watches the calls of one or more handlers. It is *closed* (calls go through and are counted)
until too many of the calls in its window failed or were slow. Then it is *open*: no call goes through, the
partitions pause, no attempt is used up. After `open_for` seconds it is *half-open*: a few calls, the probes,
go through, and they decide whether it closes or opens again.

A bad record is told from an outage twice: by which errors count (`CircuitBreaker.counts`), and by their share
of many calls. Here stand the settings, frozen and checked; `relance.policies.breaker_state` runs by them.

States, names and meanings are those of Resilience4j's CircuitBreaker, after M. Nygard, "Release It!" (2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Final

from relance.errors import MAX_WAIT, SettingsError
from relance.policies.checks import integer, number
from relance.policies.classify import RuleFaultError, answer_of, classify, is_record_error
from relance.policies.retry import ErrorTypes, RetryPolicy, RetryRule
from relance.text import name_of, shown

__all__ = ["CircuitBreaker"]

MAX_WINDOW: Final = 100_000
MAX_PROBES: Final = 1_000
DEFAULT_WINDOW: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """When calls stop, for how long, and what must be true to start again.

    Raises SettingsError, naming the field, for a value that cannot be meant.
    """

    failure_rate: float = 0.5
    """The share of the calls in the window that must have failed to open it; above 0, to 1.
    Resilience4j's failureRateThreshold, which is in percent; reaching it is enough."""

    slow_call_rate: float = 1.0
    """The share of the calls in the window that must have been slow to open it; above 0, to 1.
    Resilience4j's slowCallRateThreshold. It needs `slow_call_duration`, which says what slow is."""

    slow_call_duration: float | None = None
    """A call that takes longer is slow, whether it succeeds or fails; seconds, above 0, to a day. None, the
    default: slowness is not judged (Resilience4j: 60 s)."""

    window: int | None = DEFAULT_WINDOW
    """How many calls are judged, the last ones; 1 to 100,000. None where `window_seconds` is set; naming both
    is refused. Resilience4j's COUNT_BASED window, of 100 by default; a consumer makes fewer calls at once."""

    window_seconds: int | None = None
    """Judge the calls of so many seconds instead; whole seconds, 1 to 86,400, kept in buckets of one second.
    Resilience4j's TIME_BASED window. It can name its last 10,000 failures, and gives back just those."""

    minimum_calls: int = 5
    """Below so many calls in the window it never opens; from 1, at most `window`. Resilience4j's
    minimumNumberOfCalls. Where `failure_rate` × `minimum_calls` is above the retry policy's max_attempts, no
    single record can open it."""

    open_for: float = 30.0
    """How long it stays open before the first probe; seconds, above 0, to a day. Resilience4j's
    waitDurationInOpenState."""

    probes: int = 3
    """How many calls a half-open breaker lets through to judge by, and so at most at a time; 1 to 1,000.
    Resilience4j's permittedNumberOfCallsInHalfOpenState, of 10 by default."""

    name: str | None = None
    """Breakers of one name are one breaker for all handlers of an App: the service is down for all of them.
    None, the default: the handler has one of its own."""

    errors: tuple[RetryRule, ...] | None = None
    """Which errors count, by the rules of RetryPolicy.retry_on: exception types, and callables that answer
    (any answer but False and None counts). None, the default: those that classify as retryable. An error that
    is the record's own fault never counts, whatever stands here."""

    def __post_init__(self) -> None:
        put = object.__setattr__  # the class is frozen; only here values get their one form
        for key in ("failure_rate", "slow_call_rate"):
            put(self, key, _above_zero(key, getattr(self, key), 1.0))
        if self.slow_call_duration is not None:
            duration = _above_zero("slow_call_duration", self.slow_call_duration, MAX_WAIT, "of seconds")
            put(self, "slow_call_duration", duration)
        elif self.slow_call_rate != 1.0:
            problem = "without slow_call_duration no call is slow, so it judges nothing; set both, or neither"
            raise SettingsError("slow_call_rate", problem)
        put(self, "open_for", _above_zero("open_for", self.open_for, MAX_WAIT, "of seconds"))
        put(self, "minimum_calls", integer("minimum_calls", self.minimum_calls, 1, MAX_WINDOW))
        put(self, "probes", integer("probes", self.probes, 1, MAX_PROBES))
        put(self, "window", self._checked_window())
        put(self, "name", _name(self.name))
        put(self, "errors", _rules(self.errors))

    def _checked_window(self) -> int | None:
        if self.window_seconds is None:
            if self.window is None:
                raise SettingsError("window", "None leaves nothing to judge; name window or window_seconds")
            window = integer("window", self.window, 1, MAX_WINDOW)
            if self.minimum_calls > window:
                problem = (
                    f"{self.minimum_calls} is above window {window}, so it would never open; lower it or "
                    "raise that"
                )
                raise SettingsError("minimum_calls", problem)
            return window
        integer("window_seconds", self.window_seconds, 1, int(MAX_WAIT))
        if self.window not in (None, DEFAULT_WINDOW):  # the default cannot be told from none named
            problem = f"window {self.window} is set too, and one breaker has one window; name only one"
            raise SettingsError("window_seconds", problem)
        return None

    @property
    def failures_to_open(self) -> int | None:
        """How many failures in a row open it at the latest, however well all went before them.

        None for a time window, where it depends on the traffic. A record whose `max_attempts` are fewer can
        be dead-lettered before the breaker has seen an outage.
        """
        if self.window is None:
            return None
        # The float product may lie beside the whole number it means; the division is what judges.
        least = max(math.floor(self.failure_rate * self.window), 1)
        full = least if least / self.window >= self.failure_rate else least + 1
        return max(full, self.minimum_calls)

    @property
    def tried_probes(self) -> int:
        """How many probes of a trial may be records that have failed while others have not: half of them, and
        fewer where so many failures would decide it."""
        most = self.probes // 2
        while most and most / self.probes >= self.failure_rate:
            most -= 1
        return most

    def counts(self, error: BaseException, retry: RetryPolicy) -> bool:
        """Whether an error of a handler under the policy `retry` is a sign of an outage.

        Never, where it is the record's own fault or the program's: `Reject`, `DecodeError`, what `retry` or
        the error itself calls not retryable, what is fatal, what is no error of a record (a cancellation).
        Else, as `errors` says, and where it says nothing: if `relance.policies.classify` calls it retryable.
        An exception group counts if one of its errors does and none of them is a record's own fault.

        Raises SettingsError naming `errors` where a callable of it raises, or answers what it may not:
        guessing would open for a poison record, or dead-letter in an outage.
        """
        if not is_record_error(error):
            return False
        if self.errors is None:
            return classify(error, retry).retryable
        # With all unknown errors taken for retryable, what is left is what somebody said never to retry.
        if not classify(error, _anything_else(retry.non_retryable, retry.fatal)).retryable:
            return False
        return any(_matches(rule, leaf) for leaf in _leaves(error) for rule in self.errors)

    def is_slow(self, seconds: float) -> bool:
        """Whether a call that took so many seconds was slow."""
        return self.slow_call_duration is not None and seconds > self.slow_call_duration

    def __str__(self) -> str:
        reasons = [f"{self.failure_rate * 100:.6g}% failed"]
        if self.slow_call_duration is not None:
            reasons.append(f"{self.slow_call_rate * 100:.6g}% took over {self.slow_call_duration:g}s")
        judged = f"last {self.window} calls"
        if self.window is None:
            judged = f"calls of the last {self.window_seconds}s"
        text = (
            f"opens for {self.open_for:g}s when of the {judged} (at least {self.minimum_calls}) "
            f"{' or '.join(reasons)}, then {self.probes} {'probe' if self.probes == 1 else 'probes'}"
        )
        return text if self.name is None else f"{self.name}: {text}"


def _above_zero(key: str, value: object, high: float, unit: str = "") -> float:
    checked = number(key, value, 0.0, high, unit)
    if checked == 0.0:
        raise SettingsError(key, "must be above 0, not 0")
    return checked


def _name(name: object) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > 100:
        raise SettingsError("name", f"must be 1 to 100 printable characters, or None, not {name!r:.60}")
    return name


def _rules(rules: object) -> tuple[RetryRule, ...] | None:
    if rules is None:
        return None
    try:
        checked = RetryPolicy(retry_on=rules).retry_on  # type: ignore[arg-type]  # checked there
    except SettingsError as wrong:
        raise SettingsError("errors", wrong.problem) from None
    if not checked:
        raise SettingsError("errors", "without a rule nothing would count; name one, or None for the default")
    return checked


@lru_cache(maxsize=64)
def _anything_else(non_retryable: ErrorTypes, fatal: ErrorTypes) -> RetryPolicy:
    return RetryPolicy(retry_on=(Exception,), non_retryable=non_retryable, fatal=fatal)


def _leaves(error: BaseException) -> Iterator[Exception]:
    waiting: list[BaseException] = [
        error
    ]  # not by recursion: groups can be nested deeper than Python recurses
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
        elif isinstance(one, Exception):
            yield one


def _matches(rule: RetryRule, error: Exception) -> bool:
    if isinstance(rule, type):
        return isinstance(error, rule)
    return _asked(rule, error)


def _asked(rule: Callable[[Exception], bool | float | timedelta | None], error: Exception) -> bool:
    try:
        answer = answer_of(rule, error)
    except RuleFaultError as wrong:
        raise SettingsError("errors", str(wrong)) from wrong.__cause__
    if answer is None or isinstance(answer, bool):
        return answer is True
    if isinstance(answer, int | float | timedelta):
        return True
    given = shown(answer, 60)
    raise SettingsError(
        "errors", f"{name_of(rule)} answered {given}; it may answer bool, seconds, a timedelta or None"
    )
