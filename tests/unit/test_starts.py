import logging

import pytest

from relance.kafka.starts import Feed, start_at
from relance.record import TopicPartition

TP = TopicPartition("orders", 3)
FEED = Feed("source", ("orders",), "group")
MAP = "ZQAAAAIAAAAD"  # Parallel Consumer's run lengths: two unfinished, three finished


def metadata(text: str, *, end: int, committed: int = 100) -> str:
    return start_at(TP, committed, text, "T0", 0, end, FEED).metadata


@pytest.mark.parametrize("end", [105, 1000])
def test_a_map_of_parallel_consumer_within_the_log_is_kept_and_told(
    end: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert metadata(MAP, end=end) == MAP
    assert "Parallel Consumer left 2 offsets unfinished in 100..104" in caplog.text


def test_a_map_of_parallel_consumer_that_reaches_beyond_the_log_is_of_another_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert metadata(MAP, end=104) == ""
    assert "reaches to offset 105 and the log to 104" in caplog.text


def test_metadata_that_nobody_can_read_is_told_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    assert metadata("host-7", end=1000) == ""
    assert "beside committed offset 100 is no map that relance reads" in caplog.text


@pytest.mark.parametrize("text", ["", "bgAA", "r1:T0:-", "r1:T0:Rdamaged"])
def test_ours_and_a_map_of_nothing_are_kept_without_a_word(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert metadata(text, end=1000) == text
    assert caplog.text == ""


def test_a_commit_outside_the_log_takes_its_map_along() -> None:
    assert start_at(TP, 100, MAP, "T0", 101, 1000, FEED).metadata == ""
