"""A record that kills its process, found from what dead owners left: a mark beside each commit.

Promise: a record is given up only after `max_crashes` deaths during which a commit named it as the only
suspect of its partition, and during the last of them nothing else of its consumer ran. Normal work pays a
commit when it begins and one when it ends, and nothing for each record.

An owner's commits say *open*; the last one of a clean end says *closed*. An owner that finds *open* goes on
carefully:

    level 1   what starts lies in a window that an acknowledged commit names; a death leaves 512 suspects
    level 2   these start one at a time, each after an acknowledged commit that names it; a death leaves one

The mark's text: `o` or `c`, the level with its window's end, the suspect, how often the process died at which
offset, the owner, and the owner that is taken for dead, as `o`, `c`, `o1.812`, `o2.812.307~307x1`,
`o=5f01c3a9`, `c1.812=5f01c3a9-e42b0077`. Offsets are those of the log that is read. An older mark names no
owner, and an older version takes a mark that names one for no mark.

A broker that restarts takes the partitions of owners that live on, and no commit of theirs can say *closed*.
So the next owner begins carefully; when the members of the group are known, and the last owner is one of
them, nobody has died, and the partition is careful no more.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from relance.engine.lanes import Lane
from relance.engine.offset_map import OffsetMap

__all__ = ["CALM", "WINDOW", "Careful", "Mark", "careful_after", "read_mark", "with_deaths"]

WINDOW = 512
"""Unfinished offsets that may be in flight at level 1, and that level 2 tries one at a time."""

CALM = 60.0
"""Seconds of level 1 without a crash, after which work is normal again."""

_IDLE = 5.0  # seconds of level 2 in which nothing could start: what is left waits, so it was not in flight
_MOST = 16  # offsets with counted crashes that are written and believed; more only cost further crashes

_MARK = re.compile(
    r"(?P<state>[oc])(?:(?P<level>[12])\.(?P<end>\d{1,19})(?:\.(?P<suspect>\d{1,19}))?)?"
    rf"(?P<crashes>(?:~\d{{1,19}}x\d{{1,6}}){{0,{_MOST}}})"
    r"(?:=(?P<owner>[0-9a-f]{1,16})(?:-(?P<dead>[0-9a-f]{1,16}))?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Mark:
    """What the owner says of itself. `end`: of the window; `suspect`: the only record that may run."""

    open: bool
    level: int = 0
    end: int = 0
    suspect: int | None = None
    crashes: Mapping[int, int] = field(default_factory=dict)
    owner: str = ""
    """Which process it is, in a few hexadecimal digits; "" where that is not known."""
    dead: str = ""
    """Which process's death made it careful; "" where it is not, or that is not known."""

    def text(self) -> str:
        """For the commit's metadata."""
        made = "o" if self.open else "c"
        if self.level:
            made += f"{self.level}.{self.end}"
            if self.suspect is not None:
                made += f".{self.suspect}"
        # The highest counts are nearest to an end.
        kept = sorted(self.crashes.items(), key=lambda item: (-item[1], item[0]))[:_MOST]
        made += "".join(f"~{offset}x{count}" for offset, count in sorted(kept))
        if self.owner:
            made += f"={self.owner}-{self.dead}" if self.dead else f"={self.owner}"
        return made


def read_mark(text: str) -> Mark | None:
    """The mark that `text` is; None for anything else."""
    found = _MARK.fullmatch(text)
    if found is None:
        return None
    crashes = {}
    for pair in found["crashes"].split("~")[1:]:
        offset, count = pair.split("x")
        crashes[int(offset)] = int(count)
    suspect = None if found["suspect"] is None else int(found["suspect"])
    level, end = int(found["level"] or 0), int(found["end"] or 0)
    return Mark(
        found["state"] == "o", level, end, suspect, crashes, found["owner"] or "", found["dead"] or ""
    )


