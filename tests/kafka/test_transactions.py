"""`handoff="transactional"` on a real broker: readers of what is committed find each once, whatever dies."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from members import Group

from relance import App, Record, Reject, RetryPolicy, Settings
from relance.kafka.admin import Admin
from waiting import wait_until

Topics = Callable[..., str]
PARTITIONS = 6


async def until(condition: Callable[[], object], timeout: float = 40.0, what: object = "") -> None:
    await asyncio.to_thread(wait_until, condition, timeout, str(what))


def fill(bootstrap: str, topic: str, values: list[dict[str, Any]]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for n, value in enumerate(values):
        producer.produce(topic, json.dumps(value).encode(), key=b"k%d" % (n % 50))
        producer.poll(0)
    assert producer.flush(20) == 0


def read(bootstrap: str, topic: str, isolation: str = "read_committed") -> list[bytes]:
    """All values there, up to the end that a reader of that isolation sees."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    try:
        partitions = reader.list_topics(topic, timeout=10).topics[topic].partitions
        reader.assign([TopicPartition(topic, p, 0) for p in partitions])
        ended: set[int] = set()
        found: list[bytes] = []

        def to_the_end() -> bool:
            for message in reader.consume(1000, 0.1):
                error = message.error()
                if error is None:
                    found.append(message.value())
                else:
                    assert error.code() == KafkaError._PARTITION_EOF
                    ended.add(message.partition())
            return len(ended) == len(partitions)

        wait_until(to_the_end, 30, f"the end of {topic}")
        return found
    finally:
        reader.close()


def ids(values: list[bytes]) -> Counter[str]:
    return Counter(json.loads(value)["id"] for value in values)


def letter_ids(letters: list[bytes]) -> Counter[str]:
    return Counter(json.loads(json.loads(letter)["originalValue"])["id"] for letter in letters)


def committed(bootstrap: str, topic: str, group: str) -> int:
    return sum(c.offset for tp, c in Admin(bootstrap).committed(group).items() if tp.topic == topic)


def a_load(n: int) -> list[dict[str, Any]]:
    """Most succeed, some after a retry in memory or through the retry topic, some end as dead letters."""
    kinds = {3: {"reject": True}, 5: {"fail": 1}, 7: {"fail": 2}, 11: {"fail": 99}}
    return [{"id": str(i), **kinds.get(i % 40, {})} for i in range(n)]


def rejected(load: list[dict[str, Any]]) -> set[str]:
    return {value["id"] for value in load if value.get("reject") or value.get("fail") == 99}


# -- one process -------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_in_memory_wait", [10.0, 0.0], ids=["in memory", "retry topic"])
def test_what_records_send_their_retries_and_their_dead_letters_are_there_once_with_their_offsets(
    bootstrap: str, make_topic: Topics, max_in_memory_wait: float
) -> None:
    topic, out, dlt = make_topic("t", 3), make_topic("out", 3), make_topic("dlt", 2)
    retry_topic = make_topic("retry", 2)
    group = f"g-{topic}"
    app = App(group, settings=Settings(bootstrap_servers=bootstrap, commit_interval=0.2))
    load = a_load(400)

    @app.consumer(
        topic,
        handoff="transactional",
        ordering="key",
        concurrency=8,
        retry=RetryPolicy.fixed(0.1, max_attempts=3),
        retry_topic=retry_topic,
        dead_letter_topic=dlt,
        max_in_memory_wait=max_in_memory_wait,
    )
    async def handle(value: dict[str, Any], record: Record) -> None:
        record.send(out, value, key=record.key)
        if value.get("reject"):
            raise Reject("asked to")
        if record.attempt <= value.get("fail", 0):
            raise TimeoutError("asked to")

    async def main() -> None:
        fill(bootstrap, topic, load)
        async with app.running():
            # The source has no markers; the retry topic has, and its commits pass them.
            await until(lambda: committed(bootstrap, topic, group) == 400, what=app.stats())
            await until(
                lambda: len(read(bootstrap, out)) + len(read(bootstrap, dlt)) == 400, what=app.stats()
            )
            await until(lambda: Admin(bootstrap).group(f"{group}.retry").lag == 0)
            assert app.health().status == "UP"

    asyncio.run(main())
    bad = rejected(load)
    assert ids(read(bootstrap, out)) == Counter(str(i) for i in range(400) if str(i) not in bad)
    assert letter_ids(read(bootstrap, dlt)) == Counter(bad)
    waited = read(bootstrap, retry_topic)
    assert bool(waited) == (max_in_memory_wait == 0.0)


