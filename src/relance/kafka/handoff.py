"""Hand-offs: writing retries and dead letters that a source offset depends on.

Promise: `settled` is called once a hand-off is acknowledged, and only then; one that fails is tried again,
more slowly each time, and at once when its partition is about to go, until it is acknowledged or its
assignment is gone. Meanwhile its partition is stopped and the reason is told. A failed write is never taken
for a written one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from relance.delivery import Sent
from relance.engine.assignment import Assignment
from relance.errors import SendError
from relance.kafka.fitting import FittingProducer
from relance.record import Outgoing

__all__ = ["Handoff", "Handoffs"]

_log = logging.getLogger("relance.handoff")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0


@dataclass(eq=False, slots=True)
class Handoff:
    """What must be written so that `offset` of `assignment` may count as finished."""

    assignment: Assignment
    offset: int
    outgoing: tuple[Outgoing, ...]
    left: int = 0
    """How many of them are not acknowledged."""


class _Write:
    """One record of a hand-off, until it is acknowledged."""

    __slots__ = ("failures", "handoff", "outgoing")

    def __init__(self, handoff: Handoff, outgoing: Outgoing) -> None:
        self.handoff = handoff
        self.outgoing = outgoing
        self.failures = 0


class Handoffs:
    """Hand-offs in flight over one producer.

    `settled(handoff)` and `failed(handoff, topic, error)` are called on the producer's threads, `failed` also
    on the caller's, for a write that is refused at once. `trying(handoff)` is called by `hurry`.
    """

    def __init__(
        self,
        producer: FittingProducer,
        *,
        settled: Callable[[Handoff], None],
        failed: Callable[[Handoff, str, SendError], None],
        trying: Callable[[Handoff], None],
    ) -> None:
        self._producer = producer
        self._settled = settled
        self._trying = trying
        self._failed = failed
        self._lock = threading.Lock()
        self._refused: dict[_Write, float | None] = {}
        """Those that failed: when they are written again; None: that is under way."""
        producer.on_tick.append(self._resend_due)

    def submit(self, handoff: Handoff) -> None:
        """Write it, and go on writing until all of it is durable."""
        handoff.left = len(handoff.outgoing)
        for outgoing in handoff.outgoing:
            self._send(_Write(handoff, outgoing))

    def hurry(self, assignments: Collection[Assignment]) -> None:
        """Write now what failed of these; `trying` is called first, also for what is under way again."""
        with self._lock:  # so that no answer is told before it is told that there will be one
            mine = [w for w in self._refused if w.handoff.assignment in assignments]
            due = [w for w in mine if self._refused[w] is not None and not w.handoff.assignment.closed]
            for handoff in dict.fromkeys(write.handoff for write in mine):
                self._trying(handoff)
            self._refused.update(dict.fromkeys(due))
        for write in due:
            self._send(write)

    def _send(self, write: _Write) -> None:
        topic, key, value, headers = write.outgoing
        try:
            self._producer.send(topic, value, key=key, headers=headers, answer=partial(self._answered, write))
        except SendError as error:
            self._answered(write, error, None)

    def _answered(self, write: _Write, error: SendError | None, sent: Sent | None) -> None:
        handoff = write.handoff
        if self._refused:
            with self._lock:
                self._refused.pop(write, None)
        if sent is not None:
            with self._lock:  # its records may be written by several clients
                handoff.left -= 1
                settled = handoff.left == 0
            if settled:
                self._settled(handoff)
            return
        assert error is not None
        write.failures += 1
        pause = min(_FIRST_PAUSE * 2 ** min(write.failures - 1, 10), _LONGEST_PAUSE)
        # First: written again before that is told, its partition would stop for ever.
        self._failed(handoff, write.outgoing.topic, error)
        with self._lock:
            self._refused[write] = time.monotonic() + pause

    def _resend_due(self) -> None:
        if not self._refused:
            return
        now = time.monotonic()
        with self._lock:
            due = [write for write, at in self._refused.items() if at is not None and at <= now]
            gone = [write for write in due if write.handoff.assignment.closed]
            for write in gone:  # its new owner reads the record again
                del self._refused[write]
            due = [write for write in due if write in self._refused]
            self._refused.update(dict.fromkeys(due))
        for write in due:
            self._send(write)
