"""When intake stops and goes on: by records, by bytes, by a partition's share; and not at every record."""

from __future__ import annotations

from relance.engine.assignment import Assignment
from relance.engine.flow import Flow, Limits
from relance.engine.frontier import Frontier
from relance.engine.lanes import Lane
from relance.record import TopicPartition


def owned(count: int, feed: str = "source", **state: float) -> list[Assignment]:
    """Partitions of one feed, each in the same state."""
    found = [Assignment(TopicPartition(feed, n), feed, 1, Frontier(0)) for n in range(count)]
    for assignment in found:
        for name, value in state.items():
            setattr(assignment, name, value)
    return found


def numbers(paused: set[TopicPartition]) -> list[int]:
    return sorted(tp.partition for tp in paused)


# -- records that wait -----------------------------------------------------------------------------


def test_records_that_wait_pause_their_partition_by_their_bytes() -> None:
    flow = Flow(Limits(parked=100_000, parked_bytes=16_000_000))
    (one,) = owned(1, queued=50, parked=50, mean_size=300_000.0)
    assert flow.pauses("source", [one]) == set()
    one.queued = one.parked = 54
    assert flow.pauses("source", [one]) == {one.tp}
    assert not flow.full("source", [one])


def test_small_records_that_wait_weigh_what_it_takes_to_hold_them() -> None:
    flow = Flow(Limits(parked=1_000_000, parked_bytes=1_000_000))
    (one,) = owned(1, queued=10_000, parked=10_000, mean_size=0.0)
    assert flow.pauses("source", [one]) == {one.tp}


def test_each_partition_may_hold_its_share_of_the_bytes_that_wait() -> None:
    flow = Flow(Limits(parked=1_000_000, parked_bytes=12_000_000))
    four = owned(4, mean_size=9_500.0)
    four[2].queued = four[2].parked = 299
    assert flow.pauses("source", four) == set()
    four[2].queued = four[2].parked = 300
    assert numbers(flow.pauses("source", four)) == [2]
    assert flow.pauses("source", [four[2]]) == set()  # alone it may hold all of it


def test_partitions_of_another_feed_take_no_share_of_the_bytes() -> None:
    flow = Flow(Limits(parked_bytes=10_000_000))
    (one,) = owned(1, queued=900, parked=900, mean_size=9_500.0)
    others = owned(9, "retry", queued=10_000, parked=10_000, mean_size=9_500.0)
    assert flow.pauses("source", [one, *others]) == set()
    assert numbers(flow.pauses("retry", [one, *others])) == list(range(9))


def test_a_lane_weighs_beside_the_records_that_it_holds() -> None:
    flow = Flow(Limits(parked_bytes=75_000))
    (one,) = owned(1, queued=100, parked=100, mean_size=0.0)
    one.waiting.add(Lane(one, b"k", keyed=True))
    assert flow.pauses("source", [one]) == set()
    one.waiting.update(Lane(one, b"%d" % n, keyed=True) for n in range(99))
    assert flow.pauses("source", [one]) == {one.tp}


# -- a crowded buffer ------------------------------------------------------------------------------


def test_while_crowded_a_partition_that_holds_its_share_is_paused_until_half_of_it_is_gone() -> None:
    flow = Flow(Limits(ready=600))
    six = owned(6, queued=10)
    six[0].queued = 100
    six[1].queued = 99
    assert numbers(flow.pauses("source", six, crowded=True)) == [0]
    six[0].queued = 51
    assert numbers(flow.pauses("source", six, crowded=False)) == [0]
    six[0].queued = 50
    assert flow.pauses("source", six, crowded=False) == set()
    six[0].queued = 99  # it has begun anew: only its whole share would pause it
    assert flow.pauses("source", six, crowded=True) == set()


def test_a_partition_that_holds_more_than_its_share_is_not_paused_while_there_is_room() -> None:
    flow = Flow(Limits(ready=600))
    six = owned(6)
    six[0].queued = 500
    assert flow.pauses("source", six) == set()


def test_while_crowded_a_partition_s_share_counts_in_bytes_too() -> None:
    flow = Flow(Limits(ready=1_000_000, ready_bytes=60_000_000))
    six = owned(6, queued=10, mean_size=100_000.0)
    six[3].queued = 100
    assert numbers(flow.pauses("source", six, crowded=True)) == [3]
    six[3].queued = 51
    assert numbers(flow.pauses("source", six)) == [3]
    six[3].queued = 50
    assert flow.pauses("source", six) == set()


def test_what_waits_for_a_retry_does_not_count_as_crowding() -> None:
    flow = Flow(Limits(ready=600))
    six = owned(6)
    six[0].queued = six[0].parked = 500
    assert flow.pauses("source", six, crowded=True) == set()


def test_it_is_lopsided_while_a_partition_holds_less_than_half_of_its_share() -> None:
    flow = Flow(Limits(ready=600))
    six = owned(6, queued=50)
    six[0].queued = 500
    assert not flow.lopsided("source", six)
    six[3].queued = 49
    assert flow.lopsided("source", six)
    assert not flow.lopsided("retry", six)


def test_a_partition_that_may_not_be_read_makes_nothing_lopsided() -> None:
    flow = Flow(Limits(ready=600, parked=600))
    five = owned(5, queued=500)
    five[0].queued = 0
    assert flow.lopsided("source", five)
    five[0].stopped = "no leader"
    assert not flow.lopsided("source", five)
    five[0].stopped = None
    five[0].draining = True
    assert not flow.lopsided("source", five)
    five[0].draining = False
    five[0].map_full = True
    assert not flow.lopsided("source", five)
    five[0].map_full = False
    five[0].queued = five[0].parked = 120
    assert not flow.lopsided("source", five), "its share of waits is not read on, either"


def test_who_crowded_is_read_again_when_workers_have_nothing_to_do_and_there_is_room() -> None:
    flow = Flow(Limits(ready=600))
    six = owned(6)
    six[0].queued = 600
    assert flow.full("source", six)
    assert numbers(flow.pauses("source", six, crowded=True, idle=True)) == [0]
    six[0].queued = 301
    assert flow.full("source", six)
    assert numbers(flow.pauses("source", six, crowded=True, idle=True)) == [0]
    six[0].queued = 300
    assert not flow.full("source", six)
    assert numbers(flow.pauses("source", six)) == [0], "half of its share is not gone"
    assert flow.pauses("source", six, idle=True) == set()
    assert flow.pauses("source", six) == set()


def test_a_full_buffer_is_full_until_half_of_its_bytes_are_gone() -> None:
    flow = Flow(Limits(ready=1_000_000, ready_bytes=1_000_000))
    (one,) = owned(1, queued=100, mean_size=10_000.0)
    assert flow.full("source", [one])
    one.queued = 51
    assert flow.full("source", [one])
    one.queued = 50
    assert not flow.full("source", [one])
    one.queued = 99
    assert not flow.full("source", [one])


def test_whatever_the_room_what_is_stopped_drained_or_has_no_place_in_its_map_is_paused() -> None:
    flow = Flow(Limits())
    four = owned(4)
    four[0].stopped = "no leader"
    four[1].draining = True
    four[2].map_full = True
    assert numbers(flow.pauses("source", four)) == [0, 1, 2]
