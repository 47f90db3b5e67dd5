"""How much the topics take at once: as their settings say, or found out where one refused a batch.

A topic's `max.message.bytes` bounds a batch, and the client makes batches of a megabyte. Promise: no batch is
made for a topic that is larger than what is known of it; where a refusal shows that this is not true any
more, or nothing is known, the topic gets one record at a time until its settings are read anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError

from relance.errors import BrokerUnavailableError, RelanceError, SendError, kafka_error
from relance.kafka.admin import Admin
from relance.outgoing import LARGEST, MAX_RECORD

__all__ = ["ALONE", "TOO_LARGE", "TopicLimits", "batch_settings", "content_size", "too_large"]

_log = logging.getLogger("relance.broker")

ALONE = 1
"""The size of a batch of one record, however large that is."""

_DEFAULT = 1_000_000  # bytes; librdkafka's batch.size
_SMALLEST = 1024  # bytes; below that a batch is one record
_BELIEVED = 300.0  # seconds for which a refusal counts where nobody says what the topic takes

TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
"""Refusals of a batch: by the topic's max.message.bytes, or its segment.bytes. Nothing of it was written."""


class TopicLimits:
    """What is known of the topics that are written to. Any thread may ask and tell.

    `written` are asked for at each `learn`, as are those that take little; others when somebody wants to
    know, and after a refusal. `clock` is monotonic.
    """

    def __init__(
        self,
        common: Mapping[str, Any],
        written: Iterable[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ordinary = _ordinary(common)
        """Bytes of the client's own batches."""
        self._clock = clock
        self._lock = threading.Lock()
        self._written = frozenset(written)
        self._wanted: set[str] = set()
        self._known: dict[str, int] = {}
        self._unsaid: set[str] = set()
        self._refused: dict[str, float] = {}
        """When a topic last refused a batch that should have been small enough."""
        self.wanted = threading.Event()
        """Set where somebody waits for `learn`."""

    def batch(self, topic: str) -> int:
        """Bytes of a batch for `topic`: `ordinary`, a power of two below that, or `ALONE`.

        A client has one size for all of its batches, so it is rounded: few sizes are few clients.
        """
        refused_at = self._refused.get(topic)
        if refused_at is not None:
            if self._clock() - refused_at < _BELIEVED:
                return ALONE
            self._refused.pop(topic, None)
        known = self._known.get(topic)
        if known is None or known >= self.ordinary:
            return self.ordinary
        return ALONE if known < _SMALLEST else 1 << (known.bit_length() - 1)

    def smallest(self, topics: Iterable[str]) -> int:
        """The same, of a batch that goes to any of `topics`."""
        return min(map(self.batch, topics), default=self.ordinary)

    def max_record(self, topic: str) -> int:
        """How many bytes a record of `topic` may take, as of the last look."""
        return self._known.get(topic, MAX_RECORD)

    def said(self, topic: str) -> bool:
        """Whether the topic was asked for: its limit is known, or nobody says it."""
        return topic in self._known or topic in self._unsaid

    def want(self, topic: str) -> None:
        """Ask for it soon."""
        with self._lock:
            self._wanted.add(topic)
        self.wanted.set()

    def refused(self, topic: str) -> None:
        """It took no batch that is as small as `batch` said."""
        with self._lock:
            self._refused[topic] = self._clock()
            self._wanted.add(topic)  # at the next look: brokers hear of a new setting one by one

    def learn(self, admin: Admin) -> None:
        """Ask how much the topics take; where nobody says, the last answer stays."""
        self.wanted.clear()
        with self._lock:
            small = {topic for topic, known in self._known.items() if known < self.ordinary}
            topics = sorted(self._written | self._wanted | small)
        for topic in topics:
            asked_at = self._clock()
            try:
                found = admin.configs(topic, defaults=True)
            except BrokerUnavailableError as error:
                _log.debug("no limit for %s: %s", topic, error)
                return
            except RelanceError as error:  # not every principal may ask: then it is found out by refusals
                _log.debug("no limit for %s: %s", topic, error)
                found = {}
            limits = [int(v) for name in ("max.message.bytes", "segment.bytes") if (v := found.get(name))]
            self._learned(topic, min(limits, default=None), asked_at)

    def _learned(self, topic: str, limit: int | None, asked_at: float) -> None:
        with self._lock:
            self._wanted.discard(topic)
            if limit is None:
                self._unsaid.add(topic)
                return
            self._unsaid.discard(topic)
            self._known[topic] = min(limit, LARGEST)
            if self._refused.get(topic, asked_at) < asked_at:  # what was refused since may be a newer limit
                del self._refused[topic]


def batch_settings(batch: int) -> dict[str, Any]:
    """For a client whose batches take `batch` bytes at most, or one record if that is larger."""
    return {"batch.num.messages": 1} if batch == ALONE else {"batch.size": batch}


def content_size(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> int:
    """Bytes of a record without what belongs to it: never more than the client counts."""
    return (
        len(key or b"")
        + len(value or b"")
        + sum(len(name) + len(content or b"") for name, content in headers)
    )


def too_large(topic: str, size: int, code: int) -> SendError:
    """The topic refused a record with `size` bytes of content that was a batch by itself."""
    return SendError(
        f"{topic}: {kafka_error(code).name}: the record takes {size} bytes, which is more than the topic"
        " takes (its max.message.bytes or segment.bytes): let the topic take more, or send less",
        maybe_written=False,
        code=code,
    )


def _ordinary(common: Mapping[str, Any]) -> int:
    try:
        return int(common.get("batch.size", _DEFAULT))
    except ValueError:  # the client will say so
        return _DEFAULT
