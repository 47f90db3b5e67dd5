"""A breaker at work among retries, moves and late answers, in virtual time: the books of attempts agree.

The test keeps its own count of the tries that cost a record an attempt: one more for each failure that
counts, one less for each that the breaker names to be given back, one more for each that it charges after
all. What the engine hands out next must agree.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from relance.circuit import Try
from relance.errors import Reject, TransientError
from relance.policies.breaker import CircuitBreaker
from relance.policies.retry import RetryPolicy
from relance.record import TopicPartition
from world import ORDERS, Broker, FakeClock, Member, Out, a_circuit, a_plan

OTHER = TopicPartition("orders", 1)
KEYS = 5

Place = tuple[TopicPartition, int]


class Books:
    """One member, its breaker, and what each record's tries have cost."""

    def __init__(self, breaker: CircuitBreaker, max_attempts: int, ordering: str) -> None:
        clock = FakeClock()
        circuit = a_circuit(breaker, clock)
        assert circuit is not None
        self.circuit = circuit
        plan = a_plan(ordering=ordering, retry=RetryPolicy.fixed(delay=1.0, max_attempts=max_attempts))
        self.member = Member(Broker(), clock, plan, circuit)
        self.member.assign(ORDERS, OTHER)
        self.tries: Counter[Place] = Counter()
        self.ended: set[Place] = set()
        self.returned: set[Place] = set()
        self.max_attempts = max_attempts
        self.proved = True  # a probe has succeeded since the last trial began
        untry, charge = self.guard.untry, self.guard.charge

        def note(attempts: list[Try]) -> None:
            for attempt in attempts:
                place = attempt.assignment.tp, attempt.offset
                if attempt.failure is None:
                    self.returned.add(place)  # the failure that is being reported
                elif not attempt.assignment.closed and place not in self.ended:
                    self.tries[place] -= 1
            untry(attempts)

        def note_charge(attempts: list[Try]) -> None:
            for attempt in attempts:
                if (held := attempt.waits) is None:
                    continue
                runs = any(held.record in run.records for run in held.lane.assignment.running)
                if not runs and not held.lane.assignment.closed:
                    self.tries[attempt.assignment.tp, attempt.offset] += 1
                    assert self.tries[attempt.assignment.tp, attempt.offset] < max_attempts
            charge(attempts)

        # They look over the guard's shoulder.
        self.guard.untry, self.guard.charge = note, note_charge  # type: ignore[assignment,method-assign]

    @property
    def guard(self) -> Any:
        return self.member.runtime._guard

    @property
    def state(self) -> str:
        return self.circuit.look().state

    def write(self, count: int) -> None:
        for i in range(count):
            for tp in (ORDERS, OTHER):
                self.member.broker.log(tp).append(key=b"%d" % (i % KEYS))
        for tp in (ORDERS, OTHER):
            self.member.read(tp)

    def take(self) -> None:
        before = self.state
        out = self.member.take()
        if out is None:
            return
        assert before != "open" or self.state == "half-open"
        self.proved = self.proved and before != "open"
        record = self.member.begin(out)
        assert record is not None
        place = out.run.lane.assignment.tp, record.log_offset
        assert place not in self.ended
        assert record.attempt == 1 + self.tries[place]
        assert len(record.history) <= self.tries[place]
        assert self.circuit.look().probing <= self.circuit.settings.probes

    def end(self, out: Out, how: str) -> None:
        record, assignment = out.started, out.run.lane.assignment
        assert record is not None
        place, fenced = (assignment.tp, record.log_offset), assignment.closed
        before, writes = self.state, len(self.member.writes)
        error = {"ok": None, "down": TransientError("503"), "bad": Reject("bad")}[how]
        self.returned.clear()
        goes_on = self.member.end(out, error)
        if goes_on:
            self.member.begin(out)  # its run was one record: it is given back
        self.proved = self.proved or how == "ok"
        if fenced:
            assert len(self.member.writes) == writes
            return
        written = len(self.member.writes) - writes
        opened = before == "closed" and self.state != "closed"
        if how == "down" and (opened or (before != "closed" and not self.proved)):
            assert place in self.returned  # an outage that is seen costs nothing
        if place in self.returned:
            assert (written, self.waits(place)) == (0, self.tries[place])
        elif how == "down" and not written and self.waits(place) == self.tries[place]:
            assert self.tries[place] + 1 == self.max_attempts  # the last one is not taken in doubt
        elif how == "down":
            self.tries[place] += 1
        if how == "bad":
            assert written == 1
        if how != "down" or written:
            self.ended.add(place)

    def waits(self, place: Place) -> int:
        tp, offset = place
        found = self.member.engine.assignments[tp].tried.get(offset)
        return 0 if found is None else found.tries

    def move(self, tp: TopicPartition) -> None:
        while self.member.writes:
            self.member.ack()
        self.member.revoke(tp)
        self.member.assign(tp)
        self.member.read(tp)

    def heal(self) -> None:
        for out in list(self.member.outs):
            if out.started is not None:
                self.end(out, "ok")
        for _ in range(500):
            while self.member.writes:
                self.member.ack()
            if self.member.at_rest():
                return
            self.take()
            for out in list(self.member.outs):
                self.end(out, "ok")
            self.member.clock.advance(0.5)
        raise AssertionError(f"{self.member.runtime.look()} {self.circuit.look()}")


BREAKERS = st.builds(
    CircuitBreaker,
    window=st.just(6),
    minimum_calls=st.integers(1, 6),
    failure_rate=st.sampled_from([0.3, 0.5, 1.0]),
    probes=st.integers(1, 3),
    open_for=st.sampled_from([0.5, 5.0]),
)
ANY = st.integers(0, 5)
DOWN = st.tuples(st.just("down"), ANY)
STEPS = st.lists(
    st.one_of(
        st.just("take"),
        st.just("take"),
        st.just("take"),
        DOWN,
        DOWN,
        DOWN,
        st.tuples(st.sampled_from(["ok", "bad"]), ANY),
        st.sampled_from([0.1, 1.0, 6.0]),
        st.sampled_from([ORDERS, OTHER, None, None]),
    ),
    min_size=20,
    max_size=100,
)


@settings(max_examples=200)
@given(BREAKERS, st.integers(1, 4), st.sampled_from(["key", "partition", "none"]), STEPS)
def test_what_a_record_may_still_try_agrees_with_what_the_breaker_gave_back(
    breaker: CircuitBreaker, max_attempts: int, ordering: str, steps: list[Any]
) -> None:
    books = Books(breaker, max_attempts, ordering)
    books.write(8)
    for step in steps:
        running = [out for out in books.member.outs if out.started is not None]
        if step == "take":
            books.take()
        elif isinstance(step, float):
            books.member.clock.advance(step)
        elif isinstance(step, TopicPartition):
            books.move(step)
        elif running and step is not None:
            how, which = step
            books.end(running[which % len(running)], how)
    event(f"opened {min(books.circuit.look().times_opened, 3)} times")
    books.heal()
    assert books.circuit.look().probing == 0
    assert {tp: books.member.commit(tp) for tp in (ORDERS, OTHER)} == {ORDERS: 8, OTHER: 8}
