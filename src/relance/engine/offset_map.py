"""What is finished above a committed offset, as text for the commit's metadata.

Promise: a map that cannot be read, or belongs to another incarnation of the topic or another offset, is no
map: records are then handled again rather than skipped wrongly. What does not fit into the broker's limit
is left out from the far end, so a short map, too, only costs repeats.

The text is `r1:<topic id>:<mark>@<cluster id>+<partitions>:<kind><payload>`. The mark is the owner's
(`crashes`); the cluster's id is percent-encoded; the partitions are as many as the topic had when the group
began (`kafka.starts`). Either of the two may be missing. Older texts have neither, nor the `@`; the oldest
have no mark. An older version reads topic id and map of a new text, and finds no mark in it. The payload is
unpadded URL-safe base64 of varints:

    kind `-`  nothing is finished above the base (no payload)
    kind `R`  run lengths   kind `B`  bit set   (lower case: deflated)
    payload   base, end − base, number of waits, the first due time if there are any,
              (offset − previous, tries, due − first, delay)…, then the offsets

Runs alternate unfinished, finished, …, the first always unfinished (as Confluent's Parallel Consumer has
it). The bit set has one bit an offset from `base`, 1 = finished, lowest bit first.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote, unquote

__all__ = [
    "LIMIT",
    "Head",
    "OffsetMap",
    "Wait",
    "belongs",
    "decode_map",
    "encode_map",
    "home_text",
    "mark_text",
    "read_head",
]

LIMIT = 4095
"""Characters. The broker's default maximum is 4096, and it refuses just that (measured)."""

MAX_UNFINISHED = 1_000_000
"""The most unfinished offsets that are written or believed: a hostile map must not make us allocate."""

_MAX_BYTES = 10 * MAX_UNFINISHED

_MAX_BITS = LIMIT * 8 * 8  # beyond it run lengths win: deflate gains less than 8 where they lose

_MAX_WAITS = 100_000  # that are believed; what is written is bounded by its room

_VERSION = "r1"

_TEXT = re.compile(
    rf"{_VERSION}:(?P<topic>[^:]*):"
    r"(?:(?P<mark>[oc][^:@]*)(?:@(?P<cluster>[^:@+]*)(?:\+(?P<began>\d{1,9}))?)?:)?"
    r"(?P<kind>[-RrBb])(?P<payload>[\w-]*)",
    re.ASCII,
)


class Head(NamedTuple):
    """What stands before the map."""

    topic_id: str
    """"" where brokers have none."""
    mark: str
    """The owner's, for `crashes.read_mark`."""
    cluster: str
    """Its id; "" where it was not known, or an older version wrote."""
    began: int | None
    """How many partitions the topic had when the group began; None: not known."""


class Wait(NamedTuple):
    """A record that failed. Its reader waits `min(delay, due − now)`, because clocks differ (decision 15)."""

    tries: int
    due: int
    """Milliseconds since the epoch, UTC."""
    delay: int
    """Milliseconds."""


@dataclass(frozen=True, slots=True)
class OffsetMap:
    """Offsets in [base, end) are finished, except `unfinished` (ascending); `waits` of some of those."""

    base: int
    end: int
    unfinished: tuple[int, ...] = ()
    waits: Mapping[int, Wait] = field(default_factory=dict)

    def cut(self, end: int) -> OffsetMap:
        """The same, claiming nothing at or above `end`."""
        return OffsetMap(
            self.base,
            end,
            tuple(o for o in self.unfinished if o < end),
            {o: w for o, w in self.waits.items() if o < end},
        )


def home_text(cluster: str, began: int | None) -> str:
    """What `encode_map` takes as `home`: the cluster, and how many partitions there were at the beginning."""
    if not cluster and began is None:
        return ""
    return f"@{quote(cluster, safe='')}" + ("" if began is None else f"+{began}")


def encode_map(
    found: OffsetMap, topic_id: str, limit: int = LIMIT, *, mark: str = "o", home: str = ""
) -> tuple[str, bool]:
    """(text, whole): at most `limit` characters; `whole` is False where the far end had to be left out."""
    head = f"{_VERSION}:{topic_id}:{mark}{home}:"
    whole = True
    if len(head) >= limit:  # a broker that takes hardly any metadata: no map, so repeats after a move
        return "", _tells_nothing(found)
    if len(found.unfinished) > MAX_UNFINISHED:
        whole, found = False, found.cut(found.unfinished[MAX_UNFINISHED])
    while True:
        if _tells_nothing(found):
            return head + "-", whole
        text = min(
            (kind + payload for kind, payload in _candidates(found)),
            key=len,
        )
        if len(head) + len(text) <= limit:
            return head + text, whole
        whole = False
        # Halve towards what fits: the size is close to proportional to the window.
        room = (limit - len(head)) / len(text)
        found = found.cut(found.base + max(0, int((found.end - found.base) * min(room, 0.9))))


def decode_map(text: str | None, topic_id: str, committed: int) -> OffsetMap | None:
    """The map beside the offset `committed`; None where there is none that may be believed."""
    if not text:
        return None
    read = _TEXT.fullmatch(text)
    if read is None or read["mark"] is None or not belongs(text, topic_id):
        return None
    kind, payload = read["kind"], read["payload"]
    if kind == "-":
        return None
    try:
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        if kind.islower():
            inflater = zlib.decompressobj(-15)
            raw = inflater.decompress(raw, _MAX_BYTES)
            if not inflater.eof:
                return None
        found = _read(raw, bits=kind in "Bb")
    except (ValueError, IndexError, binascii.Error, zlib.error):
        return None
    return found if found.base == committed else None


