"""One partition, owned once: from the assignment that gave it to the revocation that took it.

Promise: whatever refers to an earlier ownership of the same partition refers to another object, closed, so a
late completion counts for nothing. That is the epoch of the architecture page, as identity.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from relance.engine.crashes import Careful, Mark, with_deaths
from relance.engine.deferral import Failure
from relance.engine.frontier import Frontier
from relance.engine.lanes import Lane, Run
from relance.engine.metadata_room import LEAST
from relance.engine.offset_map import LIMIT, Wait, decode_map, encode_map
from relance.message import mean_size
from relance.record import Record, TopicPartition

__all__ = ["Assignment", "Commit", "Tried"]

_LONGEST = 31 * 86_400.0  # seconds; a wait of an earlier owner beyond it is damage, not one that we made


class Tried(NamedTuple):
    """Tries made of a record, and when the next may start: on the monotonic clock, and as the delay it is."""

    tries: int
    due: float
    delay: float
    record: Record


@dataclass(eq=False, slots=True)
class Assignment:
    """The state of one owned partition. `feed` names the client that reads it."""

    tp: TopicPartition
    feed: str
    epoch: int
    frontier: Frontier
    topic_id: str = ""
    home: str = ""
    """What its commits say of the cluster, and of the group's beginning; see `offset_map.home_text`."""
    owner: str = ""
    """Which process its commits name as the owner."""
    lanes: dict[bytes | None, Lane] = field(default_factory=dict)
    waiting: set[Lane] = field(default_factory=set)
    running: set[Run] = field(default_factory=set)
    settling: set[int] = field(default_factory=set)
    """Log offsets whose hand-off is not acknowledged yet."""
    aside: set[int] = field(default_factory=set)
    """Those of them that must wait until a commit can tell of them: beyond where its map had to end."""
    queued: int = 0
    """Records in lanes, not out with a worker."""
    mean_size: float = 0.0
    """Bytes of a value, a moving mean of samples: to weigh each would cost the hot path too much."""
    parked: int = 0
    """Those of them that are held by a waiting lane."""
    tried: dict[int, Tried] = field(default_factory=dict)
    """Of unfinished records that failed here or at an earlier owner, by log offset. Until their end, not only
    while they wait: also a record that is about to run may have to move."""
    later: dict[int, float] = field(default_factory=dict)
    """Those of an earlier owner that stand behind others in their lane and may not start before then."""
    stopped: str | None = None
    """Why nothing of this partition is started now (a hand-off that fails), or None."""
    failing: set[int | None] = field(default_factory=set)
    """What `stopped` waits for: log offsets whose hand-off fails; None: nothing that will come."""
    trying: set[int] = field(default_factory=set)
    """Those of them that are on their way once more, because the partition is about to go."""
    held: list[Lane] = field(default_factory=list)
    """Lanes that became ready while stopped."""
    draining: bool = False
    closed: bool = False
    map_full: bool = False
    map_end: int | None = None
    """Where the map of the last commit made had to end, or None: it was whole."""
    committed: int = -1
    changed: bool = True
    """Something finished or began to wait since the last commit was made."""
    unanswered: Commit | None = None
    """The last commit made, until the broker acknowledges it."""
    careful: Careful | None = None
    """How records start while one of them may kill its process, or None: as usual."""
    told: bool | None = None
    """Whether the last commit made says that somebody is at work here; None before the first."""
    heard: bool = False
    """Whether the broker has acknowledged any commit."""
    deaths: set[int] = field(default_factory=set)
    """Log offsets of records whose handlers have raised what ends the process."""
    unclean: bool = False
    """The handler of a record that is out here may have ended the process: no commit says that it is well."""

    def weigh(self, records: list[Record]) -> None:
        """Take some values of a batch into `mean_size`: large ones count at once, small ones slowly."""
        if records:
            mean = mean_size(records, lambda record: record.raw)
            self.mean_size = max(mean, self.mean_size + (mean - self.mean_size) / 16)

    def recall(self, records: list[Record], now: float, wall: float) -> dict[int, float]:
        """Give records the attempts that an earlier owner left in the map; the due times still to come.

        `now` is the monotonic clock, as are the due times; `wall` the time of day (seconds, UTC).
        """
        waits = {}
        known = self.frontier.waits
        for record in records:
            found = known.get(record.log_offset)
            if found is None or found.tries < record.attempt:  # a retry record's headers may know of more
                continue
            record.attempt = found.tries + 1
            left = max(0.0, min(found.delay / 1000, found.due / 1000 - wall))
            if 0 < left <= _LONGEST:
                waits[record.log_offset] = now + left
            else:
                left = 0.0
            self.tried[record.log_offset] = Tried(found.tries, now + left, found.delay / 1000, record)
        return waits

    def untry(self, offset: int, failure: Failure) -> None:
        """One failed try of a record costs no attempt after all, unless the record is handed off or done.

        Of several tries of one record give the last one back first. A wait that has begun goes on.
        """
        found = self.tried.get(offset)
        if found is None or offset in self.settling:
            return
        record = found.record
        record.attempt -= 1
        record.history = tuple(
            past if past.attempt < failure.attempt else replace(past, attempt=past.attempt - 1)
            for past in record.history
            if past is not failure
        )
        if found.tries > 1:
            self.tried[offset] = found._replace(tries=found.tries - 1)
        else:
            del self.tried[offset]
        self.changed = True

    def busy(self) -> bool:
        """True while a worker is out, or a hand-off that doesn't fail: what a drain waits for."""
        return bool(self.running or self.settling - self.failing - self.aside)

    def tries_again(self) -> bool:
        """True while a hand-off that failed is on its way once more: what a drain waits for a while for."""
        return not self.trying.isdisjoint(self.settling)

    def tells_of(self, offset: int) -> bool:
        """Whether a commit can say of a finished `offset` that it is, as far as the last one shows.

        Of the lowest one it always can: it is what stands below the committed offset then.
        """
        return self.map_end is None or offset < self.map_end or offset == self.frontier.base

    @property
    def ending(self) -> bool:
        """Nothing runs and nothing will start: what is said now stands for a clean end."""
        return self.draining and not self.running

    def commit(self, *, now: float, wall: float, last: bool, limit: int = LIMIT) -> Commit:
        """What to commit now: the frontier, what is finished above it, and whether it is the `last` word.

        `limit`: characters of metadata; see `MetadataRoom`.
        """
        # Up to the next millisecond: early is wrong and late is not.
        shift = wall - now
        waits = {
            offset: Wait(tries, max(0, math.ceil((due + shift) * 1000)), math.ceil(delay * 1000))
            for offset, (tries, due, delay, _) in self.tried.items()
        }
        found = self.frontier.map(waits)
        open_ = not last or self.unclean
        mark = Mark(open_) if self.careful is None else self.careful.mark(found, open_=open_)
        if self.deaths:
            mark = with_deaths(mark, self.deaths)
        mark = dataclasses.replace(mark, owner=self.owner)
        text, whole = encode_map(found, self.topic_id, limit, mark=mark.text(), home=self.home)
        self.map_full = not whole and limit >= LEAST
        if whole:
            self.map_end = None
        else:
            known = decode_map(text, self.topic_id, self.frontier.base)
            self.map_end = self.frontier.base if known is None else known.end
        self.changed = False
        self.told = not last
        self.unanswered = Commit(self, self.frontier.base, text, mark)
        return self.unanswered


@dataclass(frozen=True, slots=True)
class Commit:
    """An offset (the next one to read) with its metadata, for the assignment that earned it."""

    assignment: Assignment
    offset: int
    metadata: str
    mark: Mark
    """As it stands in the metadata."""
