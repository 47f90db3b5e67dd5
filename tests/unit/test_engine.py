"""The engine by itself: lanes, waits, hand-offs, stops and counters, one call after the other."""

from __future__ import annotations

from typing import Any

import pytest

from relance.engine.assignment import Assignment
from relance.engine.engine import Engine, Ordering
from relance.engine.flow import Limits
from relance.engine.frontier import Frontier
from relance.engine.lanes import Run
from relance.engine.offset_map import OffsetMap, Wait, decode_map
from relance.record import Record, TopicPartition
from world import ORDERS, TOPIC_ID, record

OTHER = TopicPartition("orders", 1)
NOW, WALL = 1000.0, 1_700_000_000.0


def an_engine(
    ordering: Ordering = "key", start: int = 0, known: OffsetMap | None = None, **limits: int
) -> tuple[Engine, Assignment]:
    engine = Engine(ordering, Limits(**limits))
    return engine, engine.assign(ORDERS, "source", Frontier(start, known), TOPIC_ID)


def take_in(engine: Engine, assignment: Assignment, *records: Record) -> None:
    engine.intake(assignment, list(records), now=NOW, wall=WALL)


def keyed(*keys: str, start: int = 0) -> list[Record]:
    """One record for each letter, "-" for a null key."""
    return [record(start + i, None if k == "-" else k.encode()) for i, k in enumerate(keys)]


def offsets(run: Run | None) -> list[int]:
    return [] if run is None else [r.log_offset for r in run.records]


def taken(engine: Engine, max_run: int = 512) -> list[list[int]]:
    """All runs that may be out at once."""
    found = []
    while (run := engine.take(max_run)) is not None:
        found.append(offsets(run))
    return found


def must_take(engine: Engine, max_run: int = 512) -> Run:
    run = engine.take(max_run)
    assert run is not None
    return run


def do(engine: Engine, run: Run, done: int | None = None) -> None:
    run.done = len(run.records) if done is None else done
    engine.finish(run)


def commit(engine: Engine, **given: Any) -> Any:
    found = engine.commits("source", now=given.pop("now", NOW), wall=given.pop("wall", WALL), **given)
    return found[0] if found else None


# -- lanes -----------------------------------------------------------------------------------------


def test_by_partition_one_run_is_out_and_keeps_the_log_s_order() -> None:
    engine, assignment = an_engine("partition")
    take_in(engine, assignment, *keyed("a", "b", "c"))
    assert taken(engine) == [[0, 1, 2]]


def test_by_key_each_key_has_a_run_of_its_own() -> None:
    engine, assignment = an_engine("key")
    take_in(engine, assignment, *keyed("a", "b", "a", "c"))
    assert taken(engine) == [[0, 2], [1], [3]]


def test_null_keys_have_no_order_but_an_empty_key_is_a_key() -> None:
    engine, assignment = an_engine("key")
    records = [record(0, None), record(1, None), record(2, b""), record(3, b"")]
    take_in(engine, assignment, *records)
    assert taken(engine) == [[0], [1], [2, 3]]


def test_without_order_every_record_runs_alone() -> None:
    engine, assignment = an_engine("none")
    take_in(engine, assignment, *keyed("a", "a", "a"))
    assert taken(engine) == [[0], [1], [2]]


def test_the_same_key_of_two_partitions_is_two_lanes() -> None:
    engine, first = an_engine("key")
    second = engine.assign(OTHER, "source", Frontier(0))
    take_in(engine, first, record(0, b"a"))
    take_in(engine, second, record(0, b"a", tp=OTHER))
    assert taken(engine) == [[0], [0]]


def test_a_run_holds_at_most_as_many_records_as_asked_and_the_rest_waits_for_it() -> None:
    engine, assignment = an_engine("partition")
    take_in(engine, assignment, *keyed("a", "a", "a"))
    run = must_take(engine, 2)
    assert offsets(run) == [0, 1]
    assert engine.take(2) is None
    do(engine, run)
    assert taken(engine) == [[2]]


