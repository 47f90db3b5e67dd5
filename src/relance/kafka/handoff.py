"""Hand-offs: writing retries and dead letters that a source offset depends on.

Promise: `settled` is called once a hand-off is acknowledged, and only then; one that fails is tried again,
more slowly each time, until it is acknowledged or its assignment is gone. Meanwhile its partition is stopped
and the reason is told. A failed write is never taken for a written one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from relance.delivery import Sent
from relance.engine.assignment import Assignment
from relance.errors import SendError
from relance.kafka.producer import Headers, KafkaProducer

__all__ = ["Handoff", "Handoffs"]

_log = logging.getLogger("relance.handoff")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0


@dataclass(eq=False, slots=True)
class Handoff:
    """One record to be written so that `offset` of `assignment` may count as finished."""

    assignment: Assignment
    offset: int
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    failures: int = 0


class Handoffs:
    """Hand-offs in flight over one producer.

    `settled(handoff, sent)` and `failed(handoff, error)` are called on the producer's thread, or on the
    caller's for a write that is refused at once.
    """

    def __init__(
        self,
        producer: KafkaProducer,
        *,
        settled: Callable[[Handoff, Sent], None],
        failed: Callable[[Handoff, SendError], None],
    ) -> None:
        self._producer = producer
        self._settled = settled
        self._failed = failed
        self._lock = threading.Lock()
        self._again: list[tuple[float, Handoff]] = []
        producer.on_tick.append(self._resend_due)

    def submit(self, handoff: Handoff) -> None:
        """Write it, and go on writing until it is durable."""
        try:
            self._producer.send(
                handoff.topic,
                handoff.value,
                key=handoff.key,
                headers=handoff.headers,
                answer=partial(self._answered, handoff),
            )
        except SendError as error:
            self._answered(handoff, error, None)

    def _answered(self, handoff: Handoff, error: SendError | None, sent: Sent | None) -> None:
        if sent is not None:
            self._settled(handoff, sent)
            return
        assert error is not None
        handoff.failures += 1
        pause = min(_FIRST_PAUSE * 2 ** min(handoff.failures - 1, 10), _LONGEST_PAUSE)
        self._failed(handoff, error)  # first: rewritten before that, its partition would stop for ever
        with self._lock:
            self._again.append((time.monotonic() + pause, handoff))

    def _resend_due(self) -> None:
        if not self._again:
            return
        now = time.monotonic()
        with self._lock:
            due = [handoff for at, handoff in self._again if at <= now]
            self._again = [(at, handoff) for at, handoff in self._again if at > now]
        for handoff in due:
            if not handoff.assignment.closed:  # else its new owner reads the record again
                self.submit(handoff)
