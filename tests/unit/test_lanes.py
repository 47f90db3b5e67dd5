"""Lanes and runs: plain state, which the engine alone moves."""

from collections import deque

import pytest

from relance.engine.assignment import Assignment
from relance.engine.frontier import Frontier
from relance.engine.lanes import Lane, LaneState, Run
from world import ORDERS, record


def a_lane() -> Lane:
    return Lane(Assignment(ORDERS, "source", 1, Frontier(0)), b"k", keyed=True)


def test_a_new_lane_is_ready_and_empty() -> None:
    lane = a_lane()
    assert lane.state is LaneState.READY
    assert not lane.queue


@pytest.mark.parametrize("count", [1, 64, 65, 1000])
def test_what_leaves_a_lane_and_comes_back_keeps_its_order(count: int) -> None:
    lane = a_lane()
    lane.queue.extend(record(n) for n in range(count))
    found: list[int] = []
    for n in range(10 * count):
        if not lane.queue:
            break
        records = lane.take(min(len(lane.queue), 1 + n % 7))
        done = 1 if n % 2 else len(records)
        found += [r.log_offset for r in records[:done]]
        lane.put_back(records[done:])
    assert found == list(range(count))


def test_a_long_lane_does_not_move_all_its_records_whenever_one_leaves() -> None:
    lane = a_lane()
    lane.queue.extend(record(n) for n in range(1000))
    lane.take(1)
    queue = lane.queue
    assert isinstance(queue, deque)
    assert [r.log_offset for r in lane.take(2)] == [1, 2]
    assert lane.queue is queue


def test_a_new_run_has_done_nothing_and_handed_nothing_off() -> None:
    run = Run(a_lane(), [record(0), record(1)])
    assert (run.done, run.reported, run.handed, run.cancelled) == (0, 0, None, False)


def test_lanes_and_runs_are_told_apart_by_identity_so_that_an_old_one_never_passes_for_a_new_one() -> None:
    assert a_lane() != a_lane()
    lane = a_lane()
    assert Run(lane, [record(0)]) != Run(lane, [record(0)])
    assert lane.assignment != Assignment(ORDERS, "source", 1, Frontier(0))
