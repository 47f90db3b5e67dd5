"""What the broker says in the end: an independent read of all topics and of the committed offsets.

With a client of its own, `read_committed`, past the proxy. Nothing of relance takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from chaos.workload import DEAD, GROUP, OUT, PARTITIONS, RETRY, SOURCE, Order, Output, result_of

Place = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass(slots=True)
class Truth:
    """All records, by place."""

    orders: dict[Place, Order] = field(default_factory=dict)
    """Of the source topic."""
    retries: dict[Place, tuple[str, int]] = field(default_factory=dict)
    """Of the retry topic: id and the attempt that is to come."""
    results: dict[Place, tuple[str, str]] = field(default_factory=dict)
    """Of the outputs and dead letters: id and what became of it: `result_of`, or the error's class."""
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    """By topic and partition, source and retry; -1: nothing."""
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    """Where the logs end."""

    @property
    def lag(self) -> int:
        """Records between what is committed and the logs' ends."""
        return sum(max(0, end - max(0, self.committed.get(tp, -1))) for tp, end in self.ends.items())


@contextmanager
def _asking(bootstrap: str, group: str) -> Iterator[Consumer]:
    client = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "log_level": 0,
        }
    )
    try:
        yield client
    finally:
        client.close()


def lag(bootstrap: str) -> Truth:
    """Only the offsets: what is committed, and where the logs end."""
    found = Truth()
    for topic, group in ((SOURCE, GROUP), (RETRY, f"{GROUP}.retry")):
        with _asking(bootstrap, group) as client:
            asked = [TopicPartition(topic, p) for p in range(PARTITIONS[topic])]
            for answer in client.committed(asked, timeout=10.0):
                if answer.error is not None:
                    raise KafkaException(answer.error)
                found.committed[topic, answer.partition] = max(-1, answer.offset)
            for tp in asked:
                begin, end = client.get_watermark_offsets(tp, timeout=10.0)
                if end > begin:
                    found.ends[topic, tp.partition] = end
    return found


def read(bootstrap: str) -> Truth:
    """Everything."""
    found = lag(bootstrap)
    for message in _records(bootstrap, SOURCE):
        found.orders[_place(message)] = msgspec.json.decode(message.value(), type=Order)
    for message in _records(bootstrap, RETRY):
        order = msgspec.json.decode(message.value(), type=Order)
        headers = dict(message.headers() or [])
        found.retries[_place(message)] = order.id, int(headers["relance-attempt"])
    orders = {order.id: order for order in found.orders.values()}
    for message in _records(bootstrap, OUT):
        output = msgspec.json.decode(message.value(), type=Output)
        found.results[_place(message)] = output.id, result_of(output, orders.get(output.id))
    for message in _records(bootstrap, DEAD):
        letter = msgspec.json.decode(message.value())
        order = msgspec.json.decode(letter["originalValue"], type=Order)
        found.results[_place(message)] = order.id, letter["errorClass"].rpartition(".")[2]
    return found


def _place(message: Any) -> Place:
    return message.topic(), message.partition(), message.offset()


def _records(bootstrap: str, topic: str, empty: Callable[[], None] = lambda: None) -> Iterator[Any]:
    with _asking(bootstrap, "chaos-truth") as client:
        left = set(range(PARTITIONS[topic]))
        client.assign([TopicPartition(topic, p, 0) for p in sorted(left)])
        while left:
            for message in client.consume(1000, 1.0):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
                else:
                    raise KafkaException(error)
