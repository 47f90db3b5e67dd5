import base64
import struct

from hypothesis import given
from hypothesis import strategies as st

from maps import RECORDED, Recorded
from relance.engine.offset_map import MAX_UNFINISHED, OffsetMap
from relance.engine.parallel_consumer import read_parallel_consumer_map

recorded = st.sampled_from(RECORDED)
offsets = st.integers(0, 2**62)


def credible(found: OffsetMap | None, committed: int) -> None:
    if found is not None:
        assert found.base == committed
        assert not found.waits
        assert len(found.unfinished) <= MAX_UNFINISHED
        assert list(found.unfinished) == sorted(set(found.unfinished))
        assert all(committed <= o < found.end for o in found.unfinished)
        if (
            found.end > committed
        ):  # a commit is of the lowest unfinished offset, its map ends with a finished one
            assert found.unfinished[0] == committed
            assert found.unfinished[-1] < found.end - 1


@given(st.lists(st.integers(1, 400), min_size=1, max_size=20), offsets, st.sampled_from("lone"))
def test_every_shape_reads_back(lengths: list[int], committed: int, kind: str) -> None:
    lengths += [1] * (len(lengths) % 2)
    done = [i % 2 == 1 for i, length in enumerate(lengths) for _ in range(length)]
    bits = sum(1 << i for i, finished in enumerate(done) if finished)
    payload = {
        "n": struct.pack(f">{len(lengths)}h", *lengths),
        "e": struct.pack(f">{len(lengths)}i", *lengths),
        "l": struct.pack(">h", len(done)) + bits.to_bytes((len(done) + 7) // 8 + 1, "little"),
        "o": struct.pack(">i", len(done)) + bits.to_bytes((len(done) + 7) // 8 + 1, "little"),
    }[kind]
    found = read_parallel_consumer_map(base64.b64encode(kind.encode() + payload).decode(), committed)
    unfinished = tuple(committed + i for i, finished in enumerate(done) if not finished)
    assert found == OffsetMap(committed, committed + len(done), unfinished)


@given(st.text(max_size=200) | st.text("ABCDlonesapJ0123+/=", max_size=40), st.integers())
def test_a_hostile_text_is_no_error(text: str, committed: int) -> None:
    credible(read_parallel_consumer_map(text, committed), committed)


@given(st.sampled_from(b"lonLeasJp\xee\1\2"), st.binary(max_size=300), offsets)
def test_hostile_bytes_of_every_encoding_are_no_error(kind: int, payload: bytes, committed: int) -> None:
    text = base64.b64encode(bytes([kind]) + payload).decode()
    credible(read_parallel_consumer_map(text, committed), committed)


@given(recorded, st.data())
def test_a_damaged_text_is_no_error(found: Recorded, data: st.DataObject) -> None:
    raw = bytearray(base64.b64decode(found.text))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(1, len(raw))) :]
    text = base64.b64encode(bytes(raw)).decode()
    credible(read_parallel_consumer_map(text, found.committed), found.committed)


@given(recorded, st.data())
def test_a_text_that_was_cut_short_is_no_map(found: Recorded, data: st.DataObject) -> None:
    raw = base64.b64decode(found.text)
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    read = read_parallel_consumer_map(base64.b64encode(cut).decode(), found.committed)
    if read is not None:  # whole runs may be missing, from the far end: that only costs repeats
        assert found.encoding in ("RunLength", "RunLengthV2", "ByteArray")
        assert read == OffsetMap(
            found.committed, read.end, tuple(o for o in found.incompletes if o < read.end)
        )
