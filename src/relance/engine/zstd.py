"""Zstandard frames (RFC 8878) read with nothing but the standard library, which has them from 3.14 only.

For the few kilobytes of a commit's metadata; it is slow for more. Its promises: what it returns is what was
compressed, at most `limit` bytes of it; what is damaged, too long or needs a dictionary is a ValueError.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["decompress"]

_MAGIC = b"\x28\xb5\x2f\xfd"
_BLOCK = 128 * 1024  # the most that a block yields, if the window is not smaller
_MAX_SEQUENCES = 200_000  # of a whole frame: with probabilities of 1 they cost no bits, but they cost time


class _Cell(NamedTuple):
    """A state of an FSE table: what it yields, and the next one is `base` + the next `bits` bits."""

    symbol: int
    bits: int
    base: int


class _Kind(NamedTuple):
    """One of the three codes of a sequence: (lowest value, extra bits) by symbol, and its default table."""

    codes: list[tuple[int, int]]
    most: int
    """The highest accuracy that a table may have."""
    default: list[_Cell]


class _Backward:
    """Bits from the end of `data` to its start; below it there are zeros, and `left` is negative."""

    __slots__ = ("_value", "left")

    def __init__(self, data: bytes) -> None:
        if not data or not data[-1]:
            raise ValueError("a bit stream without its end mark")
        self._value = int.from_bytes(data, "little")
        self.left = self._value.bit_length() - 1

    def peek(self, count: int) -> int:
        at = self.left - count
        return (self._value >> at if at >= 0 else self._value << -at) & ((1 << count) - 1)

    def read(self, count: int) -> int:
        found = self.peek(count)
        self.left -= count
        return found

    def need(self, count: int) -> int:
        """As `read`, where there must be so many."""
        if self.left < count:
            raise ValueError("a bit stream that ends too early")
        return self.read(count)


def decompress(data: bytes, limit: int) -> bytes:
    """What the one frame in `data` holds."""
    if data[:4] != _MAGIC:
        raise ValueError("not a Zstandard frame")
    try:
        size, window, at = _header(data)
        out = _blocks(data, at, window, limit)
    except IndexError:
        raise ValueError("a frame that ends too early") from None
    if size is not None and size != len(out):
        raise ValueError("not as long as the frame says")
    return bytes(out)


def _header(data: bytes) -> tuple[int | None, int, int]:
    """The content's length if it is told, the window, and where the blocks begin."""
    flags, at = data[4], 5
    if flags & 0b1111:  # of these, Parallel Consumer's frames never have a checksum or a dictionary
        raise ValueError("a frame with a checksum, a dictionary or a reserved bit")
    single, window = flags >> 5 & 1, 0
    if not single:
        window = (1 << 10 + (data[at] >> 3)) // 8 * (8 + (data[at] & 7))
        at += 1
    width = (single, 2, 4, 8)[flags >> 6]
    if not width:
        return None, window, at
    size = _little(data, at, width) + (256 if width == 2 else 0)
    return size, size if single else window, at + width


def _blocks(data: bytes, at: int, window: int, limit: int) -> bytearray:
    out, block, last = bytearray(), _Blocks(window), 0
    while not last:
        head = _little(data, at, 3)
        at += 3
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        if size > block.most or kind == 3:
            raise ValueError("a block that is too large or of an unknown kind")
        if kind == 1:
            out += data[at : at + 1] * size
            at += 1
        else:
            if kind == 0:
                out += data[at : at + size]
            else:
                block.add(data[at : at + size], out)
            at += size
        if at > len(data):
            raise ValueError("a block that ends too early")
        if len(out) > limit:
            raise ValueError("more than may be read")
    if at != len(data):
        raise ValueError("bytes after the frame")
    return out


