"""A circuit breaker as it runs; the promise: an outage, once seen, costs no attempt and dead-letters nothing.

What opened it has cost attempts before anybody could know. So the failures in the window that opened it are
given back, named by the tokens they were reported with; so is every failure of a call that began before, and
every failed probe, as long as no other probe of its trial has succeeded.

Four rules differ from Resilience4j's CircuitBreakerStateMachine. Each call holds a permit: a call that began
before the breaker opened counts for nothing afterwards, and a probe that is abandoned gives its place back.
A trial ends as soon as no further probe could change its verdict, because a service that is down should
not be called once more than is needed. One record's failures are news once (`doubts`). And a record that has
failed is a probe only where there is none that hasn't: else a few bad records would keep a breaker open for
a service that is well.

Pure: clock values come in, answers go out. Not safe for threads by itself: whoever shares a `BreakerState`
holds a lock around it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from relance.policies.breaker import CircuitBreaker
from relance.policies.doubts import Doubts
from relance.policies.trial import Trial
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

    __slots__ = ("since", "transition", "trial", "untried")

    def __init__(self, trial: int = 0, transition: Transition | None = None) -> None:
        self.trial = trial  # after which opening; 0 for a call that is no probe
        self.transition = transition
        self.since = 0.0  # of a probe, in seconds of the caller's clock
        self.untried = False  # of a probe: its record has not failed

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

    held: bool = field(default=False, compare=False)
    """Whether the reported failure is given back for the time being: it costs an attempt after all if it is
    ever among those of `charge`."""

    charge: tuple[Token, ...] = ()
    """Failures that were held and cost an attempt now, though never a record's last one."""

    sure: bool = True
    """Whether the reported failure, if it costs an attempt, may cost the last one. False where it may still
    be an outage's: then the record is tried again."""

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
        "_closed",
        "_doubts",
        "_out",
        "_quiet",
        "_trial",
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
        self._doubts: Doubts[Token] = Doubts()
        self._trial: Trial[Token] = Trial(settings, 0)  # the present one, or the last one
        self._until = 0.0
        self._quiet: Answer[Token] = Answer()  # what most reports lead to

    def allow(self, now: float, who: Hashable = None) -> Permit | None:
        """The permit for a call with the record `who` that is made now; None while calls are stopped."""
        if self._closed is not None:
            return self._closed
        if self.blocked_until(now) is not None:
            return None
        transition = None
        if self.state is CircuitState.OPEN:
            self._trial = Trial(self.settings, self._doubts.successes)
            waited = f"{self.settings.open_for:g}s are over, probing"
            transition = self._change(CircuitState.HALF_OPEN, now, waited)
        permit = Permit(self.times_opened, transition)
        permit.since, permit.untried = now, self.rank(who) == 0
        self._out.add(permit)
        self._trial.probing(who, untried=permit.untried)
        return permit

    def blocked_until(self, now: float) -> float | None:
        """None if `allow(now)` gives a permit, else when to ask again.

        Infinity while all probes are out: the next report, and no clock, will change that.
        """
        if self._closed is not None:
            return None
        if self.state is CircuitState.OPEN and now < self._until:
            return self._until
        asked = self._trial.asked if self.state is CircuitState.HALF_OPEN else 0
        return math.inf if max(asked, len(self._out)) >= self.settings.probes else None

    @property
    def may_probe_from(self) -> float:
        """Open until then, if it is open; else minus infinity."""
        return self._until if self.state is CircuitState.OPEN else -math.inf

    def rank(self, who: Hashable) -> int:
        """The lower, the sooner a record is to be a probe: 0 if it is not known to have failed, and then
        those whose last failure is furthest back.
        """
        known = self._doubts.get(who)
        return 0 if known is None else 1 + known.opening

    def tried_wait_until(self, untried_since: float | None) -> float:
        """Until when no more records that have failed are probes, because others are, or may be: they are
        out, or wait elsewhere since `untried_since`. For `open_for` seconds at most, since those may hang.

        Even then they may be half of the probes, as long as they could not decide the trial alone.
        """
        half_open = self.state is CircuitState.HALF_OPEN
        if (self._trial.tried if half_open else 0) < self.settings.tried_probes:
            return -math.inf
        since = [p.since for p in self._out if p.untried and p.trial == self.times_opened]
        if untried_since is not None:
            since.append(max(untried_since, self._until))
        return max(since, default=-math.inf) + self.settings.open_for

    def succeeded(self, permit: Permit, now: float, seconds: float) -> Answer[Token]:
        """The call returned; slow successes can open the breaker, too."""
        if not self._current(permit):
            return self._quiet
        slow = self.settings.is_slow(seconds)
        if not slow:
            self._doubts.successes += 1
        if self._closed is not None:
            self._window.succeeded(now, slow=slow)
            return self._judge(now)
        charge = self._trial.succeeded(slow=slow)
        return Answer(charge=charge, transition=self._verdict(now))

    def failed(
        self, permit: Permit, now: float, seconds: float, token: Token, who: Hashable = None
    ) -> Answer[Token]:
        """The call raised an error that counts (see `CircuitBreaker.counts`); `who` is its record.

        Ask before the attempt is judged: an answer that gives it back overrules max_attempts. It does if this
        failure opens the breaker, and if the breaker has opened since the call began. What a probe's costs
        the trial decides: see `Answer`.
        """
        who = token if who is None else who
        if not self._current(permit):
            return self._failed_late(permit, token, who)
        slow = self.settings.is_slow(seconds)
        if self._closed is None:
            return self._failed_probe(now, token, who, slow=slow)
        known = self._doubts.get(who)
        if known is not None and self._doubts.own_fault(who):
            self._doubts.note(who, self.times_opened, refunded=False, left_out=token)
            return self._quiet
        if known is not None and known.left_out is not None:
            self._window.failed_with(now, (who, known.left_out), slow=slow)
        self._window.failed_with(now, (who, token), slow=slow)
        self._doubts.note(who, self.times_opened, refunded=False)
        answer = self._judge(now)
        if known is not None and known.refunded and answer.transition is None:
            return Answer(sure=False)
        return answer

    def ignored(self, permit: Permit) -> None:
        """The call counts neither way: its error doesn't count, or it was abandoned (revoked, cancelled).

        A probe gives its place to another call. It is Resilience4j's releasePermission, whose users ended up
        half-open for ever where a call reported nothing (its issues 903 and 935); so report every permit.
        """
        if permit.probe and self._current(permit):
            self._trial.left()

    def snapshot(self, now: float) -> Snapshot:
        """The state as of now, for stats and health."""
        self._window.advance(now)
        counted = self._counted()
        return Snapshot(
            state=self.state,
            calls=counted.calls,
            failed=counted.failed,
            slow=counted.slow,
            probes_out=len(self._out),
            until=self._until if self.state is CircuitState.OPEN else None,
            times_opened=self.times_opened,
            last=self.last,
        )

    def _counted(self) -> Window[tuple[Hashable, Token]] | Trial[Token]:
        return self._trial if self.state is CircuitState.HALF_OPEN else self._window

    def _current(self, permit: Permit) -> bool:
        """Whether the call belongs to this closed time or trial; a probe's place is free from here on."""
        if permit is self._closed:
            return True
        if permit not in self._out:
            return False
        self._out.remove(permit)
        return self._closed is None and permit.trial == self.times_opened

    def _failed_probe(self, now: float, token: Token, who: Hashable, *, slow: bool) -> Answer[Token]:
        trial, doubts = self._trial, self._doubts
        known = doubts.get(who) is not None
        own_fault = doubts.own_fault(who, trial.successes)
        doubts.note(who, self.times_opened, refunded=True)
        if own_fault and known:
            trial.left()
            return Answer()
        if own_fault:
            trial.voted_against(slow=slow)
            return Answer(sure=False, transition=self._verdict(now))
        trial.held(who, token, known=known, slow=slow)
        opened = self._verdict(now)
        return Answer((token,), held=opened is None, transition=opened)

    def _failed_late(self, permit: Permit, token: Token, who: Hashable) -> Answer[Token]:
        """It began in an outage that was seen since; unless the outage was over in its very trial."""
        known = self._doubts.get(who) is not None
        in_last_trial = permit.trial == self.times_opened and permit.probe
        own_fault = in_last_trial and self._doubts.own_fault(who, self._trial.successes)
        self._doubts.note(who, self.times_opened, refunded=True)
        return Answer(sure=known) if own_fault else Answer((token,))

    def _judge(self, now: float) -> Answer[Token]:
        window, settings = self._window, self.settings
        if window.calls < settings.minimum_calls or not (window.failed or window.slow):
            return self._quiet
        reason = self._too_many(window.calls)
        if reason is None:
            return self._quiet
        pairs = window.failures()
        for who, _ in pairs:
            self._doubts.refund(who)
        give_back = (*(token for _, token in pairs), *self._doubts.take_left_out())
        return Answer(give_back, transition=self._open(now, reason))

    def _verdict(self, now: float) -> Transition | None:
        """What the trial has come to, as if all probes were back: what failed is the least that will."""
        trial = self._trial
        reason = self._too_many(self.settings.probes)
        if reason is not None:
            return self._open(now, reason)
        if not trial.cannot_fail():
            return None
        reason = f"{trial.calls - trial.failed} of {trial.calls} probes succeeded"
        return self._change(CircuitState.CLOSED, now, reason)

    def _too_many(self, of: int) -> str | None:
        counted, settings = self._counted(), self.settings
        if counted.failed / of >= settings.failure_rate:
            return f"{counted.failed} of {counted.calls} calls failed (limit {settings.failure_rate:.4g})"
        if counted.slow / of >= settings.slow_call_rate:
            limit = f"{settings.slow_call_duration:g}s (limit {settings.slow_call_rate:.4g})"
            return f"{counted.slow} of {counted.calls} calls took over {limit}"
        return None

    def _open(self, now: float, reason: str) -> Transition:
        self._until = now + self.settings.open_for
        self.times_opened += 1
        return self._change(CircuitState.OPEN, now, reason)

    def _change(self, after: CircuitState, now: float, reason: str) -> Transition:
        opened = after is CircuitState.OPEN
        counted = self._counted()
        if after is CircuitState.HALF_OPEN:
            calls = failed = slow = 0
        else:
            calls, failed, slow = counted.calls, counted.failed, counted.slow
        self.last = Transition(
            name=self.settings.name,
            before=self.state,
            after=after,
            at=now,
            calls=calls,
            failed=failed,
            slow=slow,
            reason=reason,
            until=self._until if opened else None,
        )
        self.state = after
        self._closed = Permit() if after is CircuitState.CLOSED else None
        if after is not CircuitState.HALF_OPEN:
            self._window = self._closed_window()
        return self.last

    def _closed_window(self) -> Window[tuple[Hashable, Token]]:
        if self.settings.window is not None:
            return CountWindow(self.settings.window)
        assert self.settings.window_seconds is not None
        return TimeWindow(self.settings.window_seconds)