def test_what_arrives_for_a_lane_whose_run_is_out_waits_for_the_run() -> None:
    engine, assignment = an_engine("key")
    take_in(engine, assignment, record(0, b"a"))
    run = must_take(engine)
    take_in(engine, assignment, record(1, b"a"), record(2, b"b"))
    assert taken(engine) == [[2]]
    do(engine, run)
    assert taken(engine) == [[1]]


def test_what_a_run_did_not_do_goes_back_to_the_front_of_its_lane() -> None:
    engine, assignment = an_engine("key")
    take_in(engine, assignment, *keyed("a", "a", "a"))
    run = must_take(engine, 2)
    do(engine, run, done=1)
    assert taken(engine) == [[1, 2]]
    assert assignment.frontier.base == 1


def test_a_key_s_lane_is_forgotten_when_it_is_empty() -> None:
    engine, assignment = an_engine("key")
    for offset in range(100):
        take_in(engine, assignment, record(offset, str(offset).encode()))
        do(engine, must_take(engine))
    assert assignment.lanes == {}
    assert (assignment.queued, assignment.parked, engine.in_flight) == (0, 0, 0)


def test_records_that_come_again_after_a_reconnection_are_not_taken_twice() -> None:
    engine, assignment = an_engine("partition")
    take_in(engine, assignment, *keyed("a", "a"))
    take_in(engine, assignment, *keyed("a", "a", "a"))
    assert taken(engine) == [[0, 1, 2]]
    take_in(engine, assignment, *keyed("a"))
    assert assignment.queued == 0


# -- waits -----------------------------------------------------------------------------------------


def waiting_lane(engine: Engine, assignment: Assignment, due: float, *keys: str) -> Run:
    """The first record of the first lane failed once and waits."""
    take_in(engine, assignment, *keyed(*keys))
    run = must_take(engine, 1)
    run.records[0].attempt += 1
    engine.retry(run, due, due - NOW)
    return run


def test_a_waiting_record_holds_its_successors_and_nobody_else() -> None:
    engine, assignment = an_engine("key")
    waiting_lane(engine, assignment, NOW + 5, "a", "b", "a")
    assert taken(engine) == [[1]]
    take_in(engine, assignment, record(3, b"a"))
    assert taken(engine) == []
    assert (assignment.queued, assignment.parked) == (3, 3)
    assert not engine.wake(NOW + 4.999)
    assert engine.wake(NOW + 5)
    assert taken(engine) == [[0, 2, 3]]
    assert assignment.parked == 0


def test_what_is_due_goes_before_what_is_merely_queued_the_earliest_first() -> None:
    engine, assignment = an_engine("key")
    take_in(engine, assignment, *keyed("a", "b"))
    first, second = must_take(engine), must_take(engine)
    engine.retry(first, NOW + 2, 2)
    engine.retry(second, NOW + 1, 1)
    take_in(engine, assignment, *keyed("c", start=2))
    engine.wake(NOW + 3)
    assert taken(engine) == [[1], [0], [2]]


def test_the_next_due_time_is_that_of_the_earliest_wait() -> None:
    engine, assignment = an_engine("key")
    assert engine.next_due() is None
    waiting_lane(engine, assignment, NOW + 5, "a")
    assert engine.next_due() == NOW + 5
    assert engine.waiting() == 1


def test_nothing_of_a_drained_partition_is_woken() -> None:
    engine, assignment = an_engine("key")
    waiting_lane(engine, assignment, NOW + 5, "a", "b")
    engine.drain([ORDERS])
    assert not engine.wake(NOW + 9)
    assert engine.take(1) is None


# -- moves -----------------------------------------------------------------------------------------


def moved(engine: Engine) -> tuple[Engine, Assignment]:
    """A new owner, which starts from what the old one commits now."""
    found = commit(engine)
    known = decode_map(found.metadata, TOPIC_ID, found.offset)
    return an_engine("key", found.offset, known)


def test_attempt_and_due_time_of_a_waiting_record_move_with_it() -> None:
    engine, assignment = an_engine("key")
    waiting_lane(engine, assignment, NOW + 5, "a", "b", "a")
    engine, assignment = moved(engine)
    take_in(engine, assignment, *keyed("a", "b", "a"))
    assert taken(engine) == [[1]]
    assert not engine.wake(NOW + 4.999)
    engine.wake(NOW + 5.001)
    run = must_take(engine)
    assert [(r.log_offset, r.attempt) for r in run.records] == [(0, 2), (2, 1)]


