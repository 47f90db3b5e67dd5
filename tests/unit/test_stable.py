"""Open transactions of others, seen in two kinds of ends; times are passed in."""

from __future__ import annotations

import logging

import pytest

from relance.kafka.stable import OpenTransactions
from relance.record import TopicPartition

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


def test_a_partition_that_stands_before_records_for_five_seconds_is_told_until_it_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    seen = OpenTransactions()
    seen.look(0.0, {P0: 5, P1: 7}, {P0: 9, P1: 7})
    seen.look(4.9, {P0: 5, P1: 7}, {P0: 11, P1: 7})
    assert seen.told == {}
    seen.look(5.0, {P0: 5, P1: 7}, {P0: 12, P1: 7})
    [(where, text)] = seen.told.items()
    assert where == P0
    assert "for 5 s" in text
    assert "from offset 5 to 12" in text
    seen.look(9.0, {P0: 5}, {P0: 12})
    assert "for 9 s" in seen.told[P0]
    assert caplog.text.count("t-0: a producer has not ended") == 1
    seen.look(10.0, {P0: 13}, {P0: 13})
    assert seen.told == {}
    assert "t-0: no open transaction holds it up any more" in caplog.text


def test_it_is_asked_now_and_then_and_at_each_look_where_something_stands() -> None:
    seen = OpenTransactions()
    assert seen.due(0.0)
    seen.look(0.0, {P0: 5}, {P0: 5})
    assert [seen.due(now) for now in (2.0, 4.0, 6.0)] == [False, False, True]
    seen.look(6.0, {P0: 5}, {P0: 6})
    assert seen.due(8.0)


def test_transactions_that_come_and_go_are_none_that_stays_open() -> None:
    seen = OpenTransactions()
    for now in range(0, 60, 2):
        seen.look(float(now), {P0: 5 + now}, {P0: 9 + now})
        assert seen.told == {}
    seen.look(60.0, {}, {})  # it is paused, or behind: nothing is known of it
    seen.look(62.0, {P0: 63}, {P0: 67})
    assert seen.told == {}
