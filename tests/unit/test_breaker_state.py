"""The circuit breaker as it runs: what opens it, what it gives back, and how it closes again."""

import math
from typing import Any

import pytest

from relance.policies.breaker import CircuitBreaker
from relance.policies.breaker_state import Answer, BreakerState, CircuitState, Permit

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def state(**settings: Any) -> BreakerState[str]:
    return BreakerState(CircuitBreaker(**{"window": 4, "minimum_calls": 4, "open_for": 10.0} | settings))


def permit(breaker: BreakerState[str], now: float = 0.0) -> Permit:
    given = breaker.allow(now)
    assert given is not None
    return given


def calls(breaker: BreakerState[str], ends: str, now: float = 0.0) -> Answer[str]:
    """`.` succeeds, `_` is slow, a letter fails and is its own token; the last answer."""
    answer: Answer[str] = Answer()
    for end in ends:
        given = permit(breaker, now)
        if end in "._":
            answer = breaker.succeeded(given, now, 9.0 if end == "_" else 0.0)
        else:
            answer = breaker.failed(given, now, 0.0, end)
    return answer


def opened(**settings: Any) -> BreakerState[str]:
    breaker = state(**settings)
    calls(breaker, "abcd")
    assert breaker.state is OPEN
    return breaker


# -- closed --------------------------------------------------------------------------------------------


def test_below_the_minimum_nothing_opens_it() -> None:
    breaker = state()
    assert calls(breaker, "abc") == Answer()
    assert breaker.state is CLOSED
    assert breaker.blocked_until(0.0) is None


def test_it_opens_when_the_rate_is_reached_and_names_the_failures_in_the_window() -> None:
    breaker = state()
    assert calls(breaker, "a...") == Answer(), "one of four"
    answer = calls(breaker, "..bc", now=5.0)
    assert answer.give_back == ("b", "c"), "a had left the window"
    told = answer.transition
    assert told is not None
    assert (told.before, told.after, told.at, told.until) == (CLOSED, OPEN, 5.0, 15.0)
    assert (told.calls, told.failed, told.slow) == (4, 2, 0)
    assert str(told) == ("circuit breaker is open for 10s, was closed: 2 of 4 calls failed (limit 0.5)")
    assert breaker.last == told
    assert breaker.times_opened == 1


def test_a_record_that_failed_twice_is_named_twice() -> None:
    assert calls(state(), "aabb").give_back == ("a", "a", "b", "b")


def test_a_success_may_complete_the_minimum() -> None:
    assert calls(state(), "abc.").give_back == ("a", "b", "c")


def test_slow_calls_open_it_whether_they_succeed_or_fail() -> None:
    breaker = state(slow_call_duration=2.0, slow_call_rate=0.75)
    calls(breaker, "_.")
    breaker.failed(permit(breaker), 0.0, 5.0, "a")
    answer = calls(breaker, "_")
    assert answer.give_back == ("a",)
    assert "3 of 4 calls took over 2s (limit 0.75)" in str(answer.transition)


def test_without_a_duration_no_call_is_slow() -> None:
    assert calls(state(), "____________") == Answer()


def test_one_bad_record_among_good_ones_opens_nothing_however_often_it_is_retried() -> None:
    breaker = BreakerState[str](CircuitBreaker())
    for _ in range(1_000):
        calls(breaker, "...a")
    assert breaker.state is CLOSED


def test_a_call_that_counts_neither_way_changes_nothing() -> None:
    breaker = state()
    calls(breaker, "abc")
    for _ in range(100):
        breaker.ignored(permit(breaker))
    assert breaker.snapshot(0.0).calls == 3
    assert calls(breaker, "d").transition is not None


def test_all_calls_of_a_closed_breaker_share_a_permit() -> None:
    breaker = state()
    assert permit(breaker) is permit(breaker, 5.0)
    assert not permit(breaker).probe


def test_in_a_time_window_old_calls_no_longer_count() -> None:
    breaker = state(window=None, window_seconds=10)
    calls(breaker, "ab.", now=0.0)
    assert calls(breaker, "c", now=10.0) == Answer(), "it is alone"
    assert calls(breaker, "de.", now=19.9).give_back == ("c", "d", "e")


