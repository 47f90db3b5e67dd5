from relance.kafka.stall import Stall
from relance.record import TopicPartition

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


def test_a_client_that_the_group_does_not_know_joins_again_after_the_patience() -> None:
    stall = Stall(20.0)
    looks = [stall.look(now, is_member=False, reading={}, ends={}) for now in (0.0, 10.0, 19.9, 20.0)]
    assert looks[:3] == [None] * 3
    assert looks[3] == "the group has not counted this client as a member for 20 s"
    assert stall.look(21.0, is_member=False, reading={}, ends={}) is None  # the rejoin has its own patience


def test_a_member_again_in_between_is_no_stall() -> None:
    stall = Stall(20.0)
    for now, is_member in ((0.0, False), (10.0, True), (11.0, False), (30.9, False)):
        assert stall.look(now, is_member=is_member, reading={}, ends={}) is None


def test_where_nobody_can_tell_who_is_a_member_nobody_is_absent() -> None:
    stall = Stall(20.0)
    for now, is_member in ((0.0, False), (10.0, None), (21.0, False), (30.9, None), (60.0, None)):
        assert stall.look(now, is_member=is_member, reading={}, ends={}) is None


def test_a_partition_that_stands_while_records_wait_joins_again() -> None:
    stall = Stall(20.0)
    assert stall.look(0.0, is_member=True, reading={P0: 5, P1: 7}, ends={P0: 9, P1: 7}) is None
    assert stall.look(19.0, is_member=True, reading={P0: 5, P1: 7}, ends={P0: 12, P1: 7}) is None
    found = stall.look(20.0, is_member=True, reading={P0: 5, P1: 7}, ends={P0: 12, P1: 7})
    assert found == "t-0 has stood at offset 5 of 12 for 20 s"


def test_a_partition_that_moves_is_at_its_end_or_is_held_is_no_stall() -> None:
    stall = Stall(20.0)
    at = [{P0: 5}, {P0: 6}, {}, {P0: 6}, {P0: 9}, {P0: 9}]
    for now, reading in zip((0.0, 15.0, 30.0, 31.0, 45.0, 99.0), at, strict=True):
        assert stall.look(now, is_member=True, reading=reading, ends={P0: 9}) is None


def test_a_partition_that_is_read_on_is_not_stuck_however_far_it_stays_behind() -> None:
    stall = Stall(10.0)
    for now in range(0, 100, 5):
        assert stall.look(float(now), is_member=True, reading={P0: now}, ends={P0: 1_000}) is None, (
            f"at {now} s"
        )
