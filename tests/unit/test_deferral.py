"""The retry record's headers."""

from typing import Any

import msgspec
import pytest

from relance.engine.deferral import (
    HEADER_NAMES,
    MAX_ATTEMPT,
    MAX_ERROR,
    MAX_HISTORY,
    MAX_HISTORY_ERROR,
    Deferral,
    Failure,
    NotOurs,
    Unreadable,
    defer,
    deferral_id,
    from_headers,
    original_headers,
    to_headers,
    wait,
)

NOW = 1_700_000_000.0
DAY = 86_400.0

Headers = list[tuple[str, bytes | None]]


def a_deferral(**changes: Any) -> Deferral:
    defaults: dict[str, Any] = {
        "group": "g",
        "topic": "orders",
        "partition": 2,
        "offset": 16,
        "timestamp": 1_699_999_999_123,
        "attempt": 2,
        "delay": 1.023,
        "now": NOW,
        "error": "TransientError: simulated",
    }
    return defer(**(defaults | changes))


def forged(**changes: bytes | None) -> Headers:
    """Good headers with some replaced; a name in the arguments has _ for -."""
    replaced = {"relance-" + name.replace("_", "-"): value for name, value in changes.items()}
    assert replaced.keys() <= HEADER_NAMES
    return [(name, replaced.get(name, value)) for name, value in to_headers(a_deferral(), [])]


def without(name: str) -> Headers:
    return [(given, value) for given, value in to_headers(a_deferral(), []) if given != name]


def read(headers: Headers, *, now: float = NOW, max_delay: float = DAY) -> Deferral | NotOurs | Unreadable:
    return from_headers(headers, group="g", now=now, max_delay=max_delay)


def read_well(headers: Headers, *, now: float = NOW, max_delay: float = DAY) -> Deferral:
    deferral = read(headers, now=now, max_delay=max_delay)
    assert isinstance(deferral, Deferral)
    return deferral


# -- deferring ------------------------------------------------------------------------------------------


def test_a_first_failure_is_due_after_its_delay():
    assert a_deferral() == Deferral(
        id="g:orders:2:16",
        attempt=2,
        due=NOW + 1.023,
        delay=1.023,
        first_failure=NOW,
        last_error="TransientError: simulated",
        group="g",
        origin_topic="orders",
        origin_partition=2,
        origin_offset=16,
        origin_timestamp=1_699_999_999_123,
        history=(Failure(1, "TransientError: simulated", NOW),),
    )


def test_a_later_failure_keeps_the_first_one_s_time_and_the_id():
    first = a_deferral()
    second = a_deferral(
        attempt=3, now=NOW + 5, error="E: other", first_failure=first.first_failure, history=first.history
    )
    assert (second.first_failure, second.id) == (NOW, first.id)
    assert second.last_error == "E: other"
    assert [(failure.attempt, failure.at) for failure in second.history] == [(1, NOW), (2, NOW + 5)]


def test_the_history_holds_the_last_failures_only():
    history: tuple[Failure, ...] = ()
    for attempt in range(2, 102):
        history = a_deferral(attempt=attempt, history=history).history
    assert len(history) == MAX_HISTORY
    assert [failure.attempt for failure in history] == list(range(81, 101))


def test_long_errors_are_cut():
    deferral = a_deferral(error="x" * 1_000_000)
    assert len(deferral.last_error) == MAX_ERROR
    assert len(deferral.history[0].error) == MAX_HISTORY_ERROR


def test_the_headers_stay_small_however_often_a_record_fails():
    history: tuple[Failure, ...] = ()
    for attempt in range(2, 200):
        deferral = a_deferral(attempt=attempt, error="x" * 100_000, history=history)
        history = deferral.history
    assert sum(len(name) + len(value or b"") for name, value in to_headers(deferral, [])) < 8_192


def test_the_id_names_the_group_and_the_origin():
    assert deferral_id("g", "orders", 2, 16) == "g:orders:2:16"


# -- waiting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOW, 10.0),
        (NOW + 4, 6.0),
        (NOW + 10, 0.0),
        (NOW + 3_600, 0.0),  # the reader's clock is ahead, or it was away
        (NOW - 3_600, 10.0),  # the reader's clock is behind: never longer than the delay
    ],
)
def test_the_wait_is_what_is_left_but_at_most_the_delay_and_never_negative(now: float, expected: float):
    assert wait(a_deferral(delay=10.0), now) == expected


# -- writing --------------------------------------------------------------------------------------------


