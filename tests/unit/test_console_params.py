"""Addresses that visitors type, or make up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relance.console.params import BadInputError, Look, cursor, cursor_text, integer, look
from relance.kafka.browse import FetchedRecord


def test_an_empty_form_asks_for_the_newest_of_all() -> None:
    empty = {"limit": "", "partition": "", "offset": " ", "key": "", "before": ""}
    assert look({}) == look(empty) == Look(limit=50)


def test_all_that_can_be_asked_for() -> None:
    asked = look({"limit": "25", "partition": "3", "key": "ORD", "before": "3:17"})
    assert asked == Look(25, 3, "ORD", ((3, 17),))


def test_an_offset_is_where_to_start_from_and_included() -> None:
    assert look({"partition": "3", "offset": "16"}).before == ((3, 17),)
    assert look({"partition": "3", "offset": str(2**63 - 1)}).before == ((3, 2**63 - 1),)


@pytest.mark.parametrize(
    ("query", "status", "name"),
    [
        ({"limit": "1000000000"}, 422, "limit"),
        ({"limit": "0"}, 422, "limit"),
        ({"limit": "ten"}, 422, "limit"),
        ({"limit": "1e3"}, 422, "limit"),
        ({"limit": "٣"}, 422, "limit"),
        ({"limit": "9" * 5000}, 422, "limit"),
        ({"partition": "-1"}, 422, "partition"),
        ({"partition": str(2**31)}, 422, "partition"),
        ({"partition": "0", "offset": str(2**63)}, 422, "offset"),
        ({"partition": "0", "offset": "-1"}, 422, "offset"),
        ({"offset": "5"}, 422, "offset"),
        ({"partition": "0", "offset": "5", "before": "0:3"}, 422, "offset"),
        ({"key": "x" * 257}, 422, "key"),
        ({"key": "\ud800"}, 422, "key"),
        ({"before": "zz"}, 400, "before"),
        ({"before": "0:1,0:2"}, 400, "before"),
        ({"before": "0:-1"}, 400, "before"),
        ({"before": f"{2**31}:1"}, 400, "before"),
        ({"before": f"0:{2**63}"}, 400, "before"),
        ({"before": "0:1,"}, 400, "before"),
        ({"before": "9" * 5000 + ":1"}, 400, "before"),
    ],
)
def test_what_cannot_be_right_is_named(query: dict[str, str], status: int, name: str) -> None:
    with pytest.raises(BadInputError) as caught:
        look(query)
    assert (caught.value.status, caught.value.name) == (status, name)
    assert len(str(caught.value)) < 200, "what was typed is quoted, not repeated at length"


@given(st.dictionaries(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), max_size=8))
def test_a_cursor_survives_the_address(before: dict[int, int]) -> None:
    assert dict(cursor(cursor_text(before))) == before


@given(st.text())
def test_no_text_upsets_it(text: str) -> None:
    for read in (cursor, lambda t: integer({"n": t}, "n", 0, 10)):
        try:
            read(text)
        except BadInputError:
            pass


def test_the_key_filter_knows_no_case() -> None:
    record = FetchedRecord("t", 0, 0, b"ORD-\xff1", None, (), None)
    assert Look(1, key="ord-").matches(record)
    assert not Look(1, key="ord-2").matches(record)
    assert not Look(1, key="x").matches(FetchedRecord("t", 0, 0, None, b"x", (), None))