def test_a_move_never_makes_a_retry_early_not_even_by_a_part_of_a_millisecond() -> None:
    engine, assignment = an_engine("key")
    waiting_lane(engine, assignment, NOW + 0.0019, "a")
    for _ in range(3):
        engine, assignment = moved(engine)
        take_in(engine, assignment, *keyed("a"))
        assert not engine.wake(NOW + 0.00189)


def test_an_attempt_moves_although_its_wait_is_over_and_it_only_queues_or_runs() -> None:
    engine, assignment = an_engine("key")
    waiting_lane(engine, assignment, NOW + 5, "a")
    engine.wake(NOW + 5)  # queued again, not taken
    for _ in range(2):  # also a second time, when nothing was tried in between
        engine, assignment = moved(engine)
        take_in(engine, assignment, *keyed("a"))
        engine.wake(NOW + 10)
        assert must_take(engine).records[0].attempt == 2  # running, when it moves again


def test_an_attempt_is_forgotten_when_its_record_is_finished() -> None:
    engine, assignment = an_engine("key")
    waiting_lane(engine, assignment, NOW + 5, "a", "b")
    engine.wake(NOW + 5)
    do(engine, must_take(engine))
    assert assignment.tried == {}
    assert taken(engine) == [[1]]


def test_a_wait_that_moved_holds_even_behind_another_record_of_its_key() -> None:
    """0 was handed off, unacknowledged, 1 of the same key waits: the new owner has both to do."""
    engine, assignment = an_engine("key")
    take_in(engine, assignment, *keyed("a", "a", "a", "b"))
    run = must_take(engine)
    assert engine.hand_off(run, run.records[0])
    run.done = 1
    run.records[1].attempt += 1
    engine.retry(run, NOW + 5, 5)
    engine, assignment = moved(engine)
    take_in(engine, assignment, *keyed("a", "a", "a", "b"))
    run = must_take(engine)
    assert offsets(run) == [0]
    assert taken(engine) == [[3]]
    do(engine, run)
    assert taken(engine) == []
    assert engine.next_due() == pytest.approx(NOW + 5)
    engine.wake(NOW + 5.001)
    run = must_take(engine)
    assert [(r.log_offset, r.attempt) for r in run.records] == [(1, 2), (2, 1)]
    do(engine, run)
    assert (assignment.queued, assignment.parked, assignment.later) == (0, 0, {})


def test_what_was_finished_above_the_frontier_is_not_handled_again() -> None:
    engine, assignment = an_engine("key")
    waiting_lane(engine, assignment, NOW + 5, "a", "b", "c")
    do(engine, must_take(engine))
    engine, assignment = moved(engine)
    take_in(engine, assignment, *keyed("a", "b", "c", "d"))
    assert taken(engine) == [[2], [3]]


def test_a_commit_before_anything_was_read_again_forgets_nothing() -> None:
    engine, assignment = an_engine("key")
    waiting_lane(engine, assignment, NOW + 5, "a", "b", "c")
    do(engine, must_take(engine))
    engine, assignment = moved(engine)
    engine, assignment = moved(engine)
    take_in(engine, assignment, record(0, b"a"))
    engine, assignment = moved(engine)
    take_in(engine, assignment, *keyed("a", "b", "c"))
    assert taken(engine) == [[2]]
    engine.wake(NOW + 9)
    assert must_take(engine).records[0].attempt == 2


def test_a_due_time_beyond_a_month_is_damage_and_holds_nobody() -> None:
    known = OffsetMap(0, 2, (0,), {0: Wait(2, int((WALL + 10**10) * 1000), 10**13)})
    engine, assignment = an_engine("key", 0, known)
    take_in(engine, assignment, record(0, b"a"))
    assert must_take(engine).records[0].attempt == 3


