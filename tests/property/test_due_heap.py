"""The heap against a plain list, sorted anew each time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relance.engine.due import DueHeap

TIMES = st.one_of(st.integers(0, 5).map(float), st.floats(0, 10))


class HeapAgainstAList(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.heap: DueHeap[int] = DueHeap()
        self.waiting: list[tuple[float, int, int]] = []  # due, sequence, ticket
        self.tickets: list[int] = []
        self.now = 0.0
        self.sequence = 0

    @rule(due=TIMES, count=st.sampled_from([1, 1, 1, 40]))
    def push(self, due: float, count: int) -> None:
        for _ in range(count):
            self.sequence += 1
            ticket = self.heap.push(due, self.sequence)
            assert ticket not in self.tickets
            self.tickets.append(ticket)
            self.waiting.append((due, self.sequence, ticket))

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), count=st.sampled_from([1, 1, 60]))
    def cancel_some(self, data: st.DataObject, count: int) -> None:
        first = data.draw(st.integers(0, len(self.tickets) - 1))
        for ticket in self.tickets[first : first + count]:
            self.heap.cancel(ticket)
            self.waiting = [entry for entry in self.waiting if entry[2] != ticket]

    @rule(step=TIMES)
    def time_passes(self, step: float) -> None:
        self.now += step
        expected = sorted(entry for entry in self.waiting if entry[0] <= self.now)
        self.waiting = [entry for entry in self.waiting if entry[0] > self.now]
        assert self.heap.pop_due(self.now) == [sequence for _, sequence, _ in expected]

    @invariant()
    def it_knows_how_many_wait_and_until_when(self) -> None:
        assert len(self.heap) == len(self.waiting)
        assert self.heap.next_due() == min((due for due, _, _ in self.waiting), default=None)


TestHeap = HeapAgainstAList.TestCase
TestHeap.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, print_blob=True)
