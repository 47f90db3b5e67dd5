"""The circuit breaker's settings: what they take, what they refuse, and which errors count."""

import asyncio
import math
import pickle
import re
from dataclasses import FrozenInstanceError, fields, replace
from datetime import timedelta
from pathlib import Path

import pytest

from relance.errors import DecodeError, Fatal, Reject, Retry, SendError, SettingsError, TransientError
from relance.policies.breaker import CircuitBreaker
from relance.policies.retry import RetryPolicy

RETRY = RetryPolicy()


class DownError(Exception):
    """A service's own error, which the retry policy doesn't know."""


def test_the_defaults_are_those_that_are_documented() -> None:
    breaker = CircuitBreaker()
    assert (breaker.failure_rate, breaker.slow_call_rate, breaker.slow_call_duration) == (0.5, 1.0, None)
    assert (breaker.window, breaker.window_seconds, breaker.minimum_calls) == (20, None, 5)
    assert (breaker.open_for, breaker.probes, breaker.name, breaker.errors) == (30.0, 3, None, None)


def test_the_documents_table_has_every_field_and_its_default() -> None:
    text = (Path(__file__).parents[2] / "docs" / "circuit-breaker.md").read_text()
    table = text.split("\n## Settings\n")[1].split("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", table, re.MULTILINE))
    assert told == {field.name: repr(field.default) for field in fields(CircuitBreaker)}


BAD = [
    ("failure_rate", 0),
    ("failure_rate", 50),
    ("failure_rate", -0.1),
    ("failure_rate", math.nan),
    ("failure_rate", True),
    ("failure_rate", None),
    ("failure_rate", "0.5"),
    ("slow_call_rate", 0.0),
    ("slow_call_rate", 1.01),
    ("slow_call_rate", 0.5),  # of what? slow_call_duration is not set
    ("slow_call_duration", 0),
    ("slow_call_duration", -1),
    ("slow_call_duration", math.inf),
    ("slow_call_duration", timedelta(seconds=2)),
    ("window", 0),
    ("window", 20.0),
    ("window", True),
    ("window", 10**6),
    ("window", None),
    ("window_seconds", 0),
    ("window_seconds", 1.5),
    ("window_seconds", "60"),
    ("window_seconds", 86_401),
    ("minimum_calls", 0),
    ("minimum_calls", 21),
    ("minimum_calls", 2.0),
    ("open_for", 0),
    ("open_for", math.inf),
    ("open_for", 86_401),
    ("open_for", None),
    ("probes", 0),
    ("probes", 1_001),
    ("probes", True),
    ("name", ""),
    ("name", "  "),
    ("name", "pay\nments"),
    ("name", "x" * 101),
    ("name", 3),
    ("errors", ()),
    ("errors", 3),
    ("errors", "TimeoutError"),
    ("errors", (KeyboardInterrupt,)),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=[f"{k}={str(v)[:12]!r}" for k, v in BAD])
