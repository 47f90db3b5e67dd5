"""What lies in Kafka as text for people: faithful, visible, bounded."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relance.console import show
from relance.console.show import RecordView, Shown, json_value, letter_of, shown
from relance.dead_letters import build, encode
from relance.dead_letters.masking import masked
from relance.kafka.browse import FetchedRecord
from relance.policies.masking import HIDDEN, Mask

LIMIT = 8 * 1024


def text(raw: bytes, limit: int = LIMIT) -> str:
    return shown(raw, limit).text


def test_null_and_empty_and_the_word_null_are_three_things() -> None:
    assert shown(None, LIMIT) == Shown("null", "null", 0)
    assert shown(b"", LIMIT) == Shown("empty", "empty", 0)
    assert shown(b"null", LIMIT) == Shown("text", "null", 4)


def test_json_is_indented() -> None:
    raw = b'{"a":1,"b":[true,{}],"c":{"d":[]},"e":[ ]}'
    assert shown(raw, LIMIT).kind == "json"
    assert text(raw) == (
        '{\n  "a": 1,\n  "b": [\n    true,\n    {}\n  ],\n  "c": {\n    "d": []\n  },\n  "e": []\n}'
    )


def test_json_keeps_every_token_as_it_was_written() -> None:
    raw = rb'{"n":1.10,"big":123456789012345678901234567890,"k":1,"k":2,"u":"\u00e9\"}{","e":1E+2}'
    assert re.sub(r"\s", "", text(raw)) == raw.decode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_indented_json_is_the_same_json(value: object) -> None:
    raw = json.dumps({"v": value}).encode()
    view = shown(raw, 10**6)
    assert view.kind == "json"
    assert json.loads(view.text) == {"v": value}


@given(st.binary(max_size=300))
def test_no_bytes_upset_it(raw: bytes) -> None:
    for limit in (1, 7, 10_000):
        view = shown(raw, limit)
        assert view.size == len(raw)
        assert 0 <= view.cut <= len(raw)
        assert all(c.isprintable() or c in "\n\t\u00a0" for c in view.text if ord(c) < 0x2000)


@given(st.text(alphabet='{}[],:"\\ 1ntrue'))
def test_almost_json_does_not_upset_it(almost: str) -> None:
    assert shown(("{" + almost).encode(), LIMIT).kind in ("json", "text")


@pytest.mark.parametrize("raw", [b'{"a":', b"[1,]", b"{a:1}", b'{"a":NaN}', b'{"a":1}x'])
def test_what_only_looks_like_json_is_text(raw: bytes) -> None:
    assert shown(raw, LIMIT) == Shown("text", raw.decode(), len(raw))


def test_a_bomb_of_brackets_is_text() -> None:
    for depth in (show.DEPTH + 1, 3_000, 30_000):
        raw = b"[" * depth + b"]" * depth
        assert shown(raw, 10**6).kind == "text"


def test_long_json_is_indented_as_far_as_there_is_room_and_says_what_is_missing() -> None:
    raw = json.dumps([{"i": i} for i in range(3000)]).encode()
    view = shown(raw, 1024)
    assert view.kind == "json"
    assert len(view.text) < 4096
    assert view.text.startswith('[\n  {\n    "i": 0\n  },')
    assert 0 < view.cut < len(raw)


def test_long_text_is_cut_between_characters() -> None:
    raw = ("é" * 100).encode()
    view = shown(raw, 51)
    assert (view.kind, view.text, view.size, view.cut) == ("text", "é" * 25, 200, 149)


def test_what_is_not_utf_8_is_dumped() -> None:
    view = shown(b"\xff\x00A" * 10, LIMIT)
    assert view.kind == "binary"
    assert view.text.splitlines()[0] == (
        "00000000  ff 00 41 ff 00 41 ff 00  41 ff 00 41 ff 00 41 ff  |..A..A..A..A..A.|"
    )
    assert shown(b"text" + b"\xff" * 5000, 4096).cut == 5004 - show.DUMP


def test_a_dump_lists_every_byte() -> None:
    raw = bytes(range(256))
    listed = "".join(line[10:58] for line in show.dump(raw).splitlines())
    assert bytes.fromhex(listed.replace(" ", "")) == raw


def test_a_preview_is_one_line() -> None:
    assert shown(b'{"a": 1,\n "b": "x  y"}', LIMIT).preview == '{ "a": 1, "b": "x y" }'
    long = shown(b"x" * 1000, LIMIT).preview
    assert (len(long), long[-1]) == (show.PREVIEW, "…")


class ValidationException(Exception):
    pass


def a_letter(**changes: object) -> bytes:
    facts = {
        "topic": "orders",
        "partition": 2,
        "offset": 16,
        "key": b"ORD-1",
        "value": b'{"amount":-50}',
        "headers": [("h", b"\xff"), ("n", None)],
        "timestamp": 1_700_000_000_000,
        "group": "g",
        "error": ValidationException("Invalid amount"),
        "attempts": 1,
        "now": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return encode(build(**(facts | changes)))  # type: ignore[arg-type]


def test_a_dead_letter_is_recognised_with_its_original() -> None:
    found = letter_of(a_letter(), LIMIT)
    assert found is not None
    assert (found.error_class, found.message) == ("ValidationException", "Invalid amount")
    assert found.value.text == '{\n  "amount": -50\n}'
    assert [(name, item.kind) for name, item in found.headers] == [("h", "binary"), ("n", "null")]


def test_a_dead_letter_that_never_was_a_record_has_no_place() -> None:
    found = letter_of(a_letter(partition=None, offset=None), LIMIT)
    assert found is not None
    assert found.letter.original_partition is None


def test_a_letter_whose_fields_were_masked_is_a_letter_and_shows_what_is_left_of_them() -> None:
    letter = build(
        topic="orders",
        partition=1,
        offset=2,
        key=b"k",
        value=b'{"card":"4111","id":7}',
        headers=[("token", b"secret"), ("kind", b"new")],
        group="g",
        error=ValueError("declined"),
        attempts=1,
        now=0.0,
    )
    raw = encode(masked(letter, Mask(fields=["card"], headers=["token"])))
    found = letter_of(raw, LIMIT)
    assert found is not None
    assert found.error_class == "ValueError"
    assert "4111" not in found.value.text
    assert '"id": 7' in found.value.text
    assert [(name, item.text) for name, item in found.headers] == [("token", HIDDEN), ("kind", "new")]
    assert found.letter.masked == ("originalValue", "originalHeaders")


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b'{"originalTopic": 1, "errorMessage": 2}',
        b'{"originalTopic": "t", "errorMessage": "e", "version": 99}',
        b'{"originalTopic":"t","errorMessage":"e","originalValue":"%","originalValueEncoding":"base64"}',
        b'{"errorMessage": "only"}',
    ],
)
def test_what_is_no_dead_letter_is_a_record_like_any_other(raw: bytes | None) -> None:
    assert letter_of(raw, LIMIT) is None


def test_a_letter_of_the_original_course_is_recognised_by_its_nine_fields() -> None:
    raw = {"originalTopic": "orders", "originalPartition": 2, "originalOffset": 5, "originalKey": "k"}
    raw |= {"originalValue": "{}", "errorMessage": "ValidationException: Invalid amount", "retryCount": 3}
    found = letter_of(json.dumps(raw).encode(), LIMIT)
    assert found is not None
    assert (found.error_class, found.message) == ("ValidationException", "Invalid amount")


def test_a_record_view_shows_all_parts() -> None:
    record = FetchedRecord("t", 0, 1, b"k", b"v", (("h\x00", b"x"),), None)
    view = RecordView.of(record, LIMIT)
    assert (view.key.text, view.value.text, view.letter) == ("k", "v", None)
    assert [(name, item.text) for name, item in view.headers] == [("h␀", "x")]


def test_bytes_travel_in_json_without_loss() -> None:
    assert json_value(None) == (None, "utf-8")
    assert json_value("é".encode()) == ("é", "utf-8")
    assert json_value(b"\xff\x00") == ("/wA=", "base64")


def test_numbers_sizes_and_times_are_written_for_people() -> None:
    assert show.number(1234567) == "1\u202f234\u202f567"
    assert show.number(None) == "–"
    assert [show.size(n) for n in (5, 2048, 5 * 1024**2)] == ["5 B", "2.0 KiB", "5.0 MiB"]
    assert show.when(datetime(2026, 11, 23, 20, 16, 34, 307999, UTC)) == "2026-11-23 20:16:34.307"
    assert show.when(None) == ""
