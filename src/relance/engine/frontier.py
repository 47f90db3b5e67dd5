"""How far a partition is finished; its promise: `base` never passes an unfinished offset and never goes back.

Records finish out of order (a retry waits while its neighbours go on). Kafka's group commit is one number,
so only the lowest unfinished offset may be committed; what is finished above it travels in the commit's
metadata (`offset_map`) so that a new owner skips it. Offsets have gaps (transaction markers, compaction):
nothing here assumes that the next offset is the last one plus one.

The invariant, also held by the property tests against a plain set:

    base == min(open offsets), or position when none is open;   finished ⊂ [base, position)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from relance.engine.offset_map import OffsetMap, Wait

__all__ = ["Frontier"]

_SWEEP = 4096  # finished offsets above the base that are kept before they are swept out


class Frontier:
    """The finished and unfinished offsets of one partition during one assignment.

    `start` is the committed offset; `known` the map found beside it, whose finished offsets are skipped.
    """

    __slots__ = (
        "_done",
        "_head",
        "_kept",
        "_open",
        "_skip_below",
        "_spanned",
        "_spans",
        "_unfinished",
        "position",
        "waits",
    )

    def __init__(self, start: int, known: OffsetMap | None = None) -> None:
        self.position = start
        """The next offset to be read: one past the highest seen."""
        # Offsets as they were opened, list by list; those before `_head` of the first list are finished.
        self._open: deque[Sequence[int]] = deque()
        self._head = 0
        self._kept = 0  # how many there are from `_head` on, finished or not
        self._done: set[int] = set()  # finished ones among them
        self._spans: dict[int, int] = {}  # more of them, without gaps: from the first, how many
        self._spanned = 0  # how many that makes
        self._skip_below = start
        self._unfinished: frozenset[int] = frozenset()
        self.waits: Mapping[int, Wait] = {}
        """By offset, from an earlier owner's map: a move does not reset them."""
        if known is not None and known.end > start:
            self._skip_below = known.end
            self._unfinished = frozenset(known.unfinished)
            self.waits = known.waits

    @property
    def base(self) -> int:
        """The lowest unfinished offset: what may be committed."""
        return self._open[0][self._head] if self._open else self.position

    @property
    def open_count(self) -> int:
        """How many offsets have been read and are not finished."""
        return self._kept - len(self._done) - self._spanned

    def replaying(self) -> bool:
        """True while records may arrive that an earlier owner has finished."""
        return self.position < self._skip_below

    def was_finished(self, offset: int) -> bool:
        """True if the map of an earlier owner says that `offset` needs no work."""
        return offset < self._skip_below and offset not in self._unfinished

    def open(self, offsets: Sequence[int]) -> None:
        """Offsets that have been read and need work: ascending, none below `position`; kept, not copied."""
        if offsets:
            if offsets[0] < self.position:
                raise ValueError(f"offset {offsets[0]} was read already (position {self.position})")
            self._open.append(offsets)
            self._kept += len(offsets)
            self.position = offsets[-1] + 1

    def advance(self, position: int) -> None:
        """All below `position` that was not opened needs no work: skipped records, markers, the log's end."""
        if position > self.position:
            self.position = position

    def finish_all(self, offsets: Iterable[int]) -> None:
        """These open offsets are finished. Finishing what is not open is a defect of the caller."""
        done, position, base = self._done, self.position, self.base
        for offset in offsets:
            if offset == base and self._open:
                self._pop(1)
                self._sink()
                base = self.base
            elif offset in done or not base < offset < position:
                raise ValueError(f"offset {offset} is not open (base {base}, position {position})")
            else:
                done.add(offset)
        self._sweep()

    def finish_span(self, first: int, last: int, count: int) -> bool:
        """Finish `count` open offsets, the lowest and the highest of which are given, if that is cheap.

        It is where there are no gaps, or where they are the lowest open ones: both they and the open ones
        ascend, so where the ends are `count` places apart, what lies between is the same. False: nothing
        was done.
        """
        if last - first == count - 1:
            if first in self._spans or first in self._done or not self.base <= first <= last < self.position:
                raise ValueError(f"offset {first} is not open (base {self.base}, position {self.position})")
            if first == self.base:
                self._pop(count)
                self._sink()
            else:  # above a record that waits for its dead letter, say: kept until the base comes here
                self._spans[first] = count
                self._spanned += count
                self._sweep()
            return True
        if self._done or self._spans:
            return False
        head, left = self._head, count
        for offsets in self._open:
            if left == count and offsets[head] != first:
                return False
            there = len(offsets) - head
            if left <= there:
                if offsets[head + left - 1] != last:
                    return False
                self._pop(count)
                return True
            left -= there
            head = 0
        return False

    def finish_but(self, offsets: range, held: Collection[int]) -> list[int]:
        """Finish those of `offsets` that are not `held`, where that is cheap; what is left to be finished."""
        left: list[int] = []
        first = offsets.start
        for stop in (*sorted(o for o in held if o in offsets), offsets.stop):
            count = stop - first
            if count and not self.finish_span(first, stop - 1, count):
                left.extend(range(first, stop))
            first = stop + 1
        return left

    def _sink(self) -> None:
        """Let go of what is finished at the base."""
        done, spans = self._done, self._spans
        while done or spans:
            base = self.base
            if base in done:
                done.remove(base)
                self._pop(1)
            elif base in spans:
                count = spans.pop(base)
                self._spanned -= count
                self._pop(count)
            else:
                return

    def _sweep(self) -> None:
        """Memory is by what is unfinished, not by how far one of it holds the base back."""
        finished = len(self._done) + self._spanned
        if finished > _SWEEP and 2 * finished > self._kept:
            self._compact()

    def _spell_out(self) -> None:
        """Each finished offset by itself, where all are looked at anyway."""
        for first, count in self._spans.items():
            self._done.update(range(first, first + count))
        self._spans.clear()
        self._spanned = 0

    def _pop(self, count: int) -> None:
        """Let go of the lowest `count` that are kept."""
        self._kept -= count
        head = self._head + count
        opened = self._open
        while opened and head >= len(opened[0]):
            head -= len(opened.popleft())
        self._head = head

    def _compact(self) -> list[int]:
        """Keep the open ones only, so that the next look is at what came since; that is they.

        A commit looks once a second, under the lock: of ten thousand in short lists that took 5 to 20 ms.
        """
        self._spell_out()
        done, head = self._done, self._head
        left: list[int] = []
        for offsets in self._open:
            left.extend(offsets[head:] if not done else [o for o in offsets[head:] if o not in done])
            head = 0
        self._open, self._head, self._kept = deque([left] if left else ()), 0, len(left)
        done.clear()
        return left

    def reopen(self, offsets: Collection[int]) -> None:
        """Finished offsets are not, after all: the transaction that finished them did not take effect."""
        self._spell_out()
        swept = [offset for offset in offsets if offset not in self._done]
        self._done.difference_update(offsets)
        if swept:
            kept = [offset for opened in self._open for offset in opened][self._head :]
            self._open = deque([sorted(kept + swept)])
            self._head = 0
            self._kept += len(swept)

    def unfinished(self) -> list[int]:
        """The open offsets, ascending, and those an earlier owner left open that were not read yet."""
        later = sorted(o for o in self._unfinished if o >= self.position) if self.replaying() else []
        return self._compact() + later

    def map(self, waits: Mapping[int, Wait]) -> OffsetMap:
        """What a new owner must know beside `base`. `waits`: as `OffsetMap.waits`, of what waits here now."""
        end = max(self.position, self._skip_below)
        unfinished = self.unfinished()
        if self.replaying():
            unread = {o: w for o, w in self.waits.items() if o >= self.position}
            waits = {**unread, **waits}
        return OffsetMap(base=self.base, end=end, unfinished=tuple(unfinished), waits=waits)
