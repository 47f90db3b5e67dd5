"""What a handler receives: a record as it stood in its topic, thin enough for the hot path.

Promise: `topic`, `partition` and `offset` are where the record was *first* written. A record that comes back
through a retry topic keeps its origin; where it physically lies now is `log_offset`, which only the engine
needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from relance.encoding import checked_headers, checked_topic, encode, encode_key
from relance.engine.deferral import Deferral, Failure, original_headers
from relance.errors import DecodeError, SendError
from relance.message import Extras, HeaderList, Kept, Message, Unreadable, headers_of
from relance.text import key_name

__all__ = ["FORKED", "SEALED", "HeaderList", "Outgoing", "Record", "TopicPartition", "record_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999  # the last millisecond that datetime knows; Kafka's go on


class TopicPartition(NamedTuple):
    """A partition of a topic. Sorts by topic, then number; prints as Kafka's logs do: `orders-0`."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class Outgoing(NamedTuple):
    """A record to be written."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: HeaderList

    def __repr__(self) -> str:
        return f"<Outgoing to {self.topic}, {key_name(self.key)}, {len(self.value or b'')} bytes>"


SEALED: Final = ()
"""The outbox of a record whose handler has ended: what is sent now would belong to no attempt."""


class _Forked(tuple[()]):
    __slots__ = ()


FORKED: Final = _Forked()
"""The outbox in a process that the handler has forked: the record is its parent's. Equal to SEALED."""


class Record(msgspec.Struct, gc=False):
    """One record. A handler that asks for it gets it as its second argument.

    `key` and `raw` are the untouched bytes, or None where Kafka holds null. `attempt` counts from 1.
    """

    # As little as can be is made for each record on the thread that polls: what few handlers look at is
    # asked of the message then. gc=False halves the cost of creation; a record refers to no cycle.
    message: Message
    attempt: int = 1
    deferral: Deferral | None = None
    history: tuple[Failure, ...] = ()
    outbox: list[Outgoing] | tuple[()] | None = None

    def __repr__(self) -> str:
        return f"<Record {self.topic}-{self.partition} offset {self.offset}, attempt {self.attempt}>"

    @property
    def topic(self) -> str:
        """Where it was first written."""
        return self.message.topic() if self.deferral is None else self.deferral.origin_topic

    @property
    def partition(self) -> int:
        """The number of the partition where it was first written."""
        return self.message.partition() if self.deferral is None else self.deferral.origin_partition

    @property
    def offset(self) -> int:
        """Its offset there."""
        return self.message.offset() if self.deferral is None else self.deferral.origin_offset

    @property
    def log_offset(self) -> int:
        """Where it lies now: in the retry topic's partition, if it came back through one."""
        return self.message.offset()

    @property
    def key(self) -> bytes | None:
        """Of the record, or None."""
        return self.message.key()

    @property
    def raw(self) -> bytes | None:
        """The value's bytes, or None."""
        return self.message.value()

    def unseal(self) -> None:
        """A handler is about to get the record, which may have been with a handler before."""
        if self.outbox == SEALED:
            self.outbox = None

    def send(
        self,
        topic: str,
        value: Any,
        *,
        key: str | bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Write a record that belongs to this one: only while its handler runs, and only if that returns.

        It is held back until then and dropped if the handler raises; this record's offset is committed when
        all it sent is acknowledged, or with `handoff="transactional"` in the same transaction. `value`: as
        `App.send`. Raises SendError at once for what can't be encoded, and once the handler has ended: a
        thread or task that it has left behind comes too late.
        """
        # All is checked here: what the client refused later would stop the partition for ever.
        made = Outgoing(checked_topic(topic), encode_key(key), encode(value), checked_headers(headers))
        # Another thread may seal it at any time, but not between a look and what follows from it: Python
        # changes threads only after calls and at jumps back.
        outbox = self.outbox
        if outbox is None:
            self.outbox = [made]
        elif outbox:  # never an empty list; SEALED is empty
            outbox.append(made)
        else:
            why = (
                "in a process that was forked from the one that handles the record, which must send"
                if outbox is FORKED
                else "after the record's handler has ended; send while it runs (await the task, join the"
                " thread), or use app.send"
            )
            raise SendError(
                f"{self.topic}-{self.partition} at offset {self.offset}: record.send to {topic} {why}",
                maybe_written=False,
            )

    @property
    def headers(self) -> HeaderList:
        """The headers that the producer wrote: (name, bytes or None), in order, repeats kept.

        Raises DecodeError where a header's name is not UTF-8, which the client cannot read.
        """
        try:
            headers = headers_of(self.message) or []
        except DecodeError:
            # Asked again, the client gives a list with a NULL in it, and the process dies: never ask twice.
            message = self.message
            place = (message.topic(), message.partition(), message.offset())
            self.message = Kept(place, message.key(), message.value(), Unreadable(message.timestamp()))
            raise
        if self.deferral is None:
            return headers
        return original_headers(headers)

    @property
    def timestamp(self) -> datetime | None:
        """When the record was first written (UTC), or None: Kafka holds none, or one past the year 9999."""
        ms = self.timestamp_ms
        return None if ms is None or ms > _LAST_MS else _EPOCH + timedelta(milliseconds=ms)

    @property
    def timestamp_ms(self) -> int | None:
        """The same in milliseconds since the epoch."""
        if self.deferral is not None:
            return self.deferral.origin_timestamp
        ms = self.message.timestamp()[1]
        return None if ms < 0 else ms

    @property
    def name(self) -> str:
        """`P2:O16`, as logs write it."""
        return f"P{self.partition}:O{self.offset}"


def record_of(
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    extras: Extras,
    attempt: int = 1,
) -> Record:
    """A record that no client's message holds."""
    return Record(Kept((topic, partition, offset), key, value, extras), attempt)