def read_head(text: str | None) -> Head | None:
    """What stands before the map in a text of ours; None where another program wrote beside its commit."""
    read = _TEXT.fullmatch(text or "")
    if read is None:
        return None
    began = None if read["began"] is None else int(read["began"])
    return Head(read["topic"], read["mark"] or "", unquote(read["cluster"] or ""), began)


def mark_text(text: str, topic_id: str) -> str:
    """The owner's mark in `text`; "" where there is none that may be believed."""
    head = read_head(text)
    return head.mark if head is not None and belongs(text, topic_id) else ""


def belongs(text: str | None, topic_id: str) -> bool:
    """False if `text` is ours and names another incarnation of the topic: that commit is stale.

    Where one of the two ids is not known, the commit is believed, and so is its map.
    """
    head = read_head(text)
    return head is None or not head.topic_id or not topic_id or head.topic_id == topic_id


def _tells_nothing(found: OffsetMap) -> bool:
    """Whether all at and above the base is unfinished, and nothing has failed."""
    return found.end <= found.base or (len(found.unfinished) == found.end - found.base and not found.waits)


def _candidates(found: OffsetMap) -> list[tuple[str, str]]:
    head = bytearray()
    _put(head, found.base)
    _put(head, found.end - found.base)
    _put(head, len(found.waits))
    first = min((wait.due for wait in found.waits.values()), default=0)
    if found.waits:
        _put(head, first)
    before = found.base
    for offset, (tries, due, delay) in sorted(found.waits.items()):
        for number in (offset - before, tries, due - first, delay):
            _put(head, number)
        before = offset
    runs = bytearray(head)
    for length in _runs(found):
        _put(runs, length)
    bits = bytearray(head)
    if found.end - found.base <= _MAX_BITS:
        bits += _bits(found)
        bodies = [("R", bytes(runs)), ("B", bytes(bits))]
    else:
        bodies = [("R", bytes(runs))]
    made = []
    for kind, body in bodies:
        made.append((kind, _text(body)))
        if len(body) > 40:
            squeezer = zlib.compressobj(6, zlib.DEFLATED, -15)
            made.append((kind.lower(), _text(squeezer.compress(body) + squeezer.flush())))
    return made


def _text(body: bytes) -> str:
    return base64.urlsafe_b64encode(body).decode("ascii").rstrip("=")


def _runs(found: OffsetMap) -> list[int]:
    runs: list[int] = []
    at = found.base  # the next offset to describe
    i, unfinished = 0, found.unfinished
    while at < found.end:
        start = at
        while i < len(unfinished) and unfinished[i] == at:
            at += 1
            i += 1
        runs.append(at - start)
        after = unfinished[i] if i < len(unfinished) else found.end
        if after > at:
            runs.append(after - at)
        at = after
    return runs


def _bits(found: OffsetMap) -> bytes:
    width = found.end - found.base
    value = (1 << width) - 1
    holes = bytearray((width + 7) // 8)
    for offset in found.unfinished:
        i = offset - found.base
        holes[i >> 3] |= 1 << (i & 7)
    value &= ~int.from_bytes(holes, "little")
    return value.to_bytes((width + 7) // 8, "little")


def _read(raw: bytes, *, bits: bool) -> OffsetMap:
    base, at = _get(raw, 0)
    width, at = _get(raw, at)
    count, at = _get(raw, at)
    if count > _MAX_WAITS:
        raise ValueError("more waits than we write")
    waits: dict[int, Wait] = {}
    offset, first = base, 0
    if count:
        first, at = _get(raw, at)
    for _ in range(count):
        step, at = _get(raw, at)
        tries, at = _get(raw, at)
        due, at = _get(raw, at)
        delay, at = _get(raw, at)
        offset += step
        waits[offset] = Wait(tries, first + due, delay)
    unfinished: list[int] = []
    if bits:
        body = raw[at:]
        if width > _MAX_BITS:  # three kilobytes unfold to 25 million bits, which are seconds to look at
            raise ValueError("a wider bit set than we write")
        if len(body) != (width + 7) // 8:
            raise ValueError("bit set of the wrong length")
        if width - int.from_bytes(body, "little").bit_count() > MAX_UNFINISHED:
            raise ValueError("more unfinished offsets than we write")
        unfinished = [base + i for i in range(width) if not body[i >> 3] >> (i & 7) & 1]
    else:
        offset, finished = base, False
        while offset < base + width:
            length, at = _get(raw, at)
            if offset + length > base + width or (length == 0 and offset > base):
                raise ValueError("runs beyond the end")
            if not finished:
                if len(unfinished) + length > MAX_UNFINISHED:
                    raise ValueError("more unfinished offsets than we write")
                unfinished.extend(range(offset, offset + length))
            offset += length
            finished = not finished
        if at != len(raw):
            raise ValueError("more runs than offsets")
    return OffsetMap(base, base + width, tuple(unfinished), waits)


def _put(into: bytearray, number: int) -> None:
    while number > 0x7F:
        into.append(number & 0x7F | 0x80)
        number >>= 7
    into.append(number)


def _get(raw: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = raw[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than 64 bits")
