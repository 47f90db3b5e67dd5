"""Log lines that come one for each record."""

import logging
import threading

import pytest

from relance.burst import BurstLog, LastingLog
from world import FakeClock


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = caplog.messages[:]
    caplog.clear()
    return found


def test_the_first_lines_of_each_second_are_written_and_the_rest_is_told_in_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    log = BurstLog("relance.retry", clock, limit=3)
    for i in range(10):
        log.warning("line %d", lambda i=i: (i,))
    assert lines(caplog) == ["line 0", "line 1", "line 2"]
    clock.advance(0.999)
    log.warning("still the same second")
    assert lines(caplog) == []
    clock.advance(0.001)
    log.warning("the next second")
    assert lines(caplog) == ["... and 8 more lines like these", "the next second"]
    clock.advance(1.0)
    log.warning("nothing was held back")
    assert lines(caplog) == ["nothing was held back"]


def test_it_writes_to_the_logger_it_was_given(caplog: pytest.LogCaptureFixture) -> None:
    BurstLog("relance.dlt", FakeClock()).warning("hello")
    assert [(r.name, r.levelno) for r in caplog.records] == [("relance.dlt", logging.WARNING)]


def test_threads_do_not_write_more_than_one_may(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    log = BurstLog("relance.retry", clock, limit=20)
    threads = [
        threading.Thread(target=lambda: [log.warning("x") for _ in range(200)] and None) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines(caplog) == ["x"] * 20
    clock.advance(1.0)
    log.warning("last")
    assert lines(caplog) == ["... and 780 more lines like these", "last"]


def test_a_condition_that_lasts_is_told_once_in_half_a_minute_and_another_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    log = LastingLog("relance.kafka", clock.monotonic)
    for _ in range(61):
        log.warning("down", "it is down")
        clock.advance(1.0)
    log.warning("slow", "100 % slow")
    assert lines(caplog) == ["it is down"] * 3 + ["100 % slow"]