def test_a_wait_is_never_longer_than_its_delay_though_the_next_owner_s_clock_is_an_hour_behind() -> None:
    engine, assignment = an_engine(
        "key", 0, OffsetMap(0, 1, (0,), {0: Wait(1, int(WALL * 1000) + 3_601_000, 2000)})
    )
    take_in(engine, assignment, record(0, b"a"))
    engine.wake(NOW + 1.9)
    assert engine.take(9) is None
    engine.wake(NOW + 2)
    assert must_take(engine).records[0].attempt == 2


def test_after_a_refusal_of_its_map_the_next_commit_is_one_that_the_broker_takes() -> None:
    engine, assignment = an_engine("key")
    take_in(engine, assignment, *(record(o, b"%d" % o) for o in range(200)))
    for run in [must_take(engine, 1) for _ in range(200)]:
        run.done = int(run.records[0].offset % 7 in (1, 2, 4))
        if run.done:
            engine.finish(run)
    [commit] = engine.commits("source", now=NOW, wall=WALL)
    assert len(commit.metadata) > 25
    engine.commit_failed(commit, too_large=True)
    [bare] = engine.commits("source", now=NOW, wall=WALL)
    assert (bare.offset, bare.metadata) == (0, "")
    engine.committed(bare)
    assert assignment.map_end == 0, "it tells of nothing above its offset"
    assert not assignment.map_full, "and reading does not wait for a map that will never fit"
    assert engine.commits("source", now=NOW, wall=WALL) == []


# -- a retry topic's records -----------------------------------------------------------------------


def retry_engine(known: OffsetMap | None = None) -> tuple[Engine, Assignment]:
    engine = Engine("partition")
    return engine, engine.assign(ORDERS, "retry", Frontier(0, known))


def test_records_of_the_retry_topic_wait_each_by_itself_whatever_the_ordering() -> None:
    engine, assignment = retry_engine()
    for offset, due in [(0, 300.0), (1, 1.0), (2, 2.0)]:
        engine.wait_at_intake(assignment, record(offset), NOW + due, now=NOW, wall=WALL)
    assert engine.take(9) is None
    engine.wake(NOW + 2)
    assert taken(engine) == [[1], [2]]


def test_a_retry_record_s_wait_in_memory_moves_too() -> None:
    engine, assignment = retry_engine()
    found = record(0)
    found.attempt = 3  # as its headers say
    engine.wait_at_intake(assignment, found, NOW, now=NOW, wall=WALL)
    engine.wake(NOW)
    run = must_take(engine)
    run.records[0].attempt = 4
    engine.retry(run, NOW + 5, 5)
    made = engine.commits("retry", now=NOW, wall=WALL)[0]
    engine, assignment = retry_engine(decode_map(made.metadata, "", made.offset))
    again = record(0)
    again.attempt = 3
    engine.wait_at_intake(assignment, again, NOW - 1, now=NOW, wall=WALL)
    assert not engine.wake(NOW + 4.999)
    engine.wake(NOW + 5.001)
    assert must_take(engine).records[0].attempt == 4


def test_a_map_that_knows_fewer_attempts_than_the_headers_is_not_asked() -> None:
    engine, assignment = retry_engine(OffsetMap(0, 1, (0,), {0: Wait(1, int((WALL + 60) * 1000), 60_000)}))
    found = record(0)
    found.attempt = 3
    engine.wait_at_intake(assignment, found, NOW + 1, now=NOW, wall=WALL)
    engine.wake(NOW + 1)
    assert must_take(engine).records[0].attempt == 3


def test_what_is_skipped_needs_no_work_and_what_was_finished_is_skipped() -> None:
    engine, assignment = retry_engine(OffsetMap(0, 3, (0,)))
    engine.skip(assignment, 0)
    engine.wait_at_intake(assignment, record(1), NOW, now=NOW, wall=WALL)
    assert not engine.hand_off_at_intake(assignment, 2)
    assert assignment.frontier.base == 3
    assert engine.waiting() == 0


def test_a_record_that_no_handler_will_see_is_finished_when_its_hand_off_is() -> None:
    engine, assignment = retry_engine()
    assert engine.hand_off_at_intake(assignment, 0)
    assert not engine.hand_off_at_intake(assignment, 0)
    assert assignment.frontier.base == 0
    engine.settled(assignment, 0)
    assert assignment.frontier.base == 1