# -- open ----------------------------------------------------------------------------------------------


def test_open_lets_nothing_through_until_its_time_is_over() -> None:
    breaker = opened()
    assert breaker.allow(0.0) is breaker.allow(9.999) is None
    assert (breaker.blocked_until(0.0), breaker.blocked_until(9.999)) == (10.0, 10.0)
    assert breaker.blocked_until(10.0) is None
    assert breaker.state is OPEN, "asking changes nothing"


def test_a_failure_of_a_call_that_began_before_is_given_back_and_does_not_count() -> None:
    breaker = state()
    early = [permit(breaker) for _ in range(3)]
    calls(breaker, "abcd")
    assert breaker.failed(early[0], 1.0, 0.0, "open") == Answer(("open",))
    calls(breaker, ".", now=10.0)
    assert breaker.failed(early[1], 11.0, 0.0, "half-open") == Answer(("half-open",))
    calls(breaker, ".", now=11.0)
    assert breaker.state is CLOSED
    assert breaker.failed(early[2], 12.0, 0.0, "closed again") == Answer(("closed again",))
    assert breaker.snapshot(12.0).calls == 0


def test_a_late_success_neither_counts_nor_closes() -> None:
    breaker = state(probes=1)
    early = permit(breaker)
    calls(breaker, "abcd")
    permit(breaker, 10.0)
    assert breaker.succeeded(early, 10.0, 0.0) == Answer()
    assert breaker.state is HALF_OPEN


# -- half-open -----------------------------------------------------------------------------------------


def test_the_first_probe_tells_that_it_is_half_open() -> None:
    breaker = opened(name="payments")
    first = permit(breaker, 12.0)
    assert first.probe
    assert (breaker.state, first.transition) == (HALF_OPEN, breaker.last)
    assert str(first.transition) == (
        "circuit breaker 'payments' is half-open, was open: 10s are over, probing"
    )
    assert permit(breaker, 12.0).transition is None


def test_no_more_probes_than_permitted_are_out() -> None:
    breaker = opened(probes=2)
    probes = [permit(breaker, 10.0), permit(breaker, 10.0)]
    assert breaker.allow(10.0) is None
    assert breaker.blocked_until(10.0) == math.inf
    breaker.ignored(probes[0])
    assert breaker.blocked_until(10.0) is None
    assert permit(breaker, 10.0) not in probes


def test_a_trial_has_no_more_calls_than_probes() -> None:
    breaker = opened(probes=3)
    probes = [permit(breaker, 10.0) for _ in range(3)]
    breaker.succeeded(probes[0], 10.0, 0.0)
    assert breaker.allow(10.0) is None, "two are out and one is counted"


def test_it_closes_when_the_probes_succeed_and_starts_counting_anew() -> None:
    breaker = opened(probes=3)
    answer = calls(breaker, "..", now=10.0)
    assert "is closed, was half-open: 2 of 2 probes succeeded" in str(answer.transition)
    assert (breaker.state, breaker.snapshot(10.0).calls) == (CLOSED, 0)
    assert calls(breaker, "abc", now=10.0) == Answer()


def test_it_opens_again_when_the_probes_fail_and_every_failed_probe_is_given_back() -> None:
    breaker = opened(probes=3)
    assert calls(breaker, "x", now=10.0) == Answer(("x",)), "before the verdict, too"
    answer = calls(breaker, "y", now=11.0)
    assert answer.give_back == ("y",)
    assert answer.transition is not None
    assert (answer.transition.after, answer.transition.until) == (OPEN, 21.0)
    assert breaker.times_opened == 2


def test_one_failed_probe_of_three_does_not_stop_it_from_closing() -> None:
    breaker = opened(probes=3)
    assert calls(breaker, ".x.", now=10.0).transition is not None
    assert breaker.state is CLOSED


def test_slow_probes_open_it_again() -> None:
    breaker = opened(probes=2, slow_call_duration=2.0)
    answer = calls(breaker, "__", now=10.0)
    assert "2 of 2 calls took over 2s" in str(answer.transition)
    assert breaker.state is OPEN


