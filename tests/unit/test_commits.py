"""The group's own commit: one on its way at most, and what failed is offered again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition as ClientPartition

from relance.kafka.commits import GroupCommitter
from world import ORDERS, a_member


class Client:
    """Notes what it was asked to commit."""

    def __init__(self) -> None:
        self.offered: list[list[ClientPartition]] = []

    def commit(self, *, offsets: list[ClientPartition], asynchronous: bool) -> None:
        self.offered.append(offsets)


def test_no_commit_is_sent_while_one_is_on_its_way() -> None:
    """Two that overtake each other would commit backwards."""
    member = a_member()
    member.assign(ORDERS)
    client: Any = Client()
    committer = GroupCommitter(member.runtime, "source", 0.0, lambda what, text: None)
    for _ in range(3):
        member.broker.log(ORDERS).append(b"k", b"1")
        member.read()
        member.work()
        committer.commit_now(client)
    assert [[p.offset for p in offered] for offered in client.offered] == [[1]]
    assert committer.waiting
    committer.answered(KafkaError(KafkaError.REBALANCE_IN_PROGRESS), client.offered[0])
    committer.commit_now(client)
    assert [p.offset for p in client.offered[1]] == [3]
    answer: Any = SimpleNamespace(topic=ORDERS.topic, partition=ORDERS.partition, error=None)
    committer.answered(None, [answer])
    assert not committer.waiting
