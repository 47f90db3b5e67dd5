"""A circuit breaker at work: one state for all handlers that name it, behind a lock of its own.

Promises: a permit is reported once, however its call ended; what opens the breaker marks the tries that it
gives back before anybody can see it open, so none of them is handed off afterwards; records that have failed
are probes only where no runtime has others; no lock of a runtime is asked for with the breaker's held (the
other way round is allowed), and nothing is logged with either.

`Circuit` is the shared state; a `Guard` is what one runtime sees of it.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from relance.clock import Clock
from relance.dead_letters.errortext import failure
from relance.engine.assignment import Assignment
from relance.engine.deferral import Failure
from relance.engine.lanes import Lane, Run
from relance.engine.outcome import Defer, RetryAt
from relance.engine.owed import Origin, origin_of
from relance.errors import SettingsError
from relance.policies.breaker import CircuitBreaker
from relance.policies.breaker_state import Answer, BreakerState, CircuitState, Permit, Transition
from relance.policies.retry import RetryPolicy
from relance.record import Outgoing, Record
from relance.stats import CircuitBreakerOpen, CircuitBreakerStats
from relance.text import one_line

__all__ = ["Call", "Circuit", "Guard", "Try", "make_circuits"]

_log = logging.getLogger("relance.breaker")

_CHARACTERS = 500  # of the last error's text

Take = Callable[[int, Callable[[Record], float | None] | None], Run | None]
"""`Engine.take`: a run of so many records at most, begun by the record with the lowest rank."""

Heads = Callable[[], Iterable[Record]]
"""`Engine.heads`: the records that a run could begin with."""

Text = Callable[[BaseException, Record, Run], str]
"""What may be told of the error with which a record of a run failed."""


class Held(NamedTuple):
    """A record whose failed probe waits for its trial: where it waits, and what the failure leads to."""

    lane: Lane
    record: Record
    told: str
    outcome: RetryAt | tuple[Defer, Outgoing]


class Try:
    """A try that failed, as the breaker names it, until it is certain whether it counts."""

    __slots__ = (
        "assignment",
        "deferred",
        "failure",
        "guard",
        "held",
        "offset",
        "returned",
        "sure",
        "waits",
        "who",
    )

    def __init__(self, guard: Guard, who: Hashable, assignment: Assignment, offset: int) -> None:
        self.guard = guard
        self.who = who  # its record
        self.assignment = assignment
        self.offset = offset  # in the log
        self.failure: Failure | None = None
        """Its entry in the record's history, once it is noted there; under the runtime's lock."""
        self.deferred: Origin | None = None
        """Set once it costs an attempt in the retry topic, and not here; under the runtime's lock."""
        self.returned = False
        """It costs no attempt: set under the breaker's lock, never cleared."""
        self.held = False
        """It costs none unless its trial says so: set, and cleared when it does, under the breaker's lock."""
        self.sure = True
        """It may cost the last attempt: set under the breaker's lock, before its maker sees it."""
        self.waits: Held | None = None
        """While it is held and its record waits for that; under the runtime's lock."""


class Call:
    """What the breaker still has to hear of a run: of `left` records how they ended."""

    __slots__ = ("left", "permit", "since", "told")

    def __init__(self, permit: Permit, since: float, left: int) -> None:
        self.permit = permit
        self.since = since  # when the handler was called, on the monotonic clock
        self.left = left
        self.told: dict[int, Try | None] = {}
        """By log offset, records of a batch that failed: reported already, judged later."""