def test_the_headers_are_text_that_kafka_s_own_tools_can_show():
    assert to_headers(a_deferral(), []) == [
        ("relance-version", b"1"),
        ("relance-id", b"g:orders:2:16"),
        ("relance-attempt", b"2"),
        ("relance-due", b"1700000001023"),
        ("relance-delay-ms", b"1023"),
        ("relance-first-failure", b"1700000000000"),
        ("relance-last-error", b"TransientError: simulated"),
        ("relance-group", b"g"),
        ("relance-origin-topic", b"orders"),
        ("relance-origin-partition", b"2"),
        ("relance-origin-offset", b"16"),
        ("relance-origin-timestamp", b"1699999999123"),
        ("relance-history", b'[{"attempt":1,"error":"TransientError: simulated","at":1700000000.0}]'),
    ]


def test_exactly_the_names_that_are_ours_are_written():
    assert {name for name, _ in to_headers(a_deferral(), [])} == HEADER_NAMES


def test_the_original_headers_come_first_with_repeats_and_nulls():
    original: Headers = [("a", None), ("b", b""), ("a", b"\xff"), ("a", None)]
    headers = to_headers(a_deferral(), original)
    assert headers[:4] == original
    assert original_headers(headers) == original


def test_headers_of_an_earlier_deferral_are_replaced():
    original: Headers = [("a", b"1"), ("b", None)]
    first = to_headers(a_deferral(), original)
    second = to_headers(a_deferral(attempt=3), first)
    assert len(second) == len(first)
    assert original_headers(second) == original
    assert read_well(second).attempt == 3


def test_a_header_of_the_record_that_only_shares_the_prefix_stays():
    original: Headers = [("relance-replay-id", b"r1"), ("Relance-Due", b"x"), ("relance-", None)]
    assert original_headers(to_headers(a_deferral(), original)) == original


def test_a_due_time_is_rounded_up_so_that_it_is_never_early():
    assert read_well(to_headers(a_deferral(delay=0.0101), [])).due >= NOW + 0.0101
    assert read_well(to_headers(a_deferral(delay=0.0101), [])).delay == 0.011


def test_an_error_that_is_no_valid_text_is_written_all_the_same():
    deferral = read_well(to_headers(a_deferral(error="a\udc80b\0\u2028"), []))
    assert deferral.last_error == "a\\udc80b\0\u2028"


# -- reading --------------------------------------------------------------------------------------------


def test_what_was_written_is_read():
    deferral = a_deferral()
    assert read_well(to_headers(deferral, [("a", None)])) == deferral


def test_a_record_without_a_timestamp_stays_without():
    assert read_well(to_headers(a_deferral(timestamp=None), [])).origin_timestamp is None


def test_a_record_of_another_group_is_not_ours():
    assert from_headers(to_headers(a_deferral(), []), group="other", now=NOW, max_delay=DAY) == NotOurs("g")


def test_what_another_group_wrote_is_its_own_business():
    headers = [*forged(group=b"theirs", attempt=b"-1", version=b"9", due=None), ("relance-id", b"twice")]
    assert read(headers) == NotOurs("theirs")


def test_a_record_that_names_no_group_would_vanish_so_it_is_unreadable():
    assert read([]) == Unreadable("relance-group is missing")
    assert read([("a", b"1")]) == Unreadable("relance-group is missing")