# -- hand-offs and stops ---------------------------------------------------------------------------


def handed_off(engine: Engine, *indexes: int) -> Run:
    """A run of which the records at `indexes` were handed off, and all the others handled."""
    run = must_take(engine)
    for i in range(len(run.records)):
        if i in indexes:
            assert engine.hand_off(run, run.records[i])
        run.done = i + 1
    return run


def test_a_hand_off_is_unfinished_until_it_is_acknowledged() -> None:
    engine, assignment = an_engine("partition")
    take_in(engine, assignment, *keyed("a", "a", "a"))
    engine.finish(handed_off(engine, 1))
    assert commit(engine).offset == 1
    assert engine.settling == 1
    engine.settled(assignment, 1)
    assert commit(engine).offset == 3
    assert engine.settling == 0


def test_a_hand_off_may_be_acknowledged_before_its_run_is_given_back() -> None:
    engine, assignment = an_engine("partition")
    take_in(engine, assignment, *keyed("a", "a"))
    run = must_take(engine)
    engine.hand_off(run, run.records[0])
    engine.settled(assignment, 0)
    run.done = 2
    engine.finish(run)
    assert assignment.frontier.base == 2


def test_a_second_acknowledgement_counts_for_nothing() -> None:
    engine, assignment = an_engine("partition")
    take_in(engine, assignment, *keyed("a"))
    engine.finish(handed_off(engine, 0))
    engine.settled(assignment, 0)
    engine.settled(assignment, 0)
    assert engine.settling == 0


def test_too_many_hand_offs_on_their_way_let_nothing_start() -> None:
    engine, assignment = an_engine("none", settling=2)
    take_in(engine, assignment, *keyed("a", "b", "c"))
    for _ in range(2):
        engine.finish(handed_off(engine, 0))
    assert engine.take(1) is None
    engine.settled(assignment, 0)
    assert taken(engine) == [[2]]


def test_a_stopped_partition_starts_nothing_and_the_others_go_on() -> None:
    engine, assignment = an_engine("key")
    other = engine.assign(OTHER, "source", Frontier(0))
    take_in(engine, assignment, *keyed("a", "b"))
    engine.stop(assignment, "no leader")
    take_in(engine, other, record(0, b"z", tp=OTHER))
    run = must_take(engine)
    assert run.lane.assignment is other
    assert engine.take(1) is None
    assert engine.pauses("source") == {ORDERS}
    engine.resume(assignment)
    assert taken(engine) == [[0], [1]]
    assert engine.pauses("source") == set()


def test_a_run_of_a_partition_that_stops_begins_no_further_record() -> None:
    engine, assignment = an_engine("partition")
    take_in(engine, assignment, *keyed("a", "a", "a"))
    run = must_take(engine)
    engine.hand_off(run, run.records[0])
    engine.stop(assignment, "no leader", 0)
    assert run.cancelled
    do(engine, run, done=1)
    assert engine.take(1) is None
    assert engine.settled(assignment, 0)
    again = must_take(engine)
    assert offsets(again) == [1, 2]
    assert not again.cancelled


def test_a_partition_goes_on_only_when_every_hand_off_that_failed_is_written() -> None:
    engine, assignment = an_engine("none")
    take_in(engine, assignment, *keyed("a", "b", "c", "d"))
    for _ in range(3):
        engine.finish(handed_off(engine, 0))
    engine.stop(assignment, "no leader", 0)
    engine.stop(assignment, "no leader", 1)
    assert not engine.settled(assignment, 2)
    assert engine.take(1) is None
    assert not engine.settled(assignment, 0)
    assert engine.take(1) is None
    assert engine.settled(assignment, 1)
    assert taken(engine) == [[3]]


def test_no_acknowledgement_ends_a_stop_that_was_not_for_a_hand_off() -> None:
    engine, assignment = an_engine("none")
    take_in(engine, assignment, *keyed("a", "b"))
    engine.finish(handed_off(engine, 0))
    engine.stop(assignment, "its dead letter is too large")
    assert not engine.settled(assignment, 0)
    assert engine.take(1) is None


