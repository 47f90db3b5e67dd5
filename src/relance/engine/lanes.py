"""Lanes and runs: what may be handled now without breaking an order.

A lane is one ordering key of one partition (or the whole partition, or a single record where there is no
order). Promise: at most one run of a lane is out at a time, so at most one of its records is in flight, and
a lane that waits for a retry holds its own successors and nothing else.

A run is a slice of a lane, in order, handed to a worker. The worker alone writes `done` (a plain number,
safe to read from any thread); any thread may cancel the run, and then no other record of it starts.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from itertools import repeat, starmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relance.circuit import Call
    from relance.dead_letters.telling import Teller
    from relance.engine.assignment import Assignment
    from relance.record import Record

__all__ = ["Lane", "LaneState", "Run"]

_SHORT = 64  # records


class LaneState(Enum):
    """What a lane is doing."""

    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"


class Lane:
    """The records of one ordering key that are not out with a worker."""

    __slots__ = ("assignment", "due", "key", "keyed", "queue", "state", "ticket")

    def __init__(self, assignment: Assignment, key: bytes | None, *, keyed: bool) -> None:
        self.assignment = assignment
        self.key = key
        self.keyed = keyed  # False: a record without order; nobody will look this lane up again
        # A list while it is short: a deque takes 760 bytes when empty, and 100,000 lanes may have one record.
        self.queue: list[Record] | deque[Record] = []
        self.state = LaneState.READY
        self.ticket = 0
        self.due = 0.0  # while it waits, on the monotonic clock

    def take(self, length: int) -> list[Record]:
        """Its first `length` records, which leave it."""
        queue = self.queue
        if isinstance(queue, list):
            if len(queue) == length:
                self.queue = []
                return queue
            if len(queue) <= _SHORT:
                found = queue[:length]
                del queue[:length]
                return found
            queue = self.queue = deque(queue)  # what leaves the front of a list moves all others
        return list(starmap(queue.popleft, repeat((), length)))

    def put_back(self, records: list[Record]) -> None:
        """Put them before all others."""
        if isinstance(self.queue, deque):
            self.queue.extendleft(reversed(records))
        else:
            self.queue[:0] = records


class Run:
    """Records `records[done:]` are still to be handled, one after the other."""

    __slots__ = (
        "_next_up",
        "call",
        "cancelled",
        "done",
        "handed",
        "lane",
        "letters",
        "records",
        "reordered",
        "reported",
        "started",
        "teller",
    )

    def __init__(self, lane: Lane, records: list[Record]) -> None:
        self.lane = lane
        self.records = records
        self.done = 0
        self.reported = 0  # how many of `done` the frontier knows of
        self.handed: set[int] | None = None  # log offsets that a hand-off will finish, not this run
        self.cancelled = False
        self.reordered = False
        self.started = 0.0  # when its first record was given to the handler, on the monotonic clock
        self.call: Call | None = None  # what a circuit breaker still has to hear of it
        self.letters: list[tuple[Record, Exception]] | None = None
        """Records given up, with why, to be written together; None: each is written at once."""
        self.teller: Teller | None = None  # turns the errors of a batch into texts, once one failed
        self._next_up: list[Record] = []

    def cancel(self) -> None:
        """Start no other record of it."""
        self.cancelled = True
        self._next_up.clear()

    def next_up(self, start: int, count: int) -> list[Record]:
        """`count` records from `start` on, for a loop over them that ends when the run is cancelled."""
        records = self._next_up = self.records[start : start + count]
        # `cancel` sets its flag before it empties the list: we see that, or the list that is emptied is ours.
        if self.cancelled:
            records.clear()
        return records

    def seal(self) -> None:
        """The handler of the record at `done` has ended, without an answer that counts."""
        for record in self.records[self.done : self.done + 1]:
            record.outbox = ()

    def place(self, record: Record, start: int) -> int:
        """Where in `records`, at `start` or after, `record` is."""
        while self.records[start] is not record:
            start += 1
        return start

    def reorder(self, first: list[Record]) -> None:
        """Let `first` come first of what is still to be handled: a batch is not done from its start on."""
        chosen = {record.log_offset for record in first}
        left = [record for record in self.records[self.done :] if record.log_offset not in chosen]
        self.records[self.done :] = first + left
        self.reordered = True