def test_a_value_that_cannot_be_meant_is_refused_with_the_fields_name(key: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        CircuitBreaker(**{key: value})  # type: ignore[arg-type]
    assert caught.value.key == key
    with pytest.raises(SettingsError):
        replace(CircuitBreaker(), **{key: value})


def test_a_minimum_above_the_window_says_which_two_contradict() -> None:
    problem = r"minimum_calls: 5 is above window 3, so it would never open; lower it or raise that"
    with pytest.raises(SettingsError, match=problem):
        CircuitBreaker(window=3)


def test_a_time_window_stands_in_for_the_count_window() -> None:
    breaker = CircuitBreaker(window_seconds=60, minimum_calls=1_000)
    assert (breaker.window, breaker.window_seconds) == (None, 60)
    assert replace(breaker, open_for=5) == CircuitBreaker(window_seconds=60, minimum_calls=1_000, open_for=5)
    with pytest.raises(SettingsError, match="window_seconds: window 50 is set too"):
        CircuitBreaker(window=50, window_seconds=60)


def test_failures_to_open_is_the_most_that_a_full_window_endures() -> None:
    assert CircuitBreaker().failures_to_open == 10
    assert CircuitBreaker(minimum_calls=15).failures_to_open == 15
    assert CircuitBreaker(failure_rate=0.3, window=10).failures_to_open == 5
    assert CircuitBreaker(failure_rate=0.29, window=100, minimum_calls=1).failures_to_open == 29
    assert CircuitBreaker(failure_rate=0.001, window=10, minimum_calls=1).failures_to_open == 1
    assert CircuitBreaker(window_seconds=10).failures_to_open is None


def test_a_call_is_slow_only_beyond_the_duration() -> None:
    breaker = CircuitBreaker(slow_call_duration=2)
    assert [breaker.is_slow(seconds) for seconds in (1.9, 2.0, 2.1)] == [False, False, True]
    assert not CircuitBreaker().is_slow(1e9)


# -- which errors count --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionRefusedError(), TransientError(), Retry()])
def test_by_default_what_is_retryable_counts(error: Exception) -> None:
    assert CircuitBreaker().counts(error, RETRY)


@pytest.mark.parametrize("error", [ValueError(), DecodeError("not JSON"), Reject("no such order")])
def test_by_default_what_is_not_retryable_does_not_count(error: Exception) -> None:
    assert not CircuitBreaker().counts(error, RETRY)


def test_by_default_the_handlers_own_policy_decides() -> None:
    assert CircuitBreaker().counts(DownError(), RetryPolicy(retry_on=(DownError,)))
    assert not CircuitBreaker().counts(TimeoutError(), RetryPolicy(non_retryable=(TimeoutError,)))


class SaysSoError(DownError):
    non_retryable = True


@pytest.mark.parametrize(
    "error",
    [
        Reject("no such order"),
        DecodeError("not JSON"),
        Fatal("no table"),
        SaysSoError(),
        SendError("too large", maybe_written=False, code=10),
        LookupError(),
        ArithmeticError(),
        ExceptionGroup("two", [DownError(), Reject("no such order")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_records_own_fault_never_counts_whatever_errors_says(error: Exception) -> None:
    retry = RetryPolicy(non_retryable=(LookupError,), fatal=(ArithmeticError,))
    assert not CircuitBreaker(errors=(Exception, lambda error: True)).counts(error, retry)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_what_is_no_error_of_a_record_never_counts(error: BaseException) -> None:
    assert not CircuitBreaker().counts(error, RETRY)
    assert not CircuitBreaker(errors=(Exception,)).counts(error, RETRY)


def test_errors_narrows_what_counts() -> None:
    breaker = CircuitBreaker(errors=(ConnectionError,))
    assert breaker.counts(ConnectionResetError(), RETRY)
    assert not breaker.counts(TimeoutError(), RETRY)
    assert not breaker.counts(Retry(after=5), RETRY), "the order came before its customer: no outage"


def test_errors_may_name_what_the_policy_does_not_retry() -> None:
    assert CircuitBreaker(errors=(DownError,)).counts(DownError(), RETRY)


@pytest.mark.parametrize(
    ("answer", "counts"),
    [(True, True), (0, True), (1.5, True), (timedelta(0), True), (False, False), (None, False)],
)
def test_a_callable_answers_as_one_of_retry_on_does(answer: object, counts: bool) -> None:
    breaker = CircuitBreaker(errors=(lambda error: answer,))  # type: ignore[arg-type,return-value]
    assert breaker.counts(DownError(), RETRY) == counts


def test_a_group_counts_by_its_leaves() -> None:
    breaker = CircuitBreaker(errors=(DownError,))
    group = ExceptionGroup("outer", [ValueError(), ExceptionGroup("inner", [DownError()])])
    assert breaker.counts(group, RETRY)
    assert not breaker.counts(ExceptionGroup("outer", [ValueError()]), RETRY)


def faulty(error: Exception) -> bool:
    raise KeyError("status")


def test_a_callable_that_raises_or_answers_nonsense_is_told_and_not_guessed_about() -> None:
    with pytest.raises(SettingsError, match="errors: faulty raised KeyError: 'status'") as caught:
        CircuitBreaker(errors=(faulty,)).counts(DownError(), RETRY)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(SettingsError, match=r"errors: .*<lambda> answered 'yes'; it may answer bool"):
        CircuitBreaker(errors=(lambda error: "yes",)).counts(  # type: ignore[arg-type,return-value]
            DownError(), RETRY
        )


def test_one_type_or_any_iterable_of_rules_will_do() -> None:
    assert CircuitBreaker(errors=OSError).errors == (OSError,)  # type: ignore[arg-type]
    assert CircuitBreaker(errors=[OSError, faulty]).errors == (OSError, faulty)  # type: ignore[arg-type]


# -- as a value ----------------------------------------------------------------------------------------


def test_it_is_frozen_comparable_hashable_and_survives_pickling() -> None:
    breaker = CircuitBreaker(name="payments", errors=(OSError,), open_for=5)
    with pytest.raises(FrozenInstanceError):
        breaker.probes = 1  # type: ignore[misc]
    assert breaker == CircuitBreaker(name="payments", errors=[OSError], open_for=5.0)  # type: ignore[arg-type]
    assert breaker != CircuitBreaker(name="orders", errors=(OSError,), open_for=5)
    assert {breaker: 1}[pickle.loads(pickle.dumps(breaker))] == 1
    assert not hasattr(breaker, "__dict__")
    assert eval(repr(CircuitBreaker(name="payments"))) == CircuitBreaker(name="payments")


@pytest.mark.parametrize(
    ("breaker", "text"),
    [
        (
            CircuitBreaker(),
            "opens for 30s when of the last 20 calls (at least 5) 50% failed, then 3 probes",
        ),
        (
            CircuitBreaker(
                failure_rate=1 / 3, slow_call_duration=2, window_seconds=60, probes=1, name="payments"
            ),
            "payments: opens for 30s when of the calls of the last 60s (at least 5) 33.3333% failed or "
            "100% took over 2s, then 1 probe",
        ),
    ],
)
def test_it_prints_as_a_person_would_say_it(breaker: CircuitBreaker, text: str) -> None:
    assert str(breaker) == text
