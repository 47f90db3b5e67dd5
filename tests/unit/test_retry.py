"""The retry policy: what it takes, what it refuses, and the waits it answers."""

import math
import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta

import pytest

from relance.errors import MAX_WAIT, SettingsError, TransientError
from relance.policies.retry import DEFAULT_RETRY_ON, RetryPolicy


def middle() -> float:
    return 0.5


def test_the_default_is_the_recommended_exponential_backoff_with_jitter() -> None:
    policy = RetryPolicy.exponential()
    assert policy == RetryPolicy()
    assert policy.delays() == [1.0, 2.0, 4.0, 8.0]
    assert policy.retry_on == DEFAULT_RETRY_ON == (TransientError, TimeoutError, ConnectionError)
    assert (policy.max_attempts, policy.max_delay, policy.jitter_factor) == (5, 300.0, 0.2)


def test_immediate_never_waits() -> None:
    policy = RetryPolicy.immediate(max_attempts=4)
    assert policy.delays() == [0.0, 0.0, 0.0]
    assert policy.delay(3, middle) == 0.0


def test_fixed_waits_the_same_each_time() -> None:
    assert RetryPolicy.fixed(delay=1.0, max_attempts=4).delays() == [1.0, 1.0, 1.0]


def test_fixed_with_jitter_varies_both_ways() -> None:
    policy = RetryPolicy.fixed(delay=1.0, jitter_factor=0.2)
    assert policy.delay(1, lambda: 0.0) == pytest.approx(0.8)
    assert policy.delay(1, lambda: 1.0) == pytest.approx(1.2)


def test_exponential_stops_growing_at_the_longest_wait() -> None:
    policy = RetryPolicy.exponential(max_attempts=7, max_delay=10.0, jitter_factor=0)
    assert policy.delays() == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert policy.delay(10**6, middle) == 10.0


def test_jitter_is_a_share_of_the_wait() -> None:
    policy = RetryPolicy.exponential(jitter_factor=0.2)
    for attempt, base in enumerate([1.0, 2.0, 4.0], start=1):
        assert policy.delay(attempt, lambda: 0.0) == pytest.approx(base * 0.8)
        assert policy.delay(attempt, middle) == pytest.approx(base)


def test_jitter_keeps_waits_at_the_limit_spread_and_below_it() -> None:
    policy = RetryPolicy.exponential(initial_delay=10, max_delay=10, jitter_factor=0.5)
    assert policy.delay(1, lambda: 0.0) == 5.0
    assert policy.delay(1, middle) == 7.5
    assert policy.delay(1, lambda: 0.999999) < 10.0


@pytest.mark.parametrize("attempt", [10**6, 10**400])
def test_a_million_failures_do_not_overflow(attempt: int) -> None:
    assert RetryPolicy.exponential(multiplier=10).delay(attempt, lambda: 0.999) <= 300.0
    assert RetryPolicy.fixed(2.0).delay(attempt, middle) == 2.0
    assert RetryPolicy.immediate().delay(attempt, middle) == 0.0


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_count_from_one(attempt: int) -> None:
    with pytest.raises(ValueError, match="counts from 1"):
        RetryPolicy().delay(attempt, middle)


def test_one_attempt_has_no_waits() -> None:
    assert RetryPolicy.exponential(max_attempts=1).delays() == []


BAD = [
    ("max_attempts", 0),
    ("max_attempts", -1),
    ("max_attempts", True),
    ("max_attempts", "3"),
    ("max_attempts", 3.0),
    ("max_attempts", None),
    ("max_attempts", 10**9),
    ("initial_delay", -1.0),
    ("initial_delay", math.nan),
    ("initial_delay", math.inf),
    ("initial_delay", False),
    ("initial_delay", "1"),
    ("initial_delay", timedelta(seconds=1)),
    ("initial_delay", 10**400),
    ("max_delay", -1),
    ("max_delay", 0.5),
    ("max_delay", math.nan),
    ("max_delay", MAX_WAIT * 2),
    ("multiplier", 0.5),
    ("multiplier", math.inf),
    ("multiplier", "2"),
    ("jitter_factor", -0.1),
    ("jitter_factor", 1.1),
    ("jitter_factor", True),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=[f"{k}={str(v)[:12]}" for k, v in BAD])
