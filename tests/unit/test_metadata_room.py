from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relance.engine.metadata_room import MetadataRoom
from relance.engine.offset_map import LIMIT

HEAD = 60  # characters


def commit(room: MetadataRoom, wanted: int, most: int) -> bool:
    """A text of at most `wanted` characters; whether a broker that takes `most` takes it."""
    length = min(wanted, room.limit)
    if length < HEAD:  # what stands before a map is written whole or not at all
        length = 0
    if length > most:
        room.refused(length)
        return False
    room.took(length)
    return True


@given(st.integers(0, LIMIT), st.lists(st.integers(60, LIMIT), min_size=1, max_size=60))
def test_no_two_commits_in_a_row_are_refused_and_few_at_all(most: int, wanted: list[int]) -> None:
    room = MetadataRoom()
    taken = [commit(room, each, most) for each in wanted]
    assert all(a or b for a, b in pairwise(taken))
    assert taken.count(False) <= 8


@pytest.mark.parametrize(("most", "refusals"), [(0, 2), (20, 2), (64, 6), (100, 6), (1000, 6), (4096, 0)])
def test_most_of_what_is_taken_is_found_with_few_refusals(most: int, refusals: int) -> None:
    room = MetadataRoom()
    taken = [commit(room, HEAD, most), *(commit(room, LIMIT, most) for _ in range(40))]
    assert taken.count(False) <= refusals
    if most > HEAD:
        assert room.limit >= min(most, LIMIT) / 1.25


def test_what_it_costs_is_told_once_it_is_known_and_that_it_is_over() -> None:
    room = MetadataRoom()
    room.took(60)
    assert (room.news(), room.cost()) == (None, None)
    room.refused(1000)
    assert room.news() is None, "what is taken instead is not known yet"
    room.took(60)
    told = room.news()
    assert told is not None
    assert "refuses 1000 characters of metadata beside a committed offset and takes 60" in told
    room.refused(250)
    room.took(200)
    assert room.news() is None
    assert "refuses 250 characters" in str(room.cost())
    room.forget()
    assert room.limit == LIMIT
    assert room.cost() is not None, "it is not known to be over"
    room.took(2000)
    assert room.cost() is None
    assert room.news() == "the broker takes all metadata beside committed offsets again"
    assert room.news() is None


def test_a_broker_that_was_started_anew_with_less_room_gets_an_offset_alone_at_once() -> None:
    room = MetadataRoom()
    room.took(60)
    room.refused(60)
    assert room.limit == 0
    room.took(0)
    assert "takes no metadata" in str(room.news())
