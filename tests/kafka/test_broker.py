"""The local broker, for real: it starts, serves, is killed, comes back, and stops."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from relance.broker import LocalBroker, sasl_plain
from relance.broker.layout import Layout
from relance.broker.probe import Answer, ask
from relance.broker.processes import alive
from relance.ports import free_ports, port_is_free
from waiting import wait_until

ROOT = Path(__file__).parents[2]
RELANCE = [sys.executable, "-m", "relance.cli.main", "broker"]


def produce(bootstrap: str, topic: str, *values: bytes, **settings: object) -> list[object]:
    """Send, wait for all answers, and return the errors."""
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "logger": quiet(), **settings})
    answers: list[object] = []
    for value in values:
        producer.produce(topic, value, key=b"k", on_delivery=lambda error, _record: answers.append(error))
    wait_until(lambda: producer.poll(0.05) is not None and len(answers) == len(values), 20, "the answers")
    return [error for error in answers if error is not None]


def read(bootstrap: str, topic: str) -> list[bytes]:
    """All values of a topic's only partition, up to its end now."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False, "logger": quiet()}
    )
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), 10.0)
        consumer.assign([TopicPartition(topic, 0, low)])
        found: list[bytes] = []

        def at_the_end() -> bool:
            record = consumer.poll(0.05)
            if record is not None and record.error() is None:
                found.append(record.value())
            return high == 0 or consumer.position([TopicPartition(topic, 0)])[0].offset >= high

        wait_until(at_the_end, 20, "the end of the topic")
        return found
    finally:
        consumer.close()


def create(admin: AdminClient, topic: str) -> None:
    """One partition, copies as the broker says. The client must be held: its end would end the request."""
    admin.create_topics([NewTopic(topic, 1)])[topic].result(10.0)


def quiet() -> logging.Logger:
    """A logger for clients whose broker is meant to go away."""
    logger = logging.getLogger("test.quiet")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def relance(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RELANCE, *words], capture_output=True, text=True, timeout=120, **options)


def kafka_sh(*words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/kafka.sh", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",  # it must not matter where it is called
        env=os.environ | environment,
        check=False,
    )


# -- one node ---------------------------------------------------------------------------------------


def test_a_start_that_is_said_again_changes_nothing(broker):
    before = broker.status()
    assert before.running
    assert broker.start() == before, "the very same processes"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]"])
def test_clients_reach_it_by_each_name_of_the_loopback(broker, make_topic, name):
    if name == "[::1]" and not port_is_free(0, "::1"):
        name = "localhost"  # there is no IPv6 here; then localhost means the other one
    port = broker.status().nodes[0].port
    assert produce(f"{name}:{port}", make_topic("names"), b"x") == []


def test_it_listens_on_this_machine_only(broker):
    port = broker.status().nodes[0].port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        outward.connect(("192.0.2.1", 9))  # sends nothing; it only asks which address would be used
        address = outward.getsockname()[0]
    assert address.startswith("127.") or ask(address, port) is Answer.NOTHING


def test_the_teaching_settings_are_those_of_the_broker(admin):
    resource = ConfigResource(ConfigResource.Type.BROKER, "1")
    found = admin.describe_configs([resource])[resource].result(10.0)
    wanted = {
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "group.consumer.heartbeat.interval.ms": "500",
        "group.consumer.session.timeout.ms": "10000",
    }
    assert {key: found[key].value for key in wanted} == wanted


def test_a_small_compacted_topic_is_compacted(bootstrap, make_topic):
    topic = make_topic("compacted", cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.01)
    rounds = 0

    def shrunk() -> bool:
        # Only a closed segment is compacted, and only a new record closes one.
        nonlocal rounds
        rounds += 1
        assert produce(bootstrap, topic, b"%d" % rounds, b"%d again" % rounds) == []
        return len(read(bootstrap, topic)) < 2 * rounds

    wait_until(shrunk, 30, "a record of the same key to be cleaned away")
    assert read(bootstrap, topic)[-1] == b"%d again" % rounds


def test_the_session_timeout_of_a_classic_member_may_be_short(bootstrap, make_topic):
    topic = make_topic("short")
    settings = {"bootstrap.servers": bootstrap, "group.id": topic, "session.timeout.ms": 1000}
    consumer = Consumer(settings | {"heartbeat.interval.ms": 300, "logger": quiet()})
    consumer.subscribe([topic])
    wait_until(lambda: consumer.poll(0.05) is None and consumer.assignment(), 10, "an assignment")
    consumer.close()


