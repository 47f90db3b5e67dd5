"""Hand-offs in transactions on a real broker: once each for who reads what is committed, whatever crashes."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from members import Group

from relance.kafka.admin import Admin
from relance.kafka.transactional import is_member
from waiting import wait_until

PARTITIONS = 4
GroupMaker = Callable[..., Group]
Send = Callable[..., None]


@pytest.fixture
def groups(tmp_path: Path, bootstrap: str, make_topic: Callable[..., str]) -> Iterator[GroupMaker]:
    made: list[Group] = []

    def make(**config: object) -> Group:
        topic = make_topic("source", PARTITIONS)
        group = Group(
            tmp_path,
            bootstrap=bootstrap,
            topic=topic,
            group=f"group-{topic}",
            output=make_topic("output", 2),
            dead_letter_topic=make_topic("dlt", 2),
            retry_topic=make_topic("retry", 2),
            small_topic=make_topic("small", 1, max_message_bytes=2000),
            max_in_memory_wait=0.0,
            handoff="transactional",
            **config,
        )
        made.append(group)
        return group

    yield make
    for group in made:
        group.close()


@pytest.fixture
def send(bootstrap: str) -> Send:
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})

    def write(topic: str, *ids: str, partition: int = -1, **more: object) -> None:
        for name in ids:
            producer.produce(
                topic, json.dumps({"id": name, **more}).encode(), key=name.encode(), partition=partition
            )
        assert producer.flush(10) == 0

    return write


class Reader:
    """Everything in a topic, from its beginning; of transactions what is committed, if not told otherwise."""

    def __init__(self, bootstrap: str, topic: str, isolation: str = "read_committed") -> None:
        self._client = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"reader-of-{topic}",
                "enable.auto.commit": False,
                "isolation.level": isolation,
            }
        )
        partitions = self._client.list_topics(topic, timeout=10.0).topics[topic].partitions
        self._client.assign([TopicPartition(topic, p, 0) for p in partitions])
        self.keys: list[str] = []

    def read(self) -> list[str]:
        """The keys of all that can be read so far."""
        for message in self._client.consume(1000, 0.2):
            assert message.error() is None, message.error()
            self.keys.append((message.key() or b"").decode())
        return self.keys

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def reader(bootstrap: str) -> Iterator[Callable[..., Reader]]:
    made: list[Reader] = []

    def make(topic: str, isolation: str = "read_committed") -> Reader:
        made.append(Reader(bootstrap, topic, isolation))
        return made[-1]

    yield make
    for each in made:
        each.close()


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{i}" for i in range(count)]


def logs(group: Group) -> str:
    return "\n".join(f"--- {m.name}\n" + "\n".join(m.log_lines[-40:]) for m in group.members)


def all_committed(bootstrap: str, group: Group) -> bool:
    """Whether the committed offsets are at the end of what was written to the source and the retry topic."""
    admin = Admin(bootstrap)
    for name, topic in (
        (group.config["group"], group.config["topic"]),
        (f"{group.config['group']}.retry", group.config["retry_topic"]),
    ):
        found = {tp.partition: c.offset for tp, c in admin.committed(name).items() if tp.topic == topic}
        if any(found.get(p, 0) < mark.end for p, mark in admin.watermarks(topic).items()):
            return False
    return True


class Load:
    """Records of which some succeed, some are retried through the retry topic, some end as dead letters."""

    def __init__(self, group: Group, send: Send, prefix: str, count: int) -> None:
        self.good = names(f"{prefix}-good", count)
        self.flaky = names(f"{prefix}-flaky", count // 10)
        self.dead = names(f"{prefix}-dead", count // 20)
        topic = group.config["topic"]
        half = count // 2
        send(topic, *self.good[:half])
        send(topic, *self.flaky, fail=1)
        send(topic, *self.dead, reject=True)
        send(topic, *self.good[half:])


def wait_for_exactly(
    group: Group, bootstrap: str, reader: Callable[..., Reader], loads: list[Load], timeout: float
) -> None:
    """Until all is written, and committed, and then: each once."""
    output, letters = reader(group.config["output"]), reader(group.config["dead_letter_topic"])
    succeed = {name for load in loads for name in (*load.good, *load.flaky)}
    fail = {name for load in loads for name in load.dead}

    def left() -> str:
        missing = sorted(succeed - set(output.keys)) + sorted(fail - set(letters.keys))
        return f"{len(missing)} are missing: {missing[:5]}\n{logs(group)}"

    wait_until(lambda: succeed <= set(output.read()) and fail <= set(letters.read()), timeout, left)
    wait_until(lambda: all_committed(bootstrap, group), 30.0, lambda: f"all committed\n{logs(group)}")
    output.read()
    letters.read()
    assert {k: n for k, n in Counter(output.keys).items() if n > 1} == {}
    assert {k: n for k, n in Counter(letters.keys).items() if n > 1} == {}
    assert set(output.keys) == succeed
    assert set(letters.keys) == fail


def test_results_retries_and_dead_letters_are_each_there_once_and_all_is_committed(
    groups: GroupMaker, send: Send, bootstrap: str, reader: Callable[..., Reader]
) -> None:
    group = groups()
    load = Load(group, send, "a", 100)
    member = group.start()
    wait_for_exactly(group, bootstrap, reader, [load], 40.0)
    assert member.stop() == 0


def test_a_process_killed_in_the_middle_loses_and_doubles_nothing(
    groups: GroupMaker, send: Send, bootstrap: str, reader: Callable[..., Reader]
) -> None:
    group = groups(work=0.002)
    victim, other = group.start(), group.start()
    group.settle(victim, other, partitions=PARTITIONS)
    load = Load(group, send, "b", 4000)
    wait_until(lambda: len(victim.told("end")) > 300, 30.0, lambda: logs(group))
    victim.signal(signal.SIGKILL)
    victim.ended()
    group.start()
    more = Load(group, send, "c", 400)
    wait_for_exactly(group, bootstrap, reader, [load, more], 90.0)
    done = Counter(group.handled())
    assert sum(done.values()) > len(done), "the crash made nobody handle anything again: it came too late"


@pytest.mark.parametrize(
    "protocol",
    [{}, {"assignor": "range"}, {"client": {"group.protocol": "consumer"}}],
    ids=["cooperative", "eager", "KIP-848"],
)
def test_rebalances_under_load_lose_and_double_nothing(
    groups: GroupMaker,
    send: Send,
    bootstrap: str,
    reader: Callable[..., Reader],
    protocol: dict[str, object],
) -> None:
    group = groups(work=0.002, **protocol)
    first = group.start()
    group.settle(first, partitions=PARTITIONS)
    load = Load(group, send, "d", 4000)
    wait_until(lambda: len(first.told("end")) > 100, 30.0, lambda: logs(group))
    second = group.start()
    group.settle(first, second, partitions=PARTITIONS)
    third = group.start()
    group.settle(first, second, third, partitions=PARTITIONS)
    assert first.stop() == 0
    wait_for_exactly(group, bootstrap, reader, [load], 60.0)
    assert second.stop() == 0
    assert third.stop() == 0


def test_a_record_too_large_stops_its_partition_alone_and_nobody_reads_what_was_aborted(
    groups: GroupMaker,
    send: Send,
    bootstrap: str,
    admin: AdminClient,
    reader: Callable[..., Reader],
) -> None:
    group = groups(ordering="partition", concurrency=1)
    topic, small = group.config["topic"], group.config["small_topic"]
    send(topic, "poison", partition=0, large=50_000)
    send(topic, *names("beside", 50), partition=1)
    member = group.start()
    output, everything = reader(group.config["output"]), reader(group.config["output"], "read_uncommitted")
    wait_until(lambda: set(names("beside", 50)) <= set(output.read()), 30.0, lambda: logs(group))
    wait_until(lambda: f"{topic}-0 stops at offset 0" in member.log, 10.0, lambda: logs(group))
    # It was tried, with its other record, and that one was aborted; who asks for it sees it.
    wait_until(lambda: "poison" in everything.read(), 10.0, lambda: logs(group))
    assert "poison" not in output.read()
    send(topic, *names("behind", 5), partition=0)
    send(topic, *names("later", 5), partition=1)
    wait_until(lambda: set(names("later", 5)) <= set(output.read()), 10.0, lambda: logs(group))
    assert not set(names("behind", 5)) & set(output.keys)
    found = Admin(bootstrap).committed(group.config["group"])
    assert [c.offset for tp, c in found.items() if tp.partition == 0] in ([], [0])

    resource = ConfigResource(
        ResourceType.TOPIC,
        small,
        incremental_configs=[
            ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)
        ],
    )
    admin.incremental_alter_configs([resource])[resource].result(10.0)
    everyone = {"poison", *names("behind", 5), *names("beside", 50), *names("later", 5)}
    wait_until(lambda: everyone <= set(output.read()), 30.0, lambda: logs(group))
    assert set(Counter(output.keys).values()) == {1}
    assert len(reader(small).read()) == 1
    assert member.stop() == 0


def test_the_next_owner_waits_for_the_transaction_of_one_who_crashed_and_reads_none_of_it(
    groups: GroupMaker, send: Send, bootstrap: str, reader: Callable[..., Reader]
) -> None:
    group = groups()
    topic = group.config["topic"]
    send(topic, *names("work", 10), partition=0)
    crashed = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group.config["group"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    crashed.subscribe([topic])
    wait_until(lambda: crashed.poll(0.1) is not None, 20.0, "a record for the one who crashes")
    producer = Producer(
        {"bootstrap.servers": bootstrap, "transactional.id": topic, "transaction.timeout.ms": 10_000}
    )
    producer.init_transactions(10.0)
    producer.begin_transaction()
    producer.produce(group.config["output"], b"{}", b"work-0")
    assert producer.flush(10.0) == 0
    producer.send_offsets_to_transaction(
        [TopicPartition(topic, 0, 7)], crashed.consumer_group_metadata(), 10.0
    )
    crashed.close()  # the producer stays: it only never ends what it has begun

    member = group.start()
    output, everything = reader(group.config["output"]), reader(group.config["output"], "read_uncommitted")
    wait_until(lambda: everything.read() == ["work-0"], 10.0, "the record of the open transaction")
    wait_until(lambda: set(names("work", 10)) <= set(output.read()), 60.0, lambda: logs(group))
    assert set(Counter(output.read()).values()) == {1}
    assert member.stop() == 0


def test_a_broker_checks_nothing_for_a_client_outside_of_its_group_so_we_must(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    topic = make_topic("source")
    config = {"bootstrap.servers": bootstrap, "group.id": f"group-{topic}", "enable.auto.commit": False}
    owner, outsider = Consumer(config), Consumer(config)
    try:
        assert not is_member(owner.consumer_group_metadata())
        owner.subscribe([topic])
        wait_until(lambda: owner.poll(0.1) is None and owner.assignment(), 20.0, "an assignment")
        assert is_member(owner.consumer_group_metadata())

        producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": f"outsider-{topic}"})
        producer.init_transactions(10.0)
        producer.begin_transaction()
        metadata = outsider.consumer_group_metadata()
        producer.send_offsets_to_transaction([TopicPartition(topic, 0, 7)], metadata, 10.0)
        producer.commit_transaction(10.0)
        assert not is_member(metadata)
        [found] = owner.committed([TopicPartition(topic, 0)], 10.0)
        assert found.offset == 7, "the broker refuses it now: is_member is needed no more"
    finally:
        owner.close()
        outsider.close()