@pytest.mark.parametrize("name", sorted(HEADER_NAMES))
def test_each_header_must_be_there_once_and_not_be_null(name: str):
    good = to_headers(a_deferral(), [])
    assert read(without(name)) == Unreadable(f"{name} is missing")
    assert read([*good, *(header for header in good if header[0] == name)]) == Unreadable(
        f"{name} is there more than once"
    )
    assert read([*without(name), (name, None)]) == Unreadable(f"{name} is null")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": b"2"}, "relance-version 2 is unknown"),
        ({"version": b"one"}, "relance-version is not a whole number"),
        ({"attempt": b"-1"}, "relance-attempt is -1"),
        ({"attempt": b"0"}, "relance-attempt is 0"),
        ({"attempt": b"1000000000"}, "relance-attempt is 1000000000"),
        ({"attempt": str(MAX_ATTEMPT + 1).encode()}, "relance-attempt is 1000001"),
        ({"attempt": b"NaN"}, "relance-attempt is not a whole number: b'NaN'"),
        ({"attempt": b"2.0"}, "relance-attempt is not a whole number"),
        ({"attempt": b""}, "relance-attempt is not a whole number"),
        ({"attempt": b" 2"}, "relance-attempt is not a whole number"),
        ({"attempt": b"2\n"}, "relance-attempt is not a whole number"),
        ({"attempt": b"+2"}, "relance-attempt is not a whole number"),
        ({"attempt": b"1_0"}, "relance-attempt is not a whole number"),
        ({"attempt": "٢".encode()}, "relance-attempt is not a whole number"),
        ({"attempt": b"\xff"}, "relance-attempt is not a whole number"),
        ({"attempt": b"\0\0\0\2"}, "relance-attempt is not a whole number"),  # Spring's form
        ({"due": b"nan"}, "relance-due is not a whole number"),
        ({"due": b"inf"}, "relance-due is not a whole number"),
        ({"due": b"-1"}, "relance-due is -1"),
        ({"due": b"9" * 5_000}, "relance-due is not a whole number"),
        ({"due": b"9" * 19}, "relance-due is 9999999999999999999"),
        ({"delay_ms": b"-1"}, "relance-delay-ms is -1"),
        ({"delay_ms": b"1e3"}, "relance-delay-ms is not a whole number"),
        ({"first_failure": b"-5"}, "relance-first-failure is -5"),
        ({"first_failure": b"253402300800000"}, "relance-first-failure is 253402300800000"),
        ({"origin_partition": b"-1"}, "relance-origin-partition is -1"),
        ({"origin_partition": b"2147483648"}, "relance-origin-partition is 2147483648"),
        ({"origin_offset": b"-1"}, "relance-origin-offset is -1"),
        ({"origin_offset": b"9223372036854775808"}, "relance-origin-offset is 9223372036854775808"),
        ({"origin_timestamp": b"-2"}, "relance-origin-timestamp is -2"),
        ({"origin_topic": b"../x"}, "relance-origin-topic is not a topic's name"),
        ({"origin_topic": b".."}, "relance-origin-topic is not a topic's name"),
        ({"origin_topic": b""}, "relance-origin-topic is not a topic's name"),
        ({"origin_topic": b"orders\n"}, "relance-origin-topic is not a topic's name"),
        ({"origin_topic": b"o" * 250}, "relance-origin-topic is not a topic's name"),
        ({"origin_topic": b"\xff"}, "relance-origin-topic is not UTF-8"),
        ({"origin_topic": b"payments"}, "relance-id does not name its own origin"),
        ({"id": b"g:orders:2:17"}, "relance-id does not name its own origin"),
        ({"group": b"\xff"}, "relance-group is not UTF-8"),
        ({"group": b""}, "relance-group is empty"),
        ({"last_error": b"\xff"}, "relance-last-error is not UTF-8"),
        ({"history": b""}, "relance-history: "),
        ({"history": b"{}"}, "relance-history: "),
        ({"history": b"[" * 100_000}, "relance-history: "),
        ({"history": b'[{"attempt":0,"error":"E","at":1}]'}, "relance-history: "),
        ({"history": b'[{"attempt":1,"error":"E","at":-1}]'}, "relance-history: "),
        ({"history": b'[{"attempt":1,"error":"E","at":1e400}]'}, "relance-history: "),
        ({"history": b'[{"attempt":1,"error":"E","at":NaN}]'}, "relance-history: "),
        ({"history": b'[{"attempt":1,"error":"\xff","at":1}]'}, "relance-history: "),
        ({"history": b'[{"attempt":1,"at":1}]'}, "relance-history: "),
    ],
)
def test_forged_headers_are_unreadable_and_the_reason_is_told(changes: dict[str, bytes], reason: str):
    unreadable = read(forged(**changes))
    assert isinstance(unreadable, Unreadable)
    assert unreadable.reason.startswith(reason)
    assert len(unreadable.reason) < 500


@pytest.mark.parametrize("due", [b"253402300799999", b"9223372036854775807"])
def test_a_due_time_in_the_year_9999_is_cut_to_the_longest_delay_and_flagged(due: bytes):
    deferral = read_well(forged(due=due), max_delay=300.0)
    assert deferral.clamped
    assert deferral.due == NOW + 300
    assert wait(deferral, NOW) <= 300


def test_a_forged_delay_is_cut_too():
    deferral = read_well(forged(due=b"253402300799999", delay_ms=b"9223372036854775807"), max_delay=300.0)
    assert deferral.clamped
    assert (deferral.delay, wait(deferral, NOW)) == (300.0, 300.0)


def test_a_wait_that_is_allowed_is_not_flagged():
    assert not read_well(to_headers(a_deferral(delay=300.0), []), max_delay=300.0).clamped


def test_a_due_time_in_the_past_is_due_now():
    deferral = read_well(forged(due=b"0"))
    assert not deferral.clamped
    assert wait(deferral, NOW) == 0.0


def test_of_a_forged_history_the_last_entries_are_kept_and_cut():
    history = msgspec.json.encode([Failure(number, "x" * 10_000, 0.0) for number in range(1, 1_001)])
    failures = read_well(forged(history=history)).history
    assert [failure.attempt for failure in failures] == list(range(981, 1_001))
    assert all(len(failure.error) == MAX_HISTORY_ERROR for failure in failures)


def test_twenty_thousand_headers_are_read():
    original: Headers = [(f"h{number % 5}", None) for number in range(20_000)]
    headers = to_headers(a_deferral(), original)
    assert read_well(headers) == a_deferral()
    assert original_headers(headers) == original
