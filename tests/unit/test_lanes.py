"""Lanes and runs: plain state, which the engine alone moves."""

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


def test_a_new_run_has_done_nothing_and_handed_nothing_off() -> None:
    run = Run(a_lane(), [record(0), record(1)])
    assert (run.done, run.reported, run.handed, run.cancelled) == (0, 0, None, False)


def test_lanes_and_runs_are_told_apart_by_identity_so_that_an_old_one_never_passes_for_a_new_one() -> None:
    assert a_lane() != a_lane()
    lane = a_lane()
    assert Run(lane, [record(0)]) != Run(lane, [record(0)])
    assert lane.assignment != Assignment(ORDERS, "source", 1, Frontier(0))
