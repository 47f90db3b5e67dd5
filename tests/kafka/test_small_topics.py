"""Topics that take less than a client's batch: each record is written that they take."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from relance import App, Record, Settings
from relance.kafka.admin import Admin
from waiting import wait_until

HANDOFFS = pytest.mark.parametrize("handoff", ["acknowledged", "transactional"])
FILLER = "f" * 400


async def until(condition: Callable[[], object], timeout: float = 30.0, what: object = "") -> None:
    await asyncio.to_thread(wait_until, condition, timeout, what)


def an_app(bootstrap: str, topic: str) -> App:
    return App(
        f"g-{topic}", settings=Settings(bootstrap_servers=bootstrap, commit_interval=0.2, drain_timeout=8.0)
    )


def fill(bootstrap: str, topic: str, count: int, *, partitions: int = 2) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(count):
        value = json.dumps({"id": number, "filler": FILLER})
        producer.produce(topic, value, key=str(number), partition=number % partitions)
    assert producer.flush(10) == 0


def limit(admin: AdminClient, topic: str, size: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10.0)


def keys(bootstrap: str, topic: str) -> Counter[bytes | None]:
    """Of all that can be read there by who reads what is committed."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"reader-of-{topic}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    found: Counter[bytes | None] = Counter()
    ended: set[int] = set()
    partitions = len(Admin(bootstrap).watermarks(topic))
    reader.subscribe([topic])
    while len(ended) < partitions:
        message = reader.poll(10.0)
        assert message is not None, f"{topic}: nothing more, at {found}"
        if message.error():
            ended.add(message.partition())
        else:
            found[message.key()] += 1
    reader.close()
    return found


def committed(bootstrap: str, app: App, topic: str) -> int:
    found = Admin(bootstrap).committed(str(app.settings.group))
    return sum(max(0, c.offset) for tp, c in found.items() if tp.topic == topic)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was told that is no line of a retry or a dead letter."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name not in ("relance.dlt", "relance.retry")
    ]


@HANDOFFS
@pytest.mark.parametrize("lowered", [False, True], ids=["known", "lowered while all runs"])
def test_letters_that_are_each_small_enough_are_written_whatever_a_batch_of_them_takes(
    bootstrap: str,
    make_topic: Callable[..., str],
    admin: AdminClient,
    caplog: pytest.LogCaptureFixture,
    handoff: Any,
    lowered: bool,
) -> None:
    topic, count = make_topic("t", 2), 300
    dlt = make_topic("dlt", 1, max_message_bytes=1_000_000 if lowered else 5_000)
    app = an_app(bootstrap, topic)

    @app.consumer(topic, dead_letter_topic=dlt, handoff=handoff, ordering="key", concurrency=50)
    async def handle(value: dict) -> None:  # type: ignore[type-arg]
        raise ValueError("poison")

    async def main() -> None:
        async with app.running():
            await until(lambda: len(app.assignment()) == 2)
            if lowered:
                await asyncio.to_thread(limit, admin, dlt, 5_000)
            await asyncio.to_thread(fill, bootstrap, topic, count)
            await until(lambda: committed(bootstrap, app, topic) >= count, 30.0, app.health)
            assert app.health().reasons == []

    asyncio.run(main())
    assert keys(bootstrap, dlt) == Counter(str(n).encode() for n in range(count))
    assert warnings(caplog) == []


@HANDOFFS
def test_only_what_is_itself_too_large_stops_its_partition_and_the_stop_is_quick(
    bootstrap: str, make_topic: Callable[..., str], handoff: Any
) -> None:
    topic, small, count = make_topic("t", 2), make_topic("small", 1, max_message_bytes=2_000), 300
    app = an_app(bootstrap, topic)

    @app.consumer(topic, handoff=handoff, ordering="key", concurrency=50)
    async def handle(value: dict, record: Record) -> None:  # type: ignore[type-arg]
        # Nobody has said beforehand that it is written to.
        record.send(small, "x" * (3_000 if value["id"] == 100 else 300), key=record.key)

    def one_stands() -> bool:
        found = Admin(bootstrap).committed(str(app.settings.group))
        return {tp.partition: c.offset for tp, c in found.items()} == {0: 50, 1: count // 2}

    async def main() -> float:
        async with app.running():
            await until(lambda: len(app.assignment()) == 2)
            await asyncio.to_thread(fill, bootstrap, topic, count)
            await until(one_stands, 30.0, app.health)
            (reason,) = app.health().reasons
            assert "MSG_SIZE_TOO_LARGE" in reason
            assert small in reason
            since = time.monotonic()
        return time.monotonic() - since

    assert asyncio.run(main()) < 5.0
    found = keys(bootstrap, small)
    assert set(found) == {str(n).encode() for n in range(count)} - {b"100"}
    assert set(found.values()) == {1}


def test_what_an_application_sends_is_written_in_its_order_though_its_batch_was_refused(
    bootstrap: str, make_topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    topic, small, count = make_topic("t", 1), make_topic("small", 1, max_message_bytes=2_000), 2_000
    app = an_app(bootstrap, topic)

    @app.consumer(topic)
    async def handle(value: dict) -> None:  # type: ignore[type-arg]
        """Nothing comes."""

    async def main() -> list[int]:
        async with app.running():
            deliveries = [app.send(small, f"{n:0500}", key=str(n % 7)) for n in range(count)]
            return [(await delivery).offset for delivery in deliveries]

    offsets = asyncio.run(main())
    assert offsets == sorted(offsets)
    assert sum(keys(bootstrap, small).values()) == count
    assert warnings(caplog) == []


def test_the_command_line_sends_what_each_fits_and_says_whose_limit_it_was(
    bootstrap: str, make_topic: Callable[..., str], tmp_path: Path
) -> None:
    small = make_topic("small", 1, max_message_bytes=2_000)

    def produce(content: bytes, *options: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "records"
        file.write_bytes(content)
        command = [sys.executable, "-m", "relance.cli.main", "produce", small, "-f", str(file), *options]
        return subprocess.run(
            [*command, "-b", bootstrap], capture_output=True, text=True, timeout=60, check=False
        )

    done = produce(b"".join(b"%0500d\n" % n for n in range(500)))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 500
    by_the_topic, by_the_client = produce(b"x" * 3_000, "--raw"), produce(b"x" * 5_000_000, "--raw")
    assert by_the_topic.returncode == by_the_client.returncode == 1
    assert "max.message.bytes" in by_the_topic.stderr
    assert "3000 bytes" in by_the_topic.stderr
    assert "5000000 bytes" in by_the_client.stderr
    assert "this client sends records of 1000000 bytes at most" in by_the_client.stderr
    assert "RELANCE_CLIENT_MESSAGE_MAX_BYTES" in by_the_client.stderr