def test_the_tools_print_their_own_words_and_nothing_else(broker, bootstrap):
    topic = f"tools-{os.getpid()}"
    made = kafka_sh(
        "kafka-topics", "--create", "--topic", topic, "--partitions", "2", "--bootstrap-server", bootstrap
    )
    assert (made.stdout, made.returncode) == (f"Created topic {topic}.\n", 0)
    kafka_sh("kafka-console-producer", "--topic", topic, "--bootstrap-server", bootstrap, stdin="one\ntwo\n")
    read_back = kafka_sh(
        *("kafka-console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "2"),
        KAFKA_BOOTSTRAP_SERVERS=bootstrap,
    )
    assert sorted(read_back.stdout.split()) == ["one", "two"]
    assert "Processed a total of 2 messages" in read_back.stderr
    assert not re.search(r"log4j|slf4j|WARN|INFO", read_back.stdout + read_back.stderr, re.IGNORECASE)


@pytest.mark.parametrize(("words", "status"), [(["kafka-nothing"], 2), ([], 2), (["--help"], 0)])
def test_the_tools_are_listed_in_one_line(words, status):
    said = kafka_sh(*words)
    assert said.returncode == status
    line = (said.stdout + said.stderr).splitlines()[-1]
    assert "kafka-consumer-groups, " in line
    assert "kafka-topics, " in line


def test_a_tool_says_at_once_that_no_broker_is_there():
    said = kafka_sh("kafka-topics", "--list", "--bootstrap-server", "localhost:1")
    assert said.returncode == 1
    assert (
        said.stderr == "kafka.sh: nothing answers at localhost:1; start a broker with: relance broker start\n"
    )


def test_another_directory_uses_the_kafka_that_is_there_and_leaves_it_alone(broker, tmp_path):
    port = str(broker.status().nodes[0].port)
    where = ["--dir", str(tmp_path), "--port", port]
    for word in ("start", "status", "stop"):
        said = relance(word, *where, check=True)
        assert "not started from" in said.stdout
    assert broker.status().running
    assert list(tmp_path.iterdir()) == []


# -- its life ---------------------------------------------------------------------------------------


def test_its_life_from_start_to_purge_by_the_command_line(tmp_path):
    (number,) = free_ports(1)
    where = ["--dir", str(tmp_path / "run"), "--port", str(number)]
    with socket.create_server(("127.0.0.1", number)):
        held = relance("start", *where)
        assert held.returncode == 1
        assert held.stderr.count("\n") == 1
        assert re.match(rf"relance: port {number} is held by pid {os.getpid()} \(", held.stderr)
    began = time.monotonic()
    relance("start", *where, check=True)
    assert time.monotonic() - began < 10.0
    bootstrap = f"localhost:{number}"
    create(AdminClient({"bootstrap.servers": bootstrap, "logger": quiet()}), "t")
    assert produce(bootstrap, "t", b"kept") == []
    (free,) = free_ports(1)
    elsewhere = relance("status", *where, "--bootstrap", f"localhost:{free}")
    assert (elsewhere.returncode, elsewhere.stdout) == (3, f"localhost:{free}: no broker\n")

    # As after a reboot: another process has the pid that is noted. It is not believed, and not touched.
    broker = LocalBroker(tmp_path / "run", port=number)
    layout = Layout(tmp_path / "run")
    before = layout.pid(1)
    relance("stop", *where, check=True)
    assert port_is_free(number)
    layout.write_pid(1, replace(before, pid=os.getpid()))
    assert relance("status", *where).returncode == 3
    broker.start()
    assert read(bootstrap, "t") == [b"kept"]

    broker.purge()
    assert not layout.node(1).exists()


@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_start_leaves_nothing_running(tmp_path, how, status):
    (port,) = free_ports(1)
    words = [*RELANCE, "start", "--dir", str(tmp_path), "--port", str(port)]
    layout = Layout(tmp_path)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as starting:
        who = wait_until(lambda: layout.root.exists() and layout.pid(1), 20, "Kafka's process")
        starting.send_signal(how)
        _, said = starting.communicate(timeout=20)
    assert starting.returncode == status
    assert "Traceback" not in said
    assert not alive(who)
    assert port_is_free(port)
    assert layout.read() is None


def test_clients_log_in_and_get_what_an_acl_allows(tmp_path):
    users = {"admin": "a-secret", "alice": "b-secret"}
    with LocalBroker(tmp_path, port=0, config=sasl_plain(users, acls=True)) as broker:
        assert broker.status().running

        def client(name: str, password: str) -> dict[str, object]:
            return {
                "bootstrap.servers": broker.bootstrap,
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": name,
                "sasl.password": password,
                "logger": quiet(),
            }

        create(AdminClient(client("admin", "a-secret")), "t")
        with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
            create(AdminClient(client("alice", "b-secret")), "u")
        with pytest.raises(KafkaException):
            AdminClient(client("alice", "wrong")).list_topics(timeout=2)
        broker.purge()


def test_three_nodes_lose_one_and_get_it_back(tmp_path):
    broker = LocalBroker(tmp_path, port=0, nodes=3, heap_mb=256)
    try:
        broker.start()
        bootstrap = broker.bootstrap
        assert len(bootstrap.split(",")) == 3
        admin = AdminClient({"bootstrap.servers": bootstrap, "logger": quiet()})
        create(admin, "t")

        def in_sync() -> int:
            partition = admin.list_topics("t", timeout=10).topics["t"].partitions.get(0)
            return 0 if partition is None else len(partition.isrs)

        wait_until(lambda: in_sync() == 3, 20, "three replicas in sync")
        leader = admin.list_topics("t", timeout=10).topics["t"].partitions[0].leader
        broker.kill(leader)
        assert [node.up for node in broker.status().nodes].count(True) == 2
        assert produce(bootstrap, "t", b"one is down") == []
        assert broker.start().running
        wait_until(lambda: in_sync() == 3, 30, "the third replica to be in sync again")
        assert read(bootstrap, "t") == [b"one is down"]
    finally:
        broker.purge()
    assert not any(node.up for node in broker.status().nodes)