def test_a_letter_that_its_topic_refuses_stops_its_own_partition_until_the_topic_takes_it(
    bootstrap: str, make_topic: Topics, admin: AdminClient
) -> None:
    topic, dlt = make_topic("t", 2), make_topic("dlt", 1, **{"max.message.bytes": "3000"})
    app = App(f"g-{topic}", settings=Settings(bootstrap_servers=bootstrap, commit_interval=0.2))
    handled: list[int] = []

    @app.consumer(topic, handoff="transactional", dead_letter_topic=dlt)
    async def handle(value: dict[str, Any], record: Record) -> None:
        if value.get("pad"):
            raise Reject("asked to")
        handled.append(value["id"])

    async def main() -> None:
        producer = Producer({"bootstrap.servers": bootstrap})
        producer.produce(topic, json.dumps({"id": -1, "pad": "x" * 5000}), partition=0)
        for n in range(20):
            producer.produce(topic, json.dumps({"id": n}), partition=n % 2)
        assert producer.flush(10) == 0
        async with app.running():
            await until(lambda: {n for n in range(20) if n % 2} <= set(handled))
            await until(lambda: any(f"{topic}-0" in reason for reason in app.health().reasons))
            entry = ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)
            resource = ConfigResource(ResourceType.TOPIC, dlt, incremental_configs=[entry])
            await asyncio.to_thread(admin.incremental_alter_configs([resource])[resource].result, 10)
            await until(lambda: set(range(20)) <= set(handled), what=app.health())
            await until(lambda: committed(bootstrap, topic, f"g-{topic}") == 21)
            assert app.health().status == "UP"

    asyncio.run(main())
    assert len(read(bootstrap, dlt)) == 1
    assert sorted(handled) == list(range(20))


# -- processes that come, go and die -----------------------------------------------------------------


@pytest.fixture
def group(tmp_path: Path, bootstrap: str, make_topic: Topics) -> Iterator[Group]:
    topic = make_topic("source", PARTITIONS)
    found = Group(
        tmp_path,
        bootstrap=bootstrap,
        topic=topic,
        group=f"group-{topic}",
        handoff="transactional",
        ordering="key",
        concurrency=16,
        work=0.002,
        max_attempts=3,
        delay=0.05,
        max_in_memory_wait=0.06,  # the second wait goes through the retry topic
        out=make_topic("out", PARTITIONS),
        retry_topic=make_topic("retry", 3),
        dead_letter_topic=make_topic("dlt", 3),
    )
    yield found
    found.close()


def wait_for_all(group: Group, bootstrap: str, load: list[dict[str, Any]], timeout: float) -> None:
    config, bad = group.config, rejected(load)
    good = {value["id"] for value in load} - bad

    def done() -> bool:
        return good <= set(ids(read(bootstrap, config["out"]))) and bad <= set(
            letter_ids(read(bootstrap, config["dead_letter_topic"]))
        )

    wait_until(done, timeout, lambda: "\n".join(member.log[-3000:] for member in group.members))
    # Nothing comes a second time once all offsets are committed.
    wait_until(lambda: committed(bootstrap, config["topic"], config["group"]) == len(load), 40.0)


def check_each_is_there_once(group: Group, bootstrap: str, load: list[dict[str, Any]]) -> None:
    bad = rejected(load)
    found = ids(read(bootstrap, group.config["out"]))
    assert {i: n for i, n in found.items() if n != 1} == {}
    assert set(found) == {value["id"] for value in load} - bad
    letters = letter_ids(read(bootstrap, group.config["dead_letter_topic"]))
    assert letters == Counter(bad)


def test_kill_9_under_load_loses_nothing_and_readers_of_what_is_committed_see_nothing_twice(
    group: Group, bootstrap: str
) -> None:
    load = a_load(6000)
    members = [group.start(), group.start()]
    group.settle(*members, partitions=PARTITIONS)
    chance = random.Random(7)
    for part in range(4):
        # Some for each kill: whoever is left would have handled all of them before the next one.
        fill(bootstrap, group.config["topic"], load[part * 1500 : (part + 1) * 1500])
        if part == 3:
            break
        victim = members[part % 2]
        goal = len(victim.told("end")) + chance.randrange(50, 300)
        wait_until(lambda victim=victim, goal=goal: len(victim.told("end")) >= goal, 60.0, victim.log[-2000:])
        victim.signal(signal.SIGKILL)
        victim.ended()
        members[part % 2] = another = group.start()
        wait_until(another.owned, 60.0)
    wait_for_all(group, bootstrap, load, 120.0)
    check_each_is_there_once(group, bootstrap, load)
    assert len(group.handled()) > len(load) - len(rejected(load)), "no crash made anything happen twice"
    for member in members:
        assert member.stop() == 0


def test_rebalances_under_load_lose_nothing_and_repeat_nothing_that_is_committed(
    group: Group, bootstrap: str
) -> None:
    load = a_load(4000)
    first, second = group.start(), group.start()
    group.settle(first, second, partitions=PARTITIONS)
    fill(bootstrap, group.config["topic"], load)
    wait_until(lambda: len(first.told("end")) > 100, 30.0)
    third = group.start()
    wait_until(third.owned, 30.0, lambda: third.log)
    assert second.stop() == 0
    wait_until(lambda: len(third.told("end")) > 50 or len(group.handled()) >= 3700, 30.0)
    assert first.stop() == 0
    wait_for_all(group, bootstrap, load, 90.0)
    check_each_is_there_once(group, bootstrap, load)
    assert third.stop() == 0
