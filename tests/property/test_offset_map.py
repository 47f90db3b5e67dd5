import base64
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maps import our_map, varint
from mutation import mutated, mutations
from relance.engine.crashes import read_mark
from relance.engine.offset_map import (
    LIMIT,
    MAX_UNFINISHED,
    OffsetMap,
    Wait,
    decode_map,
    encode_map,
    home_text,
    mark_text,
    read_head,
)


@st.composite
def maps(draw: st.DrawFn) -> OffsetMap:
    base = draw(st.integers(0, 2**62))
    width = draw(st.integers(0, 5000))
    holes = draw(st.sets(st.integers(0, max(0, width - 1)), max_size=min(width, 400)))
    unfinished = tuple(sorted({base, *(base + h for h in holes)})) if width else ()
    waits = st.builds(Wait, st.integers(1, 10**6), st.integers(0, 2**45), st.integers(0, 2**31))
    tried = {o: draw(waits) for o in unfinished if draw(st.integers(0, 9)) == 0}
    return OffsetMap(base, base + width, unfinished, tried)


@given(maps(), st.text(max_size=40), st.none() | st.integers(0, 10**9 - 1))
def test_a_map_reads_back_as_it_was_written(found: OffsetMap, cluster: str, began: int | None) -> None:
    text, whole = encode_map(found, "T0", mark="o1.9", home=home_text(cluster, began))
    assert len(text) <= LIMIT
    assert read_head(text) == ("T0", "o1.9", cluster, began)
    back = decode_map(text, "T0", found.base)
    if whole and back is not None:
        assert back == found
    if back is None:  # nothing finished above the base: nothing to know
        assert len(found.unfinished) == found.end - found.base


@given(maps(), st.integers(60, 300))
def test_a_map_that_must_be_cut_never_claims_what_is_unfinished(found: OffsetMap, limit: int) -> None:
    text, _ = encode_map(found, "T0", limit)
    assert len(text) <= limit
    back = decode_map(text, "T0", found.base)
    if back is not None:
        claimed = set(range(back.base, back.end)) - set(back.unfinished)
        assert not claimed & set(found.unfinished)
        assert back.end <= found.end


@given(maps(), st.integers(0, 2**40))
def test_a_map_of_another_offset_or_topic_is_not_believed(found: OffsetMap, other: int) -> None:
    text, _ = encode_map(found, "T0")
    assert decode_map(text, "T1", found.base) is None
    if other != found.base:
        assert decode_map(text, "T0", other) is None


def test_a_small_text_that_unfolds_to_more_unfinished_offsets_than_we_believe_is_no_map() -> None:
    width = 8 * 2_000_000
    text = bomb("b", b"\0" + varint(width) + b"\0" + bytes(width // 8))
    assert len(text) < LIMIT
    tracemalloc.start()
    try:
        assert decode_map(text, "T0", 0) is None
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


@given(st.text(max_size=200), st.sampled_from("RrBb"))
def test_a_hostile_text_is_no_map_and_no_error(text: str, kind: str) -> None:
    decode_map(text, "T0", 0)
    credible(decode_map(our_map(kind, text), "T0", 0), 0)


@given(st.binary(max_size=200), st.sampled_from("RrBb"))
def test_hostile_bytes_are_no_map_and_no_error(raw: bytes, kind: str) -> None:
    credible(decode_map(our_map(kind, raw), "T0", 0), 0)


def test_the_shape_of_the_hostile_texts_is_one_that_is_read() -> None:
    assert decode_map(our_map("R", b"\0\3\0\1\1\1"), "T0", 0) == OffsetMap(0, 3, (0, 2))
    assert decode_map(our_map("B", b"\0\3\0\2"), "T0", 0) == OffsetMap(0, 3, (0, 2))


def credible(found: OffsetMap | None, committed: int) -> None:
    if found is not None:
        assert found.base == committed
        assert len(found.unfinished) <= MAX_UNFINISHED
        assert list(found.unfinished) == sorted(set(found.unfinished))
        assert all(found.base <= o < found.end for o in found.unfinished)


@given(maps(), mutations)
def test_a_damaged_text_is_no_map_or_a_credible_one_and_no_error(found: OffsetMap, changes: object) -> None:
    text, _ = encode_map(found, "T0", mark="o2.812.307~307x1")
    damaged = mutated(text.encode(), changes).decode("latin-1")
    credible(decode_map(damaged, "T0", found.base), found.base)
    read_mark(mark_text(damaged, "T0"))


@given(maps(), mutations)
def test_damaged_bytes_in_a_whole_text_are_no_map_or_a_credible_one(
    found: OffsetMap, changes: object
) -> None:
    text, _ = encode_map(found, "T0")
    kind, payload = text.rpartition(":")[2][:1], text.rpartition(":")[2][1:]
    raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    if kind.islower():  # what is inside, not the wrapping
        kind, raw = kind.upper(), zlib.decompress(raw, -15)
    credible(decode_map(our_map(kind, mutated(raw, changes)), "T0", found.base), found.base)


@given(st.text(max_size=100))
def test_no_text_of_a_mark_is_an_error(text: str) -> None:
    read_mark(text)
    read_mark(mark_text(f"r1:T0:{text}:-", "T0"))


def bomb(kind: str, raw: bytes) -> str:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return our_map(kind, squeezer.compress(raw) + squeezer.flush())


WIDE = 24_000_000
BOMBS = {
    "24 million finished offsets": bomb("b", b"\0" + varint(WIDE) + b"\0" + b"\xff" * (WIDE // 8)),
    "24 million unfinished offsets": bomb("b", b"\0" + varint(WIDE) + b"\0" + bytes(WIDE // 8)),
    "a run of more than there is memory": bomb("r", b"\0" + varint(2**60) + b"\0" + varint(2**60)),
    "more waits than we write": bomb("r", b"\0\1" + varint(2**40) + b"\1" * 3_000_000),
    "a number without end": bomb("r", b"\x80" * 3_000_000),
    "10 MB and more": bomb("r", bytes(11_000_000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_text_that_unfolds_to_much_costs_little_time(name: str) -> None:
    began = time.thread_time()
    assert decode_map(BOMBS[name], "T0", 0) is None
    assert time.thread_time() - began < 1.0


def test_a_squeezed_map_without_its_end_is_not_believed() -> None:
    found = OffsetMap(100, 20_000, tuple(range(100, 20_000, 7)))
    text, whole = encode_map(found, "T")
    head, kind, payload = (
        text[: text.rindex(":") + 1],
        text[text.rindex(":") + 1],
        text[text.rindex(":") + 2 :],
    )
    assert whole
    assert kind.islower()
    raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    body = zlib.decompress(raw, -15)
    squeezer = zlib.compressobj(6, zlib.DEFLATED, -15)
    endless = squeezer.compress(body) + squeezer.flush(zlib.Z_SYNC_FLUSH)
    assert decode_map(text, "T", 100) == found
    assert decode_map(head + kind + base64.urlsafe_b64encode(endless).decode().rstrip("="), "T", 100) is None


def test_a_map_that_is_cut_tells_of_no_wait_beyond_its_end() -> None:
    waits = {3: Wait(1, 10, 5), 7: Wait(2, 20, 5)}
    assert OffsetMap(0, 10, (3, 7), waits).cut(7) == OffsetMap(0, 7, (3,), {3: Wait(1, 10, 5)})
