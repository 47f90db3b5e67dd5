"""The orders service as processes on a real broker: the course's labs, and what must hold beside them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from waiting import wait_until

JSON = {"Content-Type": "application/json"}
SIMULATION = "/api/v1/config/simulate-transient-error"


class Instance:
    """One process of the service. `http` asks it; `log` is what it has written so far."""

    def __init__(
        self, name: str, role: str, environment: dict[str, str], folder: Path, port: int = 0
    ) -> None:
        self.name = name
        self.port = port or free_port()
        self._path = folder / f"{name}.log"
        self.starts = 0
        self._environment = os.environ | environment
        self._environment |= {
            "ORDERS_ROLE": role,
            "INSTANCE_NAME": name,
            "SERVER_PORT": str(self.port),
        }
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        self.start()

    def start(self) -> None:
        self.starts += 1
        with self._path.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orders"], env=self._environment, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        return self._path.read_text()

    def healthy(self) -> bool:
        assert self.process.poll() is None, f"{self.name} has ended:\n{self.log}"
        try:
            return self.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, **options: Any) -> Any:
        answer = self.http.post(path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def order(self, order_id: str, amount: float = 100) -> Any:
        return self.post("/api/v1/orders", json={"orderId": order_id, "amount": amount, "status": "PENDING"})

    def stop(self) -> tuple[int, float]:
        """SIGTERM; the exit status, and how long it took."""
        begun = time.monotonic()
        self.process.terminate()
        try:
            status = self.process.wait(15)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end; its log:\n{self.log}") from None
        return status, time.monotonic() - begun

    def end(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Group:
    """The topics and the group of one test, and the instances that it starts."""

    def __init__(self, bootstrap: str, make_topic: Callable[..., str], folder: Path, number: int) -> None:
        self.bootstrap = bootstrap
        self.folder = folder
        self.topic = make_topic("orders", 6)
        self.dlt = make_topic("orders-dlt", 3)
        self.retry = make_topic("orders-retry", 3)
        self.environment = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_DLT_TOPIC": self.dlt,
            "KAFKA_RETRY_TOPIC": self.retry,
            "KAFKA_GROUP_ID": f"orders-test-{os.getpid()}-{number}",
            "RETRY_BACKOFF_MS": "100",
            "MAX_RETRIES": "3",
        }
        self.instances: list[Instance] = []

    def start(self, role: str, name: str, **environment: str) -> Instance:
        instance = Instance(name, role, self.environment | environment, self.folder)
        self.instances.append(instance)
        wait_until(instance.healthy, 30, lambda: f"{name} to be healthy:\n{instance.log}")
        return instance

    def shared_out(self, *instances: Instance) -> bool:
        owned = [instance.get("/api/v1/partitions")["partitions"] for instance in instances]
        return all(owned) and sorted(itertools.chain(*owned)) == list(range(6))

    def wait_shared_out(self, *instances: Instance) -> None:
        wait_until(lambda: self.shared_out(*instances), 30, lambda: "\n".join(each.log for each in instances))

    def end(self) -> None:
        for instance in self.instances:
            instance.end()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def stats_of(instance: Instance) -> dict[str, int]:
    found = instance.get("/api/v1/stats")
    return {name: found[name] for name in ("success", "errors", "retries", "dlt")}


def wait_stats(instance: Instance, timeout: float = 20, **expected: int) -> None:
    wait_until(
        lambda: expected.items() <= stats_of(instance).items(),
        timeout,
        lambda: f"{expected}, but there is {stats_of(instance)}:\n{instance.log}",
    )


numbers = itertools.count(1)


@pytest.fixture
def group(bootstrap: str, make_topic: Callable[..., str], tmp_path: Path) -> Iterator[Group]:
    made = Group(bootstrap, make_topic, tmp_path, next(numbers))
    yield made
    made.end()


@pytest.fixture(scope="module")
def pair(
    bootstrap: str, make_topic: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Instance, Instance]]:
    """The API and a second consumer that share out the partitions, for the tests that leave both running."""
    made = Group(bootstrap, make_topic, tmp_path_factory.mktemp("orders"), next(numbers))
    with contextlib.closing(_Ending(made)):
        api, consumer = made.start("api", "api"), made.start("consumer", "consumer")
        made.wait_shared_out(api, consumer)
        yield api, consumer


class _Ending:
    def __init__(self, group: Group) -> None:
        self.close = group.end


def latest(instance: Instance, count: int = 50) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = instance.get(f"/api/v1/dlt/messages?count={count}")["messages"]
    return found


# -- the labs ---------------------------------------------------------------------------------------


def test_valid_orders_are_handled_by_the_group(pair: tuple[Instance, Instance]) -> None:
    api, consumer = pair
    before = stats_of(api)["success"]
    answers = [api.order(f"ORD-{number}", number * 100) for number in range(1, 13)]
    assert {answer["status"] for answer in answers} == {"ACCEPTED"}
    wait_stats(api, success=before + 12)
    wait_stats(consumer, success=before + 12)
    shares = api.get("/api/v1/stats")["instances"]
    assert [share["instance"] for share in shares] == ["api", "consumer"]
    assert all(share["up"] and share["success"] > 0 for share in shares), "both must have had some"


def test_an_invalid_order_is_in_the_dead_letter_topic_before_its_answer(
    pair: tuple[Instance, Instance],
) -> None:
    api, _ = pair
    before = api.get("/api/v1/dlt/count")["count"]
    body = '{"orderId": "ORD-INVALID", "amount": -50, "status": "PENDING"}'
    answer = api.http.post("/api/v1/orders", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["status"], answer.json()["action"]) == (
        400,
        "REJECTED",
        "Sent to DLT",
    )
    assert api.get("/api/v1/dlt/count")["count"] == before + 1
    letter = latest(api, 1)[0]
    assert (letter["key"], letter["originalValue"]) == ("ORD-INVALID", body)
    assert (letter["originalPartition"], letter["originalOffset"], letter["retryCount"]) == (None, None, 0)
    assert letter["errorReason"] == "ValidationError: amount must not be negative, it is -50"


@pytest.mark.parametrize("switched_by", ["api", "consumer"])
def test_an_order_after_the_switch_is_retried_and_dead_lettered_wherever_it_is_handled(
    pair: tuple[Instance, Instance], switched_by: str
) -> None:
    api, consumer = pair
    switch = api if switched_by == "api" else consumer
    before, success = api.get("/api/v1/dlt/count")["count"], stats_of(api)["success"]
    ids = [f"ORD-RETRY-{switched_by}-{number}" for number in range(12)]
    try:
        assert switch.post(f"{SIMULATION}?enabled=true")["simulateTransientError"] is True
        for order_id in ids:
            api.order(order_id)
        wait_until(
            lambda: api.get("/api/v1/dlt/count")["count"] == before + 12,
            30,
            lambda: f"twelve dead letters:\n{api.log}\n{consumer.log}",
        )
    finally:
        assert switch.post(f"{SIMULATION}?enabled=false")["simulateTransientError"] is False
    assert stats_of(api)["success"] == success, "an order sent after the answer must see the switch"
    letters = latest(api, 12)
    assert sorted(letter["key"] for letter in letters) == sorted(ids)
    for letter in letters:
        assert (letter["retryCount"], letter["attempts"]) == (3, 4)
        assert letter["errorReason"].startswith("MaxRetriesExceededError")
        assert letter["originalPartition"] is not None
    log = api.log + consumer.log
    assert "[RETRY] Retry 3/3 (attempt 4/4) P" in log
    assert "SimulatedTransientError" in log
    assert "[DLT] P" in log


def test_an_order_whose_trouble_ends_in_time_succeeds(group: Group) -> None:
    api = group.start("api", "api", RETRY_BACKOFF_MS="1000", RETRY_STRATEGY="fixed")
    api.post(f"{SIMULATION}?enabled=true")
    api.order("ORD-LUCKY")
    wait_stats(api, retries=1)
    api.post(f"{SIMULATION}?enabled=false")
    wait_stats(api, success=1, dlt=0)
    assert api.get("/api/v1/dlt/count")["count"] == 0


def test_no_order_meets_a_switch_that_was_off_again_before_it(pair: tuple[Instance, Instance]) -> None:
    api, consumer = pair
    before = stats_of(api)
    wait_stats(api, **before)
    for number in range(10):
        api.post(f"{SIMULATION}?enabled=true")
        consumer.post(f"{SIMULATION}?enabled=false")
        api.order(f"ORD-OFF-{number}")
    wait_stats(api, success=before["success"] + 10)
    assert stats_of(api)["errors"] == before["errors"]


# -- around the API ---------------------------------------------------------------------------------


def test_bad_records_are_dead_lettered_at_once_with_their_place_and_bytes(
    bootstrap: str, group: Group
) -> None:
    api = group.start("api", "api")
    records = {
        b"json": b"{not json",
        b"utf-8": b'{"orderId":"\xff","amount":1}',
        b"negative": b'{"orderId":"negative","amount":-5}',
        b"missing": b'{"orderId":"missing"}',
        b"type": b'{"orderId":7,"amount":1}',
        b"shape": b"[]",
        b"forged": b'{"orderId":"a\\nb","amount":1}',
        b"null": None,
        b"empty": b"",
    }
    places: dict[str, tuple[int, int]] = {}
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
    for key, value in records.items():
        producer.produce(
            group.topic,
            value,
            key,
            on_delivery=lambda error, message: places.update(
                {message.key().decode(): (message.partition(), message.offset())}
            ),
        )
    assert producer.flush(10) == 0
    wait_until(
        lambda: api.get("/api/v1/dlt/count")["count"] == len(records), 20, lambda: f"dead letters:\n{api.log}"
    )
    letters = {letter["key"]: letter for letter in latest(api)}
    assert {
        key: (letter["originalPartition"], letter["originalOffset"]) for key, letter in letters.items()
    } == places
    assert {letter["retryCount"] for letter in letters.values()} == {0}
    assert letters["json"]["originalValue"] == "{not json"
    assert letters["utf-8"]["originalValueEncoding"] == "base64"
    assert (letters["null"]["originalValue"], letters["empty"]["originalValue"]) == (None, "")
    assert letters["negative"]["errorReason"].startswith("ValidationError: amount must not be negative")
    assert stats_of(api)["retries"] == 0
    assert api.healthy(), "the partitions must have moved on"


def test_a_key_lands_where_another_producer_puts_it(bootstrap: str, pair: tuple[Instance, Instance]) -> None:
    api, _ = pair
    topic = api.order("SAME-KEY")["message"].rpartition(" ")[2]
    landed: list[int] = []
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
    producer.produce(
        topic,
        b'{"orderId":"SAME-KEY","amount":1}',
        b"SAME-KEY",
        on_delivery=lambda error, message: landed.append(message.partition()),
    )
    producer.flush(10)
    assert landed == [api.order("SAME-KEY")["partition"]]


# -- starting and stopping --------------------------------------------------------------------------


def test_a_stop_hands_over_cleanly_and_the_counters_go_on(group: Group) -> None:
    api, consumer = group.start("api", "api"), group.start("consumer", "consumer")
    group.wait_shared_out(api, consumer)
    api.post("/api/v1/orders/batch?count=2000")
    with socket.create_connection(("127.0.0.1", consumer.port)) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(20).startswith(b"HTTP/1.1 200"), "an open connection, which must not hold the stop"
        status, took = consumer.stop()
    assert status == 0
    assert took < 5, f"a stop of {took:.1f} s:\n{consumer.log}"  # 2 s on a machine of its own
    assert "Offsets committed before revocation" in consumer.log
    group.wait_shared_out(api)
    wait_stats(api, success=2000, errors=0)
    down = {share["instance"]: share for share in api.get("/api/v1/stats")["instances"]}["consumer"]
    assert (down["up"], down["partitions"]) == (False, [])
    assert down["success"] > 0

    consumer.start()
    wait_until(consumer.healthy, 30)
    group.wait_shared_out(api, consumer)
    again = {share["instance"]: share for share in consumer.get("/api/v1/stats")["instances"]}["consumer"]
    assert (again["up"], again["success"]) == (True, down["success"])
    assert consumer.get("/api/v1/consumer/stats")["messagesProcessed"] == 0
    wait_stats(consumer, success=2000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_second_signal_does_not_cut_the_stop_short(group: Group, number: signal.Signals) -> None:
    one = group.start("consumer", "one")
    for _ in range(2):
        one.process.send_signal(number)
    assert one.process.wait(15) == 0
    assert "Traceback" not in one.log
    assert "stopped" in one.log.splitlines()[-1]


def test_a_killed_instance_is_shown_down_and_nothing_is_lost(group: Group) -> None:
    api, consumer = group.start("api", "api"), group.start("consumer", "consumer")
    group.wait_shared_out(api, consumer)
    batches = [api.post("/api/v1/orders/batch?count=200")["batchId"]]
    consumer.process.send_signal(signal.SIGKILL)
    consumer.process.wait()
    batches.append(api.post("/api/v1/orders/batch?count=200")["batchId"])
    wanted = {f"BATCH-{batch}-{number}" for batch in batches for number in range(1, 201)}
    wait_until(
        lambda: not wanted - set(re.findall(r"Order handled: (\S+)", api.log + consumer.log)),
        40,
        "all orders of both batches, some of them twice",
    )
    shares = {share["instance"]: share for share in api.get("/api/v1/stats")["instances"]}
    assert (shares["api"]["up"], shares["consumer"]["up"]) == (True, False)
    assert shares["api"]["partitions"] == [0, 1, 2, 3, 4, 5]


def test_groups_on_one_cluster_share_no_flag(group: Group, pair: tuple[Instance, Instance]) -> None:
    other = group.start("api", "other")
    other.post(f"{SIMULATION}?enabled=true")
    assert pair[0].get(SIMULATION)["simulateTransientError"] is False
    assert [share["instance"] for share in other.get("/api/v1/stats")["instances"]] == ["other"]


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orders"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_wrong_setting_is_status_2_and_one_line_that_names_it() -> None:
    ended = run(MAX_RETRIES="three")
    assert ended.returncode == 2
    assert ended.stderr == (
        "orders: wrong setting: MAX_RETRIES='three': must be a whole number from 0 to 100"
        " (retries after the first try)\n"
    )
    assert ended.stdout == ""


def test_a_taken_port_is_status_1_and_one_line_that_names_its_holder(
    pair: tuple[Instance, Instance],
) -> None:
    ended = run(SERVER_PORT=str(pair[0].port))
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"port {pair[0].port} on 127.0.0.1 is in use by pid {pair[0].process.pid} (" in line
    assert "-m orders" in line


def test_a_missing_topic_is_status_1_with_the_command_that_makes_it(bootstrap: str) -> None:
    ended = run(KAFKA_BOOTSTRAP_SERVERS=bootstrap, KAFKA_TOPIC="no-such-topic", SERVER_PORT=str(free_port()))
    assert ended.returncode == 1
    lines = [line for line in ended.stdout.splitlines() if "no-such-topic" in line]
    assert len(lines) == 1
    assert "relance topics create no-such-topic " in lines[0]
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_broker_that_is_away_is_said_once_and_does_not_hold_the_stop(tmp_path: Path) -> None:
    nowhere = f"localhost:{free_port()}"
    instance = Instance("lonely", "api", {"KAFKA_BOOTSTRAP_SERVERS": nowhere}, tmp_path)
    try:

        def down() -> Any:
            with contextlib.suppress(httpx.TransportError):
                return instance.http.get("/health")
            return None

        health = wait_until(down, 20)
        assert (health.status_code, health.json()["status"]) == (503, "DOWN")
        wait_until(lambda: f"no Kafka broker answers at {nowhere}" in instance.log, 15, lambda: instance.log)
        order = instance.http.post("/api/v1/orders", json={"orderId": "a", "amount": 1})
        assert (order.status_code, order.json()["orderMayHaveBeenWritten"]) == (503, False)
        status, took = instance.stop()
        assert status == 0
        assert took < 6, instance.log
        assert instance.log.count("no Kafka broker answers") == 1
        assert "Traceback" not in instance.log
    finally:
        instance.end()


def test_the_log_is_plain_lines_and_no_flood(pair: tuple[Instance, Instance]) -> None:
    api, _ = pair
    lines = len(api.log.splitlines())
    for _ in range(50):
        api.get("/health")
    assert len(api.log.splitlines()) <= lines + 5
    for line in api.log.splitlines():
        time_, level, logger, message = line.split(" ", 3)
        assert (time_[-1], level.isupper(), logger.split(".")[0] in ("orders", "relance")) == (
            "Z",
            True,
            True,
        )
        assert message


def test_the_document_is_served(pair: tuple[Instance, Instance]) -> None:
    assert json.loads(pair[0].http.get("/openapi.json").text)["paths"]["/api/v1/orders"]["post"]
    assert pair[0].http.get("/docs").status_code == 200
