"""What becomes of a failed record: one pure decision."""

import pytest

from relance.engine.outcome import DeadLetter, Defer, Outcome, Paths, RetryAt, Stop, decide
from relance.errors import (
    DecodeError,
    Fatal,
    MaxRetriesExceededError,
    Reject,
    Retry,
    SettingsError,
    TransientError,
)
from relance.policies.retry import RetryPolicy

POLICY = RetryPolicy.exponential(max_attempts=4, initial_delay=1.0, multiplier=10.0, jitter_factor=0)
IN_MEMORY = Paths(dead_letter_topic="DLT")
BOTH = Paths(retry_topic="retry", dead_letter_topic="DLT", max_in_memory_wait=10.0)


def outcome(
    error: Exception, attempt: int = 1, policy: RetryPolicy = POLICY, paths: Paths = IN_MEMORY
) -> Outcome:
    return decide(error, attempt=attempt, policy=policy, paths=paths, random=lambda: 0.5)


def test_a_retryable_error_waits_in_memory_as_the_policy_says() -> None:
    assert [outcome(TransientError(), attempt) for attempt in (1, 2, 3)] == [
        RetryAt(1.0),
        RetryAt(10.0),
        RetryAt(100.0),
    ]


def test_a_wait_longer_than_memory_may_hold_goes_to_the_retry_topic() -> None:
    assert [outcome(TransientError(), attempt, paths=BOTH) for attempt in (1, 2, 3)] == [
        RetryAt(1.0),
        RetryAt(10.0),
        Defer(100.0),
    ]


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_with_no_wait_in_memory_all_go_to_the_retry_topic_even_those_that_do_not_wait(delay: float) -> None:
    paths = Paths(retry_topic="retry", dead_letter_topic="DLT", max_in_memory_wait=0)
    policy = RetryPolicy.fixed(delay) if delay else RetryPolicy.immediate()
    assert outcome(TransientError(), policy=policy, paths=paths) == Defer(delay)


def test_the_handler_s_own_wait_wins_over_the_policy_s() -> None:
    assert outcome(Retry(after=3.0)) == RetryAt(3.0)
    assert outcome(Retry(after=60.0), paths=BOTH) == Defer(60.0)
    assert outcome(Retry(), attempt=2) == RetryAt(10.0)


def test_the_last_attempt_s_failure_is_dead_lettered_with_its_cause() -> None:
    error = TransientError("down")
    found = outcome(error, attempt=4)
    assert isinstance(found, DeadLetter)
    assert isinstance(found.error, MaxRetriesExceededError)
    assert found.error.__cause__ is error


def test_attempts_beyond_the_last_which_a_changed_policy_can_leave_are_exhausted_too() -> None:
    assert isinstance(outcome(TransientError(), attempt=5), DeadLetter)


def test_retry_does_not_get_around_the_last_attempt() -> None:
    assert isinstance(outcome(Retry(after=1.0), attempt=4), DeadLetter)


def test_without_retries_the_error_itself_is_told_not_that_they_are_used_up() -> None:
    error = TransientError("down")
    assert outcome(error, policy=RetryPolicy(max_attempts=1)) == DeadLetter(error)


@pytest.mark.parametrize("error", [Reject("no"), DecodeError("bad"), ValueError("unknown")])
def test_what_another_try_cannot_help_is_dead_lettered_at_the_first(error: Exception) -> None:
    assert outcome(error) == DeadLetter(error)


def test_fatal_stops_and_dead_letters_nothing() -> None:
    error = Fatal("wrong database")
    for attempt in (1, 4):
        found = outcome(error, attempt=attempt)
        assert isinstance(found, Stop)
        assert found.error is error
        assert found.why == "no record can succeed now (the handler raised Fatal)"


def test_a_rule_that_cannot_judge_stops_with_both_errors_told() -> None:
    def is_transient(error: Exception) -> bool:
        raise KeyError("status")

    error = TransientError("boom")
    found = outcome(error, policy=RetryPolicy.fixed(retry_on=is_transient))
    assert isinstance(found, Stop)
    assert isinstance(found.error, SettingsError)
    assert "is_transient raised KeyError: 'status'" in str(found.error)
    assert found.error.__cause__ is not None
    assert found.error.__cause__.__context__ is error


@pytest.mark.parametrize("attempt", [1, 4])
def test_without_a_dead_letter_topic_giving_up_stops_instead_of_losing_the_record(attempt: int) -> None:
    found = outcome(Reject("no") if attempt == 1 else TransientError(), attempt, paths=Paths())
    assert isinstance(found, Stop)
