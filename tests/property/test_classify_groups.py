"""What holds of the verdict on every group of errors."""

from hypothesis import given
from hypothesis import strategies as st

from relance.errors import Fatal, Reject, Retry
from relance.policies.classify import VerdictKind, classify
from relance.policies.retry import RetryPolicy

POLICY = RetryPolicy.exponential()

leaves = st.one_of(
    st.builds(Retry, st.none() | st.floats(0, 1000)),
    st.builds(Reject, st.just("no")),
    st.builds(Fatal, st.just("stop")),
    st.just(TimeoutError()),
    st.just(ValueError()),
)
groups = st.recursive(
    leaves,
    lambda inner: st.lists(inner, min_size=1, max_size=4).map(lambda errors: ExceptionGroup("g", errors)),
)


def leaves_of(error: Exception) -> list[Exception]:
    if isinstance(error, ExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves_of(inner)]
    return [error]


@given(groups)
def test_a_group_is_as_bad_as_its_worst_leaf(error: Exception) -> None:
    kinds = {classify(leaf, POLICY).kind for leaf in leaves_of(error)}
    verdict = classify(error, POLICY)
    if VerdictKind.FATAL in kinds:
        assert verdict.kind is VerdictKind.FATAL
    elif VerdictKind.NON_RETRYABLE in kinds:
        assert verdict.kind is VerdictKind.NON_RETRYABLE
    else:
        assert verdict.kind is VerdictKind.RETRYABLE
        waits = [classify(leaf, POLICY).delay for leaf in leaves_of(error)]
        assert verdict.delay == max((wait for wait in waits if wait is not None), default=None)


@given(groups)
def test_the_same_error_gets_the_same_verdict_twice(error: Exception) -> None:
    assert classify(error, POLICY) == classify(error, POLICY)