def test_a_retry_that_falls_due_while_its_partition_is_stopped_is_held_too() -> None:
    engine, assignment = an_engine("key")
    waiting_lane(engine, assignment, NOW + 1, "a")
    engine.stop(assignment, "no leader")
    engine.wake(NOW + 1)
    assert engine.take(1) is None
    engine.resume(assignment)
    assert taken(engine) == [[0]]


def test_a_drain_waits_for_what_runs_and_settles_but_not_for_a_hand_off_that_fails() -> None:
    engine, assignment = an_engine("none")
    take_in(engine, assignment, *keyed("a", "b", "c"))
    run = must_take(engine)
    engine.finish(handed_off(engine, 0))
    engine.finish(handed_off(engine, 0))
    engine.drain([ORDERS])
    assert assignment.busy()
    do(engine, run)
    engine.stop(assignment, "no leader", 1)
    assert assignment.busy()  # 2 is still on its way
    engine.settled(assignment, 2)
    assert not assignment.busy()


def test_a_partition_without_a_place_to_start_is_owned_and_neither_read_nor_committed() -> None:
    engine, assignment = an_engine("key")
    engine.refuse(assignment, "offset 7 is gone")
    take_in(engine, assignment, *keyed("a"))
    engine.end_reached(ORDERS, 50)
    assert engine.take(1) is None
    assert commit(engine) is None
    assert commit(engine, only=[ORDERS]) is None
    assert engine.pauses("source") == {ORDERS}


# -- ownership -------------------------------------------------------------------------------------


def test_a_drained_partition_starts_nothing_and_tells_what_runs() -> None:
    engine, assignment = an_engine("key")
    take_in(engine, assignment, *keyed("a", "b"))
    run = must_take(engine)
    assert engine.drain([ORDERS, OTHER]) == [assignment]
    assert engine.drain([ORDERS]) == [assignment]
    assert run.cancelled
    take_in(engine, assignment, *keyed("c", start=2))
    assert engine.take(1) is None
    do(engine, run)
    assert engine.take(1) is None
    assert commit(engine, only=[ORDERS]).offset == 1


def test_a_completion_for_a_closed_assignment_changes_nothing() -> None:
    engine, old = an_engine("key")
    take_in(engine, old, *keyed("a", "b", "c"))
    run, failing, handed = must_take(engine), must_take(engine), must_take(engine)
    engine.hand_off(handed, handed.records[0])
    engine.close([ORDERS])
    new = engine.assign(ORDERS, "source", Frontier(0))
    do(engine, run)
    engine.retry(failing, NOW, 0)
    assert not engine.hand_off(failing, failing.records[0])
    engine.settled(old, 2)
    engine.finish(handed)
    engine.intake(old, keyed("z", start=9), now=NOW, wall=WALL)
    engine.skip(old, 20)
    assert new.frontier.base == 0
    assert (engine.in_flight, engine.settling, engine.waiting(), new.queued) == (0, 0, 0, 0)
    assert engine.take(1) is None


def test_closing_forgets_all_that_ran_waited_and_settled() -> None:
    engine, assignment = an_engine("key")
    waiting_lane(engine, assignment, NOW + 5, "a", "b", "c")
    must_take(engine)
    engine.finish(handed_off(engine, 0))
    engine.close([ORDERS, OTHER])
    assert (engine.in_flight, engine.settling, engine.waiting(), engine.assignments) == (0, 0, 0, {})
    assert engine.next_due() is None


def test_an_ownership_that_was_not_given_back_is_fenced_by_the_next() -> None:
    engine, old = an_engine("key")
    take_in(engine, old, *keyed("a"))
    run = must_take(engine)
    new = engine.assign(ORDERS, "source", Frontier(0))
    assert old.closed
    assert run.cancelled
    assert new.epoch > old.epoch
    do(engine, run)
    assert new.frontier.base == 0


# -- commits ---------------------------------------------------------------------------------------


