"""Looks into a topic without disturbing anyone: the latest records, page by page, and how many there are.

Promise: no group is joined and nothing is committed; each look is bounded in time and bytes; pages follow one
another without a gap or a repeat, whatever transaction markers and compaction have left between the offsets.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, Message
from confluent_kafka import TopicPartition as ClientTopicPartition

from relance.errors import BrokerUnavailableError, DecodeError, RelanceError, SettingsError, TopicMissingError
from relance.kafka.admin import Admin, Watermarks
from relance.kafka.cluster import (
    KafkaRefusedError,
    QuietLog,
    client_settings,
    unreachable,
)
from relance.kafka.rights import with_right
from relance.message import Extras, headers_of

__all__ = ["Browser", "FetchedRecord", "Page"]

# Errors that pass by themselves, and a refusal of the group: the client must have a group's name and looks
# for its coordinator, but joins no group.
_NOT_OURS = frozenset(
    {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError.GROUP_AUTHORIZATION_FAILED}
)

MOST_BYTES = 256 * 1024 * 1024
"""Bytes of records after which `latest` reads no further page."""


@dataclass(frozen=True, slots=True)
class FetchedRecord:
    """A record as it lies in its topic. `problem` says what of it could not be read, or is empty."""

    topic: str
    partition: int
    offset: int
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = field(repr=False)
    timestamp: datetime | None
    problem: str = ""

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        return (
            len(self.key or b"")
            + len(self.value or b"")
            + sum(len(name) + len(value or b"") for name, value in self.headers)
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, newest first, and where the next page starts.

    `before` is the cursor for the next page, None at the end. `scanned` counts the records looked at, which
    are more than those returned where a filter left some out. `cut` says why the page is shorter than asked
    for though there is more: "time", "bytes" or "scan"; empty if it isn't.
    """

    records: tuple[FetchedRecord, ...]
    before: Mapping[int, int] | None
    scanned: int
    cut: str = ""


