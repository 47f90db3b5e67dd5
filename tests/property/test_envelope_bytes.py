"""What holds of every dead letter: no byte is lost; nothing hostile passes `decode` or breaks `build`."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mutation import mutated, mutations
from relance.console.show import letter_of, shown
from relance.dead_letters.envelope import DeadLetter, build, decode, encode, metadata_headers
from relance.engine.deferral import Failure
from relance.errors import DecodeError

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
AWKWARD = [
    b"",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xed\xb2\x80x",
    "\u2028\u2029\x85".encode(),
    b"\xc0\x80",
    b"\xf4\x90\x80\x80",
    b'"\\',
    b"\x7f\x1b[0m",
]
payloads = st.none() | st.binary() | st.text().map(lambda text: text.encode()) | st.sampled_from(AWKWARD)
header_lists = st.lists(st.tuples(st.text(st.characters(codec="utf-8")), payloads), max_size=8)
any_text = st.text(st.characters())  # lone surrogates included


def a_letter(**changes: Any) -> DeadLetter:
    defaults: dict[str, Any] = {
        "topic": "orders",
        "partition": 2,
        "offset": 16,
        "key": b"k",
        "value": b"v",
        "group": "g",
        "error": ValueError("x"),
        "attempts": 1,
        "now": NOW,
    }
    return build(**(defaults | changes))


@given(key=payloads, value=payloads, headers=header_lists)
def test_key_value_and_headers_come_back_byte_for_byte(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    letter = decode(encode(a_letter(key=key, value=value, headers=headers)))
    assert letter.key_bytes() == key
    assert letter.value_bytes() == value
    assert letter.header_items() == headers


@given(
    topic=any_text.filter(bool),
    group=st.none() | any_text,
    text=any_text,
    partition=st.none() | st.integers(-1, 2**31 - 1),
    offset=st.none() | st.integers(-1001, 2**63 - 1),
    timestamp=st.none() | st.integers(-(2**63), 2**63 - 1) | st.datetimes(),
    attempts=st.integers(0, 10**6),
    history=st.lists(st.builds(Failure, st.integers(1, 10**6), any_text, st.floats()), max_size=5),
    headers=st.lists(st.tuples(any_text, payloads), max_size=3),
    now=st.datetimes() | st.datetimes(timezones=st.timezones()),
)
def test_whatever_is_built_can_be_written_and_read(text: str, headers: Any, **parts: Any) -> None:
    letter = a_letter(error=ValueError(text), headers=headers, **parts)
    assert decode(encode(letter)) == letter
    assert all(value is not None for _, value in metadata_headers(letter))


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_arbitrary_bytes_are_refused_in_words(raw: bytes) -> None:
    # A random find of a valid letter isn't to be expected; a valid one must have one of its three fields.
    with pytest.raises(DecodeError):
        decode(raw)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=12,
)
names = st.sampled_from([field.encode_name for field in msgspec.structs.fields(DeadLetter)])


@given(st.dictionaries(names, json_values | st.sampled_from(["base64", "utf-8", "====", 1, -1, 2**63])))
@example({"originalValue": "A", "originalValueEncoding": "base64"})
@example({"originalTopic": "orders", "version": 10**30})
def test_a_forged_letter_is_refused_or_can_be_read_and_written_whole(forged: dict[str, Any]) -> None:
    try:
        letter = decode(msgspec.json.encode(forged))
    except DecodeError:
        return
    assert decode(encode(letter)) == letter
    letter.key_bytes()
    if not letter.pointer and not letter.trimmed:
        letter.value_bytes()
        letter.header_items()


@given(value=payloads, cut=st.integers(min_value=1))
def test_a_letter_cut_short_is_refused(value: bytes | None, cut: int) -> None:
    raw = encode(a_letter(value=value))
    with pytest.raises(DecodeError):
        decode(raw[: -(cut % len(raw) or 1)])


@given(key=payloads, value=payloads, headers=header_lists, changes=mutations)
def test_a_damaged_letter_is_refused_in_words_or_can_be_read_whole_and_the_console_shows_it(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], changes: object
) -> None:
    raw = mutated(encode(a_letter(key=key, value=value, headers=headers, group="g")), changes)
    letter_of(raw, 8192)
    shown(raw, 8192)
    try:
        letter = decode(raw)
    except DecodeError as refused:
        str(refused).encode()  # what it quotes can be written
        return
    assert decode(encode(letter)) == letter
    letter.key_bytes()
    if not letter.pointer and not letter.trimmed and not letter.masked:
        letter.value_bytes()
        letter.header_items()
