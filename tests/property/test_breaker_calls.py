"""The circuit breaker against a naive one, which keeps a list of all calls and looks at all of it each time.

A trial is judged by brute force: it is over when every way in which its missing probes could end gives the
same verdict. Rates are compared as fractions, so a rounded division would show. Whether a failure is news is
looked up in the list of all that ever happened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from relance.policies.breaker import CircuitBreaker
from relance.policies.breaker_state import Answer, BreakerState, CircuitState, Permit

RATES = st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0])
SLOW = 2.0
SECONDS = st.sampled_from([0.0, 2.0, 2.5, 9.0])


@dataclass(frozen=True)
class Call:
    """One that was reported and counts."""

    second: int
    failed: bool
    slow: bool
    token: int
    known: bool = False
    """Its record had failed before."""
    held: bool = False
    """A probe's failure that costs nothing for now."""


@dataclass(frozen=True, eq=False)
class Out:
    """One that was permitted; `period` is how often the state had changed by then."""

    permit: Permit
    period: int
    who: int


@dataclass(eq=False)
class Event:
    """A success of any record (without `who`), or a failure."""

    who: int | None = None
    token: int = 0
    left_out: bool = False
    refunded: bool = False


class BreakerAgainstAList(RuleBasedStateMachine):
    timed: Any = False

    @initialize(
        failure_rate=RATES,
        slow_call_rate=RATES,
        slow=st.booleans(),
        size=st.integers(1, 8),
        minimum=st.integers(1, 8),
        probes=st.integers(1, 4),
    )
    def set_up(
        self, failure_rate: float, slow_call_rate: float, slow: bool, size: int, minimum: int, probes: int
    ) -> None:
        of = {"window_seconds": size} if self.timed else {"window": size}
        self.settings = CircuitBreaker(
            failure_rate=failure_rate,
            slow_call_rate=slow_call_rate if slow else 1.0,  # without a duration none is slow
            slow_call_duration=SLOW if slow else None,
            minimum_calls=minimum if self.timed else min(minimum, size),
            open_for=3.5,
            probes=probes,
            **of,  # type: ignore[arg-type]
        )
        self.breaker: BreakerState[int] = BreakerState(self.settings)
        self.now = 100.0
        self.token = 0
        self.state = CircuitState.CLOSED
        self.period = 0
        self.until = math.nan
        self.calls: list[Call] = []  # all that counted in this period; none is ever let go of
        self.probes_asked = 0
        self.out: list[Out] = []
        self.given_back: set[int] = set()
        self.events: list[Event] = []
        self.trial_began = 0  # in `events`
        self.new = 1000

    # -- the naive one ---------------------------------------------------------------------------------

    def in_window(self) -> list[Call]:
        if self.state is CircuitState.HALF_OPEN:
            return self.calls
        if self.settings.window is not None:
            return self.calls[-self.settings.window :]
        assert self.settings.window_seconds is not None
        start = math.floor(self.now) - self.settings.window_seconds
        return [call for call in self.calls if call.second > start]

    def too_many(self, ends: list[tuple[bool, bool]]) -> bool:
        failed = Fraction(sum(failed for failed, _ in ends), len(ends))
        slow = Fraction(sum(slow for _, slow in ends), len(ends))
        return failed >= Fraction(str(self.settings.failure_rate)) or slow >= Fraction(
            str(self.settings.slow_call_rate)
        )

    def verdict(self) -> CircuitState:
        ends = [(call.failed, call.slow) for call in self.in_window()]
        if self.state is CircuitState.CLOSED:
            tripped = len(ends) >= self.settings.minimum_calls and self.too_many(ends)
            return CircuitState.OPEN if tripped else CircuitState.CLOSED
        slow = [False] if self.settings.slow_call_duration is None else [False, True]
        missing = product(product([False, True], slow), repeat=self.settings.probes - len(ends))
        verdicts = {self.too_many([*ends, *rest]) for rest in missing}
        if len(verdicts) == 2:
            return CircuitState.HALF_OPEN
        return CircuitState.OPEN if verdicts == {True} else CircuitState.CLOSED

    def last_failure(self, who: int) -> int:
        return max((i for i, event in enumerate(self.events) if event.who == who), default=-1)

    def own_fault(self, who: int, since: int = 0) -> bool:
        begin = max(since, self.last_failure(who) + 1)
        return any(event.who is None for event in self.events[begin:])

    def in_doubt(self, who: int) -> bool:
        return any(event.refunded for event in self.events if event.who == who)

    def change(self, after: CircuitState) -> None:
        self.state = after
        if after is CircuitState.HALF_OPEN:
            self.trial_began = len(self.events)
        self.period += 1
        self.calls = []
        self.probes_asked = 0
        self.until = self.now + self.settings.open_for

    def probes_out(self) -> list[Out]:
        return [out for out in self.out if out.permit.probe]

    # -- what happens ----------------------------------------------------------------------------------

    @rule(whos=st.lists(st.integers(0, 5), min_size=1, max_size=4))
    def ask_again(self, whos: list[int]) -> None:
        self.ask(whos)

    @rule(count=st.integers(1, 4))
    def ask_others(self, count: int) -> None:
        self.ask([-1] * count)

    def ask(self, whos: list[int]) -> None:
        for chosen in whos:
            who = chosen
            if who < 0 or any(out.who == who for out in self.out):
                who = self.new = self.new + 1
            blocked = self.breaker.blocked_until(self.now)
            permit = self.breaker.allow(self.now, who)
            assert (permit is None) == (blocked is not None)
            lingering = len(self.probes_out()) >= self.settings.probes
            if self.state is CircuitState.OPEN and self.now < self.until:
                assert blocked == self.until
                return
            if self.state is not CircuitState.CLOSED and (
                lingering or self.probes_asked >= self.settings.probes
            ):
                assert blocked == math.inf
                return
            assert permit is not None
            assert permit.probe == (self.state is not CircuitState.CLOSED)
            if self.state is CircuitState.OPEN:
                assert permit.transition is not None
                assert permit.transition.after is CircuitState.HALF_OPEN
                self.change(CircuitState.HALF_OPEN)
            else:
                assert permit.transition is None
            self.probes_asked += permit.probe
            if permit.probe:
                assert permit.untried == (self.last_failure(who) < 0)
                self.calls = [self.no_longer_held(call, who) for call in self.calls]
            self.out.append(Out(permit, self.period, who))

    def no_longer_held(self, call: Call, who: int) -> Call:
        mine = any(event.token == call.token and event.who == who for event in self.events)
        return replace(call, held=False) if mine else call

    def take(self, data: st.DataObject) -> tuple[Out, bool]:
        out = data.draw(st.sampled_from(self.out))
        self.out.remove(out)
        return out, out.period == self.period

    @precondition(lambda self: self.out)
    @rule(data=st.data(), failed=st.booleans(), seconds=SECONDS, times=st.sampled_from([1, 1, 2, 6]))
    def report(self, data: st.DataObject, failed: bool, seconds: float, times: int) -> None:
        for _ in range(min(times, len(self.out))):
            self.report_one(self.take(data)[0], failed, seconds)

    @precondition(lambda self: self.state is CircuitState.CLOSED)
    @rule(seconds=SECONDS)
    def outage(self, seconds: float) -> None:
        """So that most schedules get beyond the closed state."""
        for _ in range(8):  # not until it is open: one success in a time window may stand against any number
            if self.state is not CircuitState.CLOSED:
                break
            self.ask([-1])
            self.report_one(self.out.pop(), True, seconds)
        self.now += self.settings.open_for

    @precondition(lambda self: self.state is CircuitState.OPEN)
    @rule()
    def trial_that_leaves_probes_behind(self) -> None:
        self.now = max(self.now, self.until)
        self.ask([-1] * self.settings.probes)
        while self.state is CircuitState.HALF_OPEN and self.out and self.out[-1].permit.probe:
            self.report_one(self.out.pop(), True, 0.0)
        self.now += self.settings.open_for

    def report_one(self, out: Out, failed: bool, seconds: float) -> None:
        counts = out.period == self.period
        slow = self.settings.slow_call_duration is not None and seconds > SLOW
        self.token += 1
        if failed:
            answer = self.breaker.failed(out.permit, self.now, seconds, self.token, out.who)
        else:
            answer = self.breaker.succeeded(out.permit, self.now, seconds)
        before = self.state
        if not counts:
            expected = self.late(out) if failed else ()
        elif failed:
            expected = self.failure(out, answer, slow)
        else:
            expected = self.success(answer, slow)
        if not counts:
            assert answer.transition is None
        assert answer.give_back == expected
        self.take_back(answer)
        if not counts:
            return
        window, after = self.in_window(), self.verdict()
        if after is before:
            assert answer.transition is None
            return
        self.change(after)
        told = answer.transition
        assert told is not None
        assert told == self.breaker.last
        assert (told.before, told.after, told.at) == (before, after, self.now)
        assert told.until == (self.until if after is CircuitState.OPEN else None)
        assert (told.calls, told.failed) == (len(window), sum(call.failed for call in window))
        assert told.slow == sum(call.slow for call in window)

    def late(self, out: Out) -> tuple[int, ...]:
        trial_was_the_last = out.period == self.period - 1 and self.state is CircuitState.CLOSED
        fault = trial_was_the_last and out.permit.probe and self.own_fault(out.who, self.trial_began)
        self.events.append(Event(out.who, self.token, refunded=True))
        return () if fault else (self.token,)

    def success(self, answer: Answer[int], slow: bool) -> tuple[int, ...]:
        charged: tuple[int, ...] = ()
        if not slow:
            self.events.append(Event())
            charged = tuple(call.token for call in self.calls if call.held)
            withdrawn = [call for call in self.calls if call.held and call.known]
            self.probes_asked -= len(withdrawn)
            self.calls = [replace(call, held=False) for call in self.calls if call not in withdrawn]
        self.calls.append(Call(math.floor(self.now), False, slow, self.token))
        assert answer.charge == charged
        return self.named_if_it_opens()

    def failure(self, out: Out, answer: Answer[int], slow: bool) -> tuple[int, ...]:
        known = self.last_failure(out.who) >= 0
        call = Call(math.floor(self.now), True, slow, self.token, known)
        if self.state is CircuitState.CLOSED:
            fault, doubt = known and self.own_fault(out.who), self.in_doubt(out.who)
            last = self.events[self.last_failure(out.who)] if known else Event()
            if not fault:
                if last.left_out:
                    self.calls.append(replace(call, token=last.token))
                    last.left_out = False
                self.calls.append(call)
            self.events.append(Event(out.who, self.token, left_out=fault))
            expected = () if fault else self.named_if_it_opens()
            assert answer.sure == (fault or not doubt or bool(expected))
            return expected
        fault = self.own_fault(out.who, self.trial_began)
        self.events.append(Event(out.who, self.token, refunded=True))
        if fault and known:
            self.probes_asked -= 1
            assert answer.sure
            return ()
        self.calls.append(replace(call, held=not fault))
        if fault:
            assert not answer.sure
            return ()
        assert answer.held == (answer.transition is None)
        return (self.token,)

    def named_if_it_opens(self) -> tuple[int, ...]:
        if self.state is not CircuitState.CLOSED or self.verdict() is not CircuitState.OPEN:
            return ()
        named = [call.token for call in self.in_window() if call.failed]
        since = max((i for i, event in enumerate(self.events) if event.who is None), default=-1)
        left = [event for i, event in enumerate(self.events) if event.left_out and i > since]
        for event in left:
            event.left_out = False
        for event in self.events:
            event.refunded |= event.token in named or event in left
        return (*named, *(event.token for event in left))

    def take_back(self, answer: Answer[int]) -> None:
        assert not self.given_back & set(answer.give_back), "a failure was given back twice"
        self.given_back |= set(answer.give_back)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        out, counts = self.take(data)
        self.breaker.ignored(out.permit)
        self.probes_asked -= counts and out.permit.probe

    @precondition(lambda self: self.out)
    @rule()
    def abandon_all_as_when_a_partition_is_revoked(self) -> None:
        for out in self.out:
            self.breaker.ignored(out.permit)
            self.probes_asked -= out.period == self.period and out.permit.probe
        self.out = []

    @precondition(lambda self: self.probes_out())
    @rule(data=st.data())
    def abandon_twice(self, data: st.DataObject) -> None:
        out = data.draw(st.sampled_from(self.probes_out()))
        self.out.remove(out)
        self.breaker.ignored(out.permit)
        self.breaker.ignored(out.permit)
        self.probes_asked -= out.period == self.period

    @rule(step=st.sampled_from([0.25, 1.0, 3.5, 3.5, 9.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    # -- what always holds -----------------------------------------------------------------------------

    @invariant()
    def it_is_as_the_naive_one_says(self) -> None:
        if not hasattr(self, "breaker"):
            return
        seen = self.breaker.snapshot(self.now)
        window = self.in_window()
        assert (seen.state, self.breaker.state) == (self.state, self.state)
        assert seen.calls == len(window)
        assert seen.failed == sum(call.failed for call in window)
        assert seen.slow == sum(call.slow for call in window)
        assert seen.until == (self.until if self.state is CircuitState.OPEN else None)
        assert seen.probes_out == len(self.probes_out()) <= self.settings.probes

    def teardown(self) -> None:
        """Whatever happened: once all calls are back, a trial has all of its places, and can close it."""
        if not hasattr(self, "breaker"):
            return
        for out in self.out:
            self.breaker.ignored(out.permit)
        self.now += self.settings.open_for
        while self.breaker.state is not CircuitState.CLOSED:
            half_open = self.breaker.state is CircuitState.HALF_OPEN
            counted = self.breaker.snapshot(self.now).calls if half_open else 0
            permits = [self.breaker.allow(self.now) for _ in range(self.settings.probes - counted)]
            assert None not in permits, "a permit leaked"
            assert self.breaker.allow(self.now) is None
            for permit in permits:
                assert permit is not None
                self.breaker.succeeded(permit, self.now, 0.0)
            self.now += self.settings.open_for  # if the trial had failures before, it may have opened again


class ByCount(BreakerAgainstAList):
    timed = False


class ByTime(BreakerAgainstAList):
    timed = True


PROFILE = settings(max_examples=40, stateful_step_count=50, deadline=None, print_blob=True)


@pytest.mark.parametrize("machine", [ByCount, ByTime], ids=["count", "time"])
def test_it_opens_and_closes_when_a_list_of_all_calls_says_so(machine: type[BreakerAgainstAList]) -> None:
    run_state_machine_as_test(machine, settings=PROFILE)


@given(rate=RATES, window=st.integers(1, 60), minimum=st.integers(1, 60), before=st.integers(0, 120))
@settings(deadline=None)
def test_so_many_failures_in_a_row_open_it_at_the_latest(
    rate: float, window: int, minimum: int, before: int
) -> None:
    breaker = CircuitBreaker(failure_rate=rate, window=window, minimum_calls=min(minimum, window))
    worst = breaker.failures_to_open
    assert worst is not None

    def needed(successes: int) -> int:
        state: BreakerState[int] = BreakerState(breaker)
        for _ in range(successes):
            state.succeeded(_permit(state), 0.0, 0.0)
        failures = 0
        while state.state is CircuitState.CLOSED:
            failures += 1
            state.failed(_permit(state), 0.0, 0.0, failures)
        return failures

    assert needed(before) <= worst
    assert worst in (needed(0), needed(window))


def _permit(state: BreakerState[int]) -> Permit:
    permit = state.allow(0.0)
    assert permit is not None
    return permit
