"""Against the original: `zstandard` is libzstd; the library itself does without it."""

import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from relance.engine.zstd import decompress

LIMIT = 1 << 20

runs = st.lists(st.integers(0, 300) | st.sampled_from([1, 1, 2, 40]), max_size=700)
skewed = st.builds(
    lambda weights, order: bytes(order[i % len(order)] for i, n in enumerate(weights) for _ in range(n)),
    st.lists(st.integers(1, 30), max_size=300),
    st.lists(st.integers(0, 255), min_size=1, max_size=60),
)
pieces = st.one_of(
    st.binary(max_size=400),
    st.builds(lambda piece, times: piece * times, st.binary(max_size=60), st.integers(0, 2000)),
    runs.map(lambda lengths: struct.pack(f">{len(lengths)}i", *lengths)),
    runs.map(lambda lengths: struct.pack(f">{len(lengths)}h", *lengths)),
    skewed,
)
plain = st.lists(pieces, max_size=4).map(b"".join)
levels = st.sampled_from([3, 3, 1, 7, 12, 19, -5])


def compressed(data: bytes, level: int, *, sized: bool, flushed: int) -> bytes:
    made = zstandard.ZstdCompressor(level=level, write_content_size=sized)
    if not flushed:
        return made.compress(data)
    stream, frame = made.compressobj(), b""
    for at in range(0, len(data), flushed):  # several blocks, which hand tables on
        frame += stream.compress(data[at : at + flushed]) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return frame + stream.flush()


frames = st.builds(compressed, plain, levels, sized=st.booleans(), flushed=st.sampled_from([0, 500, 5000]))


def theirs(frame: bytes) -> bytes | str:
    """What the original reads, or why it refuses."""
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
    try:
        found = reader.decompress(frame)
    except zstandard.ZstdError as error:
        return str(error)
    return found if reader.eof and not reader.unused_data else "it is no one frame"


def ours(frame: bytes) -> bytes | None:
    try:
        return decompress(frame, LIMIT)
    except ValueError:
        return None


@given(plain, levels, st.booleans(), st.sampled_from([0, 500, 5000]))
def test_what_was_compressed_comes_back(data: bytes, level: int, sized: bool, flushed: int) -> None:
    assert decompress(compressed(data, level, sized=sized, flushed=flushed), LIMIT) == data


@given(frames, st.data())
def test_a_damaged_frame_is_refused_or_read_as_the_original_reads_it(
    frame: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(4, len(frame) - 1))] = data.draw(st.integers(0, 255))
    found, expected = ours(bytes(damaged)), theirs(bytes(damaged))
    if found is not None and "too much memory" not in str(expected):  # a window: we keep all, so we need none
        assert found == expected


def test_a_block_may_not_yield_more_than_the_window() -> None:
    frame = bytearray(compressed(bytes(5000), 3, sized=False, flushed=0))
    assert ours(bytes(frame)) == bytes(5000)
    assert frame[5] > 0
    frame[5] = 0  # 1 KiB
    assert isinstance(theirs(bytes(frame)), str)
    assert ours(bytes(frame)) is None


@given(frames, st.data())
def test_a_frame_that_is_cut_short_or_goes_on_is_refused(frame: bytes, data: st.DataObject) -> None:
    assert ours(frame[: data.draw(st.integers(0, len(frame) - 1))]) is None
    assert ours(frame + b"\0") is None


@given(st.binary(max_size=300))
def test_hostile_bytes_are_a_value_error_at_most(raw: bytes) -> None:
    ours(raw)
    for kind in range(4):
        ours(b"\x28\xb5\x2f\xfd\0\x58" + (1 | kind << 1 | len(raw) << 3).to_bytes(3, "little") + raw)


def test_more_than_the_limit_is_refused() -> None:
    frame = zstandard.ZstdCompressor().compress(bytes(5000))
    assert decompress(frame, 5000) == bytes(5000)
    with pytest.raises(ValueError, match="more than may be read"):
        decompress(frame, 4999)


def test_a_checksum_or_a_dictionary_is_refused() -> None:
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(b"data")
    with pytest.raises(ValueError, match="checksum"):
        decompress(frame, LIMIT)
