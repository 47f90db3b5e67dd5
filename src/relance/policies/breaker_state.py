"""A circuit breaker as it runs; the promise: an outage, once seen, costs no attempt and dead-letters nothing.

What opened it has cost attempts before anybody could know. So the failures in the window that opened it are
given back, named by the tokens they were reported with; so is every failure of a call that began before, and
every failed probe.

Two rules differ from Resilience4j's CircuitBreakerStateMachine. Each call holds a permit: a call that began
before the breaker opened counts for nothing afterwards, and a probe that is abandoned gives its place back.
And a trial ends as soon as no further probe could change its verdict, because a service that is down should
not be called once more than is needed.

Pure: clock values come in, answers go out. Not safe for threads by itself: whoever shares a `BreakerState`
holds a lock around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from relance.policies.breaker import CircuitBreaker
from relance.policies.window import CountWindow, TimeWindow, Window

__all__ = ["Answer", "BreakerState", "CircuitState", "Permit", "Snapshot", "Transition"]

Token = TypeVar("Token")


class CircuitState(Enum):
    """The three states."""

    CLOSED = "closed"
    """Calls go through and are counted."""
    OPEN = "open"
    """No call goes through."""
    HALF_OPEN = "half-open"
    """Probes go through and are counted."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state, for events, logs and metrics."""

    name: str | None
    before: CircuitState
    after: CircuitState
    at: float
    """When, in seconds of the caller's clock."""
    calls: int
    """How many calls it was judged by, 0 where time alone made it half-open; `failed` and `slow` of them."""
    failed: int
    slow: int
    reason: str
    until: float | None = None
    """Open until then, in seconds of the caller's clock; None unless `after` is open."""

    def __str__(self) -> str:
        of = "" if self.name is None else f" {self.name!r}"
        how_long = "" if self.until is None else f" for {self.until - self.at:g}s"
        return f"circuit breaker{of} is {self.after.value}{how_long}, was {self.before.value}: {self.reason}"


class Permit:
    """The right to make one call. Report it once, by `succeeded`, `failed` or `ignored`.

    All calls of one closed time share one permit, so it costs nothing; each probe has its own. `transition`
    is the change to half-open, on the permit of the call that made it.
    """

    __slots__ = ("transition", "trial")

    def __init__(self, trial: int = 0, transition: Transition | None = None) -> None:
        self.trial = trial  # after which opening; 0 for a call that is no probe
        self.transition = transition

    @property
    def probe(self) -> bool:
        """Whether the call is a probe of a half-open breaker."""
        return self.trial > 0


@dataclass(frozen=True, slots=True)
class Answer(Generic[Token]):
    """What a report led to."""

    give_back: tuple[Token, ...] = ()
    """The failures that cost no attempt, the oldest first; a record that failed twice is named twice. If the
    reported call is among them, it is the last one, and its record must not be dead-lettered."""

    transition: Transition | None = None
    """The change of state, if there was one."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What stats and health show."""

    state: CircuitState
    calls: int
    """Calls in the window, or, half-open, probes that were counted; `failed` and `slow` of them."""
    failed: int
    slow: int
    probes_out: int
    until: float | None
    """Open until then, in seconds of the caller's clock; None unless open."""
    times_opened: int
    last: Transition | None


