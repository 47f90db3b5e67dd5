"""How often, and how long after a failure, a record is tried again; the promise: a policy only answers.

A policy is frozen data, checked when it is built. It returns waits; it never sleeps, reads no clock and draws
no random number of its own. The four strategies are one formula with different numbers:

    wait(n) = min(initial_delay * multiplier ** (n - 1), max_delay)      after the n-th failed attempt

immediate (0), fixed (multiplier 1), exponential, and exponential with jitter. Jitter spreads the retries of
records that failed together, so that they don't all come back at the same instant (M. Brooker, "Exponential
Backoff And Jitter", AWS Architecture Blog, 2015). It is a share of the wait, not "full jitter" down to zero,
so that the waits stay recognisable: 1s±0.2s, 2s±0.4s, 4s±0.8s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from relance.errors import MAX_WAIT, SettingsError, TransientError
from relance.policies.checks import integer, number

__all__ = ["DEFAULT_RETRY_ON", "ErrorTypes", "RetryPolicy", "RetryRule"]

RetryRule: TypeAlias = type[Exception] | Callable[[Exception], bool | float | timedelta | None]
"""An exception type, or a callable that is asked about the error.

The callable answers True (retry, after the policy's own wait), a number of seconds or a timedelta (retry
after just that long, as for a Retry-After header), or False or None (no opinion: the next rule is asked).
"""

ErrorTypes: TypeAlias = tuple[type[Exception], ...]

DEFAULT_RETRY_ON: Final[tuple[RetryRule, ...]] = (TransientError, TimeoutError, ConnectionError)
"""What is retried where the policy doesn't say: errors that a service's outage causes, and nothing else."""

MAX_ATTEMPTS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a failed record is tried again. Build it with `immediate`, `fixed` or `exponential`.

    Raises SettingsError, naming the field, for a value that cannot be meant.
    """

    max_attempts: int = 5
    """How often a record is tried in all, the first try included; from 1 (never retried). The retries are
    one fewer, and so are `delays()`."""

    initial_delay: float = 1.0
    """The wait after the first failed attempt, in seconds, before jitter."""

    max_delay: float = 300.0
    """The longest wait in seconds, jitter included; from `initial_delay` to a day."""

    multiplier: float = 2.0
    """What each further wait is multiplied by; from 1 (fixed)."""

    jitter_factor: float = 0.2
    """The share of a wait by which it varies, either way; 0 (none) to 1."""

    retry_on: tuple[RetryRule, ...] = DEFAULT_RETRY_ON
    """What is retried: exception types (subclasses too) and callables, asked in this order; the first answer
    counts. An error that no rule knows is not retried. What goes before: `relance.policies.classify`."""

    non_retryable: ErrorTypes = ()
    """Exceptions to `retry_on`, by type: dead-lettered at once."""

    fatal: ErrorTypes = ()
    """Errors, by type, that no record can survive: the consumer stops and commits nothing more."""

    def __post_init__(self) -> None:
        put = object.__setattr__  # the class is frozen; only here values get their one form
        put(self, "max_attempts", integer("max_attempts", self.max_attempts, 1, MAX_ATTEMPTS))
        for key in ("initial_delay", "max_delay"):
            put(self, key, number(key, getattr(self, key), 0.0, MAX_WAIT, "of seconds"))
        put(self, "multiplier", number("multiplier", self.multiplier, 1.0, 1e6))
        put(self, "jitter_factor", number("jitter_factor", self.jitter_factor, 0.0, 1.0))
        if self.max_delay < self.initial_delay:
            problem = (
                f"{self.max_delay:g} is below initial_delay {self.initial_delay:g}; raise it or lower that"
            )
            raise SettingsError("max_delay", problem)
        put(self, "retry_on", _rules(self.retry_on))
        for key in ("non_retryable", "fatal"):
            put(self, key, _types(key, getattr(self, key)))
        twice = [kind for kind in self.fatal if kind in self.non_retryable]
        if twice:
            raise SettingsError("fatal", f"{_names(twice)} is in non_retryable too: name it in one of them")
        first = (*self.fatal, *self.non_retryable)
        never = [rule for rule in self.retry_on if isinstance(rule, type) and rule in first]
        if never and self.retry_on != DEFAULT_RETRY_ON:  # of the default there may be exceptions
            problem = f"{_names(never)} is in fatal or non_retryable too, which come first: name it in one"
            raise SettingsError("retry_on", problem)

    @classmethod
    def immediate(
        cls,
        max_attempts: int = 5,
        *,
        retry_on: Iterable[RetryRule] | RetryRule = DEFAULT_RETRY_ON,
        non_retryable: Iterable[type[Exception]] | type[Exception] = (),
        fatal: Iterable[type[Exception]] | type[Exception] = (),
    ) -> RetryPolicy:
        """Try again at once, without a wait."""
        return cls(
            max_attempts=max_attempts,
            initial_delay=0.0,
            max_delay=0.0,
            multiplier=1.0,
            jitter_factor=0.0,
            retry_on=_rules(retry_on),
            non_retryable=_types("non_retryable", non_retryable),
            fatal=_types("fatal", fatal),
        )

    @classmethod
    def fixed(
        cls,
        delay: float = 1.0,
        max_attempts: int = 5,
        *,
        jitter_factor: float = 0.0,
        retry_on: Iterable[RetryRule] | RetryRule = DEFAULT_RETRY_ON,
        non_retryable: Iterable[type[Exception]] | type[Exception] = (),
        fatal: Iterable[type[Exception]] | type[Exception] = (),
    ) -> RetryPolicy:
        """Wait `delay` seconds before every retry; with jitter, `max_delay` leaves room for it."""
        delay = number("delay", delay, 0.0, MAX_WAIT, "of seconds")
        jitter_factor = number("jitter_factor", jitter_factor, 0.0, 1.0)
        return cls(
            max_attempts=max_attempts,
            initial_delay=delay,
            max_delay=min(delay * (1.0 + jitter_factor), MAX_WAIT),
            multiplier=1.0,
            jitter_factor=jitter_factor,
            retry_on=_rules(retry_on),
            non_retryable=_types("non_retryable", non_retryable),
            fatal=_types("fatal", fatal),
        )

    @classmethod
    def exponential(
        cls,
        max_attempts: int = 5,
        initial_delay: float = 1.0,
        max_delay: float = 300.0,
        multiplier: float = 2.0,
        jitter_factor: float = 0.2,
        *,
        retry_on: Iterable[RetryRule] | RetryRule = DEFAULT_RETRY_ON,
        non_retryable: Iterable[type[Exception]] | type[Exception] = (),
        fatal: Iterable[type[Exception]] | type[Exception] = (),
    ) -> RetryPolicy:
        """Wait longer each time, up to `max_delay` seconds; `jitter_factor=0` is without jitter."""
        return cls(
            max_attempts=max_attempts,
            initial_delay=initial_delay,
            max_delay=max_delay,
            multiplier=multiplier,
            jitter_factor=jitter_factor,
            retry_on=_rules(retry_on),
            non_retryable=_types("non_retryable", non_retryable),
            fatal=_types("fatal", fatal),
        )

    def base_delay(self, attempt: int) -> float:
        """The wait in seconds after `attempt` (from 1) failed tries, before jitter."""
        if attempt < 1:
            raise ValueError(f"attempt counts from 1, not {attempt}")
        if self.multiplier == 1.0 or self.initial_delay == 0.0:
            return min(self.initial_delay, self.max_delay)
        try:
            return min(self.initial_delay * self.multiplier ** (attempt - 1), self.max_delay)
        except OverflowError:  # beyond the largest float, so far beyond max_delay
            return self.max_delay

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """The wait in seconds after `attempt` (from 1) failed tries; `random` is uniform in [0, 1).

        It is uniform over the part of `base_delay ± jitter_factor` that does not pass `max_delay`. Cutting
        the range, not the result, keeps waits at the limit spread: else half of them would be equal.
        """
        base = self.base_delay(attempt)
        if self.jitter_factor == 0.0 or base == 0.0:
            return base
        low = base * (1.0 - self.jitter_factor)
        high = min(base * (1.0 + self.jitter_factor), self.max_delay)
        # Rounding may carry the sum past its upper end by one unit in the last place.
        return min(low + (high - low) * random(), high)

    def delays(self) -> list[float]:
        """All waits in seconds, in order, before jitter; one fewer than `max_attempts`."""
        return [self.base_delay(attempt) for attempt in range(1, self.max_attempts)]

    @property
    def strategy(self) -> str:
        """The strategy's usual name: immediate, fixed or exponential, and whether with jitter."""
        if self.initial_delay == 0.0:
            return "immediate"
        name = "fixed" if self.multiplier == 1.0 else "exponential"
        return f"{name} with jitter" if self.jitter_factor else name

    def __str__(self) -> str:
        if self.max_attempts == 1:
            return "1 attempt, no retry"
        text = f"{self.strategy}, {self.max_attempts} attempts"
        if self.strategy == "immediate":
            return text
        waits = [self._wait(attempt) for attempt in range(1, min(self.max_attempts, 6))]
        more = ", ..." if self.max_attempts > 6 else ""
        return f"{text}, waits {', '.join(waits)}{more}, at most {self.max_delay:g}s"

    def _wait(self, attempt: int) -> str:
        base = self.base_delay(attempt)
        spread = base * self.jitter_factor
        return f"{base:g}s±{spread:g}s" if spread else f"{base:g}s"


