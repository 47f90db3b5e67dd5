"""A first start in a group whose last commits are Parallel Consumer's."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from members import Group

from maps import RECORDED
from relance.kafka.admin import Admin
from waiting import wait_until

FRESH = 5  # records after the last that Parallel Consumer finished


def test_only_what_parallel_consumer_left_unfinished_is_handled(
    tmp_path: Path, bootstrap: str, make_topic: Callable[..., str]
) -> None:
    found = [recorded for recorded in RECORDED if recorded.name.startswith("commit:")]
    topic = make_topic("taken-over", len(found))
    name = f"group-{topic}"

    producer = Producer({"bootstrap.servers": bootstrap})
    for partition, recorded in enumerate(found):
        for offset in range(recorded.end + FRESH):
            value = json.dumps({"id": f"{partition}:{offset}"})
            producer.produce(topic, value, partition=partition)
    assert producer.flush(30) == 0

    plain = Consumer({"bootstrap.servers": bootstrap, "group.id": name})
    plain.commit(
        offsets=[
            TopicPartition(topic, partition, recorded.committed, metadata=recorded.text)
            for partition, recorded in enumerate(found)
        ],
        asynchronous=False,
    )
    plain.close()

    expected = Counter(
        f"{partition}:{offset}"
        for partition, recorded in enumerate(found)
        for offset in (*recorded.incompletes, *range(recorded.end, recorded.end + FRESH))
    )
    group = Group(tmp_path, bootstrap=bootstrap, topic=topic, group=name, ordering="none")
    try:
        member = group.start()
        group.wait_handled(set(expected))
        ends = {partition: recorded.end + FRESH for partition, recorded in enumerate(found)}

        def committed() -> dict[int, int]:
            return {tp.partition: commit.offset for tp, commit in Admin(bootstrap).committed(name).items()}

        wait_until(lambda: committed() == ends, 15.0, lambda: f"{committed()}\n{member.log}")
        assert member.stop() == 0
    finally:
        group.close()
    assert Counter(group.handled()) == expected
    told = [line for line in member.log_lines if "Parallel Consumer left" in line]
    more = sum(map(int, re.findall(r"and (\d+) more", "\n".join(told))))
    assert sum(line.count(f"{topic}-") for line in told) + more == len(found)