class Circuit:
    """One breaker of an application. `name` tells it apart where its settings name none."""

    def __init__(
        self,
        settings: CircuitBreaker,
        name: str,
        *,
        clock: Clock,
        on_open: Callable[[CircuitBreakerOpen], None] = lambda opened: None,
    ) -> None:
        self.settings = dataclasses.replace(settings, name=name[:100])
        self.name = name
        self._clock = clock
        self._on_open = on_open
        self._lock = threading.Lock()
        self._state: BreakerState[Try] = BreakerState(self.settings)
        self._since = clock.time()
        self._opened: CircuitBreakerOpen | None = None
        self._last_error: str | None = None
        self._untold: deque[tuple[Transition, CircuitBreakerOpen | None]] = deque()
        self._guards: list[Guard] = []

    def guard(
        self,
        retry: RetryPolicy,
        *,
        untry: Callable[[Sequence[Try]], None],
        charge: Callable[[Sequence[Try]], None],
        wake: Callable[[], None],
        text: Text = lambda error, record, run: failure(error),
    ) -> Guard:
        """One more runtime. `untry` gives attempts back, `charge` says that tries which were held cost one,
        `wake` that work may start; all of them lock it.

        `text` is what may be told of an error.
        """
        guard = Guard(self, retry, untry=untry, charge=charge, wake=wake, text=text)
        self._guards.append(guard)
        return guard

    def blocked_until(self, now: float) -> float | None:
        """As `BreakerState.blocked_until`."""
        with self._lock:
            return self._state.blocked_until(now)

    def take(self, guard: Guard, take: Take, most: int, heads: Heads, now: float) -> Run | None:
        """The run that `take` answers, with its permit, if a call may be made; see `Guard.take`."""
        with self._lock:
            state = self._state
            if state.state is CircuitState.CLOSED:
                run = take(most, None)
                permit = state.allow(now)
            else:
                guard.looked = now
                run = self._take_probe(guard, take, now)
                permit = None if run is None else state.allow(now, guard.who(run.records[0]))
                self._note_untried(guard, heads, now)
            if run is None:
                return None
            assert permit is not None
            run.call = Call(permit, now, len(run.records))
            if permit.transition is not None:
                self._changed(permit.transition)
            return run

    def next_due(self, guard: Guard, due: float | None, now: float) -> float | None:
        """When to look again, where without the breaker it would be at `due`."""
        with self._lock:
            if self._state.state is CircuitState.CLOSED:
                return due
            until = self._state.blocked_until(now)
            if until is not None:
                return until if until < math.inf else None  # else the next report wakes
            begin = max(self._tried_wait_until(guard), self._state.may_probe_from)
            if guard.looked >= begin:
                return due
        # Also where that is past: it was not when a worker looked, and nobody has since.
        return begin if due is None else min(begin, due)

    def short_of_probes(self, guard: Guard, heads: Heads, now: float) -> bool | None:
        """While it is open: whether records should be read to find untried probes. Else None."""
        with self._lock:
            until = self._state.blocked_until(now)
            if until is None or until == math.inf:
                return None
            return self._note_untried(guard, heads, now) < self.settings.probes

    def succeeded(self, call: Call, now: float, count: int) -> None:
        """`count` records of a call are handled."""
        news: list[Answer[Try]] = []
        with self._lock:
            count = min(count, call.left)
            call.left -= count
            for _ in range(count):
                answer = self._state.succeeded(call.permit, now, now - call.since)
                if answer.transition is not None or call.permit.probe:
                    news.append(self._noted(answer))
        for answer in news:
            self._follow(answer, call.permit.probe)

    def failed(self, call: Call, now: float, attempt: Try, text: str) -> None:
        """One record failed with an error that counts."""
        with self._lock:
            if call.left == 0:  # fenced: it was reported when its partition went
                return
            call.left -= 1
            self._last_error = text
            state = self._state
            answer = self._noted(state.failed(call.permit, now, now - call.since, attempt, attempt.who))
            attempt.sure = answer.sure
        self._follow(answer, call.permit.probe)

    def ignored(self, call: Call, count: int) -> None:
        """`count` records ended in a way that says nothing of the service, or were not handled."""
        with self._lock:
            count = min(count, call.left)
            call.left -= count
            for _ in range(count):
                self._state.ignored(call.permit)
        if count and call.permit.probe:
            self._wake()

    def look(self) -> CircuitBreakerStats:
        """How it stands at this moment."""
        now, wall = self._clock.monotonic(), self._clock.time()
        with self._lock:
            found = self._state.snapshot(now)
            return CircuitBreakerStats(
                name=self.name,
                state=found.state.value,
                since=_utc(self._since),
                until=None if found.until is None else _utc(wall + max(0.0, found.until - now)),
                calls=found.calls,
                failed=found.failed,
                slow=found.slow,
                probing=found.probes_out,
                times_opened=found.times_opened,
                opened=self._opened,
                last_error=self._last_error,
            )

    def tell(self) -> None:
        """Log what has changed. Called without any lock."""
        while self._untold:
            try:
                transition, opened = self._untold.popleft()
            except IndexError:  # another thread tells it
                return
            if opened is None:
                _log.info("%s", transition)
                continue
            last = "" if opened.last_error is None else f"; last error: {one_line(opened.last_error)}"
            _log.warning("%s%s", transition, last)
            self._on_open(opened)

    # -- inside ------------------------------------------------------------------------------------

    def _take_probe(self, guard: Guard, take: Take, now: float) -> Run | None:
        if self._state.blocked_until(now) is not None:
            return None
        most = math.inf if now >= self._tried_wait_until(guard) else 0

        def rank(record: Record) -> int | None:
            found = self._rank(guard, record)
            return found if found <= most else None

        return take(1, rank)

    def _rank(self, guard: Guard, record: Record) -> int:
        return self._state.rank(guard.who(record))

    def _note_untried(self, guard: Guard, heads: Heads, now: float) -> int:
        """How many records that have not failed could be probes of `guard`, up to `probes` of them."""
        untried = (record for record in heads() if self._rank(guard, record) == 0)
        found = sum(1 for _ in itertools.islice(untried, self.settings.probes))
        if not found:
            guard.untried_since = None
        elif guard.untried_since is None:
            guard.untried_since = now
        return found

    def _tried_wait_until(self, guard: Guard) -> float:
        others = [g.untried_since for g in self._guards if g is not guard and g.untried_since is not None]
        return self._state.tried_wait_until(max(others, default=None))

    def _noted(self, answer: Answer[Try]) -> Answer[Try]:
        for attempt in answer.give_back:
            attempt.held, attempt.returned = answer.held, not answer.held
        for attempt in answer.charge:
            attempt.held = False
        if answer.transition is not None:
            self._changed(answer.transition)
        return answer

    def _changed(self, transition: Transition) -> None:
        self._since = self._clock.time()
        opened = None
        if transition.until is not None:
            opened = self._opened = CircuitBreakerOpen(
                name=self.name,
                since=_utc(self._since),
                until=_utc(self._since + transition.until - transition.at),
                calls=transition.calls,
                failed=transition.failed,
                slow=transition.slow,
                times_opened=self._state.times_opened,
                reason=transition.reason,
                last_error=self._last_error,
            )
        self._untold.append((transition, opened))

    def _follow(self, answer: Answer[Try], probe: bool) -> None:
        """What a report led to; without locks."""
        for guard in self._guards if answer.give_back or answer.charge else ():
            if mine := [attempt for attempt in answer.give_back if attempt.guard is guard]:
                guard.untry(mine)
            if mine := [attempt for attempt in answer.charge if attempt.guard is guard]:
                guard.charge(mine)
        self.tell()
        if probe or answer.transition is not None:
            self._wake()

    def _wake(self) -> None:
        for guard in self._guards:
            guard.wake()