@dataclass(eq=False, slots=True)
class Careful:
    """One assignment in careful mode: which offsets may start, and what a commit must say before more may."""

    limit: int
    """Level 1: offsets below it may start; a commit that says so is acknowledged."""
    end: int | None = None
    """Level 2 while not None: offsets below it start one at a time, the others wait."""
    crashes: dict[int, int] = field(default_factory=dict)
    """Deaths of the process by the only suspect's offset."""
    max_crashes: int = 0
    """How many of them make a dead letter; 0: none do."""
    suspect: Lane | None = None
    """Level 2: the lane whose first record is to be tried."""
    offset: int = -1
    """That record's."""
    asked: bool = False
    """Commits name it from now on."""
    named: bool = False
    """A commit that names it is acknowledged."""
    out: bool = False
    """It runs."""
    clean: bool = True
    """The last acknowledged commit names no suspect."""
    short: bool = False
    """Level 1: a lane waits for the window to move on."""
    inside: deque[Lane] = field(default_factory=deque)
    """Level 2: lanes that wait for their turn."""
    beyond: list[Lane] = field(default_factory=list)
    """Lanes that stand beyond the window."""
    tried: int = 0
    """Level 2: how many suspects there were."""
    dead: str = ""
    """Whose death made it careful, as in `Mark`."""
    _since: float | None = None

    @property
    def level(self) -> int:
        """1 or 2."""
        return 1 if self.end is None else 2

    def told(self) -> str:
        """For a person."""
        if self.end is None:
            return f"careful, no more than {WINDOW} records beyond the last commit at a time"
        return f"careful, one record at a time below offset {self.end}"

    @property
    def condemned(self) -> set[int]:
        """Offsets that are not to be handled any more."""
        most = self.max_crashes
        return {offset for offset, count in self.crashes.items() if most and count >= most}

    def needs_to_be_alone(self, offset: int) -> bool:
        """Whether the next death at `offset` is the last one: then it must be nobody else's."""
        return bool(self.max_crashes) and self.crashes.get(offset, 0) >= self.max_crashes - 1

    @property
    def wants_commit(self) -> bool:
        """Whether something waits for a commit to be acknowledged."""
        if self.end is None:
            return self.short or not self.clean
        return (self.asked and not self.named) or (self.suspect is None and not self.clean)

    def startable(self, offsets: Iterable[int]) -> int:
        """Level 1: how many of these ascending offsets may start."""
        count = 0
        for offset in offsets:
            if offset >= self.limit:
                break
            count += 1
        return count

    def choose(self, lane: Lane, offset: int) -> None:
        """Level 2: the first record of `lane` is the next suspect."""
        self.suspect, self.offset, self.named, self.out = lane, offset, False, False
        self._since = None
        self.tried += 1

    def drop_suspect(self) -> Lane | None:
        """There is no suspect any more: it came back alive, or may not start. The lane whose turn it is."""
        self.suspect = None
        self.asked = self.named = self.out = False
        return self.inside.popleft() if self.inside else None

    def mark(self, found: OffsetMap, *, open_: bool) -> Mark:
        """What the commit of `found` says."""
        if self.crashes:
            left = set(found.unfinished)
            self.crashes = {o: n for o, n in self.crashes.items() if o in left or o >= found.end}
        if self.end is not None:
            suspect = self.offset if open_ and self.asked else None
            return Mark(open_, 2, self.end, suspect, dict(self.crashes), dead=self.dead)
        unfinished = found.unfinished
        if len(unfinished) > WINDOW:
            end = unfinished[WINDOW]
        else:
            end = max(found.end, found.base) + WINDOW - len(unfinished)
        return Mark(open_, 1, max(end, self.limit), None, dict(self.crashes), dead=self.dead)

    def acknowledged(self, mark: Mark) -> list[Lane]:
        """The broker has `mark`; lanes that may be looked at again."""
        self.clean = mark.suspect is None
        if self.end is not None:
            if self.suspect is None or not self.asked or self.named or mark.suspect != self.offset:
                return []  # named already: its lane must not be in line twice
            self.named = True
            return [self.suspect]
        if mark.level != 1 or mark.end <= self.limit:
            return []
        self.limit, self.short = mark.end, False
        return self._let_go()

    def log_ends_at(self, offset: int) -> None:
        """What is written from here on was in no owner's hands when it died."""
        if self.end is not None:
            self.end = min(self.end, offset)

    def goes_on(self, now: float, base: int, position: int) -> bool:
        """Whether it does; where level 2 is over, the next commit opens the first window of level 1.

        `base` and `position` are the frontier's, `now` is the monotonic clock.
        """
        if self.suspect is not None or self.inside:
            self._since = None
            if self.tried < WINDOW or self.suspect is not None:
                return True
        if self._since is None:
            self._since = now
        quiet = now - self._since
        if self.end is not None:
            done = base >= self.end or self.tried >= WINDOW
            if done or (position >= self.end and quiet >= _IDLE):
                self.end, self._since, self.limit = None, now, base
                self.beyond, self.short = self.close(), True
            return True
        return quiet < CALM or bool(self.condemned)

    def _let_go(self) -> list[Lane]:
        lanes, self.beyond = self.beyond, []
        return lanes

    def close(self) -> list[Lane]:
        """It is over: all lanes that waited."""
        lanes = [*self.inside, *self._let_go()]
        self.inside.clear()
        return lanes


def with_deaths(mark: Mark, offsets: Collection[int]) -> Mark:
    """The last word of an owner whose handlers have ended the process, at these offsets, which are certain.

    Each death is counted already, so the mark names no suspect; what is unfinished up to the last of them is
    tried one at a time, as after any death.
    """
    crashes = {offset: mark.crashes.get(offset, 0) + 1 for offset in offsets}
    end = mark.end if mark.level == 2 else 0
    return Mark(True, 2, max(end, *(offset + 1 for offset in offsets)), None, {**mark.crashes, **crashes})


def careful_after(mark: Mark | None, start: int, max_crashes: int) -> Careful | None:
    """How to go on at the committed offset `start` beside which `mark` stands; None: as usual."""
    if mark is None or not (mark.open or mark.level):
        return None
    crashes = {offset: count for offset, count in mark.crashes.items() if offset >= start}
    if mark.open and mark.suspect is not None and mark.suspect >= start:
        crashes[mark.suspect] = crashes.get(mark.suspect, 0) + 1
    one_by_one = mark.end > start and (mark.level == 2 or (mark.level == 1 and mark.open))
    return Careful(start, mark.end if one_by_one else None, crashes, max_crashes, clean=False)
