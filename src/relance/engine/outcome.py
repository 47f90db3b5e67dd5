"""What becomes of a record whose handler raised: a pure function of policy, error, attempt and chance.

Promise: the decision is made here and nowhere else, and nothing is performed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relance.errors import MaxRetriesExceededError
from relance.policies.classify import classify
from relance.policies.retry import RetryPolicy

__all__ = ["NO_LETTERS", "DeadLetter", "Defer", "Outcome", "Paths", "RetryAt", "Stop", "decide"]


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again in `delay` seconds; the record's lane waits, so its order is kept."""

    delay: float


@dataclass(frozen=True, slots=True)
class Defer:
    """Write it to the retry topic, to be tried again in `delay` seconds; the lane goes on without it."""

    delay: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Give the record up for `error`."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the consumer; the record stays uncommitted."""

    error: Exception
    why: str = ""
    """What about the error asks for that, and the way out."""


Outcome = RetryAt | Defer | DeadLetter | Stop


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a record may go. `max_in_memory_wait` in seconds: longer waits are deferred, with 0 all are.

    `pointer`: whether a dead letter that is too large may leave the value out and say where it lies.
    """

    retry_topic: str | None = None
    dead_letter_topic: str | None = None
    max_in_memory_wait: float = 10.0
    pointer: bool = False


NO_LETTERS = (
    "without a dead_letter_topic the record can't be given up: name one in @app.consumer, or mend the handler"
)
_NOT_JUDGED = "the retry policy could not judge that"


def decide(
    error: Exception, *, attempt: int, policy: RetryPolicy, paths: Paths, random: Callable[[], float]
) -> Outcome:
    """The outcome of a failed try, `attempt` being its number from 1."""
    verdict = classify(error, policy)
    if verdict.fault is not None:
        return Stop(verdict.fault, _NOT_JUDGED)
    if verdict.fatal:
        return Stop(error, f"no record can succeed now ({verdict.reason})")
    if not verdict.retryable:
        return _give_up(error, paths)
    if attempt >= policy.max_attempts:
        if policy.max_attempts == 1:  # nothing was retried: the error itself says more
            return _give_up(error, paths)
        exhausted = MaxRetriesExceededError(attempt, error)
        exhausted.__cause__ = error
        return _give_up(exhausted, paths)
    delay = policy.delay(attempt, random) if verdict.delay is None else verdict.delay
    in_memory = paths.retry_topic is None or 0 < paths.max_in_memory_wait >= delay
    return RetryAt(delay) if in_memory else Defer(delay)


def _give_up(error: Exception, paths: Paths) -> Outcome:
    # Without a dead-letter topic the record must not be lost, so nothing may be committed past it.
    return Stop(error, NO_LETTERS) if paths.dead_letter_topic is None else DeadLetter(error)
