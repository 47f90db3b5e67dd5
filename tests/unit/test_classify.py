"""Which errors are retried, which are dead-lettered at once, and which stop the consumer."""

import asyncio
import math
from datetime import timedelta

import pytest
from confluent_kafka import KafkaError, KafkaException

from relance.errors import (
    MAX_WAIT,
    BrokerUnavailableError,
    DecodeError,
    Fatal,
    Reject,
    Retry,
    SendError,
    SettingsError,
    TopicMissingError,
    TransientError,
)
from relance.policies.classify import VerdictKind, classify, is_record_error
from relance.policies.retry import RetryPolicy

POLICY = RetryPolicy.exponential()
RETRYABLE, NON_RETRYABLE, FATAL = VerdictKind.RETRYABLE, VerdictKind.NON_RETRYABLE, VerdictKind.FATAL


def kind(error: BaseException, policy: RetryPolicy = POLICY) -> VerdictKind:
    return classify(error, policy).kind


@pytest.mark.parametrize(
    "error",
    [
        TransientError(),
        TimeoutError(),
        ConnectionResetError(),
        type("Down", (TransientError,), {})(),
    ],
)
def test_what_an_outage_raises_is_retried_by_default(error: Exception) -> None:
    verdict = classify(error, POLICY)
    assert verdict.kind is RETRYABLE
    assert verdict.retryable
    assert verdict.delay is None


@pytest.mark.parametrize(
    "error", [ValueError(), KeyError("amount"), PermissionError(), RecursionError(), Exception()]
)
def test_everything_else_is_dead_lettered_at_once_by_default(error: Exception) -> None:
    verdict = classify(error, POLICY)
    assert verdict.kind is NON_RETRYABLE
    assert not verdict.retryable
    assert not verdict.fatal


def test_a_handlers_words_override_the_policy() -> None:
    everything = RetryPolicy.fixed(retry_on=Exception)
    nothing = RetryPolicy.fixed(retry_on=(), non_retryable=Exception)
    assert kind(Retry(), nothing) is RETRYABLE
    assert classify(Retry(7.5), nothing).delay == 7.5
    assert kind(Reject("no"), everything) is NON_RETRYABLE
    assert kind(Fatal("no"), everything) is FATAL


def test_a_value_that_does_not_decode_is_never_retried_even_if_the_policy_asks() -> None:
    assert kind(DecodeError("x"), RetryPolicy.fixed(retry_on=Exception)) is NON_RETRYABLE


def test_a_type_covers_its_subclasses() -> None:
    assert kind(FileNotFoundError(), RetryPolicy.fixed(retry_on=OSError)) is RETRYABLE


def test_the_severest_of_the_types_that_match_wins() -> None:
    policy = RetryPolicy.fixed(retry_on=OSError, non_retryable=FileNotFoundError, fatal=PermissionError)
    assert kind(IsADirectoryError(), policy) is RETRYABLE
    assert kind(FileNotFoundError(), policy) is NON_RETRYABLE
    assert kind(PermissionError(), policy) is FATAL


class HttpError(Exception):
    def __init__(self, status: int, retry_after: float | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.retry_after = retry_after


def busy(error: Exception) -> bool:
    return isinstance(error, HttpError) and error.status == 503


def retry_after(error: Exception) -> float | None:
    return getattr(error, "retry_after", None)


def test_a_predicate_decides_by_what_it_sees() -> None:
    policy = RetryPolicy.fixed(retry_on=busy)
    assert kind(HttpError(503), policy) is RETRYABLE
    assert classify(HttpError(503), policy).delay is None
    assert kind(HttpError(400), policy) is NON_RETRYABLE


def test_a_callable_that_answers_seconds_sets_the_wait() -> None:
    policy = RetryPolicy.fixed(retry_on=(retry_after, HttpError))
    assert classify(HttpError(429, 30.0), policy).delay == 30.0
    assert classify(HttpError(429), policy).delay is None
    assert classify(HttpError(429), policy).retryable


def test_zero_seconds_is_a_wait_and_false_is_no_opinion() -> None:
    assert classify(HttpError(429, 0), RetryPolicy.fixed(retry_on=retry_after)).delay == 0.0
    assert kind(HttpError(429), RetryPolicy.fixed(retry_on=lambda _: False)) is NON_RETRYABLE


def test_rules_are_asked_in_order_and_the_first_answer_counts() -> None:
    policy = RetryPolicy.fixed(retry_on=(lambda _: None, lambda _: 1.0, lambda _: 2.0))
    assert classify(ValueError(), policy).delay == 1.0


@pytest.mark.parametrize(
    ("asked", "held"),
    [(-5, 0.0), (10**9, MAX_WAIT), (math.inf, MAX_WAIT), (timedelta(minutes=2), 120.0), (10**400, MAX_WAIT)],
)
def test_a_foreign_wait_is_held_between_now_and_a_day(asked: float, held: float) -> None:
    assert classify(ValueError(), RetryPolicy.fixed(retry_on=lambda _: asked)).delay == held


@pytest.mark.parametrize("answer", ["3", math.nan, [], object()])
def test_a_rule_that_answers_nonsense_stops_the_consumer_and_is_named(answer: object) -> None:
    def odd(_: Exception) -> object:
        return answer

    verdict = classify(ValueError(), RetryPolicy.fixed(retry_on=odd))  # type: ignore[arg-type]
    assert verdict.fatal
    assert "odd answered" in verdict.reason


def test_a_rule_that_raises_stops_the_consumer_rather_than_guess() -> None:
    def broken(_: Exception) -> bool:
        raise KeyError("status")

    verdict = classify(ValueError(), RetryPolicy.fixed(retry_on=broken))
    assert verdict.fatal
    assert "broken raised KeyError: 'status'" in verdict.reason


def test_an_error_may_speak_for_itself() -> None:
    def make(**said: object) -> Exception:
        error = TransientError("x")
        vars(error).update(said)
        return error

    assert kind(make(non_retryable=True)) is NON_RETRYABLE
    assert kind(make(non_retryable=False)) is RETRYABLE
    assert classify(make(next_retry_delay=4), POLICY).delay == 4.0
    assert classify(make(next_retry_delay=timedelta(seconds=90)), POLICY).delay == 90.0
    assert classify(make(next_retry_delay=None), POLICY).delay is None
    assert kind(make(non_retryable=True, next_retry_delay=4)) is NON_RETRYABLE
    assert classify(make(next_retry_delay="soon"), POLICY).delay is None


def test_a_wait_that_an_error_names_makes_it_retryable_unless_the_policy_forbids() -> None:
    error = ValueError("later")
    error.next_retry_delay = 4.0  # type: ignore[attr-defined]
    assert classify(error, POLICY).delay == 4.0
    assert kind(error, RetryPolicy.fixed(non_retryable=ValueError)) is NON_RETRYABLE


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError._TRANSPORT, RETRYABLE),
        (KafkaError.NOT_ENOUGH_REPLICAS, RETRYABLE),
        (KafkaError.REBALANCE_IN_PROGRESS, RETRYABLE),
        (KafkaError.MSG_SIZE_TOO_LARGE, NON_RETRYABLE),
        (KafkaError._VALUE_SERIALIZATION, NON_RETRYABLE),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, FATAL),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, FATAL),
        (9999, FATAL),
    ],
)
def test_a_kafka_error_in_a_handler_is_judged_by_the_table(code: int, expected: VerdictKind) -> None:
    error = KafkaException(KafkaError(code))
    verdict = classify(error, RetryPolicy.fixed(retry_on=Exception))
    assert verdict.kind is expected
    assert f"({code})" in verdict.reason
    assert kind(SendError("x", maybe_written=True, code=code)) is expected