def test_a_commit_takes_in_what_a_run_has_done_so_far() -> None:
    engine, assignment = an_engine("partition")
    take_in(engine, assignment, *keyed("a", "a", "a"))
    run = must_take(engine)
    run.done = 2
    assert commit(engine).offset == 2
    run.done = 3
    engine.finish(run)
    assert commit(engine).offset == 3


def test_nothing_is_committed_when_nothing_has_changed() -> None:
    engine, assignment = an_engine()
    assert commit(engine).offset == 0  # what was assigned becomes a commit, even of nothing
    assert commit(engine) is None
    take_in(engine, assignment, record(0))
    assert commit(engine) is None
    do(engine, must_take(engine))
    assert commit(engine).offset == 1


def test_a_commit_that_failed_is_made_again() -> None:
    engine, _ = an_engine()
    engine.commit_failed(commit(engine))
    assert commit(engine) is not None


def test_the_last_commit_repeats_one_whose_answer_is_not_there_yet() -> None:
    engine, assignment = an_engine()
    take_in(engine, assignment, record(0))
    do(engine, must_take(engine))
    on_its_way = commit(engine)
    assert commit(engine) is None
    last = commit(engine, only=[ORDERS])
    assert (last.offset, last.metadata) == (on_its_way.offset, on_its_way.metadata)
    engine.committed(last)
    assert commit(engine, only=[ORDERS]) is None


def test_an_answer_to_an_older_commit_does_not_answer_the_newer_one() -> None:
    engine, assignment = an_engine()
    older = commit(engine)
    take_in(engine, assignment, record(0))
    do(engine, must_take(engine))
    newer = commit(engine)
    engine.committed(older)
    assert commit(engine, only=[ORDERS]).offset == newer.offset


def test_the_frontier_passes_gaps_and_the_markers_at_the_log_s_end() -> None:
    engine, assignment = an_engine()
    take_in(engine, assignment, record(3), record(7))
    do(engine, must_take(engine))
    assert commit(engine).offset == 8
    engine.end_reached(ORDERS, 10)
    engine.end_reached(ORDERS, 9)
    engine.end_reached(OTHER, 99)
    assert commit(engine).offset == 10


def test_only_the_asked_feed_and_partitions_are_committed() -> None:
    engine, _ = an_engine()
    retry = engine.assign(OTHER, "retry", Frontier(0))
    assert [c.assignment for c in engine.commits("retry", now=NOW, wall=WALL)] == [retry]
    assert engine.commits("source", now=NOW, wall=WALL, only=[OTHER]) == []


def test_a_frontier_that_went_back_would_stop_the_process() -> None:
    engine, assignment = an_engine(start=5)
    assignment.committed = 6
    with pytest.raises(AssertionError, match="went back, 6 -> 5"):
        commit(engine)


# -- flow ------------------------------------------------------------------------------------------


def test_intake_stops_at_the_limit_and_goes_on_at_half_of_it() -> None:
    engine, assignment = an_engine("none", ready=10)
    take_in(engine, assignment, *keyed(*"abcdefghi"))
    assert not engine.full("source")
    take_in(engine, assignment, record(9))
    assert engine.full("source")
    for left in (9, 8, 7, 6):
        engine.take(1)
        assert engine.full("source"), left
    engine.take(1)
    assert not engine.full("source")
    take_in(engine, assignment, *keyed("a", "b", start=10))
    assert not engine.full("source")


def test_large_values_fill_it_by_their_bytes() -> None:
    engine, assignment = an_engine("none", ready_bytes=1000)
    take_in(engine, assignment, record(0, value=b"x" * 400), record(1, value=b"x" * 400))
    assert not engine.full("source")
    take_in(engine, assignment, record(2, value=b"x" * 400))
    assert engine.full("source")


def test_null_values_weigh_nothing() -> None:
    engine, assignment = an_engine("none", ready_bytes=1000)
    take_in(engine, assignment, record(0, value=None))
    assert not engine.full("source")


