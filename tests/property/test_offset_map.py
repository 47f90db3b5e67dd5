import base64
import tracemalloc
import zlib

from hypothesis import given
from hypothesis import strategies as st

from relance.engine.offset_map import LIMIT, OffsetMap, Wait, decode_map, encode_map


@st.composite
def maps(draw: st.DrawFn) -> OffsetMap:
    base = draw(st.integers(0, 2**62))
    width = draw(st.integers(0, 5000))
    holes = draw(st.sets(st.integers(0, max(0, width - 1)), max_size=min(width, 400)))
    unfinished = tuple(sorted({base, *(base + h for h in holes)})) if width else ()
    waits = st.builds(Wait, st.integers(1, 10**6), st.integers(0, 2**45), st.integers(0, 2**31))
    tried = {o: draw(waits) for o in unfinished if draw(st.integers(0, 9)) == 0}
    return OffsetMap(base, base + width, unfinished, tried)


@given(maps())
def test_a_map_reads_back_as_it_was_written(found: OffsetMap) -> None:
    text, whole = encode_map(found, "T0")
    assert len(text) <= LIMIT
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
    head = b"\0" + (width & 0x7F | 0x80).to_bytes(1, "big")
    head += bytes([width >> 7 & 0x7F | 0x80, width >> 14 & 0x7F | 0x80, width >> 21, 0])
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = squeezer.compress(head + bytes(width // 8)) + squeezer.flush()
    text = "r1:T0:b" + base64.urlsafe_b64encode(raw).decode().rstrip("=")
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
    decode_map(f"r1:T0:{kind}{text}", "T0", 0)


@given(st.binary(max_size=200), st.sampled_from("RrBb"))
def test_hostile_bytes_are_no_map_and_no_error(raw: bytes, kind: str) -> None:
    body = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    found = decode_map(f"r1:T0:{kind}{body}", "T0", 0)
    if found is not None:
        assert all(found.base <= o < found.end for o in found.unfinished)