class _Blocks:
    """What a frame's compressed blocks hand on: the Huffman table, three FSE tables, the last distances."""

    def __init__(self, window: int) -> None:
        self.most = min(window, _BLOCK)
        """The most that one yields (RFC 8878, 3.1.1.2.4)."""
        self._window = window
        self._huffman: list[tuple[int, int]] = []
        self._tables: list[list[_Cell]] = [[], [], []]
        self._back = [1, 4, 8]
        self._sequences = 0

    def add(self, body: bytes, out: bytearray) -> None:
        start = len(out)
        literals, at = self._literals(body)
        count, at = _count(body, at)
        if not count:
            if at != len(body):
                raise ValueError("bytes after a block")
            out += literals
        else:
            self._sequences += count
            if self._sequences > _MAX_SEQUENCES:
                raise ValueError("more sequences than metadata has")
            modes = body[at]
            if modes & 3:
                raise ValueError("a reserved bit")
            at += 1
            for i, kind in enumerate(_KINDS):
                self._tables[i], at = _table(modes >> (6 - 2 * i) & 3, kind, self._tables[i], body, at)
            self._execute(count, _Backward(body[at:]), literals, out)
        if len(out) - start > self.most:
            raise ValueError("a block that yields too much")

    def _literals(self, body: bytes) -> tuple[bytes, int]:
        kind, form = body[0] & 3, body[0] >> 2 & 3
        if kind < 2:  # as they are, or one byte repeated
            width, shift = ((1, 3), (2, 4), (1, 3), (3, 4))[form]
            size = _little(body, 0, width) >> shift
            taken = 1 if kind else size
            found = body[width : width + taken]
            if size > self.most or len(found) != taken:
                raise ValueError("literals that end too early")
            return (found * size if kind else found), width + taken
        width, bits = ((3, 10), (3, 10), (4, 14), (5, 18))[form]
        head = _little(body, 0, width) >> 4
        size, taken = head & ((1 << bits) - 1), head >> bits
        packed = body[width : width + taken]
        if size > self.most or len(packed) != taken:
            raise ValueError("literals that end too early")
        if kind == 2:
            self._huffman, used = _huffman(packed)
            packed = packed[used:]
        if not self._huffman:
            raise ValueError("literals of a table that was never sent")
        return self._unpack(packed, size, streams=4 if form else 1), width + taken

    def _unpack(self, packed: bytes, size: int, *, streams: int) -> bytes:
        if streams == 1:
            return _symbols(packed, size, self._huffman)
        each, found, at = (size + 3) // 4, b"", 6
        for i in range(3):
            end = at + _little(packed, 2 * i, 2)
            found += _symbols(packed[at:end], each, self._huffman)
            at = end
        if size < 3 * each:
            raise ValueError("four streams for too few literals")
        return found + _symbols(packed[at:], size - 3 * each, self._huffman)

    def _execute(self, count: int, stream: _Backward, literals: bytes, out: bytearray) -> None:
        of_literals, of_distances, of_lengths = self._tables
        back, taken, start = self._back, 0, len(out)
        here, far, long = (
            table[stream.need(len(table).bit_length() - 1)]
            for table in (of_literals, of_distances, of_lengths)
        )
        for left in range(count - 1, -1, -1):
            distance = (1 << far.symbol) + stream.need(far.symbol)
            base, bits = _LENGTHS[long.symbol]
            length = base + stream.need(bits)
            base, bits = _LITERALS[here.symbol]
            fresh = base + stream.need(bits)

            if distance > 3:
                distance -= 3
                back[:] = distance, back[0], back[1]
            else:  # one of the last three, by age
                age = distance - 1 + (fresh == 0)
                distance = back[age] if age < 3 else back[0] - 1
                if age:
                    back[:] = (distance, back[0], back[1]) if age > 1 else (distance, back[0], back[2])

            if taken + fresh > len(literals):
                raise ValueError("more literals used than there are")
            out += literals[taken : taken + fresh]
            taken += fresh
            if not 0 < distance <= min(len(out), self._window):
                raise ValueError("a match before the beginning, or the window")
            if len(out) + length - start > self.most:
                raise ValueError("a block that yields too much")
            found = bytes(out[len(out) - distance : len(out) - distance + length])
            out += (found * (length // len(found) + 1))[:length]

            if left:
                here = of_literals[here.base + stream.need(here.bits)]
                long = of_lengths[long.base + stream.need(long.bits)]
                far = of_distances[far.base + stream.need(far.bits)]
        if stream.left:
            raise ValueError("bits after the sequences")
        out += literals[taken:]


def _count(body: bytes, at: int) -> tuple[int, int]:
    first = body[at]
    if first < 128:
        return first, at + 1
    if first < 255:
        return (first - 128 << 8) + body[at + 1], at + 2
    return _little(body, at + 1, 2) + 0x7F00, at + 3


def _table(mode: int, kind: _Kind, before: list[_Cell], body: bytes, at: int) -> tuple[list[_Cell], int]:
    if mode == 0:
        return kind.default, at
    if mode == 1:
        if body[at] >= len(kind.codes):
            raise ValueError("a code that there is not")
        return [_Cell(body[at], 0, 0)], at + 1
    if mode == 2:
        shares, used = _shares(body[at:], kind.most)
        if len(shares) > len(kind.codes):
            raise ValueError("a code that there is not")
        return _fse(shares), at + used
    if not before:
        raise ValueError("a table that was never sent")
    return before, at


# -- entropy: FSE and Huffman ----------------------------------------------------------------------


def _shares(data: bytes, most: int) -> tuple[list[int], int]:
    """(share of each symbol in the table, −1: less than one; how many bytes that took)."""
    value, at = int.from_bytes(data[:512], "little"), 4  # of 256 symbols none takes as much as two bytes
    accuracy = (value & 15) + 5
    if accuracy > most:
        raise ValueError("a table that is too fine")
    left, shares = 1 << accuracy, []
    while left > 0:
        bits = (left + 1).bit_length()
        half = (1 << bits - 1) - 1
        short = (1 << bits) - 2 - left  # so many values need one bit less
        found = value >> at & ((1 << bits) - 1)
        if found & half < short:
            found &= half
            at += bits - 1
        else:
            found -= short if found > half else 0
            at += bits
        shares.append(found - 1)
        left -= abs(found - 1)
        repeat = 3 if found == 1 else 0
        while repeat == 3:
            repeat = value >> at & 3
            shares += [0] * repeat
            at += 2
        if len(shares) > 256:
            raise ValueError("more symbols than there are")
    used = (at + 7) // 8
    if left < 0 or used > len(data):
        raise ValueError("shares that don't add up")
    return shares, used


def _fse(shares: list[int]) -> list[_Cell]:
    size = sum(abs(share) for share in shares)
    accuracy, mask = size.bit_length() - 1, size - 1
    symbols, free = [0] * size, size
    for symbol, share in enumerate(shares):
        if share == -1:
            free -= 1
            symbols[free] = symbol
    at, step = 0, (size >> 1) + (size >> 3) + 3
    for symbol, share in enumerate(shares):
        for _ in range(share):
            symbols[at] = symbol
            at = at + step & mask
            while at >= free:
                at = at + step & mask
    following = [abs(share) for share in shares]
    cells = []
    for symbol in symbols:
        state = following[symbol]
        following[symbol] += 1
        bits = accuracy - (state.bit_length() - 1)
        cells.append(_Cell(symbol, bits, (state << bits) - size))
    return cells


def _huffman(data: bytes) -> tuple[list[tuple[int, int]], int]:
    """((symbol, bits) for each code of the longest length; how many bytes its description took)."""
    head = data[0]
    if head < 128:
        used = 1 + head
        weights = _weights(data[1:used])
    else:
        count = head - 127
        used = 1 + (count + 1) // 2
        weights = [data[1 + i // 2] >> (0 if i % 2 else 4) & 15 for i in range(count)]
    if used > len(data):
        raise ValueError("weights that end too early")
    total = sum(1 << weight - 1 for weight in weights if weight)
    longest = total.bit_length()
    rest = (1 << longest) - total
    if not 0 < longest <= 11 or rest & rest - 1:
        raise ValueError("weights that don't add up")
    weights.append(rest.bit_length())
    table: list[tuple[int, int]] = []
    for weight in range(1, longest + 1):
        for symbol, its in enumerate(weights):
            if its == weight:
                table += [(symbol, longest + 1 - weight)] * (1 << weight - 1)
    if len(table) != 1 << longest or len(weights) > 256:
        raise ValueError("weights that don't add up")
    return table, used


def _weights(data: bytes) -> list[int]:
    shares, used = _shares(data, 6)
    table, stream = _fse(shares), _Backward(data[used:])
    accuracy = len(table).bit_length() - 1
    one, other = table[stream.need(accuracy)], table[stream.need(accuracy)]
    found: list[int] = []
    while len(found) < 255:  # two states take turns until one of them finds no bits
        found.append(one.symbol)
        if stream.left < one.bits:
            return [*found, other.symbol]
        one, other = other, table[one.base + stream.read(one.bits)]
    raise ValueError("more weights than there are symbols")


def _symbols(data: bytes, count: int, table: list[tuple[int, int]]) -> bytes:
    stream, longest = _Backward(data), len(table).bit_length() - 1
    found = bytearray()
    for _ in range(count):
        symbol, bits = table[stream.peek(longest)]
        stream.left -= bits
        found.append(symbol)
        if stream.left < 0:
            break
    if stream.left:
        raise ValueError("literals that don't end with their stream")
    return bytes(found)


def _little(data: bytes, at: int, width: int) -> int:
    found = data[at : at + width]
    if len(found) < width:
        raise ValueError("a frame that ends too early")
    return int.from_bytes(found, "little")


def _codes(plain: range, more: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(value, 0) for value in plain] + more


# -- the constants of RFC 8878, 3.1.1.3.2 ------------------------------------------------------------

_LITERALS = _codes(
    range(16),
    [(16, 1), (18, 1), (20, 1), (22, 1), (24, 2), (28, 2), (32, 3), (40, 3), (48, 4)]
    + [(1 << bits, bits) for bits in range(6, 17)],
)
_LENGTHS = _codes(
    range(3, 35),
    [(35, 1), (37, 1), (39, 1), (41, 1), (43, 2), (47, 2), (51, 3), (59, 3), (67, 4), (83, 4), (99, 5)]
    + [((1 << bits) + 3, bits) for bits in range(7, 17)],
)
_DISTANCES = [(1 << bits, bits) for bits in range(32)]

_KINDS = (
    _Kind(_LITERALS, 9, _fse([4, 3] + [2] * 11 + [1] * 3 + [2] * 9 + [3, 2] + [1] * 5 + [-1] * 4)),
    _Kind(_DISTANCES, 8, _fse([1] * 6 + [2] * 3 + [1] * 15 + [-1] * 5)),
    _Kind(_LENGTHS, 9, _fse([1, 4, 3] + [2] * 6 + [1] * 37 + [-1] * 7)),
)
