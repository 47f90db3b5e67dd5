import base64
import struct
import tracemalloc

import pytest

from maps import RECORDED, Recorded
from relance.engine.offset_map import MAX_UNFINISHED, OffsetMap, decode_map
from relance.engine.parallel_consumer import read_parallel_consumer_map


def text_of(kind: str, payload: bytes) -> str:
    return base64.b64encode(kind.encode("latin-1") + payload).decode()


def ints(*lengths: int) -> bytes:
    return struct.pack(f">{len(lengths)}i", *lengths)


@pytest.mark.parametrize("found", RECORDED, ids=lambda found: found.name)
def test_what_parallel_consumer_wrote_is_read_as_it_meant_it(found: Recorded) -> None:
    expected = OffsetMap(found.committed, found.end, found.incompletes)
    assert read_parallel_consumer_map(found.text, found.committed) == expected
    assert decode_map(found.text, "T0", found.committed) is None


def test_every_encoding_was_recorded() -> None:
    plain = {"BitSet", "BitSetV2", "RunLength", "RunLengthV2", "ByteArray"}
    assert {found.encoding for found in RECORDED} == plain | {f"{name}Compressed" for name in plain}


def test_the_offsets_count_from_the_committed_one() -> None:
    assert read_parallel_consumer_map(text_of("e", ints(2, 3, 1, 1)), 100) == OffsetMap(
        100, 107, (100, 101, 105)
    )


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "r1::-",
        "host-7",
        "bgAA\n",
        " bgAA",
        "bgAB",  # bits that no encoder leaves
        "bgA",
        "ſgAA",
        text_of("n", b"")[:-1],
        text_of("n", b""),
        text_of("n", b"\0"),
        text_of("e", b"\0\0"),
        text_of("n", struct.pack(">2h", 1, -1)),
        text_of("e", ints(0, 5)),  # the committed offset is finished: another commit's map
        text_of("e", ints(2, 3, 4)),  # the last is not
        text_of("e", ints(2, 0, 4, 1)),
        text_of("l", b"\0"),
        text_of("l", b"\xff\xff\0"),
        text_of("l", b"\0\2\2"),
        text_of("l", b"\0\2\2\0\0"),
        text_of("l", b"\0\2\6\0"),  # a bit beyond the end
        text_of("l", b"\0\2\2\1"),
        text_of("l", b"\0\0\1"),
        text_of("l", b"\0\2\3\0"),
        text_of("L", b""),
        text_of("L", b"\0\1"),
        text_of("L", b"\0\2\1\0"),
        text_of("p", ints(1, 1)),  # not compressed
        text_of("\1", bytes(8)),  # Kafka Streams
        text_of("\2", bytes(8)),
        text_of("e", ints(MAX_UNFINISHED + 1, 1)),
        text_of("e", ints(1, 1) * 600),  # longer than it ever writes
    ],
)
def test_what_is_no_map_of_it_is_no_map(text: str | None) -> None:
    assert read_parallel_consumer_map(text, 0) is None


@pytest.mark.parametrize("committed", [-1001, -1, 2**63 - 2, 2**70])
def test_an_offset_that_there_cannot_be_has_no_map(committed: int) -> None:
    assert read_parallel_consumer_map(text_of("n", struct.pack(">2h", 1, 1)), committed) is None


def test_a_map_of_nothing_says_that_nothing_is_finished() -> None:
    assert read_parallel_consumer_map("bgAA", 7) == OffsetMap(7, 7)


def test_a_small_text_that_unfolds_to_much_is_no_map_and_takes_little_memory() -> None:
    blocks = b"\x02\x00\x10\0" * 400 + b"\x03\x00\x10\0"  # 128 KiB of zeros each
    bomb = b"\x28\xb5\x2f\xfd\x00\x58" + blocks
    zeros = b"\x28\xb5\x2f\xfd\x00\x58" + blocks[-16:]  # what fits: 524 288 zero bytes
    tracemalloc.start()
    try:
        for kind in "asJp\xee":
            assert read_parallel_consumer_map(text_of(kind, bomb), 0) is None
            assert read_parallel_consumer_map(text_of(kind, zeros), 0) is None
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