def test_a_value_that_cannot_be_meant_is_refused_with_the_fields_name(key: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        RetryPolicy.exponential(**{key: value})  # type: ignore[arg-type]
    assert caught.value.key == key
    with pytest.raises(SettingsError):
        replace(RetryPolicy(), **{key: value})


def test_a_longest_wait_below_the_first_says_which_two_contradict() -> None:
    with pytest.raises(
        SettingsError, match=r"max_delay: 0\.5 is below initial_delay 1; raise it or lower that"
    ):
        RetryPolicy.exponential(max_delay=0.5)


def test_fixed_names_its_own_parameter() -> None:
    with pytest.raises(SettingsError, match="delay: must be a number of seconds from 0 to 86400, not -1"):
        RetryPolicy.fixed(-1)


@pytest.mark.parametrize(
    "rule", [3, "TimeoutError", None, int, KeyboardInterrupt, BaseException, [TimeoutError]]
)
def test_retry_on_takes_exception_types_and_callables_only(rule: object) -> None:
    with pytest.raises(SettingsError, match="retry_on"):
        RetryPolicy.exponential(retry_on=(rule,))  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["non_retryable", "fatal"])
def test_the_exceptions_to_it_are_types_only(key: str) -> None:
    with pytest.raises(SettingsError, match=key):
        RetryPolicy.immediate(**{key: (lambda _: True,)})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="is not an error of a record"):
        RetryPolicy.immediate(**{key: SystemExit})  # type: ignore[arg-type]


def test_one_type_or_any_iterable_of_types_will_do() -> None:
    assert RetryPolicy.fixed(retry_on=OSError).retry_on == (OSError,)
    assert RetryPolicy.fixed(retry_on=[OSError, ValueError]).retry_on == (OSError, ValueError)
    assert RetryPolicy.fixed(retry_on=()).retry_on == ()
    assert RetryPolicy(retry_on=OSError).retry_on == (OSError,)  # type: ignore[arg-type]


def test_a_policy_is_frozen_comparable_hashable_and_survives_pickling() -> None:
    policy = RetryPolicy.fixed(1, retry_on=OSError)
    with pytest.raises(FrozenInstanceError):
        policy.max_attempts = 3  # type: ignore[misc]
    assert policy == RetryPolicy.fixed(1.0, retry_on=[OSError])
    assert policy != RetryPolicy.fixed(2.0, retry_on=OSError)
    assert {policy: 1}[pickle.loads(pickle.dumps(policy))] == 1
    assert not hasattr(policy, "__dict__")


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (
            RetryPolicy(),
            "exponential with jitter, 5 attempts, waits 1s±0.2s, 2s±0.4s, 4s±0.8s, 8s±1.6s, at most 300s",
        ),
        (RetryPolicy.fixed(1, 3), "fixed, 3 attempts, waits 1s, 1s, at most 1s"),
        (RetryPolicy.immediate(3), "immediate, 3 attempts"),
        (RetryPolicy.immediate(1), "1 attempt, no retry"),
        (
            RetryPolicy.exponential(10, jitter_factor=0),
            "exponential, 10 attempts, waits 1s, 2s, 4s, 8s, 16s, ..., at most 300s",
        ),
    ],
)
def test_a_policy_prints_as_a_person_would_say_it(policy: RetryPolicy, text: str) -> None:
    assert str(policy) == text


def test_a_policys_repr_builds_it_again() -> None:
    policy = RetryPolicy.exponential(retry_on=())
    assert eval(repr(policy)) == policy


def test_a_rule_that_could_never_count_is_refused() -> None:
    with pytest.raises(SettingsError, match="KeyError is in fatal or non_retryable too") as caught:
        RetryPolicy.fixed(retry_on=(OSError, KeyError), non_retryable=KeyError)
    assert caught.value.key == "retry_on"
    with pytest.raises(SettingsError, match="KeyError is in non_retryable too") as caught:
        RetryPolicy.fixed(fatal=KeyError, non_retryable=(ValueError, KeyError))
    assert caught.value.key == "fatal"


def test_an_exception_to_the_default_and_a_part_of_a_rule_are_no_such_thing() -> None:
    RetryPolicy.fixed(non_retryable=TimeoutError)
    RetryPolicy.fixed(retry_on=Exception, non_retryable=KeyError, fatal=MemoryError)
