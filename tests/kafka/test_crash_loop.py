"""A record that kills its process, on a real broker: found, given up alone, and nothing else with it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from members import Group, Member

from relance.broker import LocalBroker
from relance.dead_letters.envelope import DeadLetter, decode
from relance.kafka.admin import Admin
from relance.kafka.browse import Browser
from waiting import wait_until

PARTITIONS = 2


@pytest.fixture
def group(tmp_path: Path, bootstrap: str, make_topic: Callable[..., str]) -> Iterator[Callable[..., Group]]:
    made: list[Group] = []

    def make(**config: Any) -> Group:
        topic = make_topic("crash", PARTITIONS)
        letters = make_topic("crash-dlt", 1)
        config = {"topic": topic, "group": f"group-{topic}", "dead_letter_topic": letters, **config}
        made.append(Group(tmp_path, bootstrap=bootstrap, **config))
        return made[-1]

    yield make
    for found in made:
        found.close()


def write(bootstrap: str, topic: str, count: int, poison: int | None = None, **how: Any) -> set[str]:
    """Records by turns to each partition; those that may be handled. `how` the poisoned one ends it all."""
    producer = Producer({"bootstrap.servers": bootstrap})
    good = set()
    for i in range(count):
        value: dict[str, Any] = {"id": f"r{i}"}
        if i == poison:
            value |= how or {"abort": True}
        producer.produce(
            topic, json.dumps(value).encode(), key=f"k{i % 20}".encode(), partition=i % PARTITIONS
        )
        if i != poison:
            good.add(f"r{i}")
    assert producer.flush(10) == 0
    return good


def letters(bootstrap: str, group: Group) -> list[DeadLetter]:
    found = Browser(bootstrap).latest(group.config["dead_letter_topic"], 50)
    return [decode(record.value) for record in found]


def lag(bootstrap: str, group: Group, count: int) -> int:
    found = Admin(bootstrap).committed(group.config["group"])
    return count - sum(place.offset for tp, place in found.items() if tp.topic == group.config["topic"])


def start_again_until(done: Callable[[], object], crashing: Group, most: int = 6) -> Member:
    """As an orchestrator does; the member that is left."""
    deaths = 0
    last = crashing.start()

    def is_done() -> bool:
        nonlocal deaths, last
        if last.process.poll() is not None:
            assert last.ended() == -signal.SIGABRT, last.log
            deaths += 1
            # As usual (perhaps twice: it may die before the broker has its first word), within a window,
            # and twice as the only suspect.
            assert deaths <= most, last.log
            last = crashing.start()
        return bool(done())

    wait_until(is_done, 120.0, lambda: "\n".join(member.log for member in crashing.members))
    assert deaths >= 4
    return last


@pytest.mark.parametrize(
    "config",
    [
        {"ordering": "partition", "sync": True},
        {"ordering": "key", "concurrency": 8, "work": 0.005},
    ],
    ids=["partition order", "key order on a loop"],
)
def test_the_record_that_kills_its_process_is_given_up_and_all_others_are_handled(
    group: Callable[..., Group], bootstrap: str, config: dict[str, Any]
) -> None:
    crashing = group(**config)
    good = write(bootstrap, crashing.config["topic"], 120, poison=41)
    last = start_again_until(lambda: good <= set(crashing.handled()), crashing)
    wait_until(lambda: lag(bootstrap, crashing, 120) == 0, 20.0, lambda: last.log)
    assert last.stop() == 0
    [letter] = letters(bootstrap, crashing)
    assert (letter.original_partition, letter.original_offset) == (1, 20)
    assert letter.error_class == "relance.errors.CrashLoopError" or letter.error_class == "CrashLoopError"
    assert letter.retry_count == 1
    assert "the process died 2x at offset 20" in last.log
    assert "[DLT] P1:O20" in last.log


def test_a_record_that_kills_its_process_when_it_comes_back_from_the_retry_topic_is_given_up_too(
    group: Callable[..., Group], bootstrap: str, make_topic: Callable[..., str]
) -> None:
    retries = make_topic("crash-retry", 1)
    crashing = group(ordering="key", retry_topic=retries, max_in_memory_wait=0, delay=0.1)
    good = write(bootstrap, crashing.config["topic"], 40, poison=11, fail=1, abort_at=2)
    topic = crashing.config["topic"]

    def all_ended() -> bool:
        return good <= set(crashing.handled()) and lag(bootstrap, crashing, 40) == 0 and bool(given_up())

    def given_up() -> list[DeadLetter]:
        return letters(bootstrap, crashing)

    # A death before the commit leaves a second copy in the retry topic, which kills as often.
    last = start_again_until(all_ended, crashing, most=18)
    assert last.stop() in (0, -signal.SIGABRT)  # a copy may have come back by now
    for letter in given_up():
        place = (letter.original_topic, letter.original_partition, letter.original_offset)
        assert place == (topic, 1, 5)
        assert (letter.error_class or "").endswith("CrashLoopError")
    assert f"{retries}-0" in last.log


def test_killing_a_healthy_consumer_under_load_costs_no_dead_letter(
    group: Callable[..., Group], bootstrap: str
) -> None:
    healthy = group(ordering="key", concurrency=8, work=0.005)
    good = write(bootstrap, healthy.config["topic"], 3000)
    for _ in range(3):
        member, before = healthy.start(), len(healthy.handled())
        wait_until(lambda before=before: len(healthy.handled()) > before + 30, 30.0, lambda m=member: m.log)  # type: ignore[misc]
        member.signal(signal.SIGKILL)
        member.ended()
    last = healthy.start()
    healthy.wait_handled(good, 60.0)
    wait_until(lambda: lag(bootstrap, healthy, 3000) == 0, 20.0, lambda: last.log)
    assert last.stop() == 0
    assert letters(bootstrap, healthy) == []
    after = healthy.start()  # a clean end leaves no suspicion beyond the careful time
    wait_until(lambda: after.owned() == {0, 1}, 30.0, lambda: after.log)
    assert "died at offset" not in after.log
    assert after.stop() == 0


@pytest.mark.parametrize(
    ("end", "config"),
    [
        ("exit", {"ordering": "partition", "sync": True}),
        ("exit", {"ordering": "key", "sync": True, "concurrency": 4, "work": 0.02}),
        ("interrupt", {"ordering": "key", "concurrency": 8, "work": 0.005, "handoff": "transactional"}),
        ("group", {"ordering": "none", "batch": 10}),
        ("task", {"ordering": "key", "concurrency": 1}),
    ],
    ids=["inline", "threads", "loop", "batch", "task"],
)
def test_a_record_whose_handler_ends_the_process_is_named_and_given_up_after_two_starts(
    group: Callable[..., Group], bootstrap: str, end: str, config: dict[str, Any]
) -> None:
    ending = group(**config)
    good = write(bootstrap, ending.config["topic"], 60, poison=21, end=end)
    for _ in range(2):
        member = ending.start()
        assert member.ended(30.0) == 1, member.log
        [line] = [line for line in member.log_lines if line.startswith("CRITICAL")]
        assert f"{ending.config['topic']}-1 at offset 10" in line, line
    last = ending.start()
    ending.wait_handled(good)
    wait_until(lambda: lag(bootstrap, ending, 60) == 0, 20.0, lambda: last.log)
    assert last.stop() == 0
    [letter] = letters(bootstrap, ending)
    assert (letter.original_partition, letter.original_offset) == (1, 10)
    assert (letter.error_class or "").endswith("CrashLoopError")
    tries = [e for e in ending.told("start") if e["id"] == "r21"]
    assert len(tries) in ((3, 4) if "batch" in config else (2,))  # with its batch, and alone


def test_a_broker_that_is_away_for_longer_than_the_sessions_is_nobody_s_death_and_one_death_is_one_line(
    tmp_path: Path,
) -> None:
    partitions, topic = 6, "orders"
    with LocalBroker(tmp_path / "broker", port=0) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic(topic, partitions)], operation_timeout=10.0)[topic].result(15.0)
        group = Group(tmp_path, bootstrap=broker.bootstrap, topic=topic, group="g", dead_letter_topic=None)
        try:
            members = [group.start(), group.start()]
            group.settle(*members, partitions=partitions)
            write(broker.bootstrap, topic, 40)
            group.wait_handled({f"r{i}" for i in range(40)})
            broker.stop()
            # With the sessions go the partitions, and no commit can say goodbye.
            wait_until(lambda: all(m.told("lost") for m in members), 30.0, lambda: group.members[0].log)
            broker.start()
            group.settle(*members, partitions=partitions, timeout=40.0)
            # Both have seen by now that the owners before are members.
            wait_until(lambda: all(mark[0] == "o=" for mark in marks(admin)), 20.0, lambda: str(marks(admin)))
            assert [deaths(m) for m in members] == [[], []]
            members[1].process.kill()
            members[1].ended()
            group.settle(members[0], partitions=partitions, timeout=40.0)
            wait_until(lambda: deaths(members[0]), 20.0, lambda: members[0].log)
            assert deaths(members[1]) == []
            [line] = deaths(members[0])
            assert line.count("orders-") == partitions // 2
            assert "their last owner died" in line
        finally:
            group.close()


def marks(admin: AdminClient) -> list[tuple[str, str]]:
    """Beside each commit: how the owner's mark begins, up to the owner; and the rest."""
    [found] = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("g")]).values()
    texts = [tp.metadata.split(":")[2] for tp in found.result(10.0).topic_partitions]
    return [(text[: text.index("=") + 1], text) for text in texts]


def deaths(member: Member) -> list[str]:
    return [line for line in member.log_lines if "relance.crashes" in line and "owner" in line]