def test_fast_probes_must_outnumber_what_is_missing() -> None:
    breaker = opened(probes=2, slow_call_duration=2.0, slow_call_rate=0.5, failure_rate=1.0)
    assert calls(breaker, ".", now=10.0).transition is None, "the other one may be slow"
    assert calls(breaker, ".", now=10.0).transition is not None


def test_abandoned_probes_leak_no_place() -> None:
    breaker = opened(probes=2)
    for _ in range(1_000):
        for probe in (permit(breaker, 10.0), permit(breaker, 10.0)):
            breaker.ignored(probe)
            breaker.ignored(probe)  # revoked, and then its handler came back
    assert breaker.snapshot(10.0).probes_out == 0
    calls(breaker, "..", now=10.0)
    assert breaker.state is CLOSED


def test_probes_left_from_an_earlier_trial_still_take_places_and_do_not_vote() -> None:
    breaker = opened(probes=3)
    hanging = permit(breaker, 10.0)
    calls(breaker, "xy", now=10.0)
    assert breaker.state is OPEN
    second = [permit(breaker, 20.0), permit(breaker, 20.0)]
    assert breaker.allow(20.0) is None, "three are out"
    assert breaker.failed(hanging, 21.0, 11.0, "late") == Answer(("late",))
    assert breaker.snapshot(21.0).calls == 0
    for probe in second:
        breaker.succeeded(probe, 21.0, 0.0)
    assert breaker.state is CLOSED


def test_probes_that_hang_always_leave_a_place_because_a_verdict_takes_one_that_came_back() -> None:
    breaker = opened(probes=2)
    hanging, back = permit(breaker, 10.0), permit(breaker, 10.0)
    breaker.failed(back, 10.0, 0.0, "x")
    for now in (20.0, 30.0, 40.0):
        assert breaker.state is OPEN
        only = permit(breaker, now)
        assert breaker.blocked_until(now) == math.inf
        breaker.failed(only, now, 0.0, "y")
    assert breaker.succeeded(hanging, 41.0, 31.0) == Answer()
    assert breaker.snapshot(41.0).probes_out == 0


# -- as it is seen -------------------------------------------------------------------------------------


def test_a_snapshot_shows_what_health_shows() -> None:
    breaker = state(slow_call_duration=2.0)
    calls(breaker, ".a_")
    seen = breaker.snapshot(0.0)
    assert (seen.state, seen.calls, seen.failed, seen.slow) == (CLOSED, 3, 1, 1)
    assert (seen.until, seen.last, seen.times_opened, seen.probes_out) == (None, None, 0, 0)
    calls(breaker, "b")
    seen = breaker.snapshot(1.0)
    assert (seen.state, seen.until, seen.times_opened, seen.last) == (OPEN, 10.0, 1, breaker.last)


@pytest.mark.parametrize("name", ["closed", "open", "half-open"])
def test_the_states_have_their_usual_names(name: str) -> None:
    assert CircuitState(name).value == name


# -- poison and outage ---------------------------------------------------------------------------------


def failed(breaker: BreakerState[str], who: str, token: str, now: float = 0.0) -> Answer[str]:
    given = breaker.allow(now, who)
    assert given is not None
    return breaker.failed(given, now, 0.0, token, who)


def test_one_record_s_failures_count_once_while_others_succeed() -> None:
    breaker = state(window=8)
    assert failed(breaker, "a", "a1") == Answer()
    for i in range(20):
        calls(breaker, ".")
        answer = failed(breaker, "a", f"a{i}")
        assert (answer.give_back, answer.sure) == ((), True)
    assert breaker.state is CLOSED
    assert (breaker.snapshot(0.0).calls, breaker.snapshot(0.0).failed) == (8, 0), "the first has left it"


def test_where_nothing_has_succeeded_since_each_failure_counts_and_the_one_left_out_does_too() -> None:
    breaker = state(window=8, minimum_calls=5)
    failed(breaker, "a", "a1")
    calls(breaker, ".")
    failed(breaker, "a", "a2")
    assert breaker.snapshot(0.0).failed == 1
    failed(breaker, "a", "a3")
    assert breaker.snapshot(0.0).failed == 3
    assert failed(breaker, "a", "a4").give_back == ("a1", "a2", "a3", "a4")