class BreakerState(Generic[Token]):
    """One breaker as it runs. A `Token` names a failed call to whoever keeps count of attempts.

    Its invariant: a call counts in the time it was permitted in, or not at all, and a place that a probe took
    is free again once that very probe is reported. So never more than `probes` of them are out, not even
    with those that an earlier trial left behind (at least one place is left, because a verdict takes one that
    came back); none can be lost; a failure is given back at most once.

    `now` is in seconds of one monotonic clock, `seconds` is how long the call took.
    """

    __slots__ = (
        "_asked",
        "_closed",
        "_out",
        "_quiet",
        "_until",
        "_window",
        "last",
        "settings",
        "state",
        "times_opened",
    )

    def __init__(self, settings: CircuitBreaker) -> None:
        self.settings = settings
        self.state = CircuitState.CLOSED
        self.times_opened = 0
        self.last: Transition | None = None
        self._window = self._closed_window()
        self._closed: Permit | None = Permit()  # what all calls of this closed time hold
        self._out: set[Permit] = set()  # probes, of this trial and of earlier ones
        self._asked = 0  # probes of this trial that are out or were counted
        self._until = 0.0
        self._quiet: Answer[Token] = Answer()  # what most reports lead to

    def allow(self, now: float) -> Permit | None:
        """The permit for a call that is made now; None while calls are stopped."""
        if self._closed is not None:
            return self._closed
        if self.blocked_until(now) is not None:
            return None
        transition = None
        if self.state is CircuitState.OPEN:
            self._window = CountWindow(self.settings.probes)
            self._asked = 0
            waited = f"{self.settings.open_for:g}s are over, probing"
            transition = self._change(CircuitState.HALF_OPEN, now, waited)
        permit = Permit(self.times_opened, transition)
        self._out.add(permit)
        self._asked += 1
        return permit

    def blocked_until(self, now: float) -> float | None:
        """None if `allow(now)` gives a permit, else when to ask again.

        Infinity while all probes are out: the next report, and no clock, will change that.
        """
        if self._closed is not None:
            return None
        if self.state is CircuitState.OPEN and now < self._until:
            return self._until
        asked = self._asked if self.state is CircuitState.HALF_OPEN else 0
        return math.inf if max(asked, len(self._out)) >= self.settings.probes else None

    def succeeded(self, permit: Permit, now: float, seconds: float) -> Answer[Token]:
        """The call returned; slow successes can open the breaker, too."""
        if not self._current(permit):
            return self._quiet
        self._window.succeeded(now, slow=self.settings.is_slow(seconds))
        return self._judge(now)

    def failed(self, permit: Permit, now: float, seconds: float, token: Token) -> Answer[Token]:
        """The call raised an error that counts (see `CircuitBreaker.counts`).

        Ask before the attempt is judged: an answer that gives it back overrules max_attempts. It does if this
        failure opens the breaker; if it is a probe's; and if the breaker has opened since the call began.
        """
        if not self._current(permit):
            return Answer((token,))  # it began in the outage that was seen since
        slow = self.settings.is_slow(seconds)
        self._window.failed_with(now, token, slow=slow)
        answer = self._judge(now)
        return Answer((token,), answer.transition) if permit.probe else answer

    def ignored(self, permit: Permit) -> None:
        """The call counts neither way: its error doesn't count, or it was abandoned (revoked, cancelled).

        A probe gives its place to another call. It is Resilience4j's releasePermission, whose users ended up
        half-open for ever where a call reported nothing (its issues 903 and 935); so report every permit.
        """
        if permit.probe and self._current(permit):
            self._asked -= 1

    def snapshot(self, now: float) -> Snapshot:
        """The state as of now, for stats and health."""
        self._window.advance(now)
        return Snapshot(
            state=self.state,
            calls=self._window.calls,
            failed=self._window.failed,
            slow=self._window.slow,
            probes_out=len(self._out),
            until=self._until if self.state is CircuitState.OPEN else None,
            times_opened=self.times_opened,
            last=self.last,
        )

    def _current(self, permit: Permit) -> bool:
        """Whether the call belongs to this closed time or trial; a probe's place is free from here on."""
        if permit is self._closed:
            return True
        if permit not in self._out:
            return False
        self._out.remove(permit)
        return self._closed is None and permit.trial == self.times_opened

    def _judge(self, now: float) -> Answer[Token]:
        window, settings = self._window, self.settings
        if self._closed is None:  # as if all probes were back: what failed of them is the least that will
            reason = self._too_many(settings.probes)
        elif window.calls >= settings.minimum_calls and (window.failed or window.slow):
            reason = self._too_many(window.calls)
        else:
            return self._quiet
        if reason is not None:
            return self._open(now, reason)
        if self._closed is None and self._cannot_fail():
            return self._close(now)
        return self._quiet

    def _too_many(self, of: int) -> str | None:
        window, settings = self._window, self.settings
        if window.failed / of >= settings.failure_rate:
            return f"{window.failed} of {window.calls} calls failed (limit {settings.failure_rate:.4g})"
        if window.slow / of >= settings.slow_call_rate:
            limit = f"{settings.slow_call_duration:g}s (limit {settings.slow_call_rate:.4g})"
            return f"{window.slow} of {window.calls} calls took over {limit}"
        return None

    def _cannot_fail(self) -> bool:
        """Whether the trial would end well even if all of its further probes failed and were slow."""
        window, settings = self._window, self.settings
        left = settings.probes - window.calls
        if (window.failed + left) / settings.probes >= settings.failure_rate:
            return False
        return settings.slow_call_duration is None or (
            (window.slow + left) / settings.probes < settings.slow_call_rate
        )

    def _open(self, now: float, reason: str) -> Answer[Token]:
        # A failed probe was given back when it was reported.
        give_back = self._window.failures() if self.state is CircuitState.CLOSED else ()
        self._until = now + self.settings.open_for
        self.times_opened += 1
        return Answer(give_back, self._change(CircuitState.OPEN, now, reason))

    def _close(self, now: float) -> Answer[Token]:
        window = self._window
        reason = f"{window.calls - window.failed} of {window.calls} probes succeeded"
        return Answer((), self._change(CircuitState.CLOSED, now, reason))

    def _change(self, after: CircuitState, now: float, reason: str) -> Transition:
        opened = after is CircuitState.OPEN
        window = self._window
        self.last = Transition(
            name=self.settings.name,
            before=self.state,
            after=after,
            at=now,
            calls=window.calls,
            failed=window.failed,
            slow=window.slow,
            reason=reason,
            until=self._until if opened else None,
        )
        self.state = after
        self._closed = Permit() if after is CircuitState.CLOSED else None
        if after is not CircuitState.HALF_OPEN:
            self._window = self._closed_window()
        return self.last

    def _closed_window(self) -> Window[Token]:
        if self.settings.window is not None:
            return CountWindow(self.settings.window)
        assert self.settings.window_seconds is not None
        return TimeWindow(self.settings.window_seconds)