class Guard:
    """What the runtime of one consumer sees of its breaker."""

    def __init__(
        self,
        circuit: Circuit,
        retry: RetryPolicy,
        *,
        untry: Callable[[Sequence[Try]], None],
        charge: Callable[[Sequence[Try]], None],
        wake: Callable[[], None],
        text: Text,
    ) -> None:
        self.circuit = circuit
        self.untried_since: float | None = None
        """Since when it has records that have not failed, as far as was seen while the breaker was not
        closed; under the breaker's lock."""
        self.looked = -math.inf
        """When it was asked for a probe last; under the breaker's lock."""
        self._text = text
        self.untry = untry
        self.charge = charge
        self.wake = wake
        self.tell = circuit.tell
        self._retry = retry
        self._clock = circuit._clock

    def who(self, record: Record) -> Hashable:
        """What the breaker calls a record, also when it comes round in the retry topic."""
        return self, *origin_of(record)

    def short_of_probes(self, heads: Heads, now: float) -> bool | None:
        """As `Circuit.short_of_probes`."""
        return self.circuit.short_of_probes(self, heads, now)

    def next_due(self, due: float | None, now: float) -> float | None:
        """As `Circuit.next_due`."""
        return self.circuit.next_due(self, due, now)

    def take(self, take: Take, most: int, heads: Heads, now: float) -> Run | None:
        """The next run, if a call may be made; half-open, of one record.

        `take(most, rank)` is asked for a run whose first record has the lowest rank, and none that has none;
        `heads` are the records that could be first.
        """
        return self.circuit.take(self, take, most, heads, now)

    def failed(self, run: Run, record: Record, error: Exception) -> Try | None:
        """Report that a record failed. The try, if the error counts; see `Try.returned`.

        Raises SettingsError where a callable of the breaker's `errors` cannot say whether it counts.
        """
        call = run.call
        assert call is not None
        if record.log_offset in call.told:
            return call.told.pop(record.log_offset)
        try:
            counts = self.circuit.settings.counts(error, self._retry)
        except SettingsError:
            self.circuit.ignored(call, 1)
            raise
        if not counts:
            self.circuit.ignored(call, 1)
            return None
        attempt = Try(self, self.who(record), run.lane.assignment, record.log_offset)
        text = self._text(error, record, run)[:_CHARACTERS]
        self.circuit.failed(call, self._clock.monotonic(), attempt, text)
        return attempt

    def called(self, run: Run, handled: int, bad: Iterable[tuple[Record, Exception]]) -> bool:
        """Report how a call with records of a batch ended. Whether the next call of the run may be made."""
        call = run.call
        assert call is not None
        now = self._clock.monotonic()
        self.circuit.succeeded(call, now, handled)
        for record, error in bad:
            try:
                call.told[record.log_offset] = self.failed(run, record, error)
            except SettingsError:
                pass  # asked again, and raised, when the record is judged
        return self.circuit.blocked_until(now) is None

    def abandoned(self, run: Run) -> None:
        """The run is fenced: what nobody has reported says nothing of the service."""
        if run.call is not None:
            self.circuit.ignored(run.call, run.call.left)

    def ended(self, run: Run) -> None:
        """The run is given back: report what nobody has reported."""
        call = run.call
        if call is None or call.left == 0:
            return
        if run.done == len(run.records):
            self.circuit.succeeded(call, self._clock.monotonic(), call.left)
        else:
            self.circuit.ignored(call, call.left)

    def began(self, run: Run) -> None:
        """Only now the handler is called: what came before was not its time."""
        if run.call is not None:
            run.call.since = self._clock.monotonic()


def make_circuits(
    wanted: Iterable[tuple[CircuitBreaker | None, str]],
    *,
    clock: Clock,
    on_open: Callable[[CircuitBreakerOpen], None],
) -> list[Circuit | None]:
    """For each handler's breaker, and the handler's name: its circuit, one and the same for one name."""
    wanted = list(wanted)
    named = {settings.name for settings, _ in wanted if settings is not None}
    shared: dict[str, Circuit] = {}
    found: list[Circuit | None] = []
    for settings, handler in wanted:
        if settings is None:
            found.append(None)
            continue
        name = settings.name
        if name is not None and name in shared:
            found.append(shared[name])
            continue
        circuit = Circuit(settings, name or _free(handler, named), clock=clock, on_open=on_open)
        named.add(circuit.name)
        if name is not None:
            shared[name] = circuit
        found.append(circuit)
    return found


def _free(name: str, taken: Container[str | None]) -> str:
    if name not in taken:
        return name
    return next(other for n in itertools.count(2) if (other := f"{name} ({n})") not in taken)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
