"""Confluent's Parallel Consumer, left behind in a group: its map of what is finished, read from the commit.

Promise: as `offset_map`'s. What can't be read, or can't be a map of the offset it stands beside, is no map:
records are then handled again rather than skipped wrongly.

Its text is base64 of one byte that names the encoding, and a payload (release 0.5.3; numbers big-endian and
signed; no base: the first offset described is the committed one, the last its "highest succeeded" offset):

    `l` `o`   bit set: the number of offsets (2, 4 bytes), one bit an offset, lowest bit first, 1 = finished,
              then one byte of 0
    `n` `e`   run lengths (2, 4 bytes each): unfinished, finished, unfinished, …
    `L`       one byte an offset, 1 = finished, then one byte of 0; it has an encoder for that, never used
    `a` `s` `J` `p` `0xEE`   the same five, compressed with Zstandard

Offsets that hold no record count as finished. It commits the lowest unfinished offset and describes nothing
above the highest finished one, so a map whose first offset is finished, or whose last is not, is not the
map of this commit. Nor is a text of another shape or longer than it ever writes: commits' metadata are
free text, and others use them too (Kafka Streams: first bytes 1 and 2).
"""

from __future__ import annotations

import base64
import binascii

from relance.engine import zstd
from relance.engine.offset_map import MAX_UNFINISHED, OffsetMap

__all__ = ["read_parallel_consumer_map"]

_LONGEST = 4096  # characters, a constant of its own
_MAX_BYTES = 4 * 1024 * 1024  # inflated: 32 million offsets of a bit set
_MAX_OFFSET = 2**63 - 1

_COMPRESSED = {ord("a"): "l", ord("s"): "o", ord("J"): "n", ord("p"): "e", 0xEE: "L"}


def read_parallel_consumer_map(text: str | None, committed: int) -> OffsetMap | None:
    """The map in the metadata `text` of a commit of the offset `committed`; None where there is none.

    A map of no offsets (`end == base`) says that nothing above the committed offset is finished.
    """
    if not text or len(text) > _LONGEST or not 0 <= committed <= _MAX_OFFSET:
        return None
    try:
        raw = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
        if not raw or base64.b64encode(raw).decode("ascii") != text:
            return None
        kind, payload = chr(raw[0]), raw[1:]
        if raw[0] in _COMPRESSED:
            kind, payload = _COMPRESSED[raw[0]], zstd.decompress(payload, _MAX_BYTES)
        width, open_ = _read(kind, payload)
    except (ValueError, binascii.Error):
        return None
    if width and not (open_ and open_[0] == 0 and open_[-1] < width - 1):
        return None
    if committed + width > _MAX_OFFSET:
        return None
    return OffsetMap(committed, committed + width, tuple(committed + i for i in open_))


def _read(kind: str, payload: bytes) -> tuple[int, list[int]]:
    """(number of offsets, which of them are unfinished: counted from the first, ascending)."""
    if kind == "l" or kind == "o":
        return _bit_set(payload, 2 if kind == "l" else 4)
    if kind == "n" or kind == "e":
        return _runs(payload, 2 if kind == "n" else 4)
    if kind == "L":
        return _bytes(payload)
    raise ValueError("not an encoding of Parallel Consumer")


def _bit_set(payload: bytes, size: int) -> tuple[int, list[int]]:
    width, bits = _number(payload[:size]), payload[size:]
    used = (width + 7) // 8
    if len(payload) < size or len(bits) != used + 1 or int.from_bytes(bits, "little") >> width:
        raise ValueError("a bit set of the wrong length")
    found: list[int] = []
    for at, byte in enumerate(bits[:used]):
        if byte != 0xFF:
            found += [i for i in range(8 * at, min(8 * at + 8, width)) if not byte >> (i & 7) & 1]
            _bounded(len(found))
    return width, found


def _runs(payload: bytes, size: int) -> tuple[int, list[int]]:
    if not payload or len(payload) % size:
        raise ValueError("runs of the wrong length")
    at = 0
    found: list[int] = []
    for i in range(0, len(payload), size):
        length = _number(payload[i : i + size])
        if length == 0 and len(payload) > size:
            raise ValueError("an empty run")
        if i // size % 2 == 0:
            _bounded(len(found) + length)
            found.extend(range(at, at + length))
        at += length
    return at, found


def _bytes(payload: bytes) -> tuple[int, list[int]]:
    width = len(payload) - 1
    if width < 0 or payload[-1] or payload.translate(None, b"\0\1"):
        raise ValueError("not one byte an offset")
    _bounded(payload.count(0))
    return width, [i for i, byte in enumerate(payload[:width]) if not byte]


def _bounded(count: int) -> None:
    if count > MAX_UNFINISHED:
        raise ValueError("more unfinished offsets than we believe")


def _number(raw: bytes) -> int:
    number = int.from_bytes(raw, "big", signed=True)
    if number < 0:
        raise ValueError("a negative length")
    return number
