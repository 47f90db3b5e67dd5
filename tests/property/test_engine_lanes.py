"""The engine against a naive one that keeps a list for each key and looks at all of it every time.

What the world of `test_runtime_world` can only see at its end, that a lane was forgotten, shows here at once:
`take` must find a run exactly when the naive engine has one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from relance.engine.engine import Engine
from relance.engine.flow import Limits
from relance.engine.frontier import Frontier
from relance.engine.lanes import Run
from world import ORDERS, record

WALL = 1_700_000_000.0


@dataclass(eq=False)
class Naive:
    """One lane: what is queued, what is out, until when it waits."""

    queue: list[int] = field(default_factory=list)
    out: Run | None = None
    due: float | None = None


class EngineAgainstANaiveOne(RuleBasedStateMachine):
    ordering: Any = "key"

    @initialize(ready=st.integers(1, 8), settling=st.integers(1, 3))
    def set_up(self, ready: int, settling: int) -> None:
        self.limits = Limits(ready=ready, settling=settling, parked=6)
        self.engine = Engine(self.ordering, self.limits)
        self.assignment = self.engine.assign(ORDERS, "source", Frontier(0))
        self.now = 0.0
        self.next = 0
        self.lanes: dict[object, Naive] = {}
        self.settling: set[int] = set()
        self.failing: set[int] = set()
        self.unfinished: set[int] = set()
        self.full = False

    def lane_key(self, offset: int, key: bytes | None) -> object:
        if self.ordering == "partition":
            return "all"
        return offset if self.ordering == "none" or key is None else key

    @rule(keys=st.lists(st.sampled_from([b"a", b"b", None]), min_size=1, max_size=5), gap=st.integers(0, 2))
    def read(self, keys: list[bytes | None], gap: int) -> None:
        records = []
        for key in keys:
            self.next += gap
            records.append(record(self.next, key))
            self.lanes.setdefault(self.lane_key(self.next, key), Naive()).queue.append(self.next)
            self.unfinished.add(self.next)
            self.next += 1
        self.engine.intake(self.assignment, records, now=self.now, wall=WALL)

    @rule(max_run=st.integers(1, 3))
    def take(self, max_run: int) -> None:
        self.engine.wake(self.now)
        run = self.engine.take(max_run)
        blocked = bool(self.failing) or len(self.settling) >= self.limits.settling
        startable = [
            lane
            for lane in self.lanes.values()
            if lane.queue and lane.out is None and (lane.due is None or lane.due <= self.now)
        ]
        if run is None:
            assert blocked or not startable, "a lane was forgotten"
            return
        assert not blocked
        offsets = [r.log_offset for r in run.records]
        lane = next(lane for lane in startable if lane.queue[: len(offsets)] == offsets)
        assert len(offsets) == min(max_run, len(lane.queue)), "a run is shorter than it could be"
        del lane.queue[: len(offsets)]
        lane.out, lane.due = run, None

    def outs(self) -> list[Naive]:
        return [lane for lane in self.lanes.values() if lane.out is not None]

    @precondition(lambda self: self.outs())
    @rule(data=st.data(), handed=st.sets(st.integers(0, 2)), delay=st.sampled_from([None, 0.0, 1.0, 5.0]))
    def give_back(self, data: st.DataObject, handed: set[int], delay: float | None) -> None:
        """Some records done, some of them by a hand-off; the next one of them may have to wait."""
        lane = data.draw(st.sampled_from(self.outs()))
        run = lane.out
        assert run is not None
        done = data.draw(st.integers(0, len(run.records)))
        for i in range(done):
            offset = run.records[i].log_offset
            if i in handed:
                assert self.engine.hand_off(run, run.records[i])
                self.settling.add(offset)
            else:
                self.unfinished.remove(offset)
            run.done = i + 1
            if data.draw(st.booleans()):
                self.engine.report(run)
        lane.queue[:0] = [r.log_offset for r in run.records[done:]]
        lane.out = None
        if done < len(run.records) and delay is not None:
            run.records[done].attempt += 1
            lane.due = self.now + delay
            self.engine.retry(run, lane.due, lane.due - self.now)
        else:
            self.engine.finish(run)

    @precondition(lambda self: self.settling)
    @rule(data=st.data(), fails=st.booleans())
    def answer(self, data: st.DataObject, fails: bool) -> None:
        offset = data.draw(st.sampled_from(sorted(self.settling)))
        if fails:
            self.engine.stop(self.assignment, "no leader", offset)
            self.failing.add(offset)
            assert all(lane.out.cancelled for lane in self.outs() if lane.out)
            return
        stopped = bool(self.failing)
        self.settling.remove(offset)
        self.failing.discard(offset)
        self.unfinished.remove(offset)
        assert self.engine.settled(self.assignment, offset) == (stopped and not self.failing)

    @rule(step=st.sampled_from([0.5, 1.0, 5.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @invariant()
    def it_counts_right(self) -> None:
        if not hasattr(self, "engine"):
            return
        engine, lanes = self.engine, list(self.lanes.values())
        waiting = list(self.assignment.waiting)
        parked = sum(len(lane.queue) for lane in waiting)
        queued = sum(len(lane.queue) for lane in lanes)
        assert (self.assignment.queued, self.assignment.parked) == (queued, parked)
        assert (engine.in_flight, engine.settling) == (len(self.outs()), len(self.settling))
        assert self.assignment.frontier.base == min(self.unfinished, default=self.next)
        # The lanes that wait are those that must, and no other; one that is due may wait for `wake`.
        still = {tuple(lane.queue) for lane in lanes if lane.due is not None and lane.due > self.now}
        found = {tuple(r.log_offset for r in lane.queue) for lane in waiting}
        assert still <= found <= {tuple(lane.queue) for lane in lanes if lane.due is not None}
        if still:
            assert engine.next_due() is not None
        level = (queued - parked) / self.limits.ready
        self.full = level > 0.5 if self.full else level >= 1
        assert engine.full("source") == self.full
        assert (ORDERS in engine.pauses("source")) == (bool(self.failing) or parked >= self.limits.parked)


class ByPartition(EngineAgainstANaiveOne):
    ordering = "partition"


class ByKey(EngineAgainstANaiveOne):
    ordering = "key"


class WithoutOrder(EngineAgainstANaiveOne):
    ordering = "none"


PROFILE = settings(max_examples=200, stateful_step_count=40, deadline=None, print_blob=True)


@pytest.mark.parametrize("machine", [ByPartition, ByKey, WithoutOrder], ids=lambda m: m.ordering)
def test_the_engine_finds_what_may_start_and_counts_what_is_there(
    machine: type[EngineAgainstANaiveOne],
) -> None:
    run_state_machine_as_test(machine, settings=PROFILE)
