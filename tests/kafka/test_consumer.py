"""The consumer on a real broker, in processes of its own: retries, rebalances, stops, crashes."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from members import Group, Member

from relance.dead_letters.envelope import decode
from relance.kafka.admin import Admin
from relance.kafka.browse import Browser
from relance.record import TopicPartition
from waiting import wait_until

GroupMaker = Callable[..., Group]


@pytest.fixture
def groups(tmp_path: Path, bootstrap: str, make_topic: Callable[..., str]) -> Iterator[GroupMaker]:
    made: list[Group] = []

    def make(partitions: int = 6, **config: object) -> Group:
        topic = make_topic("source", partitions)
        names = {
            "topic": topic,
            "group": f"group-{topic}",
            "dead_letter_topic": make_topic("dlt", 3),
            "retry_topic": make_topic("retry", 3) if config.pop("retry", False) else None,
        }
        group = Group(tmp_path, bootstrap=bootstrap, **{**names, **config})
        made.append(group)
        return group

    yield make
    for group in made:
        group.close()


@pytest.fixture
def send(bootstrap: str) -> Callable[..., None]:
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})

    def write(topic: str, *values: object, **more: object) -> None:
        for value in values:
            raw = value if isinstance(value, bytes) else json.dumps({"id": value, **more}).encode()
            producer.produce(topic, raw, key=str(value).encode())
        assert producer.flush(10) == 0

    return write


def ids(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


def committed(bootstrap: str, group: Group, *, retry: bool = False) -> dict[int, int]:
    name, topic = group.config["group"], group.config["topic"]
    if retry:
        name, topic = f"{name}.retry", group.config["retry_topic"]
    return {
        tp.partition: found.offset
        for tp, found in Admin(bootstrap).committed(name).items()
        if tp.topic == topic
    }


def delete_below(admin: AdminClient, topic: str, offset: int) -> None:
    """As retention does, in partition 0."""
    for future in admin.delete_records([ClientPartition(topic, 0, offset)]).values():
        future.result(10)


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    return {p: mark.end for p, mark in Admin(bootstrap).watermarks(topic).items()}


def wait_committed(bootstrap: str, group: Group, timeout: float = 15.0) -> None:
    """Until nothing is left: what is committed is the end of every partition that holds something."""
    topic = group.config["topic"]

    def done() -> bool:
        found = committed(bootstrap, group)
        return all(found.get(p, 0) == end for p, end in ends(bootstrap, topic).items())

    wait_until(done, timeout, lambda: f"committed {committed(bootstrap, group)} of {ends(bootstrap, topic)}")


def only(group: Group) -> Member:
    member = group.start()
    group.settle(member, partitions=len(ends(group.config["bootstrap"], group.config["topic"])))
    return member


# -- handling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("retry", [False, True], ids=["in memory", "retry topic"])
def test_records_are_handled_retried_or_dead_lettered_and_all_is_committed(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str, sync: bool, retry: bool
) -> None:
    group = groups(sync=sync, retry=retry, max_in_memory_wait=0.0 if retry else 10.0)
    topic = group.config["topic"]
    send(topic, *ids("ok", 20))
    send(topic, "flaky", fail=2)
    send(topic, "dead", fail=99)
    send(topic, "rejected", reject=True)
    send(topic, b"\xff\xfe no JSON")
    member = only(group)
    group.wait_handled({*ids("ok", 20), "flaky"})
    browser = Browser(bootstrap)
    wait_until(lambda: browser.count(group.config["dead_letter_topic"]) == 3, 15.0, lambda: member.log)
    wait_committed(bootstrap, group)
    assert member.stop() == 0

    handled = Counter(group.handled())
    assert handled == Counter([*ids("ok", 20), "flaky"])
    tries = Counter(e["id"] for e in group.told("start"))
    assert (tries["flaky"], tries["dead"], tries["rejected"]) == (3, 4, 1)
    letters = {
        letter.original_key: letter
        for record in browser.latest(group.config["dead_letter_topic"], 10)
        for letter in [decode(record.value)]
    }
    dead, rejected = letters["dead"], letters["rejected"]
    assert dead.error_message.startswith("MaxRetriesExceededError")
    assert (dead.retry_count, rejected.retry_count) == (3, 0)
    assert dead.original_topic == topic
    undecodable = letters[str(b"\xff\xfe no JSON")]
    assert undecodable.value_bytes() == b"\xff\xfe no JSON"
    assert undecodable.retry_count == 0
    started = next(e for e in group.told("start") if e["id"] == "dead")
    assert (dead.original_partition, dead.original_offset) == (started["partition"], started["offset"])
    assert "[RETRY] Retry 1/3 (attempt 2/4) P" in member.log


def test_a_retry_is_never_early_and_its_neighbours_go_on(
    groups: GroupMaker, send: Callable[..., None]
) -> None:
    group = groups(partitions=1, ordering="key", delay=1.0)
    only(group)
    send(group.config["topic"], "slow", fail=1)
    wait_until(lambda: group.told("start"))
    send(group.config["topic"], *ids("ok", 10))
    group.wait_handled({"slow", *ids("ok", 10)})
    first, second = (e["at"] for e in group.told("start") if e["id"] == "slow")
    assert second - first >= 0.8  # 1 s less 20 % of jitter
    assert max(e["at"] for e in group.told("end") if e["id"] != "slow") < second


def test_no_user_code_runs_on_a_polling_thread(groups: GroupMaker, send: Callable[..., None]) -> None:
    group = groups(sync=True)
    member = only(group)
    send(group.config["topic"], *ids("ok", 5))
    group.wait_handled(set(ids("ok", 5)))
    assert member.stop() == 0
    threads = {e["thread"] for e in member.events if "thread" in e}
    assert threads == {"MainThread", "relance-hooks"}


def test_offsets_that_are_transaction_markers_leave_no_lag(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str
) -> None:
    group = groups(partitions=1)
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": group.config["group"]})
    producer.init_transactions(10)
    for keep in (True, False, True):
        producer.begin_transaction()
        producer.produce(group.config["topic"], json.dumps({"id": f"kept {keep}"}).encode())
        producer.commit_transaction(10) if keep else producer.abort_transaction(10)
    only(group)
    wait_until(lambda: len(group.handled()) == 2)
    wait_committed(bootstrap, group)
    assert group.handled() == ["kept True", "kept True"]


# -- rebalancing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("cooperative-sticky", {}),
        ("range", {"assignor": "range"}),
        ("roundrobin", {"assignor": "roundrobin"}),
        ("KIP-848", {"client": {"group.protocol": "consumer"}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_scaling_up_and_down_while_records_flow_handles_each_once(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str, name: str, config: dict[str, object]
) -> None:
    group = groups(retry=True, max_in_memory_wait=0.0, work=0.005, **config)
    topic = group.config["topic"]
    first = only(group)
    send(topic, *ids("a", 100))
    send(topic, *ids("fa", 5), fail=1)
    second, third = group.start(), group.start()
    send(topic, *ids("b", 100))
    group.settle(first, second, third, partitions=6)
    send(topic, *ids("c", 100))
    assert third.stop() == 0
    send(topic, *ids("d", 100))
    group.settle(first, second, partitions=6)
    send(topic, *ids("e", 100))
    wanted = {*ids("a", 100), *ids("b", 100), *ids("c", 100), *ids("d", 100), *ids("e", 100), *ids("fa", 5)}
    group.wait_handled(wanted)
    wait_committed(bootstrap, group)
    assert (first.stop(), second.stop()) == (0, 0)
    assert Counter(group.handled()) == Counter(wanted)


def test_the_partitions_of_a_killed_member_move_and_nothing_is_lost(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str
) -> None:
    group = groups(work=0.01)
    first, second = group.start(), group.start()
    group.settle(first, second, partitions=6)
    send(group.config["topic"], *ids("x", 400))
    wait_until(lambda: len(second.told("end")) > 20)
    second.signal(signal.SIGKILL)
    second.ended()
    group.settle(first, partitions=6)
    group.wait_handled(set(ids("x", 400)))
    wait_committed(bootstrap, group)


def test_a_member_that_is_told_to_stop_is_gone_within_two_seconds(
    groups: GroupMaker, send: Callable[..., None]
) -> None:
    group = groups(retry=True)
    first, second = group.start(), group.start()
    group.settle(first, second, partitions=6)
    second.signal(signal.SIGTERM)
    assert second.ended(2.0) == 0
    group.settle(first, partitions=6, timeout=2.0)


def test_a_key_s_order_holds_through_retries_in_memory(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str
) -> None:
    group = groups(partitions=2, ordering="key", delay=0.3)
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
    for i in range(60):
        value = {"id": f"k{i % 5}-{i}", "fail": 1 if i % 20 == 0 else 0}
        producer.produce(group.config["topic"], json.dumps(value).encode(), key=f"k{i % 5}".encode())
    assert producer.flush(10) == 0
    only(group)
    wait_until(lambda: len(group.handled()) == 60)
    for key in range(5):
        mine = [int(i.split("-")[1]) for i in group.handled() if i.startswith(f"k{key}-")]
        assert mine == sorted(mine)


# -- stopping and crashing -------------------------------------------------------------------------


@pytest.mark.parametrize("retry", [False, True], ids=["in memory", "retry topic"])
def test_a_stop_during_a_long_backoff_is_quick_and_the_next_owner_keeps_the_wait_and_the_attempt(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str, retry: bool
) -> None:
    group = groups(retry=retry, delay=5.0, max_in_memory_wait=0.0 if retry else 10.0)
    first = only(group)
    send(group.config["topic"], "slow", fail=1)
    failed = wait_until(lambda: group.told("start"))[0]
    send(group.config["topic"], *ids("ok", 20))
    group.wait_handled(set(ids("ok", 20)))
    first.signal(signal.SIGTERM)
    assert first.ended(3.0) == 0
    second = only(group)
    group.wait_handled({"slow"})
    assert second.stop() == 0
    assert Counter(group.handled()) == Counter([*ids("ok", 20), "slow"])  # what was above it is not repeated
    again = [e for e in second.told("start") if e["id"] == "slow"]
    assert [e["attempt"] for e in again] == [2]
    assert again[0]["at"] - failed["at"] >= 3.9


def test_a_handler_that_hangs_does_not_keep_the_process(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str
) -> None:
    group = groups(sync=True, drain_timeout=1.0)
    member = only(group)
    send(group.config["topic"], "hangs", work=600.0)
    wait_until(lambda: group.told("start"))
    member.signal(signal.SIGTERM)
    assert member.ended(5.0) == 70
    assert "still running after the drain deadline" in member.log
    assert sum(committed(bootstrap, group).values()) == 0


LOOPS = {"asyncio": "asyncio.unix_events", "uvloop": "uvloop", "auto": "uvloop"}


@pytest.mark.parametrize("event_loop", LOOPS)
def test_async_handlers_run_and_are_retried_on_the_loop_that_is_asked_for_and_a_signal_ends_it(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str, event_loop: str
) -> None:
    group = groups(event_loop=event_loop)
    member = only(group)
    send(group.config["topic"], "fails once", fail=1, tell_loop=True)
    group.wait_handled({"fails once"})
    assert {e["module"] for e in group.told("loop")} == {LOOPS[event_loop]}
    assert member.stop() == 0
    assert sum(committed(bootstrap, group).values()) == 1


@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
def test_a_handler_that_swallows_its_cancellation_does_not_keep_the_process(
    groups: GroupMaker, send: Callable[..., None], event_loop: str
) -> None:
    group = groups(swallow=True, drain_timeout=1.0, event_loop=event_loop)
    member = only(group)
    send(group.config["topic"], "hangs", work=600.0)
    wait_until(lambda: group.told("start"))
    member.signal(signal.SIGTERM)
    assert member.ended(5.0) == 70


def test_the_second_signal_ends_the_process_at_once(groups: GroupMaker, send: Callable[..., None]) -> None:
    group = groups(sync=True)
    member = only(group)
    send(group.config["topic"], "hangs", work=600.0)
    wait_until(lambda: group.told("start"))
    member.signal(signal.SIGTERM)
    wait_until(lambda: "once more to stop at once" in member.log)

    def has_ended() -> bool:
        member.signal(signal.SIGTERM)  # within half a second of the first it is still the first
        return member.process.poll() is not None

    wait_until(has_ended, 2.0)
    assert member.ended(1.0) == 128 + signal.SIGTERM


def test_a_member_that_was_frozen_commits_nothing_with_its_old_assignment(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str
) -> None:
    group = groups(work=0.02, concurrency=1)
    first, second = group.start(), group.start()
    group.settle(first, second, partitions=6)
    send(group.config["topic"], *ids("x", 200))
    wait_until(lambda: len(second.told("end")) > 5)
    second.signal(signal.SIGSTOP)
    try:
        group.settle(first, partitions=6)
        group.wait_handled(set(ids("x", 200)))
        wait_committed(bootstrap, group)
    finally:
        second.signal(signal.SIGCONT)
    group.settle(first, second, partitions=6)
    assert committed(bootstrap, group) == ends(bootstrap, group.config["topic"])


# -- topics that are missing, deleted, made again ----------------------------------------------------


def test_a_missing_topic_ends_the_start_with_the_command_that_makes_it(groups: GroupMaker) -> None:
    group = groups()
    member = group.start(topic="nobody-made-this")
    assert member.ended() == 1
    assert "nobody-made-this" in member.log
    assert "kafka-topics --create" in member.log or "topics create" in member.log
    assert "Traceback" not in member.log


def test_a_broker_that_is_away_ends_the_start_after_the_deadline_in_few_lines(groups: GroupMaker) -> None:
    group = groups()
    member = group.start(bootstrap="localhost:1", start_timeout=2.0)
    assert member.ended() == 1
    assert "localhost:1" in member.log
    assert len(member.log.splitlines()) <= 4  # "starting", away, given up
    assert "Traceback" not in member.log


def test_a_dead_letter_topic_that_is_deleted_stops_its_partition_until_it_is_back(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str, admin: AdminClient
) -> None:
    group = groups(partitions=1)
    topic, dlt = group.config["topic"], group.config["dead_letter_topic"]
    member = only(group)
    send(topic, "before")
    group.wait_handled({"before"})
    Admin(bootstrap).delete_topic(dlt)
    send(topic, "rejected", reject=True)
    send(topic, "after")
    wait_until(lambda: "stops at offset 1" in member.log, 30.0, lambda: member.log)
    assert committed(bootstrap, group)[0] <= 1
    Admin(bootstrap).ensure_topic(dlt, 3)
    wait_until(lambda: Browser(bootstrap).count(dlt) == 1, 30.0, lambda: member.log)
    group.wait_handled({"after"})
    wait_committed(bootstrap, group)
    assert member.stop() == 0


def test_topics_deleted_and_made_again_while_all_runs_are_waited_for_and_read_anew(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str
) -> None:
    group = groups(retry=True, max_in_memory_wait=0.0)
    topics = [group.config[name] for name in ("topic", "dead_letter_topic", "retry_topic")]
    member = only(group)
    send(topics[0], *ids("old", 30))
    send(topics[0], "old flaky", fail=1)
    group.wait_handled({*ids("old", 30), "old flaky"})
    admin = Admin(bootstrap)
    for topic in topics:
        admin.delete_topic(topic)
    wait_until(lambda: member.log.count("waiting for topic") == 3, 30.0, lambda: member.log)
    for topic, partitions in zip(topics, (6, 3, 3), strict=True):
        admin.ensure_topic(topic, partitions)
    send(topics[0], *ids("new", 5))
    send(topics[0], "new flaky", fail=1)
    group.wait_handled({*ids("new", 5), "new flaky"})
    wait_committed(bootstrap, group)
    assert member.stop() == 0


def test_a_topic_made_again_between_two_looks_is_read_from_its_start(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str
) -> None:
    group = groups(partitions=1)
    topic = group.config["topic"]
    member = only(group)
    send(topic, *ids("old", 10))
    group.wait_handled(set(ids("old", 10)))
    admin = Admin(bootstrap)
    admin.delete_topic(topic)
    wait_until(lambda: admin.ensure_topic(topic, 1))
    send(topic, *ids("new", 20))  # more than before: the old offset would be in range
    group.wait_handled(set(ids("new", 20)))
    assert member.stop() == 0


def test_partitions_that_are_added_are_read_and_the_break_in_the_order_of_keys_is_said(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str, admin: AdminClient
) -> None:
    group = groups(partitions=2)
    topic = group.config["topic"]
    member = only(group)
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(15.0)
    wait_until(lambda: member.owned() == {0, 1, 2, 3}, 20.0, lambda: member.log)
    for number in range(4):
        producer = Producer({"bootstrap.servers": bootstrap})
        producer.produce(topic, json.dumps({"id": f"in-{number}"}).encode(), partition=number)
        assert producer.flush(10) == 0
    group.wait_handled({f"in-{number}" for number in range(4)})
    wait_until(lambda: f"topic {topic} has 4 partitions, it had 2" in member.log, 10.0, lambda: member.log)
    assert member.stop() == 0


def test_a_committed_offset_that_retention_passed_stops_the_partition_and_says_so(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str, admin: AdminClient
) -> None:
    group = groups(partitions=1)
    topic = group.config["topic"]
    send(topic, *ids("x", 10))
    member = only(group)
    group.wait_handled(set(ids("x", 10)))
    assert member.stop() == 0
    send(topic, *ids("y", 10))
    delete_below(admin, topic, 15)
    again = group.start()
    wait_until(lambda: "is outside the log 15..20" in again.log, 15.0, lambda: again.log)
    assert again.stop() == 0
    assert committed(bootstrap, group) == {0: 10}


def test_retries_that_retention_has_taken_stop_their_partition_too(
    groups: GroupMaker,
    send: Callable[..., None],
    make_topic: Callable[..., str],
    bootstrap: str,
    admin: AdminClient,
) -> None:
    retries = make_topic("retry", 1)
    group = groups(partitions=1, retry_topic=retries)
    send(retries, *ids("r", 10))
    owner = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{group.config['group']}.retry"})
    owner.commit(offsets=[ClientPartition(retries, 0, 3)], asynchronous=False)
    owner.close()
    delete_below(admin, retries, 5)
    member = group.start()
    wait_until(lambda: "committed offset 3 is outside the log 5..10" in member.log, 15.0, lambda: member.log)
    assert member.stop() == 0
    assert committed(bootstrap, group, retry=True) == {0: 3}


# -- keys ------------------------------------------------------------------------------------------


def test_our_producer_puts_keys_where_java_s_does(bootstrap: str, make_topic: Callable[..., str]) -> None:
    import subprocess

    from relance.kafka.producer import KafkaProducer

    topic = make_topic("keys", 6)
    keys = ids("ORD-", 40)
    lines = "".join(f"{key}:java\n" for key in keys)
    script = Path(__file__).parents[2] / "scripts" / "kafka.sh"
    arguments = ["--topic", topic, "--bootstrap-server", bootstrap]
    properties = ["--reader-property", "parse.key=true", "--reader-property", "key.separator=:"]
    command = [str(script), "kafka-console-producer", *arguments, *properties]
    subprocess.run(command, input=lines, text=True, check=True, capture_output=True, timeout=60)
    producer = KafkaProducer({"bootstrap.servers": bootstrap}, name="test", timeout=10.0)
    errors: list[object] = []
    for key in keys:
        producer.send(topic, b"ours", key=key.encode(), answer=lambda error, sent: errors.append(error))
    assert producer.close(10.0) == 0
    assert errors == [None] * len(keys)
    places: dict[bytes | None, set[int]] = {}
    for record in Browser(bootstrap).latest(topic, 200):
        places.setdefault(record.key, set()).add(record.partition)
    assert set(places) == {key.encode() for key in keys}
    assert all(len(partitions) == 1 for partitions in places.values())
    assert len({TopicPartition(topic, p) for found in places.values() for p in found}) == 6


def test_a_signal_while_the_broker_is_waited_for_ends_the_start(groups: GroupMaker) -> None:
    group = groups()
    member = group.start(bootstrap="localhost:1", start_timeout=60.0)
    wait_until(lambda: "no Kafka broker answers" in member.log)
    member.signal(signal.SIGTERM)
    assert member.ended(5.0) == 1
    assert "stopped while waiting for a broker" in member.log


def test_a_handler_that_ends_the_program_leaves_its_record_to_the_next_owner(
    groups: GroupMaker, send: Callable[..., None], bootstrap: str
) -> None:
    group = groups(partitions=1, sync=True)
    member = only(group)
    send(group.config["topic"], "ok")
    send(group.config["topic"], "last", exit=3)
    assert member.ended() == 3
    assert committed(bootstrap, group) == {0: 1}


def test_a_partition_that_went_while_it_was_paused_is_read_when_it_comes_back(
    groups: GroupMaker, bootstrap: str
) -> None:
    """In the client a pause outlives the assignment; what was assigned again used to stay silent."""
    group = groups(partitions=2)
    topic, dlt = group.config["topic"], group.config["dead_letter_topic"]
    producer = Producer({"bootstrap.servers": bootstrap})

    def write(name: str, **more: object) -> None:
        for partition in range(2):
            value = json.dumps({"id": f"{name}{partition}", **more}).encode()
            producer.produce(topic, value, partition=partition)
        assert producer.flush(10) == 0

    first = only(group)
    Admin(bootstrap).delete_topic(dlt)
    write("rejected", reject=True)
    wait_until(lambda: first.log.count("stops at offset 0") == 2, 30.0, lambda: first.log)
    Admin(bootstrap).ensure_topic(f"{dlt}-2", 1)
    second = group.start(dead_letter_topic=f"{dlt}-2")
    group.settle(first, second, partitions=2)
    Admin(bootstrap).ensure_topic(dlt, 3)
    wait_committed(bootstrap, group, 30.0)
    assert second.stop() == 0
    group.settle(first, partitions=2)
    write("new")
    group.wait_handled({"new0", "new1"}, 10.0)
    assert first.stop() == 0
