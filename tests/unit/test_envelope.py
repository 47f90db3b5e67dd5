"""The dead-letter envelope."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from relance.dead_letters import fingerprint
from relance.dead_letters.envelope import (
    MAX_HISTORY,
    MAX_HISTORY_ERROR,
    DeadLetter,
    build,
    decode,
    encode,
    metadata_headers,
)
from relance.engine.deferral import Failure
from relance.errors import DecodeError, MaxRetriesExceededError, TransientError

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
THE_NINE = [
    "originalTopic",
    "originalPartition",
    "originalOffset",
    "originalKey",
    "originalValue",
    "errorMessage",
    "errorTimestamp",
    "retryCount",
    "stackTrace",
]


def a_letter(
    *,
    partition: int | None = 2,
    offset: int | None = 12345,
    key: bytes | None = b"order-123",
    value: bytes | None = b'{"amount": -50}',
    headers: Iterable[tuple[str, bytes | None]] = (),
    timestamp: datetime | int | None = None,
    group: str | None = "orders-consumer-group",
    error: BaseException | None = None,
    attempts: int = 4,
    history: Iterable[Failure] = (),
    now: datetime = NOW,
) -> DeadLetter:
    return build(
        topic="orders",
        partition=partition,
        offset=offset,
        key=key,
        value=value,
        headers=headers,
        timestamp=timestamp,
        group=group,
        error=error or ValueError("Invalid amount"),
        attempts=attempts,
        history=history,
        now=now,
    )


def fields(letter: DeadLetter) -> dict[str, Any]:
    parsed = json.loads(encode(letter))
    assert isinstance(parsed, dict)
    return parsed


def raw(**changes: Any) -> bytes:
    return json.dumps(fields(a_letter()) | changes).encode()


# -- building -------------------------------------------------------------------------------------------


def test_a_letter_holds_the_nine_fields_first_and_in_the_order_of_the_document():
    letter = fields(a_letter())
    assert list(letter)[:9] == THE_NINE
    assert {name: letter[name] for name in THE_NINE} == {
        "originalTopic": "orders",
        "originalPartition": 2,
        "originalOffset": 12345,
        "originalKey": "order-123",
        "originalValue": '{"amount": -50}',
        "errorMessage": "ValueError: Invalid amount",
        "errorTimestamp": "2024-01-15T10:30:00.000Z",
        "retryCount": 3,
        "stackTrace": "ValueError: Invalid amount\n",
    }


def test_a_letter_holds_what_the_course_left_out():
    letter = fields(
        a_letter(headers=[("trace", b"\xff")], timestamp=1_700_000_000_123, history=[Failure(1, "E: x", 1.5)])
    )
    assert {name: value for name, value in letter.items() if name not in THE_NINE} == {
        "errorClass": "ValueError",
        "originalHeaders": [["trace", "/w==", "base64"]],
        "originalTimestamp": "2023-11-14T22:13:20.123Z",
        "consumerGroup": "orders-consumer-group",
        "attempts": [{"attempt": 1, "error": "E: x", "at": "1970-01-01T00:00:01.500Z"}],
        "fingerprint": fingerprint(ValueError("Invalid amount")),
        "originalValueEncoding": "utf-8",
        "originalKeyEncoding": "utf-8",
        "version": 1,
        "pointer": False,
        "trimmed": [],
        "masked": [],
    }


def test_exhausted_attempts_name_both_errors():
    last = TransientError("simulated")
    error = MaxRetriesExceededError(4, last)
    error.__cause__ = last
    letter = a_letter(error=error, attempts=4)
    assert (
        letter.error_message == "MaxRetriesExceededError: 4 attempts failed, last: TransientError: simulated"
    )
    assert letter.error_class == "relance.errors.MaxRetriesExceededError"
    assert letter.retry_count == 3


@pytest.mark.parametrize(("attempts", "retries"), [(0, 0), (1, 0), (2, 1)])
def test_the_first_try_is_no_retry(attempts: int, retries: int):
    assert a_letter(attempts=attempts).retry_count == retries


def test_a_letter_that_never_was_a_record_has_null_coordinates():
    letter = fields(a_letter(partition=None, offset=None))
    assert letter["originalPartition"] is None
    assert letter["originalOffset"] is None


def test_coordinates_that_mean_none_to_the_client_are_null():
    letter = decode(encode(a_letter(partition=-1, offset=-1001)))
    assert (letter.original_partition, letter.original_offset) == (None, None)


def test_null_is_not_empty():
    null = decode(encode(a_letter(key=None, value=None, headers=[("h", None)])))
    empty = decode(encode(a_letter(key=b"", value=b"", headers=[("h", b"")])))
    assert (null.key_bytes(), null.value_bytes(), null.header_items()) == (None, None, [("h", None)])
    assert (empty.key_bytes(), empty.value_bytes(), empty.header_items()) == (b"", b"", [("h", b"")])


def test_bytes_that_are_not_utf8_are_kept_as_base64():
    letter = decode(encode(a_letter(key=b"\xff", value=b"\xed\xa0\x80")))
    assert (letter.original_key, letter.original_key_encoding) == ("/w==", "base64")
    assert (letter.original_value, letter.original_value_encoding) == ("7aCA", "base64")
    assert (letter.key_bytes(), letter.value_bytes()) == (b"\xff", b"\xed\xa0\x80")


@pytest.mark.parametrize(
    "value",
    [
        b"\xef\xbb\xbf{}",
        b"a\0b",
        "\u2028\u2029".encode(),
        b"\x1b[31m",
        b"<script>",
        "\U0010ffff".encode(),
        b"\r\n",
    ],
)
def test_text_with_odd_characters_stays_text(value: bytes):
    letter = decode(encode(a_letter(value=value)))
    assert letter.original_value_encoding == "utf-8"
    assert letter.value_bytes() == value


def test_text_that_looks_like_base64_is_not_taken_for_it():
    assert decode(encode(a_letter(value=b"7aCA"))).value_bytes() == b"7aCA"


def test_twenty_thousand_headers_with_repeated_names_come_back_in_order():
    headers = [(f"h{number % 7}", str(number).encode()) for number in range(20_000)]
    assert decode(encode(a_letter(headers=headers))).header_items() == headers


def test_a_letter_is_one_line():
    assert b"\n" not in encode(a_letter(value=b"a\nb", error=ValueError("c\nd")))


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (None, None),
        (-1, None),
        (-(2**63), None),
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, None),
        (2**63 - 1, None),
        (datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))), "2024-01-01T10:00:00.000Z"),
        (datetime(2024, 1, 1, 12, 0, 0, 123_999), "2024-01-01T12:00:00.123Z"),  # without a zone: UTC
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))), None),
    ],
)
def test_the_original_timestamp_is_iso_utc_with_milliseconds_or_null(
    timestamp: datetime | int | None, expected: str | None
):
    assert a_letter(timestamp=timestamp).original_timestamp == expected


def test_a_long_history_keeps_its_last_attempts():
    history = [Failure(number, "E", float(number)) for number in range(1, 1_001)]
    attempts = a_letter(history=history).attempts
    assert len(attempts) == MAX_HISTORY
    assert attempts[-1].attempt == 1_000


def test_an_error_in_the_history_is_bounded_and_valid_text():
    (attempt,) = decode(encode(a_letter(history=[Failure(1, "\udc80" * 1_000, 0.0)]))).attempts
    assert len(attempt.error) == MAX_HISTORY_ERROR


def test_a_history_with_an_impossible_time_keeps_the_attempt():
    (attempt,) = decode(encode(a_letter(history=[Failure(1, "E", float("nan"))]))).attempts
    assert (attempt.attempt, attempt.at) == (1, None)


def test_a_topic_or_header_name_that_is_no_valid_text_does_not_keep_the_letter_from_being_written():
    letter = a_letter(headers=[("bad\ud800", b"x")], group="g\ud800")
    assert decode(encode(letter)).header_items() == [("bad\\ud800", b"x")]
    assert metadata_headers(letter)[-1] == ("relance-group", b"g\\ud800")


def test_the_record_carries_what_filters_need():
    assert metadata_headers(a_letter(error=TransientError("x"))) == [
        ("relance-error-class", b"relance.errors.TransientError"),
        ("relance-origin-topic", b"orders"),
        ("relance-group", b"orders-consumer-group"),
    ]


def test_a_letter_without_a_group_carries_no_group():
    assert [name for name, _ in metadata_headers(a_letter(group=None))] == [
        "relance-error-class",
        "relance-origin-topic",
    ]


def test_a_letter_cannot_be_changed_and_can_be_counted():
    letter = a_letter(headers=[("h", b"x")])
    with pytest.raises(AttributeError):
        letter.retry_count = 0  # type: ignore[misc]  # that it can't be set is what is tested
    assert len({letter, decode(encode(letter))}) == 1


# -- reading --------------------------------------------------------------------------------------------


def test_the_document_s_own_example_is_read():
    letter = decode(
        b"""{
          "originalTopic": "orders", "originalPartition": 2, "originalOffset": 12345,
          "originalKey": "order-123", "originalValue": "{...}",
          "errorMessage": "ValidationException: Invalid amount",
          "errorTimestamp": "2024-01-15T10:30:00Z", "retryCount": 3, "stackTrace": "..."
        }"""
    )
    assert letter.value_bytes() == b"{...}"
    assert letter.error_timestamp == "2024-01-15T10:30:00Z"
    assert letter.attempts == ()


def test_a_letter_with_only_some_fields_is_read():
    letter = decode(b'{"originalValue": "{}", "errorMessage": "IllegalArgumentException: no"}')
    assert (letter.original_topic, letter.original_partition, letter.original_offset) == ("", None, None)
    assert (letter.key_bytes(), letter.value_bytes(), letter.header_items()) == (None, b"{}", [])


def test_fields_of_others_are_ignored():
    assert decode(raw(serviceName="x", nested={"a": [1]})) == a_letter()


def test_a_header_of_two_parts_is_text():
    assert decode(raw(originalHeaders=[["h", "x"], ["n"]])).header_items() == [("h", b"x"), ("n", None)]


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        (None, "no value"),
        (b"", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b"null", "Expected `object`"),
        (b"[]", "Expected `object`"),
        (b'"text"', "Expected `object`"),
        (b"{}", "no originalTopic"),
        (b'{"orderId": "ORD-1", "amount": 5}', "no originalTopic"),
        (raw()[:-20], "truncated"),
        (raw() + b"x", "trailing"),
        (b'{"originalValue": "\xff"}', "utf-8"),
        (b'{"originalValue": "\\ud800\\ud800aaaa"}', "surrogate"),
        (b'{"originalValue": NaN}', "malformed"),
        (b'{"version": ' + b"9" * 5_000 + b"}", "out of range"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (raw(originalValue="7aC", originalValueEncoding="base64"), "originalValue is not base64"),
        (raw(originalValue="7a\nCA", originalValueEncoding="base64"), "originalValue is not base64"),
        (raw(originalValue="7aCAé", originalValueEncoding="base64"), "originalValue is not base64"),
        (raw(originalKey="=", originalKeyEncoding="base64"), "originalKey is not base64"),
        (raw(originalHeaders=[["h", "/w", "base64"]]), "originalHeaders is not base64"),
        (raw(originalValueEncoding="gzip"), "Invalid enum value 'gzip'"),
        (raw(originalValue={"amount": 5}), "$.originalValue"),
        (raw(originalPartition=-1), "$.originalPartition"),
        (raw(originalPartition=2**31), "$.originalPartition"),
        (raw(originalPartition="2"), "$.originalPartition"),
        (raw(originalPartition=True), "$.originalPartition"),
        (raw(originalOffset=2**63), "$.originalOffset"),
        (raw(originalOffset=1.5), "$.originalOffset"),
        (raw(retryCount=-1), "$.retryCount"),
        (raw(retryCount=10**9 * 3), "$.retryCount"),
        (raw(originalHeaders={"a": "b"}), "$.originalHeaders"),
        (raw(originalHeaders=[[]]), "$.originalHeaders"),
        (raw(originalHeaders=[[None, "x"]]), "$.originalHeaders"),
        (raw(attempts=3), "$.attempts"),
        (raw(attempts=[{"attempt": -1}]), "$.attempts"),
        (raw(trimmed="all"), "$.trimmed"),
        (raw(pointer="yes"), "$.pointer"),
        (raw(version=2), "unknown version 2"),
        (raw(version=0), "unknown version 0"),
        (raw(version=2, attempts="another type"), "unknown version 2"),
        (raw(version="1"), "$.version"),
        (raw(version=None), "$.version"),
    ],
)
def test_what_is_no_letter_is_refused_with_the_reason(envelope: bytes | None, reason: str):
    with pytest.raises(DecodeError) as refused:
        decode(envelope)
    assert reason in str(refused.value)


def test_a_pointer_does_not_pass_for_a_tombstone():
    pointer = msgspec.structs.replace(
        a_letter(), original_value=None, pointer=True, trimmed=("stackTrace", "originalValue")
    )
    with pytest.raises(DecodeError, match="read the original record at orders-2@12345"):
        pointer.value_bytes()
    assert pointer.key_bytes() == b"order-123"
    assert pointer.header_items() == []


def test_a_pointer_that_does_not_say_what_it_lacks_lacks_everything():
    pointer = decode(raw(originalValue=None, pointer=True))
    with pytest.raises(DecodeError, match="without originalValue"):
        pointer.value_bytes()
    with pytest.raises(DecodeError, match="without originalHeaders"):
        pointer.header_items()


def test_a_pointer_that_lacks_only_its_headers_still_gives_its_null_value():
    pointer = msgspec.structs.replace(
        a_letter(value=None), original_headers=(), pointer=True, trimmed=("originalHeaders",)
    )
    assert pointer.value_bytes() is None
    with pytest.raises(DecodeError, match="without originalHeaders"):
        pointer.header_items()
