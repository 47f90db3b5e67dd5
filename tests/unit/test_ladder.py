"""The ladder for letters that are too large."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from relance.dead_letters.envelope import DeadLetter, build, decode, encode
from relance.dead_letters.ladder import Fitted, TooLarge, fit, record_size
from relance.engine.deferral import Failure
from relance.errors import DecodeError

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
KIB = 1024


def a_letter(**changes: Any) -> DeadLetter:
    """About 10 KiB each of stack trace, history, value and headers."""
    defaults: dict[str, Any] = {
        "topic": "orders",
        "partition": 2,
        "offset": 16,
        "key": b"order-123",
        "value": b"v" * 10 * KIB,
        "headers": [("h", b"x" * 10 * KIB)],
        "group": "g",
        "error": ValueError("Invalid amount"),
        "attempts": 4,
        "history": [Failure(number, "E" * 450, 1.0) for number in range(1, 21)],
        "now": NOW,
    }
    letter = build(**(defaults | changes))
    return msgspec.structs.replace(letter, stack_trace="t" * 10 * KIB)


def fitted(letter: DeadLetter, limit: int, *, allow_pointer: bool = False) -> DeadLetter:
    result = fit(letter, limit, allow_pointer)
    assert isinstance(result, Fitted)
    assert record_size(result.letter, result.raw) <= limit
    assert result.raw == encode(result.letter)
    assert decode(result.raw) == result.letter
    return result.letter


def test_a_letter_that_fits_is_left_as_it_is():
    letter = a_letter()
    assert fitted(letter, record_size(letter, encode(letter))) is letter


def test_one_byte_too_many_costs_the_stack_trace_alone():
    letter = a_letter()
    trimmed = fitted(letter, record_size(letter, encode(letter)) - 1)
    assert trimmed.trimmed == ("stackTrace",)
    assert trimmed.stack_trace is None
    assert trimmed.attempts == letter.attempts


def test_the_history_goes_next():
    letter = a_letter()
    trimmed = fitted(letter, 30 * KIB)
    assert trimmed.trimmed == ("stackTrace", "attempts")
    assert trimmed.attempts == ()
    assert trimmed.value_bytes() == letter.value_bytes()
    assert trimmed.header_items() == letter.header_items()


def test_what_says_why_is_never_dropped():
    letter = a_letter()
    pointer = fitted(letter, 2 * KIB, allow_pointer=True)
    assert (pointer.error_message, pointer.error_class, pointer.fingerprint, pointer.retry_count) == (
        letter.error_message,
        letter.error_class,
        letter.fingerprint,
        letter.retry_count,
    )


def test_without_leave_the_record_itself_stays_and_the_letter_is_too_large():
    result = fit(a_letter(), 15 * KIB, allow_pointer=False)
    assert isinstance(result, TooLarge)
    assert result.limit == 15 * KIB
    assert 20 * KIB < result.size < 23 * KIB


def test_with_leave_a_pointer_takes_the_place_of_the_value():
    pointer = fitted(a_letter(), 15 * KIB, allow_pointer=True)
    assert pointer.trimmed == ("stackTrace", "attempts", "originalValue")
    assert pointer.pointer
    assert pointer.original_value is None
    assert pointer.header_items() == [("h", b"x" * 10 * KIB)]
    with pytest.raises(DecodeError, match="orders-2@16"):
        pointer.value_bytes()


def test_the_headers_go_last_and_only_with_leave():
    pointer = fitted(a_letter(), 2 * KIB, allow_pointer=True)
    assert pointer.trimmed == ("stackTrace", "attempts", "originalValue", "originalHeaders")
    assert pointer.original_headers == ()
    assert pointer.key_bytes() == b"order-123"


def test_twenty_thousand_headers_can_become_a_pointer():
    letter = a_letter(value=None, headers=[(f"header-{number}", b"x") for number in range(20_000)])
    pointer = fitted(letter, 2 * KIB, allow_pointer=True)
    assert pointer.trimmed == ("stackTrace", "attempts", "originalHeaders")
    assert pointer.pointer
    assert pointer.value_bytes() is None  # the record's own null, so it is told


def test_a_letter_without_coordinates_cannot_become_a_pointer():
    result = fit(a_letter(partition=None, offset=None), 15 * KIB, allow_pointer=True)
    assert isinstance(result, TooLarge)


def test_parts_that_are_not_there_are_no_steps():
    letter = msgspec.structs.replace(a_letter(history=[]), stack_trace=None)
    assert fitted(letter, 15 * KIB, allow_pointer=True).trimmed == ("originalValue",)


def test_the_key_counts_twice_and_stays():
    # Once as the record's key, once in the envelope.
    small, large = a_letter(key=b"k"), a_letter(key=b"k" * 1_001)
    assert record_size(large, encode(large)) - record_size(small, encode(small)) == 2_000
    assert isinstance(fit(large, 1_500, allow_pointer=True), TooLarge)


def test_bytes_that_swell_as_base64_count_at_their_written_size():
    letter = a_letter(value=b"\xff" * 9 * KIB, headers=[], history=[])
    assert fitted(letter, 15 * KIB).trimmed == ("stackTrace",)
    assert isinstance(fit(letter, 12 * KIB, allow_pointer=False), TooLarge)


def test_the_letter_given_is_not_changed():
    letter = a_letter()
    before = encode(letter)
    fit(letter, 1, allow_pointer=True)
    assert encode(letter) == before
