"""The local broker, for real: it starts, serves, and stops."""

from __future__ import annotations

from confluent_kafka import Producer

from waiting import wait_until


def test_a_record_reaches_a_topic(bootstrap, make_topic):
    topic = make_topic("thin", partitions=3)
    producer = Producer({"bootstrap.servers": bootstrap})
    seen = []
    producer.produce(
        topic, b"hello", on_delivery=lambda error, message: seen.append((error, message.offset()))
    )
    wait_until(lambda: producer.poll(0) or seen, 10, "the delivery report")
    assert seen == [(None, 0)]
