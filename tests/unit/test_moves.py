"""What a partition with very many waits or a very wide window takes to its next owner, and in what room."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Iterable

import pytest

from maps import our_map, varint
from relance.engine.assignment import Assignment, Commit
from relance.engine.engine import Engine
from relance.engine.frontier import Frontier
from relance.engine.offset_map import LIMIT, MAX_UNFINISHED, OffsetMap, decode_map, encode_map
from relance.record import Record
from world import ORDERS, TOPIC_ID, record

WALL = 1_700_000_000.0


# -- waits -----------------------------------------------------------------------------------------


def failed_once(delays: Iterable[float]) -> tuple[Engine, Assignment, Commit]:
    """An engine whose records have each failed and wait; its last commit, one second later."""
    waits = list(delays)
    engine = Engine("none")
    assignment = engine.assign(ORDERS, "source", Frontier(0), TOPIC_ID)
    engine.intake(assignment, [record(o, None) for o in range(len(waits))], now=0.0, wall=WALL)
    for delay in waits:
        run = engine.take(1)
        assert run is not None
        run.records[0].attempt = 3
        engine.retry(run, delay, delay)
    (commit,) = engine.commits("source", now=1.0, wall=WALL + 1.0, only=[ORDERS])
    return engine, assignment, commit


def move(commit: Commit, count: int) -> tuple[list[Record], list[Record]]:
    """All records, as the next owner reads them again; and those that it starts at once."""
    engine = Engine("none")
    known = decode_map(commit.metadata, TOPIC_ID, commit.offset)
    assignment = engine.assign(ORDERS, "source", Frontier(commit.offset, known), TOPIC_ID)
    records = [record(o, None) for o in range(count)]
    engine.intake(assignment, records, now=500.0, wall=WALL + 1.0)
    started = []
    while (run := engine.take(1)) is not None:
        started.extend(run.records)
    return records, started


def test_a_thousand_waits_of_one_outage_survive_a_move_none_is_early_and_each_keeps_its_attempt() -> None:
    _, assignment, commit = failed_once(60.0 + n // 50 for n in range(1_000))
    assert len(commit.metadata) <= LIMIT
    assert not assignment.map_full
    records, started = move(commit, 1_000)
    assert started == []
    assert [r.attempt for r in records] == [3] * 1_000


@pytest.mark.parametrize("count", [1_000, 20_000])
def test_waits_that_do_not_fit_pause_the_partition_and_those_that_do_survive_the_move(count: int) -> None:
    spread = [60.0 + (n * 7_919 % 10_007) / 100 for n in range(count)]  # as with jitter
    engine, assignment, commit = failed_once(spread)
    assert len(commit.metadata) <= LIMIT
    records, started = move(commit, count)
    kept = [r.log_offset for r in records if r.attempt == 3]
    assert len(kept) >= 400
    assert kept == list(range(len(kept)))
    assert [r.log_offset for r in started] == list(range(len(kept), count))
    assert assignment.map_full == (len(kept) < count)
    assert engine.pauses("source") == ({ORDERS} if assignment.map_full else set())


# -- a wide window ---------------------------------------------------------------------------------


def test_a_window_of_more_than_ten_million_offsets_above_one_that_waits_is_written_whole_and_read() -> None:
    found = OffsetMap(5, 5 + 10_000_050, (5,))
    text, whole = encode_map(found, TOPIC_ID)
    assert whole
    assert len(text) < 100
    assert decode_map(text, TOPIC_ID, 5) == found


def test_a_few_characters_that_claim_ten_million_unfinished_offsets_are_no_map_and_cost_no_memory() -> None:
    body = b"".join(varint(n) for n in (7, 9_999_999, 0, 9_999_999))
    text = our_map("R", body, TOPIC_ID)
    tracemalloc.start()
    try:
        assert decode_map(text, TOPIC_ID, 7) is None
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1_000_000


def test_deflated_zeros_that_would_fill_the_memory_are_no_map() -> None:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = b"".join(varint(n) for n in (7, 4_000_000_000, 0))
    bomb = squeezer.compress(head) + b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(64))
    bomb += squeezer.flush()
    text = our_map("b", bomb, TOPIC_ID)
    tracemalloc.start()
    try:
        assert decode_map(text, TOPIC_ID, 7) is None
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 40_000_000


def test_more_unfinished_offsets_than_are_believed_are_not_written_either() -> None:
    width = MAX_UNFINISHED + 20
    found = OffsetMap(0, width + 1, tuple(range(width)))
    text, whole = encode_map(found, TOPIC_ID)
    assert not whole
    assert decode_map(text, TOPIC_ID, 0) is None or decode_map(text, TOPIC_ID, 0) == found.cut(width)


# -- memory ----------------------------------------------------------------------------------------


def test_a_million_finished_above_one_that_waits_take_hardly_any_memory_and_are_not_forgotten() -> None:
    frontier = Frontier(0)
    frontier.open([0])
    for first in range(1, 1_000_001, 500):
        batch = range(first, first + 500)
        frontier.open(batch)
        frontier.finish_all(batch)
    assert len(frontier._open) + len(frontier._done) < 20_000
    assert (frontier.base, frontier.position, frontier.open_count) == (0, 1_000_001, 1)
    assert frontier.map({}) == OffsetMap(0, 1_000_001, (0,))
    frontier.finish_all([0])
    assert (frontier.base, frontier.open_count) == (1_000_001, 0)


def test_a_million_finished_above_many_that_wait_take_memory_by_those_that_wait() -> None:
    frontier = Frontier(0)
    for first in range(0, 1_000_000, 500):
        batch = range(first, first + 500)
        frontier.open(batch)
        frontier.finish_all(batch[1:])
    waiting = list(range(0, 1_000_000, 500))
    assert len(frontier._open) + len(frontier._done) < 20_000
    assert frontier.open_count == len(waiting)
    assert frontier.unfinished() == waiting


def test_what_is_finished_above_one_that_waits_is_looked_at_by_one_commit_and_not_by_each_that_follows() -> (
    None
):
    frontier = Frontier(0)
    frontier.open([0])
    for offset in range(1, 3001):  # one by one, as they trickle in
        frontier.open([offset])
        frontier.finish_all([offset])
        if offset % 100 == 0:
            assert len(frontier._open) == 101
            assert frontier.map({}) == OffsetMap(0, offset + 1, (0,))
            assert list(frontier._open) == [[0]]
    assert (frontier.base, frontier.position, frontier.open_count) == (0, 3001, 1)


def test_spans_above_a_record_that_takes_long_are_let_go_of_too() -> None:
    frontier = Frontier(0)
    for start in range(0, 1_000_000, 1000):
        frontier.open(range(start, start + 1000))
        for hundred in range(start, start + 1000, 100):
            first, last = max(1, hundred), hundred + 99
            assert frontier.finish_span(first, last, last - first + 1)
        frontier.unfinished()  # as each commit asks
    assert sum(map(len, frontier._open)) + len(frontier._done) + len(frontier._spans) < 20_000
    assert (frontier.base, frontier.position, frontier.open_count) == (0, 1_000_000, 1)
    frontier.finish_all([0])
    assert (frontier.base, frontier.open_count) == (1_000_000, 0)