def test_what_the_client_calls_fatal_is_fatal_whatever_the_table_says() -> None:
    assert kind(KafkaException(KafkaError(KafkaError._TRANSPORT, "x", True))) is FATAL


def test_a_kafka_event_that_is_no_error_is_left_to_the_policy() -> None:
    error = KafkaException(KafkaError(KafkaError._PARTITION_EOF))
    assert kind(error) is NON_RETRYABLE
    assert kind(error, RetryPolicy.fixed(retry_on=KafkaException)) is RETRYABLE


def test_an_outage_met_through_relance_itself_is_retried_under_any_policy() -> None:
    nothing = RetryPolicy.fixed(retry_on=())
    assert kind(BrokerUnavailableError("x"), nothing) is RETRYABLE
    assert kind(SendError("x", maybe_written=True), nothing) is RETRYABLE
    assert kind(TopicMissingError("orders"), nothing) is FATAL


def test_a_group_is_retried_only_if_all_its_leaves_are() -> None:
    calm = ExceptionGroup("g", [TimeoutError(), ExceptionGroup("h", [ConnectionError(), TransientError()])])
    assert kind(calm) is RETRYABLE
    assert kind(ExceptionGroup("g", [TimeoutError(), ValueError()])) is NON_RETRYABLE
    assert kind(ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [Fatal("x")])])) is FATAL


def test_a_group_waits_as_long_as_its_most_patient_leaf() -> None:
    assert classify(ExceptionGroup("g", [Retry(2), Retry(9), TimeoutError()]), POLICY).delay == 9.0


def test_a_group_nested_deeper_than_the_stack_is_still_judged() -> None:
    error: Exception = TimeoutError()
    for _ in range(20_000):
        error = ExceptionGroup("g", [error])
    assert kind(error) is RETRYABLE
    while isinstance(error, ExceptionGroup):  # take it apart: freeing it in one go would recurse
        error = error.exceptions[0]


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        SystemExit(1),
        GeneratorExit(),
        BaseExceptionGroup("g", [TimeoutError(), KeyboardInterrupt()]),
    ],
)
def test_the_end_of_the_task_or_program_is_never_classified(error: BaseException) -> None:
    assert not is_record_error(error)
    with pytest.raises(TypeError, match="never classified"):
        classify(error, RetryPolicy.fixed(retry_on=lambda _: True))


def test_every_verdict_says_why() -> None:
    for error in (TimeoutError(), ValueError(), Retry(), Reject("x"), Fatal("x"), DecodeError("x")):
        assert classify(error, POLICY).reason


def test_fatal_comes_before_non_retryable_where_an_error_is_both() -> None:
    policy = RetryPolicy.fixed(fatal=OSError, non_retryable=ConnectionError)
    assert classify(ConnectionResetError(), policy).kind is VerdictKind.FATAL


@pytest.mark.parametrize("key", ["retry_on", "non_retryable", "fatal"])
def test_the_name_of_an_error_as_a_text_is_quoted_whole(key: str) -> None:
    with pytest.raises(SettingsError, match=f"{key}: takes exception types.*, not 'ValueError'$"):
        RetryPolicy.fixed(**{key: "ValueError"})
