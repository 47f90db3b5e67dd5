"""The admin layer against a real broker: topics, watermarks, groups of both protocols, and a broker away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.waiting import wait_until

from relance.broker import LocalBroker
from relance.errors import BrokerUnavailableError, SettingsError, TopicMissingError
from relance.kafka.admin import Admin, GroupMissingError, KafkaRefusedError, Watermarks
from relance.record import TopicPartition as TP

MakeTopic = Callable[..., str]
NOBODY = "127.0.0.1:1"


@pytest.fixture
def asks(bootstrap: str) -> Admin:
    return Admin(bootstrap, timeout=10.0)


def fill(bootstrap: str, topic: str, counts: dict[int, int]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for partition, count in counts.items():
        for i in range(count):
            producer.produce(topic, f"v{i}".encode(), partition=partition)
    assert producer.flush(10) == 0


def member(bootstrap: str, group: str, topic: str, **settings: Any) -> Consumer:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"}
        | {"enable.auto.commit": False, "client.id": f"{group}-client"}
        | {name.replace("_", "."): value for name, value in settings.items()}
    )
    consumer.subscribe([topic])
    wait_until(lambda: consumer.poll(0.1) is not None and consumer.assignment(), 20, f"{group} to join")
    return consumer


def test_a_topic_is_listed_with_its_partitions_and_records(
    asks: Admin, bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic("admin-list", 3)
    fill(bootstrap, topic, {0: 2, 2: 5})
    (info,) = [each for each in asks.topics() if each.name == topic]
    assert (info.partitions, info.records, info.internal, info.offline) == (3, 7, False, 0)


def test_watermarks_give_both_ends_of_every_partition(
    asks: Admin, bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic("admin-marks", 3)
    fill(bootstrap, topic, {0: 4, 1: 1})
    assert asks.watermarks(topic) == {0: Watermarks(0, 4), 1: Watermarks(0, 1), 2: Watermarks(0, 0)}


def test_what_an_open_transaction_has_written_lies_beyond_the_stable_end(
    asks: Admin, bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic("admin-open", 2)
    fill(bootstrap, topic, {0: 3, 1: 3})
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(20)
    producer.begin_transaction()
    for _ in range(4):
        producer.produce(topic, b"open", partition=1)
    assert producer.flush(10) == 0
    tps = [TP(topic, 0), TP(topic, 1)]
    assert asks.stable_marks(tps) == dict.fromkeys(tps, Watermarks(0, 3))
    producer.commit_transaction(20)
    wait_until(lambda: asks.stable_marks(tps)[tps[1]] == Watermarks(0, 8))


def test_topics_are_told_apart_at_once_with_their_cluster(asks: Admin, make_topic: MakeTopic) -> None:
    topics = [make_topic("admin-identity", count) for count in (1, 3)]
    cluster, found = asks.identities(topics)
    assert len(cluster) == 22
    assert found == {topic: asks.identity(topic) for topic in topics}
    assert [found[topic].partitions for topic in topics] == [1, 3]
    with pytest.raises(TopicMissingError, match="no-such-topic"):
        asks.identities([*topics, "no-such-topic"])


def test_ensure_topic_says_who_made_it_and_leaves_it_alone_afterwards(
    asks: Admin, make_topic: MakeTopic
) -> None:
    topic = make_topic("admin-ensure-base") + "-ensured"
    assert asks.ensure_topic(topic, 2, {"cleanup.policy": "compact"}) is True
    assert asks.ensure_topic(topic, 5, {"cleanup.policy": "delete"}) is False
    assert len(asks.partitions(topic)) == 2
    assert asks.configs(topic) == {"cleanup.policy": "compact"}
    assert asks.configs(topic, defaults=True)["retention.ms"] == "604800000"


def test_of_many_that_ensure_a_topic_at_once_exactly_one_makes_it(asks: Admin, make_topic: MakeTopic) -> None:
    topic = make_topic("admin-race-base") + "-raced"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: asks.ensure_topic(topic, 3), range(8)))
    assert sorted(made) == [False] * 7 + [True]


def test_a_topic_made_anew_has_another_id(asks: Admin, make_topic: MakeTopic) -> None:
    topic = make_topic("admin-id")
    first = asks.topic_id(topic)
    asks.delete_topic(topic)
    assert asks.ensure_topic(topic, 1) is True
    assert asks.topic_id(topic) != first
    assert len(first) == 22


@pytest.mark.parametrize("call", ["watermarks", "partitions", "topic_id", "delete_topic", "configs"])
def test_a_missing_topic_is_told_with_the_command_that_makes_it(asks: Admin, call: str) -> None:
    with pytest.raises(TopicMissingError, match=r"relance topics create no-such-topic"):
        getattr(asks, call)("no-such-topic")


@pytest.mark.parametrize("name", ["../x", "a\0b", "", ".", "é", "x" * 250, "a b"])
def test_a_name_no_topic_can_have_is_refused_before_anyone_is_asked(asks: Admin, name: str) -> None:
    for call in (asks.watermarks, asks.delete_topic, lambda topic: asks.ensure_topic(topic, 1)):
        with pytest.raises(SettingsError, match="no topic name"):
            call(name)


def test_what_the_cluster_refuses_is_told_in_its_words(asks: Admin) -> None:
    with pytest.raises(KafkaRefusedError, match="non-positive"):
        asks.ensure_topic("admin-refused", 0)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_shows_members_assignment_and_lag(
    asks: Admin, bootstrap: str, make_topic: MakeTopic, protocol: str
) -> None:
    topic = make_topic("admin-group", 2)
    fill(bootstrap, topic, {0: 5, 1: 3})
    group = f"{topic}-{protocol}"
    consumer = member(bootstrap, group, topic, group_protocol=protocol)
    try:
        consumer.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
        found = asks.group(group)
        assert (found.state, found.protocol) == ("stable", protocol)
        (one,) = found.members
        assert one.client_id == f"{group}-client"
        assert one.host == "127.0.0.1"
        assert one.assignment == (TP(topic, 0), TP(topic, 1))
        rows = {row.partition: row for row in found.partitions}
        assert (rows[0].committed, rows[0].end, rows[0].lag) == (2, 5, 3)
        assert (rows[1].committed, rows[1].end, rows[1].lag) == (None, 3, None)
        assert {row.member_id for row in found.partitions} == {one.member_id}
        assert found.lag == 3
        assert [(g.state, g.protocol) for g in asks.groups() if g.name == group] == [("stable", protocol)]
    finally:
        consumer.close()
    left = wait_until(lambda: (g := asks.group(group)).state == "empty" and g, 10, "the member to be gone")
    assert left.members == ()
    assert left.lag == 3


def test_committed_brings_offset_and_metadata(asks: Admin, bootstrap: str, make_topic: MakeTopic) -> None:
    topic = make_topic("admin-committed", 2)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{topic}-g"})
    consumer.commit(offsets=[TopicPartition(topic, 1, 7, metadata="map")], asynchronous=False)
    consumer.close()
    assert asks.committed(f"{topic}-g") == {TP(topic, 1): (7, "map")}
    assert asks.group(f"{topic}-g").lag == 0, "a commit past the end is no negative lag"
    assert asks.committed("never-was") == {}


def test_the_lag_of_a_topic_that_is_gone_is_unknown(
    asks: Admin, bootstrap: str, make_topic: MakeTopic
) -> None:
    gone, stays = make_topic("admin-gone"), make_topic("admin-stays")
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{gone}-g"})
    # Both, since the broker forgets a group's offsets together with the last of its topics.
    offsets = [TopicPartition(gone, 0, 1), TopicPartition(stays, 0, 0)]
    consumer.commit(offsets=offsets, asynchronous=False)
    consumer.close()
    asks.delete_topic(gone)
    rows = {row.topic: row.lag for row in asks.group(f"{gone}-g").partitions}
    assert rows.pop(stays) == 0
    assert rows in ({}, {gone: None})


def test_many_groups_are_described_together_without_those_that_do_not_exist(
    asks: Admin, bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic("admin-many", 2)
    fill(bootstrap, topic, {0: 4})
    names = [f"{topic}-{i}" for i in range(3)]
    for i, name in enumerate(names):
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": name})
        consumer.commit(offsets=[TopicPartition(topic, 0, i)], asynchronous=False)
        consumer.close()
    found = asks.describe_groups([*names, "nobody-knows"])
    assert {name: group.lag for name, group in found.items()} == dict(zip(names, (4, 3, 2), strict=True))
    assert asks.describe_groups([]) == {}


def test_a_group_that_nobody_knows_is_missing(asks: Admin) -> None:
    with pytest.raises(GroupMissingError, match="'nobody-knows' does not exist"):
        asks.group("nobody-knows")


@pytest.mark.parametrize(
    "ask",
    [Admin.topics, Admin.groups, Admin.ping]
    + [lambda a, call=call: call(a, "x") for call in (Admin.group, Admin.watermarks, Admin.committed)],
)
def test_a_broker_that_is_away_is_named_within_the_deadline(
    ask: Callable[[Admin], object], capfd: pytest.CaptureFixture[str]
) -> None:
    once = {"reconnect.backoff.ms": 60_000, "reconnect.backoff.max.ms": 60_000}
    away = Admin(NOBODY, once, timeout=1.0)
    with pytest.raises(BrokerUnavailableError, match=rf"answered at {NOBODY} within 1 s.*refused"):
        ask(away)
    with pytest.raises(BrokerUnavailableError, match=rf"answered at {NOBODY}.*refused"):
        ask(away)  # the client says only once why: nobody has answered since
    assert capfd.readouterr() == ("", ""), "the client's own lines belong to Python's logging"


def test_an_address_that_says_nothing_is_a_setting_to_correct() -> None:
    with pytest.raises(SettingsError, match="localhost:9092"):
        Admin(" ")


ASKS = """
import sys, threading
from relance.kafka.admin import Admin

def ask(group):
    print(Admin(sys.argv[1], timeout=30.0).committed(group), flush=True)

threads = [threading.Thread(target=ask, args=(f"g{n}",)) for n in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_a_process_lives_that_asks_for_offsets_while_the_coordinators_begin(tmp_path: Path) -> None:
    """NOT_COORDINATOR to that question is the end of a process by librdkafka's hand (#5040)."""
    with LocalBroker(tmp_path, port=0) as fresh:
        asked = [sys.executable, "-c", ASKS, fresh.bootstrap]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.count("{}")) == (0, 20), done.stdout + done.stderr
