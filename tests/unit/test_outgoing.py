"""What is written about a failed record: untouched where it must be, and never an exception of its own."""

from __future__ import annotations

import pytest

from relance.dead_letters.envelope import decode
from relance.dead_letters.ladder import TooLarge
from relance.engine.deferral import Deferral, Failure, from_headers
from relance.errors import DecodeError, MaxRetriesExceededError, TransientError
from relance.outgoing import MAX_RECORD, dead_letter, read_headers, retry_record, size_of
from relance.record import Outgoing, Record
from world import ORDERS, Message

NOW = 1_700_000_000.25


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def a_record(key: bytes | None = b"k", value: bytes | None = b"v", headers: list | None = None) -> Record:
    return Message(16, key, value, headers or [], 1_600_000_000_123).as_record(ORDERS)


def retry(record: Record, error: Exception | None = None, delay: float = 5.0) -> Outgoing | None:
    error = error or TransientError("down")
    return retry_record(record, error, topic="retry", group="g", delay=delay, now=NOW)


def letter_of(record: Record, error: Exception, **given: int) -> Outgoing | TooLarge:
    return dead_letter(record, error, topic="DLT", group="g", now=NOW, **given)


def read(outgoing: Outgoing | None) -> Deferral:
    assert outgoing is not None
    found = from_headers(outgoing.headers, group="g", now=NOW, max_delay=1e6)
    assert isinstance(found, Deferral)
    return found


# -- retry records ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, b"", b"\xff\x00"])
@pytest.mark.parametrize("value", [None, b"", b"\xff\x00", b"{}"])
def test_key_value_and_headers_go_on_untouched(key: bytes | None, value: bytes | None) -> None:
    headers = [("a", b"1"), ("a", None), ("b", b""), ("é", b"\xff")]
    outgoing = retry(a_record(key, value, headers))
    assert outgoing is not None
    assert (outgoing.topic, outgoing.key, outgoing.value) == ("retry", key, value)
    assert outgoing.headers[:4] == headers


def test_a_first_deferral_tells_the_next_attempt_its_due_time_and_where_it_comes_from() -> None:
    found = read(retry(a_record()))
    assert (found.attempt, found.due, found.delay, found.first_failure) == (2, NOW + 5, 5.0, NOW)
    assert (found.origin_topic, found.origin_partition, found.origin_offset) == ("orders", 0, 16)
    assert (found.origin_timestamp, found.last_error) == (1_600_000_000_123, "TransientError: down")


def test_the_first_failure_and_the_history_are_those_of_the_retries_in_memory_before() -> None:
    record = a_record()
    record.attempt, record.history = 2, (Failure(1, "TransientError: first", NOW - 9),)
    found = read(retry(record))
    assert (found.attempt, found.first_failure) == (3, NOW - 9)
    assert [(f.attempt, f.error) for f in found.history] == [
        (1, "TransientError: first"),
        (2, "TransientError: down"),
    ]


def test_a_second_deferral_replaces_our_headers_and_keeps_the_first_failure() -> None:
    record = a_record(headers=[("a", b"1")])
    first = retry(record)
    again = Message(3, b"k", b"v", list(first.headers if first else [])).as_record(ORDERS)
    again.deferral = read(first)
    again.attempt, again.history = again.deferral.attempt, again.deferral.history
    second = retry(again)
    assert second is not None
    assert len([name for name, _ in second.headers if name == "relance-attempt"]) == 1
    assert second.headers[0] == ("a", b"1")
    assert (read(second).attempt, read(second).first_failure) == (3, NOW)


def test_an_error_with_a_surrogate_or_without_end_is_clipped_and_written() -> None:
    found = read(retry(a_record(), TransientError("\ud800" + "x" * 100_000)))
    assert found.last_error.startswith("TransientError: \\ud800xxx")
    assert len(found.last_error) == 1000


def test_a_record_that_would_be_too_large_with_our_headers_is_not_written() -> None:
    assert retry(a_record(value=b"x" * (MAX_RECORD - 100))) is None
    outgoing = retry(a_record(value=b"x" * (MAX_RECORD - 2000)))
    assert outgoing is not None
    assert size_of(outgoing) <= MAX_RECORD


def test_the_size_counts_key_value_headers_and_framing() -> None:
    outgoing = Outgoing("t", b"kk", b"vvv", [("é", b"1"), ("b", None)])
    assert size_of(outgoing) == 2 + 3 + (2 + 1 + 10) + (1 + 10) + 128
    assert size_of(Outgoing("t", None, None, [])) == 128


# -- headers that cannot be read -------------------------------------------------------------------


class Unreadable(Message):
    def headers(self) -> list[tuple[str, bytes | None]] | None:
        raise SystemError("not UTF-8")


def test_headers_that_cannot_be_read_are_none_and_those_that_are_not_there_are_empty() -> None:
    assert read_headers(Unreadable(0, None, None).as_record(ORDERS)) is None
    assert read_headers(a_record()) == []


def test_a_record_whose_headers_cannot_be_read_is_not_copied_but_can_be_given_up() -> None:
    record = Unreadable(0, b"k", b"v").as_record(ORDERS)
    assert retry(record) is None
    outgoing = letter_of(record, ValueError("bad"))
    assert isinstance(outgoing, Outgoing)
    letter = decode(outgoing.value)
    assert letter.value_bytes() == b"v"
    with pytest.raises(DecodeError, match="orders-0@0"):
        letter.header_items()


# -- dead letters ----------------------------------------------------------------------------------


def test_a_dead_letter_has_the_record_s_key_and_its_last_try_in_the_history() -> None:
    record = a_record(b"\xff", b"v")
    record.attempt, record.history = 2, (Failure(1, "TransientError: first", NOW - 9),)
    error = MaxRetriesExceededError(2, TransientError("down"))
    outgoing = letter_of(record, error)
    assert isinstance(outgoing, Outgoing)
    assert (outgoing.topic, outgoing.key) == ("DLT", b"\xff")
    letter = decode(outgoing.value)
    assert (letter.retry_count, letter.key_bytes()) == (1, b"\xff")
    assert [(a.attempt, a.error) for a in letter.attempts] == [
        (1, "TransientError: first"),
        (2, "TransientError: down"),
    ]
    assert letter.error_timestamp == "2023-11-14T22:13:20.250Z"


def test_what_no_handler_has_tried_has_no_attempts() -> None:
    outgoing = letter_of(a_record(), DecodeError("bad"), attempts=0)
    assert isinstance(outgoing, Outgoing)
    letter = decode(outgoing.value)
    assert (letter.attempts, letter.retry_count) == ((), 0)


@pytest.mark.parametrize("error", [Unprintable(), ValueError("\ud800"), MaxRetriesExceededError(3, None)])
def test_no_error_is_too_odd_for_a_letter(error: Exception) -> None:
    outgoing = letter_of(a_record(), error)
    assert isinstance(outgoing, Outgoing)
    assert decode(outgoing.value).value_bytes() == b"v"


def test_a_letter_that_cannot_be_made_to_fit_is_said_to_be_so() -> None:
    found = letter_of(a_record(value=b"x" * 5000), ValueError("bad"), limit=3000)
    assert isinstance(found, TooLarge)
    assert found.limit == 3000
    assert found.size > 3000
