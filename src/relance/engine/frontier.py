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
from collections.abc import Iterable, Mapping, Sequence

from relance.engine.offset_map import OffsetMap, Wait

__all__ = ["Frontier"]

_SWEEP = 4096  # finished offsets above the base that are kept before they are swept out


class Frontier:
    """The finished and unfinished offsets of one partition during one assignment.

    `start` is the committed offset; `known` the map found beside it, whose finished offsets are skipped.
    """

    __slots__ = ("_done", "_open", "_skip_below", "_unfinished", "position", "waits")

    def __init__(self, start: int, known: OffsetMap | None = None) -> None:
        self.position = start
        """The next offset to be read: one past the highest seen."""
        self._open: deque[int] = deque()
        self._done: set[int] = set()
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
        return self._open[0] if self._open else self.position

    @property
    def open_count(self) -> int:
        """How many offsets have been read and are not finished."""
        return len(self._open) - len(self._done)

    def replaying(self) -> bool:
        """True while records may arrive that an earlier owner has finished."""
        return self.position < self._skip_below

    def was_finished(self, offset: int) -> bool:
        """True if the map of an earlier owner says that `offset` needs no work."""
        return offset < self._skip_below and offset not in self._unfinished

    def open(self, offsets: Sequence[int]) -> None:
        """Offsets that have been read and need work: ascending, none below `position`."""
        if offsets:
            if offsets[0] < self.position:
                raise ValueError(f"offset {offsets[0]} was read already (position {self.position})")
            self._open.extend(offsets)
            self.position = offsets[-1] + 1

    def advance(self, position: int) -> None:
        """All below `position` that was not opened needs no work: skipped records, markers, the log's end."""
        if position > self.position:
            self.position = position

    def finish(self, offset: int) -> None:
        """One open offset is finished. Finishing what is not open is a defect of the caller."""
        opened = self._open
        if opened and opened[0] == offset:
            opened.popleft()
            done = self._done
            while opened and opened[0] in done:
                done.remove(opened.popleft())
        elif offset in self._done or not opened or not opened[0] < offset < self.position:
            raise ValueError(f"offset {offset} is not open (base {self.base}, position {self.position})")
        else:
            self._done.add(offset)
            if len(self._done) > _SWEEP and 2 * len(self._done) > len(opened):
                # Memory is by what is unfinished, not by how far one of it holds the base back.
                done = self._done
                self._open = deque(o for o in opened if o not in done)
                done.clear()

    def finish_all(self, offsets: Iterable[int]) -> None:
        """Several open offsets are finished; cheap where they are the lowest ones, in order."""
        done = self._done
        for offset in offsets:
            opened = self._open
            if not done and opened and opened[0] == offset:
                opened.popleft()
            else:
                self.finish(offset)

    def unfinished(self) -> list[int]:
        """The open offsets, ascending, and those an earlier owner left open that were not read yet."""
        done = self._done
        found = [o for o in self._open if o not in done] if done else list(self._open)
        if self.replaying():
            found.extend(sorted(o for o in self._unfinished if o >= self.position))
        return found

    def map(self, waits: Mapping[int, Wait]) -> OffsetMap:
        """What a new owner must know beside `base`. `waits`: as `OffsetMap.waits`, of what waits here now."""
        end = max(self.position, self._skip_below)
        unfinished = self.unfinished()
        if self.replaying():
            unread = {o: w for o, w in self.waits.items() if o >= self.position}
            waits = {**unread, **waits}
        return OffsetMap(base=self.base, end=end, unfinished=tuple(unfinished), waits=waits)
