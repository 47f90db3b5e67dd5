from datetime import UTC, datetime

import pytest

from relance.engine.deferral import defer, to_headers
from relance.errors import DecodeError
from relance.record import Record, TopicPartition, record_of


class Source:
    def __init__(self, headers: list[tuple[str, bytes | None]] | None, ms: int) -> None:
        self._headers, self._ms = headers, ms

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return (1, self._ms)


def record(headers: list[tuple[str, bytes | None]] | None = None, ms: int = 0) -> Record:
    return record_of("orders", 2, 16, b"k", b"v", Source(headers, ms))


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-1, None),
        (253_402_300_799_999, datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)),
        (253_402_300_800_000, None),
        (2**63 - 1, None),
    ],
)
def test_a_timestamp_is_a_datetime_where_there_is_one_for_it(ms: int, expected: datetime | None) -> None:
    assert record(ms=ms).timestamp == expected


def test_a_record_without_headers_has_an_empty_list() -> None:
    assert record(None).headers == []


def test_a_deferred_record_shows_its_own_headers_and_timestamp_not_the_retry_record_s() -> None:
    deferral = defer(
        group="g",
        topic="orders",
        partition=2,
        offset=16,
        timestamp=7,
        attempt=2,
        delay=1.0,
        now=1.0,
        error="E",
    )
    own: list[tuple[str, bytes | None]] = [("a", b"1"), ("a", None)]
    found = record(to_headers(deferral, own), ms=99)
    found.deferral = deferral
    assert found.headers == own
    assert found.timestamp_ms == 7


def test_a_record_and_a_partition_print_as_logs_write_them() -> None:
    assert record().name == "P2:O16"
    assert str(TopicPartition("orders", 0)) == "orders-0"


@pytest.mark.parametrize(
    "error",
    [
        SystemError("returned a result with an exception set"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_headers_that_the_client_cannot_read_are_asked_for_once(error: Exception) -> None:
    """Asked a second time, the client hands out a list that ends the process."""

    class Broken(Source):
        asked = 0

        def headers(self) -> list[tuple[str, bytes | None]] | None:
            Broken.asked += 1
            raise error

    found = record_of("orders", 2, 16, b"k", b"v", Broken(None, 5))
    for _ in range(2):
        with pytest.raises(DecodeError, match="not UTF-8"):
            found.headers  # noqa: B018
    assert Broken.asked == 1
    assert found.timestamp_ms == 5