def test_a_slow_success_shows_no_service_that_is_well() -> None:
    breaker = state(window=8, minimum_calls=8, slow_call_duration=2.0)
    failed(breaker, "a", "a1")
    calls(breaker, "_")
    failed(breaker, "a", "a2")
    assert breaker.snapshot(0.0).failed == 2


def test_a_failure_that_was_left_out_is_given_back_if_it_opens_before_anything_has_succeeded() -> None:
    breaker = state(window=4, minimum_calls=2, failure_rate=1.0)
    failed(breaker, "a", "a1")
    calls(breaker, ".x....")
    failed(breaker, "a", "a2")
    assert calls(breaker, "bcde").give_back == ("b", "c", "d", "e", "a2")


def test_a_failed_probe_costs_an_attempt_after_all_if_another_record_succeeds_in_its_trial() -> None:
    breaker = opened(probes=3)
    answer = failed(breaker, "x", "x1", now=10.0)
    assert (answer.give_back, answer.held) == (("x1",), True)
    assert calls(breaker, ".", now=10.0).charge == ("x1",)
    assert calls(breaker, ".", now=10.0).charge == ()


def test_who_fails_as_a_probe_after_another_has_succeeded_pays_at_once_but_not_with_its_last_attempt() -> (
    None
):
    breaker = opened(probes=3)
    calls(breaker, ".", now=10.0)
    answer = failed(breaker, "x", "x1", now=10.0)
    assert (answer.give_back, answer.sure, breaker.snapshot(10.0).failed) == ((), False, 1)


def test_a_suspect_that_fails_again_while_another_succeeds_has_no_vote() -> None:
    breaker = opened(probes=2)  # one failure of two would open it
    assert failed(breaker, "a", "a5", now=10.0).transition is not None
    calls(breaker, ".", now=20.0)
    answer = failed(breaker, "a", "a6", now=20.0)
    assert (answer.give_back, answer.sure, breaker.state) == ((), True, HALF_OPEN)
    calls(breaker, ".", now=20.0)
    assert breaker.state is CLOSED


def test_a_probe_that_fails_after_its_trial_has_closed_pays() -> None:
    breaker = opened(probes=3)
    late = breaker.allow(10.0, "x")
    assert late is not None
    calls(breaker, "..", now=10.0)
    assert breaker.state is CLOSED
    answer = breaker.failed(late, 20.0, 10.0, "x1", "x")
    assert (answer.give_back, answer.sure) == ((), False)


def test_whose_failure_was_given_back_loses_its_last_attempt_only_after_another_s_success() -> None:
    breaker = opened(probes=1)  # `a` to `d` were given back
    calls(breaker, ".", now=10.0)
    assert breaker.state is CLOSED
    assert failed(breaker, "a", "a2", now=11.0).sure, "the probe has succeeded since"
    assert not failed(breaker, "a", "a3", now=12.0).sure
    calls(breaker, ".", now=12.0)
    assert failed(breaker, "a", "a4", now=13.0).sure


def test_those_whose_last_failure_is_furthest_back_are_probes_first() -> None:
    breaker = opened()
    failed(breaker, "x", "x1", now=10.0)
    failed(breaker, "a", "a2", now=10.0)
    assert [breaker.rank(who) for who in ("new", "b", "a", "x")] == [0, 1, 2, 2]


def test_while_an_untried_probe_is_out_those_that_failed_are_at_most_half_of_the_probes() -> None:
    breaker = opened(probes=3)
    assert breaker.tried_wait_until(None) == -math.inf
    assert breaker.allow(10.0, "new") is not None
    assert breaker.tried_wait_until(None) == -math.inf
    assert breaker.allow(10.0, "a") is not None
    assert breaker.tried_wait_until(None) == 20.0, "or else until the new one has been out for `open_for`"


def test_they_wait_for_untried_ones_elsewhere_but_not_for_ever() -> None:
    breaker = opened(probes=2)
    assert breaker.tried_wait_until(None) == -math.inf
    assert breaker.tried_wait_until(3.0) == 20.0, "`open_for` after it may first be probed"
    assert breaker.tried_wait_until(14.0) == 24.0
