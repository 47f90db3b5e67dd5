"""What is true in Kafka, asked of the broker itself: topics, offsets, group members, records.

Promise: it reads without leaving a trace (no commits, no group), so that looking never changes what is seen.
The checks use this as their ground truth, beside what the services say of themselves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # its stubs forget it
from confluent_kafka.cimpl import NewTopic

from stack.settings import Settings, StackError, Topic

# librdkafka would print each refused connection; what matters is said once, by whoever waits.
_quiet = logging.getLogger("stack.librdkafka")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False

ANY_PARTITION = -1  # the partitioner chooses
ANSWER = 10.0  # seconds to wait for one answer of the broker


@dataclass(frozen=True)
class Member:
    """A member of a group, with its partitions of the topic that was asked about."""

    client_id: str
    member_id: str
    partitions: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """A group as its coordinator sees it."""

    state: str
    members: tuple[Member, ...]

    @property
    def shares(self) -> list[int]:
        """How many partitions each member has, the largest first: [3, 3]."""
        return sorted((len(member.partitions) for member in self.members), reverse=True)


class Cluster:
    """One broker address, asked as often as needed over the same connections."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._config: dict[str, Any] = {"bootstrap.servers": settings.bootstrap, "logger": _quiet}

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient(self._config)

    def topics(self) -> dict[str, int]:
        """Every topic with its number of partitions, internal ones left out."""
        try:
            metadata = self._admin.list_topics(timeout=ANSWER)
        except KafkaException as error:
            raise StackError(f"Kafka on {self.settings.bootstrap} doesn't answer: {_text(error)}") from None
        names = metadata.topics.items()
        return {name: len(topic.partitions) for name, topic in names if not name.startswith("__")}

    def create(self, topics: Iterable[Topic]) -> list[str]:
        """Make the topics that are missing; returns their names once every partition has a leader."""
        there = self.topics()
        for topic in topics:
            if there.get(topic.name, topic.partitions) != topic.partitions:
                raise StackError(
                    f"topic {topic.name} has {there[topic.name]} partitions, not {topic.partitions} as the "
                    f"module needs; delete it, then run this again: ./scripts/kafka.sh kafka-topics --delete "
                    f"--topic {topic.name} --bootstrap-server {self.settings.bootstrap}"
                )
        missing = [topic for topic in topics if topic.name not in there]
        if not missing:
            return []
        new = [NewTopic(topic.name, topic.partitions, 1, config=dict(topic.config)) for topic in missing]
        for name, future in self._admin.create_topics(new, operation_timeout=ANSWER).items():
            try:
                future.result(ANSWER)
            except KafkaException as error:
                # A service that starts at the same moment may have made it first.
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise StackError(f"can't create topic {name}: {_text(error)}") from None
        deadline = time.monotonic() + ANSWER
        while time.monotonic() < deadline and not all(self._led(topic) for topic in missing):
            time.sleep(0.05)
        return [topic.name for topic in missing]

    def _led(self, topic: Topic) -> bool:
        partitions = self._admin.list_topics(topic.name, timeout=ANSWER).topics[topic.name].partitions
        return len(partitions) == topic.partitions and all(p.leader >= 0 for p in partitions.values())

    def group(self, name: str, topic: str) -> Group:
        """The group's members; an unknown group has none."""
        future = self._admin.describe_consumer_groups([name], request_timeout=ANSWER)[name]
        try:
            described = future.result(ANSWER)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return Group("DEAD", ())
            raise StackError(f"can't describe group {name}: {_text(error)}") from None
        members = []
        for member in described.members:
            owned = member.assignment.topic_partitions if member.assignment else []
            partitions = tuple(sorted(tp.partition for tp in owned if tp.topic == topic))
            members.append(Member(member.client_id, member.member_id, partitions))
        return Group(described.state.name, tuple(members))

    def other_groups_of(self, topic: str, group: str) -> list[str]:
        """The other groups that have members with partitions of this topic."""
        listed = self._admin.list_consumer_groups(request_timeout=ANSWER).result(ANSWER)
        names = sorted(one.group_id for one in listed.valid if one.group_id != group)
        return [name for name in names if any(m.partitions for m in self.group(name, topic).members)]

    def end_offsets(self, topic: str) -> dict[int, int]:
        """The offset that the next record of each partition will get. {} if the topic isn't there."""
        return self._offsets(topic, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def count(self, topic: str) -> int:
        """The records in a topic, deleted ones left out; true without transactions and compaction."""
        first = self._offsets(topic, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        return sum(self.end_offsets(topic).values()) - sum(first.values())

    def _offsets(self, topic: str, spec: OffsetSpec) -> dict[int, int]:
        partitions = range(self.topics().get(topic, 0))
        if not partitions:
            return {}
        asked = {TopicPartition(topic, number): spec for number in partitions}
        futures = self._admin.list_offsets(asked, request_timeout=ANSWER)
        return {tp.partition: future.result(ANSWER).offset for tp, future in futures.items()}

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """The group's committed offset of each partition that has one."""
        future = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group)], request_timeout=ANSWER
        )[group]
        partitions = future.result(ANSWER).topic_partitions
        return {tp.partition: tp.offset for tp in partitions if tp.topic == topic and tp.offset >= 0}

    def produce(
        self, topic: str, key: bytes | None, value: bytes, partition: int | None = None
    ) -> tuple[int, int]:
        """Write one record as any other program would; returns its partition and offset."""
        written: list[tuple[int, int] | str] = []

        def delivered(error: KafkaError | None, message: Message[bytes, bytes]) -> None:
            written.append(error.str() if error else (message.partition() or 0, message.offset() or 0))

        producer = Producer({**self._config, "partitioner": "murmur2_random", "delivery.timeout.ms": 10_000})
        where = ANY_PARTITION if partition is None else partition
        producer.produce(topic, value, key, where, on_delivery=delivered)
        producer.flush(ANSWER + 2)
        if not written or isinstance(written[0], str):
            raise StackError(f"can't write to topic {topic}: {written[0] if written else 'no answer'}")
        return written[0]

    @contextmanager
    def reader(self, topic: str, starts: Mapping[int, int]) -> Iterator[Reader]:
        """Reads from these offsets on: `starts` is usually an earlier `end_offsets`."""
        consumer = Consumer(
            {
                **self._config,
                "group.id": "stack-reader",  # required by the client, never joined and never committed to
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        try:
            consumer.assign([TopicPartition(topic, number, offset) for number, offset in starts.items()])
            yield Reader(consumer)
        finally:
            consumer.close()


@dataclass(frozen=True)
class Seen:
    """A record as it lies in the topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def header(self, name: str) -> str | None:
        """The last header of that name, as text."""
        values = [value for key, value in self.headers if key == name]
        return values[-1].decode(errors="replace") if values and values[-1] is not None else None


class Reader:
    """Records that were seen so far, and a way to wait for more."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.seen: list[Seen] = []

    def wait_for(self, wanted: Callable[[Seen], bool], seconds: float) -> Seen | None:
        """The first record, seen already or still to come, that is wanted; None after `seconds`."""
        for record in self.seen:
            if wanted(record):
                return record
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            message = self._consumer.poll(min(left, 0.2))
            if message is None or message.error() is not None:
                continue
            record = _seen(message)
            self.seen.append(record)
            if wanted(record):
                return record
        return None


def _seen(message: Message[bytes, bytes]) -> Seen:
    headers: Any = message.headers() or ()
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None  # noqa: PT018 (true of any record)
    return Seen(topic, partition, offset, message.key(), message.value(), tuple(headers))


def _text(error: KafkaException) -> str:
    return str(error.args[0].str())