def test_what_waits_does_not_fill_it_but_pauses_its_partition_at_its_share() -> None:
    engine, assignment = an_engine("key", ready=3, parked=6)
    engine.assign(OTHER, "source", Frontier(0))
    waiting_lane(engine, assignment, NOW + 5, "a", "a")
    assert engine.pauses("source") == set()
    take_in(engine, assignment, *keyed("a", "a", "a", start=2))
    assert not engine.full("source")
    assert engine.pauses("source") == {ORDERS}
    engine.wake(NOW + 5)
    assert engine.pauses("source") == set()
    assert engine.full("source")


def test_each_feed_is_full_by_itself() -> None:
    engine, assignment = an_engine("none", ready=2)
    take_in(engine, assignment, *keyed("a", "b"))
    assert engine.full("source")
    assert not engine.full("retry")


def test_a_partition_whose_map_does_not_fit_is_paused_until_it_does() -> None:
    engine, assignment = an_engine("none")
    count = 60_000
    take_in(engine, assignment, *(record(o) for o in range(count)))
    runs = [must_take(engine) for _ in range(count)]
    state = 1
    left = []
    for run in runs:  # nothing that deflates: a pseudo-random half
        state = state * 1103515245 + 12345 & 0x7FFFFFFF
        if state >> 16 & 1:
            do(engine, run)
        else:
            left.append(run)
    found = commit(engine)
    assert len(found.metadata) <= 4095
    assert engine.pauses("source") == {ORDERS}
    for run in left:
        do(engine, run)
    commit(engine)
    assert engine.pauses("source") == set()


# -- found by mutants ----------------------------------------------------------------------------------


def test_a_frontier_is_never_moved_back_by_what_needs_no_work() -> None:
    frontier = Frontier(100)
    frontier.advance(50)
    assert (frontier.base, frontier.position) == (100, 100)


def test_what_a_run_leaves_goes_back_in_the_order_of_the_log_whatever_came_first_of_it() -> None:
    engine, assignment = an_engine("partition")
    take_in(engine, assignment, *keyed("a", "b", "c"))
    run = must_take(engine)
    run.reorder([run.records[2]])
    assert offsets(run) == [2, 0, 1]
    do(engine, run, done=0)
    assert taken(engine) == [[0, 1, 2]]


def test_a_record_that_has_failed_here_is_not_written_again_to_make_room_its_headers_know_less() -> None:
    engine = Engine("key", Limits(parked=2))
    retries = TopicPartition("orders.retry", 0)
    assignment = engine.assign(retries, "retry", Frontier(0), TOPIC_ID)
    take_in(engine, assignment, record(0, b"k", tp=retries))
    run = must_take(engine)
    run.records[0].attempt = 3
    engine.retry(run, due=NOW + 900.0, delay=900.0)
    engine.wait_at_intake(assignment, record(1, b"k", tp=retries), NOW + 100.0, now=NOW, wall=WALL)
    assert [r.log_offset for _, r in engine.spill(NOW)] == [1]


def test_hand_offs_that_wait_for_room_in_a_map_hold_up_no_record() -> None:
    engine, assignment = an_engine("none", settling=2)
    take_in(engine, assignment, *keyed("a"))
    engine.settling, engine.aside = 2, 1
    assert taken(engine) == [[0]]
    take_in(engine, assignment, *keyed("b", start=1))
    engine.aside = 0
    assert taken(engine) == []


@pytest.mark.parametrize("unclean", [False, True])
def test_the_last_word_of_an_owner_whose_handler_may_have_ended_the_process_is_not_that_all_is_well(
    unclean: bool,
) -> None:
    engine, assignment = an_engine()
    take_in(engine, assignment, *keyed("a"))
    assignment.unclean = unclean
    engine.drain([ORDERS])
    assert commit(engine, only=[ORDERS]).mark.open is unclean


def test_a_commit_tells_of_what_stands_before_the_end_of_its_map_and_of_the_lowest_one() -> None:
    engine, assignment = an_engine()
    take_in(engine, assignment, *keyed(*"abcdef"))
    assignment.map_end = 3
    assert [offset for offset in range(6) if assignment.tells_of(offset)] == [0, 1, 2]
    assignment.map_end = 0
    assert [offset for offset in range(6) if assignment.tells_of(offset)] == [0]
    assignment.map_end = None
    assert all(assignment.tells_of(offset) for offset in range(6))
