"""Topics in memory: logs of records, what was committed, and where a key belongs.

Promise: a key lands in the partition in which Kafka's own producers, and relance's, would put it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from relance.delivery import Sent
from relance.errors import RelanceError
from relance.record import HeaderList, Record, TopicPartition, record_of

__all__ = ["StoredRecord", "Topics", "murmur2"]


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it lies in a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    sent_headers: tuple[tuple[str, bytes | None], ...] = ()
    sent_at_ms: int = 0

    def headers(self) -> HeaderList | None:
        """As a client's message has them."""
        return list(self.sent_headers) or None

    def timestamp(self) -> tuple[int, int]:
        """As a client's message has it: (1, milliseconds since the epoch)."""
        return 1, self.sent_at_ms

    def as_record(self) -> Record:
        """What a handler gets."""
        return record_of(self.topic, self.partition, self.offset, self.key, self.value, self)


@dataclass(slots=True)
class Topics:
    """All topics of a world, and the offsets that groups have committed."""

    logs: dict[TopicPartition, list[StoredRecord]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    commits: dict[TopicPartition, tuple[int, str]] = field(default_factory=dict)
    _next: int = 0

    def make(self, topic: str, partitions: int) -> None:
        """Make a topic. Raises RelanceError if it is there with another number of partitions."""
        there = self.counts.setdefault(topic, partitions)
        if there != partitions:
            raise RelanceError(f"topic {topic} has {there} partitions already, not {partitions}")
        for partition in range(partitions):
            self.logs.setdefault(TopicPartition(topic, partition), [])

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Raises RelanceError for a topic that nobody has made."""
        if topic not in self.counts:
            known = ", ".join(sorted(self.counts)) or "none"
            raise RelanceError(f"there is no topic {topic} in this world (but {known}); see world.topic")
        return [TopicPartition(topic, partition) for partition in range(self.counts[topic])]

    def append(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        at_ms: int,
        partition: int | None = None,
    ) -> Sent:
        """Write one record."""
        tps = self.partitions(topic)
        if partition is None:
            partition = self._place(key, len(tps))
        elif not 0 <= partition < len(tps):
            raise RelanceError(f"topic {topic} has {len(tps)} partitions, so none is {partition}")
        log = self.logs[tps[partition]]
        stored = StoredRecord(topic, partition, len(log), key, value, tuple(headers), at_ms)
        log.append(stored)
        return Sent(topic, partition, stored.offset)

    def _place(self, key: bytes | None, count: int) -> int:
        if key is not None:
            return (murmur2(key) & 0x7FFFFFFF) % count
        self._next += 1  # one after the other: nothing is left to chance
        return (self._next - 1) % count


def murmur2(data: bytes) -> int:
    """The hash by which Kafka's Java producer places keys (org.apache.kafka.common.utils.Utils.murmur2)."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) - len(data) % 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
