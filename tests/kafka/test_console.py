"""The console as a process on a real broker: its JSON, its health, where it listens and how it ends."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, Producer
from tests.browser.console_process import RELANCE, RunningConsole, console
from tests.waiting import wait_until

MakeTopic = Callable[..., str]


@pytest.fixture(scope="module")
def web(bootstrap: str) -> Iterator[RunningConsole]:
    with console(bootstrap) as running:
        yield running


@pytest.fixture
def client(web: RunningConsole) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web.url, timeout=20) as client:
        yield client


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Something that accepts connections and never says a word, as a broker that hangs."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RELANCE, *arguments], capture_output=True, text=True, timeout=30, check=False)


def test_topics_records_and_groups_come_as_json(
    client: httpx.Client, bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = make_topic("console-json", 2)
    producer = Producer({"bootstrap.servers": bootstrap})
    for i in range(5):
        producer.produce(topic, f"v{i}", key=f"k{i}", partition=i % 2, headers=[("h", None)])
    assert producer.flush(10) == 0
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{topic}/g", "client.id": "me"})
    consumer.subscribe([topic])
    wait_until(lambda: consumer.poll(0.1) is None and consumer.assignment(), 20, "the member to join")

    def found() -> dict[str, Any] | None:
        return next((t for t in client.get("/api/topics").json()["topics"] if t["name"] == topic), None)

    listed = wait_until(found, 5, "the topic to be listed")
    assert (listed["partitions"], listed["records"]) == (2, 5)
    page = client.get(f"/api/topics/{topic}/records", params={"limit": 3}).json()
    rest = client.get(f"/api/topics/{topic}/records", params={"before": page["next"]}).json()
    values = [r["value"] for r in page["records"] + rest["records"]]
    assert sorted(values) == [f"v{i}" for i in range(5)]
    assert rest["next"] is None
    assert page["records"][0]["headers"] == [["h", None, "utf-8"]]
    group = client.get(f"/api/groups/{topic}%2Fg").json()
    assert [m["clientId"] for m in group["members"]] == ["me"]
    assert group["members"][0]["assignment"] == [[topic, 0], [topic, 1]]
    assert f"{topic}/g" in {g["name"] for g in client.get("/api/groups").json()["groups"]}
    consumer.close()


def test_many_viewers_are_served_at_once(client: httpx.Client, make_topic: MakeTopic, bootstrap: str) -> None:
    topic = make_topic("console-many")
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, b"v")
    assert producer.flush(10) == 0
    addresses = [
        f"/topics/{topic}",
        "/topics",
        "/groups",
        "/",
        f"/api/topics/{topic}/records",
        "/health",
    ] * 20
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(client.get, addresses))
    assert {answer.status_code for answer in answers} == {200}


def test_health_says_up(client: httpx.Client) -> None:
    assert client.get("/health").json()["status"] == "UP"


def test_without_a_broker_it_starts_says_so_and_keeps_quiet_on_stderr() -> None:
    with console("127.0.0.1:1") as running:
        began = time.monotonic()
        health = httpx.get(f"{running.url}/health", timeout=20)
        assert (health.status_code, health.json()["status"]) == (503, "DOWN")
        assert "127.0.0.1:1" in health.json()["reasons"][0]
        page = httpx.get(f"{running.url}/topics", timeout=20)
        assert page.status_code == 503
        assert time.monotonic() - began < 10
        running.process.send_signal(signal.SIGTERM)
        _, errors = running.process.communicate(timeout=10)
        assert errors == ""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_a_second_whoever_is_connected(
    silent_port: int, sent: signal.Signals
) -> None:
    # Three kinds of visitors: one kept alive, one that never sent its request, one whose answer is under way
    # and can't come, since the broker hangs.
    with console(f"127.0.0.1:{silent_port}") as running, contextlib.ExitStack() as visitors:
        kept = visitors.enter_context(httpx.Client(base_url=running.url))
        here = ("127.0.0.1", httpx.URL(running.url).port or 0)
        visitors.enter_context(socket.create_connection(here))
        hanging = visitors.enter_context(socket.create_connection(here, timeout=10))
        hanging.sendall(b"GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(2):
            # Answered after the hanging request was taken up, since one thread serves all.
            assert kept.get("/static/icon.svg").status_code == 200
        began = time.monotonic()
        running.process.send_signal(sent)
        _, errors = running.process.communicate(timeout=10)
        assert time.monotonic() - began < 2.5, "it does not wait for the three seconds of a question"
        assert (running.process.returncode, errors) == (0, "")
        assert hanging.recv(12) == b"HTTP/1.1 503", "an answer, not a cut line"


def test_a_port_in_use_is_named_with_who_has_it_and_status_1(web: RunningConsole) -> None:
    port = httpx.URL(web.url).port
    done = run("console", "--port", str(port), "--bootstrap", "127.0.0.1:1")
    assert done.returncode == 1
    assert f"port {port} is in use by pid {web.process.pid}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_public_address_is_refused_with_the_reason_and_status_2() -> None:
    done = run("console", "--host", "0.0.0.0", "--port", "0", "--bootstrap", "127.0.0.1:1")
    assert done.returncode == 2
    assert "--insecure-bind" in done.stderr
    assert "no login" in done.stderr


def test_on_a_public_address_it_answers_to_addresses_and_told_names_only() -> None:
    options = ("--host", "0.0.0.0", "--insecure-bind", "--allow-host", "kafka.example")
    with console("127.0.0.1:1", *options) as running:
        port = httpx.URL(running.url).port

        def status(host: str) -> int:
            address = f"http://127.0.0.1:{port}/static/icon.svg"
            return httpx.get(address, headers={"Host": host}).status_code

        asked = ("192.168.7.7", "kafka.example:8080", "localhost", "evil.example")
        assert [status(host) for host in asked] == [200, 200, 200, 421]


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /topics/..%2f..%2fetc%2fpasswd HTTP/1.1",
        b"GET /../../etc/passwd HTTP/1.1",
        b"GET /topics/%00 HTTP/1.1",
        b"GET /topics/\xff\xfe HTTP/1.1",
        b"GET " + b"/x" * 70_000 + b" HTTP/1.1",
        b"G\x00T / HTTP/1.1",
        b"POST /topics HTTP/1.1\r\nContent-Length: 99999999999",
    ],
)
def test_what_no_browser_sends_is_answered_with_4xx(web: RunningConsole, request_line: bytes) -> None:
    port = httpx.URL(web.url).port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(request_line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = raw.recv(200)
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert json.loads(httpx.get(f"{web.url}/health").text)["status"] == "UP"
