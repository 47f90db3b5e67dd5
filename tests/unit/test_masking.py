"""What is hidden, where, and what a letter says about it."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relance import DecodeError, Mask, SettingsError
from relance.dead_letters.envelope import decode
from relance.errors import Reject, TransientError
from relance.outgoing import dead_letter
from relance.policies.masking import HIDDEN
from relance.policies.retry import RetryPolicy
from relance.record import Outgoing
from world import DLT, ORDERS, Message, a_member, record

CARD = r"\b\d{16}\b"
NOW = 1_700_000_000.0


def letter(mask: Mask, value: bytes | None, error: str = "bad", **headers: bytes | None) -> Any:
    found = Message(3, b"k", value, own_headers=list(headers.items())).as_record(ORDERS)
    outgoing = dead_letter(found, Reject(error), topic=DLT, group="g", now=NOW, mask=mask)
    assert isinstance(outgoing, Outgoing)
    return decode(outgoing.value)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (b'{"card":"1","amount":2}', {"card": HIDDEN, "amount": 2}),
        (
            b'{"customer":[{"Card":{"number":"1"}},{"name":"x"}]}',
            {"customer": [{"Card": HIDDEN}, {"name": "x"}]},
        ),
        (b'[{"CARD":null}]', [{"CARD": HIDDEN}]),
    ],
)
def test_fields_are_hidden_however_deep_and_in_whatever_case(given: bytes, shown: Any) -> None:
    found = letter(Mask(fields=["card"]), given)
    assert json.loads(found.original_value) == shown
    assert found.masked == ("originalValue",)


@pytest.mark.parametrize("value", [b"\xff\x00", b"not json 4111", b"[" * 5000, b'{"card":NaN}', b""])
def test_a_value_that_is_no_json_is_hidden_as_a_whole(value: bytes) -> None:
    found = letter(Mask(fields=["card"]), value)
    assert (found.original_value, found.original_value_encoding) == (HIDDEN, "utf-8")
    assert found.masked == ("originalValue",)


@pytest.mark.parametrize(
    "value",
    [
        b'{"customer":{"card":"4111"},"customer":1}',
        b'{"card":"4111","card":"***"}',
        b'[{"x":{"card":"4111"},"\\u0078":{}}]',
        b'{"a":1,"a":1}',
    ],
)
def test_a_name_that_stands_twice_hides_the_whole_since_one_of_the_two_would_be_shown(value: bytes) -> None:
    found = letter(Mask(fields=["card"]), value)
    assert found.original_value == HIDDEN
    assert found.masked == ("originalValue",)


def test_nesting_that_is_too_deep_to_look_through_is_hidden() -> None:
    raw = b'{"a":' * 150 + b'{"card":"4111"}' + b"}" * 150
    assert b"4111" not in (Mask(fields=["card"]).value(raw) or b"")


@pytest.mark.parametrize("value", [b'{"amount": 2}', None])
def test_what_holds_nothing_to_hide_stays_byte_for_byte(value: bytes | None) -> None:
    found = letter(Mask(fields=["card"]), value)
    assert found.value_bytes() == value
    assert found.masked == ()


def test_headers_are_hidden_by_name_and_null_stays_null() -> None:
    found = letter(
        Mask(headers=["Authorization"]), b"1", authorization=b"Bearer x", other=b"y", AUTHORIZATION=None
    )
    assert [(h.name, h.value) for h in found.original_headers] == [
        ("authorization", HIDDEN),
        ("other", "y"),
        ("AUTHORIZATION", None),
    ]
    assert found.masked == ("originalHeaders",)


def test_whoever_wants_what_is_hidden_is_told_where_the_record_lies() -> None:
    found = letter(Mask(headers=["token"], fields=["card"]), b'{"card":1}', token=b"x")
    with pytest.raises(DecodeError, match="originalValue masked: read the original record at orders-0@3"):
        found.value_bytes()
    with pytest.raises(DecodeError, match="originalHeaders masked"):
        found.header_items()


def test_patterns_hide_what_errors_quote() -> None:
    found = letter(Mask(patterns=[CARD]), b"1", error="card 4111111111111111 is refused")
    assert "4111" not in found.error_message + found.stack_trace + found.attempts[0].error
    assert f"card {HIDDEN} is refused" in found.error_message
    assert found.masked == ()  # nothing of the record itself
    assert found.value_bytes() == b"1"


def test_without_rules_nothing_is_hidden() -> None:
    found = letter(Mask(), b'{"card":1}', token=b"x")
    assert found.value_bytes() == b'{"card":1}'
    assert found.header_items() == [("token", b"x")]
    assert found.masked == ()


def test_log_lines_retry_headers_and_history_are_masked_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    policy = RetryPolicy.fixed(1.0, max_attempts=2)
    mask = Mask(patterns=[CARD])
    member = a_member(retry=policy, retry_topic="orders.retry", max_in_memory_wait=0.0, mask=mask)
    error = TransientError("card 4111111111111111")
    found = record(0)
    judge = member.runtime._judge
    told = judge.told(error, found)
    first = judge.note_failure(found, told)
    judge.log_retry(record(1), 1.0, told.__str__)
    judge.log_dead_letter(record(1), DLT, error, attempts=1)
    deferred = judge.judge(record(2), error)
    assert first.error == f"TransientError: card {HIDDEN}"
    assert "4111" not in caplog.text
    assert caplog.text.count(HIDDEN) == 2
    assert "4111" not in str(deferred)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"patterns": "secret"}, r"^mask\.patterns: .*write patterns=\['secret'\]"),
        ({"patterns": ["("]}, r"^mask\.patterns: '\(' is no regular expression"),
        ({"patterns": ["x*"]}, r"^mask\.patterns: .*match everywhere"),
        ({"headers": [""]}, r"^mask\.headers: "),
        ({"fields": [1]}, r"^mask\.fields: "),
        ({"fields": 3}, r"^mask\.fields: "),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_by_name(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Mask(**rules)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("card"), inner),
    max_leaves=20,
)


@given(JSON)
def test_no_value_of_a_hidden_field_is_ever_shown(value: Any) -> None:
    shown = json.loads(Mask(fields=["card"]).value(json.dumps(value).encode()) or b"null")

    def look(given: Any) -> None:
        if isinstance(given, dict):
            assert given.get("card", HIDDEN) == HIDDEN
            for item in given.values():
                look(item)
        elif isinstance(given, list):
            for item in given:
                look(item)

    look(shown)