def _names(kinds: Iterable[type[Exception]]) -> str:
    return ", ".join(kind.__name__ for kind in kinds)


def _entries(given: object) -> tuple[object, ...]:
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, (type, str)) else (given,)


def _rules(rules: Iterable[RetryRule] | RetryRule) -> tuple[RetryRule, ...]:
    return tuple(_rule(entry) for entry in _entries(rules))


def _rule(entry: object) -> RetryRule:
    if isinstance(entry, type):
        return _type("retry_on", entry)
    if callable(entry):
        return entry
    problem = f"takes exception types, and callables that answer bool, seconds or None, not {entry!r}"
    raise SettingsError("retry_on", problem)


def _types(key: str, types: Iterable[type[Exception]] | type[Exception]) -> ErrorTypes:
    return tuple(_type(key, entry) for entry in _entries(types))


def _type(key: str, entry: object) -> type[Exception]:
    if not isinstance(entry, type) or not issubclass(entry, BaseException):
        raise SettingsError(key, f"takes exception types, not {entry!r}")
    if not issubclass(entry, Exception):
        # KeyboardInterrupt, SystemExit, CancelledError end the program or the task, whatever the record.
        raise SettingsError(
            key, f"{entry.__name__} is not an error of a record; name a subclass of Exception"
        )
    return entry
