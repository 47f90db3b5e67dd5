"""The trial of a half-open breaker: votes, and failures whose cost is open until another record succeeds."""

from relance.policies.breaker import CircuitBreaker
from relance.policies.trial import Trial


def trial(**settings: object) -> Trial[str]:
    return Trial(CircuitBreaker(**{"probes": 4, **settings}), 0)  # type: ignore[arg-type]


def votes(found: Trial[str]) -> tuple[int, int, int, int]:
    return found.asked, found.calls, found.failed, found.slow


def test_a_success_charges_all_failures_that_were_held_and_withdraws_the_votes_of_those_that_were_known() -> (
    None
):
    found = trial(slow_call_duration=1.0)
    for who in ("known", "new", "third"):
        found.probing(who, untried=who != "known")
    found.held("known", "known 1", known=True, slow=True)
    found.held("new", "new 1", known=False, slow=False)
    assert votes(found) == (3, 2, 2, 1)
    assert found.succeeded(slow=False) == ("known 1", "new 1")
    assert votes(found) == (2, 2, 1, 0)
    assert found.succeeded(slow=False) == ()


def test_a_slow_success_shows_nothing() -> None:
    found = trial(slow_call_duration=1.0)
    found.held("a", "a 1", known=True, slow=False)
    assert found.succeeded(slow=True) == ()
    assert (found.calls, found.failed, found.slow) == (2, 1, 1)
    assert found.succeeded(slow=False) == ("a 1",)


def test_what_a_record_failed_with_costs_nothing_once_it_is_a_probe_again() -> None:
    found = trial()
    found.probing("a", untried=False)
    found.held("a", "a 1", known=True, slow=False)
    found.probing("a", untried=False)
    assert found.succeeded(slow=False) == ()
    assert (found.calls, found.failed) == (2, 1)


def test_half_of_the_probes_may_have_failed_before_as_long_as_they_could_not_decide_it() -> None:
    def most(probes: int, failure_rate: float) -> int:
        return CircuitBreaker(probes=probes, failure_rate=failure_rate).tried_probes

    assert [most(probes, 0.5) for probes in (1, 2, 3, 4, 10)] == [0, 0, 1, 1, 4]
    assert [most(probes, 1.0) for probes in (1, 2, 3, 4, 10)] == [0, 1, 1, 2, 5]
    assert [most(probes, 0.1) for probes in (1, 3, 10, 30)] == [0, 0, 0, 2]