class Browser:
    """Reads one cluster's topics; any thread may, each call has a client of its own.

    `timeout` (seconds) bounds a call, `max_bytes` what a page holds (at least one record is returned).
    """

    def __init__(
        self,
        bootstrap_servers: str,
        client: Mapping[str, Any] | None = None,
        *,
        admin: Admin | None = None,
        timeout: float = 5.0,
        max_bytes: int = 8 * 1024 * 1024,
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.timeout = timeout
        self.max_bytes = max_bytes
        self.admin = admin or Admin(bootstrap_servers, client, timeout=timeout)
        self._settings = {
            **client_settings(bootstrap_servers, client),
            "client.id": "relance-browse",
            "group.id": "relance-browse",  # the client wants a name; assign() joins no group
            "group.protocol": "classic",  # whatever the application's is: nobody joins here
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            # Retention may move the start while we look: begin where the log now begins.
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 20,
            "fetch.queue.backoff.ms": 1,
            "queued.max.messages.kbytes": 16 * 1024,
        }
        self._settings.pop("group.remote.assignor", None)

    def count(self, topic: str) -> int:
        """How many records the topic holds: the sum of end − begin of its partitions.

        Exact for a plain topic. An upper bound where it is compacted, or written in transactions, whose
        markers take up offsets too; only reading it all would tell.
        """
        return sum(mark.end - mark.begin for mark in self.admin.watermarks(topic).values())

    def latest(
        self, topic: str, n: int, partition: int | None = None, before: Mapping[int, int] | None = None
    ) -> list[FetchedRecord]:
        """The newest `n` records, newest first: fewer only where the topic holds no more.

        It reads page after page, each within `timeout`. Raises BrokerUnavailableError where a page brings
        nothing in that time, and RelanceError where the records take more than MOST_BYTES.
        """
        found: list[FetchedRecord] = []
        size = 0
        while len(found) < n:
            page = self.page(topic, n - len(found), partition=partition, before=before)
            found += page.records
            size += sum(record.size for record in page.records)
            if page.before is None:
                break
            if size > MOST_BYTES and len(found) < n:
                raise RelanceError(
                    f"the newest {len(found)} of {n} records of {topic} take {size // 2**20} MiB, and more"
                    f" than {MOST_BYTES // 2**20} are not read at once: ask for fewer"
                )
            if page.before == before:
                raise BrokerUnavailableError(
                    f"reading {topic} at {self.bootstrap_servers} brought nothing within {self.timeout:g} s"
                    f" after {len(found)} of {n} records; ask again, or for fewer"
                )
            before = page.before
        return found

    def page(
        self,
        topic: str,
        n: int,
        *,
        partition: int | None = None,
        before: Mapping[int, int] | None = None,
        match: Callable[[FetchedRecord], bool] | None = None,
        max_scan: int = 20_000,
    ) -> Page:
        """The newest `n` records below the offsets in `before` that `match`, newest first.

        Partitions are merged by timestamp, then partition; within one, order is always that of the offsets,
        whatever the timestamps say (a producer may set them), so that pages neither overlap nor miss one.
        Raises TopicMissingError, BrokerUnavailableError, or SettingsError for a partition that isn't there.
        """
        deadline = time.monotonic() + self.timeout
        marks = self.admin.watermarks(topic)
        if partition is not None:
            if partition not in marks:
                raise SettingsError("partition", f"topic {topic} has no partition {partition}")
            marks = {partition: marks[partition]}
        tails = {p: _Tail(mark, (before or {}).get(p)) for p, mark in marks.items()}
        merge = _Merge(n, tails, match, self.max_bytes, max_scan)
        if not any(tail.unread for tail in tails.values()) or n < 1:
            return merge.page()
        reader = _Reader(self.bootstrap_servers, self._settings, topic, self.max_bytes)
        try:
            # Enough for an even spread at once, within reason where records are large; then double.
            size = min(64, max(10, 2 * -(-n // len(tails))))
            while not merge.advance():
                wanted = {p: tail.next_range(size) for p, tail in tails.items() if tail.hungry}
                for p, (low, records) in reader.read(wanted, deadline).items():
                    tails[p].fill(low, records)
                if time.monotonic() >= deadline:
                    if not merge.advance():
                        merge.cut = "time"
                    if not reader.seen:
                        raise reader.unreachable(self.timeout)
                    break
                size = min(size * 2, 10_000)
        finally:
            reader.close()
        return merge.page()


class _Tail:
    """What is still to be read of one partition, from its end down.

    Invariant: `records` (highest first) are all there is in [bottom, cursor); [begin, bottom) has not been
    fetched; everything from `cursor` up has been taken.
    """

    def __init__(self, mark: Watermarks, before: int | None) -> None:
        self.begin = mark.begin
        self.bottom = max(mark.begin, mark.end if before is None else min(before, mark.end))
        self.records: deque[FetchedRecord] = deque()

    @property
    def cursor(self) -> int:
        return self.records[0].offset + 1 if self.records else self.bottom

    @property
    def unread(self) -> bool:
        return self.bottom > self.begin

    @property
    def hungry(self) -> bool:
        """Nothing at hand, though there may be something: no merge can pass over it."""
        return not self.records and self.unread

    def next_range(self, size: int) -> tuple[int, int]:
        return max(self.begin, self.bottom - size), self.bottom

    def fill(self, low: int, ascending: deque[FetchedRecord]) -> None:
        ascending.reverse()
        self.records, self.bottom = ascending, low


@dataclass
class _Merge:
    """The page in the making."""

    n: int
    tails: dict[int, _Tail]
    match: Callable[[FetchedRecord], bool] | None
    max_bytes: int
    max_scan: int
    found: list[FetchedRecord] = field(default_factory=list)
    scanned: int = 0
    size: int = 0
    cut: str = ""

    def advance(self) -> bool:
        """Take records as long as the newest is certain; True if the page is done."""
        while len(self.found) < self.n:
            if any(tail.hungry for tail in self.tails.values()):
                return False
            ready = [(p, tail) for p, tail in self.tails.items() if tail.records]
            if not ready:
                return True
            _, tail = max(ready, key=lambda each: (_when(each[1].records[0]), each[0]))
            if self.found and self.size + tail.records[0].size > self.max_bytes:
                self.cut = "bytes"
                return True
            if self.scanned >= self.max_scan:
                self.cut = "scan"
                return True
            record = tail.records.popleft()
            self.scanned += 1
            if self.match is None or self.match(record):
                self.found.append(record)
                self.size += record.size
        return True

    def page(self) -> Page:
        more = any(tail.records or tail.unread for tail in self.tails.values())
        before = {p: tail.cursor for p, tail in self.tails.items()} if more else None
        return Page(tuple(self.found), before, self.scanned, self.cut)


class _Reader:
    """One throw-away consumer. `seen` tells whether any partition ever answered."""

    def __init__(self, servers: str, settings: Mapping[str, Any], topic: str, max_bytes: int) -> None:
        self.seen = False
        self._servers = servers
        self._topic = topic
        self._max_bytes = max_bytes
        self._since = datetime.now(UTC)
        self._log = QuietLog()
        self._consumer = Consumer(dict(settings), logger=self._log)

    def read(
        self, wanted: Mapping[int, tuple[int, int]], deadline: float
    ) -> dict[int, tuple[int, deque[FetchedRecord]]]:
        """All records with low <= offset < high of each partition, ascending; and the low that holds.

        A range that would take too much memory loses its oldest records, and its low rises to say so. Those
        partitions that aren't read to `high` at the deadline are left out: their newest are missing.
        """
        got: dict[int, deque[FetchedRecord]] = {p: deque() for p in wanted}
        lows = {p: low for p, (low, _) in wanted.items()}
        sizes = dict.fromkeys(wanted, 0)
        pending = set(wanted)
        self._consumer.unassign()
        self._consumer.assign([ClientTopicPartition(self._topic, p, low) for p, low in lows.items()])
        while pending and (left := deadline - time.monotonic()) > 0:
            for message in self._next(min(left, 0.1)):
                p = self._arrived(message)
                if p not in pending:
                    continue
                high = wanted[p][1]
                offset = _number(message.offset())
                at_end = message.error() is not None
                if not at_end and offset < high:
                    record = fetched(message)
                    got[p].append(record)
                    sizes[p] += record.size
                    while sizes[p] > self._max_bytes and len(got[p]) > 1:
                        sizes[p] -= got[p].popleft().size
                        lows[p] = got[p][0].offset
                if at_end or offset >= high - 1:
                    pending.discard(p)
                    self._consumer.incremental_unassign([ClientTopicPartition(self._topic, p)])
        return {p: (lows[p], got[p]) for p in wanted if p not in pending}

    def _next(self, timeout: float) -> list[Message]:
        # consume() waits until it has all it may return; poll() comes back with the first.
        first = self._consumer.poll(timeout)
        return [] if first is None else [first, *self._consumer.consume(500, 0)]

    def _arrived(self, message: Message) -> int | None:
        """The partition the message tells something about, or None where it is only an error that passes."""
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            self.seen = True
            return message.partition()
        if error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:
            raise TopicMissingError(self._topic, bootstrap_servers=self._servers)
        if error.code() in _NOT_OURS or error.retriable():
            return None
        text = with_right(error.str(), error.code(), "read", topic=self._topic)
        raise KafkaRefusedError(f"read {self._topic}", self._servers, text, error.code())

    def unreachable(self, waited: float) -> RelanceError:
        return unreachable(
            self._servers, f"read {self._topic}", waited, self._since, datetime.now(UTC), self._log.last
        )

    def close(self) -> None:
        self._consumer.close()


def fetched(message: Message) -> FetchedRecord:
    """The client's message as plain data, with a word about what could not be read."""
    problems = []
    try:
        headers = tuple((name, value) for name, value in headers_of(cast(Extras, message)) or ())
    except DecodeError as error:
        headers = ()
        problems.append(str(error))
    ms = message.timestamp()[1]
    timestamp = None
    try:
        timestamp = None if ms < 0 else datetime.fromtimestamp(ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        problems.append(f"its timestamp, {ms} ms, is no date")
    return FetchedRecord(
        topic=message.topic() or "",
        partition=_number(message.partition()),
        offset=_number(message.offset()),
        key=message.key(),
        value=message.value(),
        headers=headers,
        timestamp=timestamp,
        problem="; ".join(problems),
    )


def _when(record: FetchedRecord) -> float:
    # A record without a time counts as old: it must not hide those that have one.
    return record.timestamp.timestamp() if record.timestamp else 0.0


def _number(value: int | None) -> int:
    return -1 if value is None else value
