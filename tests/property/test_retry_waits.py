"""What holds of every retry policy that can be built."""

from hypothesis import given
from hypothesis import strategies as st

from relance.errors import MAX_WAIT
from relance.policies.retry import RetryPolicy

seconds = st.floats(0.0, MAX_WAIT)
policies = st.builds(
    lambda attempts, waits, multiplier, jitter: RetryPolicy.exponential(
        attempts, min(waits), max(waits), multiplier, jitter
    ),
    st.integers(1, 200),
    st.tuples(seconds, seconds),
    st.floats(1.0, 100.0),
    st.floats(0.0, 1.0),
)
draws = st.floats(0.0, 1.0, exclude_max=True)


@given(policies)
def test_there_is_one_wait_fewer_than_attempts(policy: RetryPolicy) -> None:
    assert len(policy.delays()) == policy.max_attempts - 1


@given(policies)
def test_waits_before_jitter_never_shrink_and_never_pass_the_limit(policy: RetryPolicy) -> None:
    delays = policy.delays()
    assert delays == sorted(delays)
    assert all(policy.initial_delay <= delay <= policy.max_delay for delay in delays)


@given(policies, st.integers(1, 10**6), draws)
def test_a_wait_is_within_its_jitter_and_its_limit(policy: RetryPolicy, attempt: int, draw: float) -> None:
    base = policy.base_delay(attempt)
    delay = policy.delay(attempt, lambda: draw)
    slack = 1e-9 * base
    assert 0.0 <= delay <= policy.max_delay
    assert base * (1 - policy.jitter_factor) - slack <= delay <= base * (1 + policy.jitter_factor) + slack


@given(policies, st.integers(1, 10**6), draws, draws)
def test_a_larger_draw_never_gives_a_shorter_wait(
    policy: RetryPolicy, attempt: int, a: float, b: float
) -> None:
    low, high = sorted((a, b))
    assert policy.delay(attempt, lambda: low) <= policy.delay(attempt, lambda: high)


@given(policies, st.integers(1, 10**6), draws)
def test_without_jitter_no_number_is_drawn(policy: RetryPolicy, attempt: int, draw: float) -> None:
    plain = RetryPolicy.exponential(
        policy.max_attempts, policy.initial_delay, policy.max_delay, policy.multiplier, jitter_factor=0.0
    )

    def never() -> float:
        raise AssertionError("drew a random number")

    assert plain.delay(attempt, never) == plain.base_delay(attempt)


@given(policies)
def test_policies_of_equal_fields_are_equal_and_hash_alike(policy: RetryPolicy) -> None:
    twin = RetryPolicy.exponential(
        policy.max_attempts, policy.initial_delay, policy.max_delay, policy.multiplier, policy.jitter_factor
    )
    assert twin == policy
    assert hash(twin) == hash(policy)
