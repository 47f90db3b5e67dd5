"""What holds a consumer up from outside, a quota or an open transaction: it is told, and nobody leaves."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from relance import App, Settings
from relance.kafka import stable
from waiting import wait_until

KAFKA = Path(__file__).parents[2] / "scripts" / "kafka.sh"


async def until(condition: Callable[[], object], timeout: float = 30.0, what: object = "") -> None:
    await asyncio.to_thread(wait_until, condition, timeout, what)


def an_app(bootstrap: str, topic: str, **client: str) -> App:
    return App(
        f"g-{topic}",
        settings=Settings(
            bootstrap_servers=bootstrap, session_timeout=6.0, heartbeat_interval=0.5, commit_interval=0.2
        ),
        client=client,
    )


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_client_that_the_broker_throttles_says_so_once_and_stays(
    bootstrap: str,
    make_topic: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = make_topic("t", 1)
    command = [str(KAFKA), "kafka-configs", "--bootstrap-server", bootstrap, "--alter", "--add-config"]
    command += ["consumer_byte_rate=30000", "--entity-type", "clients", "--entity-name", topic]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    producer = Producer({"bootstrap.servers": bootstrap})
    for _ in range(30):
        producer.produce(topic, b"x" * 50_000)
    assert producer.flush(10) == 0
    app = an_app(bootstrap, topic, **{"client.id": topic})
    handled: list[int] = []

    @app.consumer(topic)
    async def handle(value: bytes) -> None:
        handled.append(len(value))

    async def main() -> None:
        async with app.running():
            await until(lambda: app.health().details.get("throttled"))
            assert app.health().status == "UP"
            assert "throttled by the broker, for" in app.health().details["throttled"][topic]
            # Several looks later, each of which would take a client that stands still for stuck.
            runner = app._runner
            assert runner is not None
            assert runner.watch is not None
            runner.watch._interval = 0.1
            [stall] = runner.consumers[0]._stalls
            stall.patience = 0.3
            looks: list[float] = []
            look = stall.look
            monkeypatch.setattr(
                type(stall), "look", lambda self, now, **more: looks.append(now) or look(now, **more)
            )
            await until(lambda: len(looks) > 1 and looks[-1] - looks[0] > 1.0)

    asyncio.run(main())
    [line] = warnings(caplog)
    assert f"{topic}: throttled by the broker" in line


def test_a_transaction_that_somebody_left_open_is_a_detail_until_it_ends(
    bootstrap: str,
    make_topic: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stable, "_EVERY", 1.0)
    monkeypatch.setattr(stable, "_PATIENCE", 1.0)
    topic = make_topic("t", 2)
    caplog.set_level(logging.INFO, "relance.kafka")
    app = an_app(bootstrap, topic)
    handled: list[int] = []

    @app.consumer(topic)
    async def handle(value: int) -> None:
        handled.append(value)

    foreign = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic})
    foreign.init_transactions(10.0)

    async def main() -> None:
        async with app.running():
            await app.send(topic, 1, key=b"a")
            await until(lambda: handled == [1])
            foreign.begin_transaction()
            foreign.produce(topic, b"2", partition=0)
            assert await asyncio.to_thread(foreign.flush, 10.0) == 0
            others = Producer({"bootstrap.servers": bootstrap})
            for _ in range(5):
                others.produce(topic, b"3", partition=0)
            assert await asyncio.to_thread(others.flush, 10.0) == 0
            await until(lambda: app.health().details.get("open_transactions"))
            health = app.health()
            assert health.status == "UP"
            [(where, text)] = health.details["open_transactions"].items()
            assert where == f"{topic}-0"
            assert "has not ended its transaction" in text
            assert "cannot be read before it does" in text
            await asyncio.to_thread(foreign.commit_transaction, 10.0)
            await until(lambda: handled == [1, 2, *[3] * 5])
            await until(lambda: "open_transactions" not in app.health().details)

    asyncio.run(main())
    [line] = warnings(caplog)
    assert f"{topic}-0: a producer has not ended its transaction" in line
    assert f"{topic}-0: no open transaction holds it up any more" in caplog.text
