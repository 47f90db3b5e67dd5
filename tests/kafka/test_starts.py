"""Where reading begins: groups that begin or move to another cluster; topics that grow or are made again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer as Client
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from chaos.proxy import Proxy, Rule
from relance import App, Record, Settings
from relance.broker import LocalBroker
from relance.kafka.admin import Admin
from relance.ports import free_ports
from waiting import wait_until

PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])


def produce(bootstrap: str, topic: str, values: Iterable[int], partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for value in values:
        producer.produce(topic, str(value), partition=partition)
    assert producer.flush(30) == 0


def commit(bootstrap: str, group: str, topic: str, offset: int, metadata: str, partition: int = 0) -> None:
    plain = Client({"bootstrap.servers": bootstrap, "group.id": group})
    plain.commit(offsets=[TopicPartition(topic, partition, offset, metadata=metadata)], asynchronous=False)
    plain.close()


class Odd:
    """A broker that takes no metadata beside offsets, and may be far away."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(1)
        self.proxy = Proxy(ports)
        self.bootstrap = self.proxy.bootstrap
        # Not even an empty text, which goes out as one byte.
        config = {"offset.metadata.max.bytes": "0"}
        self._broker = LocalBroker(folder, port=0, say=print, config=config, told_ports=ports)

    def start(self) -> None:
        self.proxy.listen()
        status = self._broker.start()
        self.proxy.start([node.port for node in status.nodes])

    @contextmanager
    def far_away(self, seconds: float) -> Iterator[None]:
        """Each request and each answer takes so long."""
        rule = Rule(delay=seconds)
        self.proxy.add(rule)
        yield
        self.proxy.remove(rule)

    def purge(self) -> None:
        self.proxy.stop()
        self._broker.purge()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Odd]:
    found = Odd(tmp_path_factory.mktemp("odd"))
    try:
        found.start()
        yield found
    finally:
        found.purge()


class Reader:
    """An application that notes the values that it handles."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        group: str,
        protocol: str,
        *,
        out: str | None = None,
        **options: Any,
    ) -> None:
        client = {"topic.metadata.refresh.interval.ms": 300, "group.protocol": protocol}
        settings = Settings(
            bootstrap_servers=bootstrap,
            session_timeout=6.0,
            heartbeat_interval=0.5,
            commit_interval=0.1,
            client=client,
        )
        self.app = App(group, settings=settings)
        self.handled: list[int] = []
        self._admin, self._group = Admin(bootstrap), group

        @self.app.consumer(topic, **options)
        async def handle(value: int, record: Record) -> None:
            self.handled.append(value)
            if out is not None:
                record.send(out, value)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.app.running():
            yield

    async def reads(self, partitions: int) -> None:
        """It owns so many, and the broker has a commit of each."""
        await self.until(lambda: len(self._admin.committed(self._group)) >= partitions)
        await self.until(lambda: len(self.app.assignment()) == partitions)

    async def has(self, *values: int) -> None:
        await self.until(lambda: set(values) <= set(self.handled))

    async def until(self, condition: Callable[[], object]) -> None:
        await asyncio.to_thread(wait_until, condition, 20.0, lambda: f"handled {self.handled}")


@PROTOCOLS
@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_an_offset_that_was_copied_from_another_cluster_is_believed_without_its_map(
    bootstrap: str,
    make_topic: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    start: str,
    protocol: str,
) -> None:
    topic = make_topic("moved")
    produce(bootstrap, topic, range(110))
    commit(bootstrap, f"g-{topic}", topic, 100, "r1:bMxYr0vLQ1eR3eXGzGzvIw:o2.110.101~101x1@another+1:-")
    reader = Reader(bootstrap, topic, f"g-{topic}", protocol, start=start)

    async def main() -> None:
        async with reader.running():
            await reader.has(*range(100, 110))

    asyncio.run(main())
    assert sorted(reader.handled) == list(range(100, 110))
    assert caplog.text.count("was committed on another cluster") == 1


def test_a_text_that_only_begins_like_ours_is_another_program_s(
    bootstrap: str, make_topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic("foreign")
    produce(bootstrap, topic, range(110))
    commit(bootstrap, f"g-{topic}", topic, 100, "r1:xx")
    reader = Reader(bootstrap, topic, f"g-{topic}", "classic")

    async def main() -> None:
        async with reader.running():
            await reader.has(*range(100, 110))

    asyncio.run(main())
    assert sorted(reader.handled) == list(range(100, 110))
    assert caplog.text.count("is no map that relance reads") == 1


@PROTOCOLS
def test_latest_skips_what_was_there_before_the_group_and_nothing_of_a_topic_that_grows(
    bootstrap: str,
    make_topic: Callable[..., str],
    admin: AdminClient,
    caplog: pytest.LogCaptureFixture,
    protocol: str,
) -> None:
    caplog.set_level(logging.INFO)
    topic = make_topic("grows")
    produce(bootstrap, topic, range(10))

    def grow(partitions: int, values: Iterable[int]) -> None:
        admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(10.0)
        wait_until(lambda: len(admin.list_topics(topic).topics[topic].partitions) == partitions)
        produce(bootstrap, topic, values, partition=partitions - 1)

    first = Reader(bootstrap, topic, f"g-{topic}", protocol, start="latest")

    async def while_it_runs() -> None:
        async with first.running():
            await first.reads(1)
            produce(bootstrap, topic, range(10, 12))
            await first.has(10, 11)
            await asyncio.to_thread(grow, 2, range(100, 148))
            await first.has(*range(100, 148))

    asyncio.run(while_it_runs())
    assert sorted(first.handled) == [10, 11, *range(100, 148)]
    grow(3, range(200, 210))
    second = Reader(bootstrap, topic, f"g-{topic}", protocol, start="latest")

    async def after_it_grew_while_nothing_ran() -> None:
        async with second.running():
            await second.has(*range(200, 210))

    asyncio.run(after_it_grew_while_nothing_ran())
    assert sorted(second.handled) == list(range(200, 210))
    assert caplog.text.count("has appeared since the group began to read the topic") == 2


@PROTOCOLS
def test_latest_reads_a_topic_that_is_made_again_from_its_beginning(
    bootstrap: str, make_topic: Callable[..., str], admin: AdminClient, protocol: str
) -> None:
    topic = make_topic("again")
    produce(bootstrap, topic, range(2))
    reader = Reader(bootstrap, topic, f"g-{topic}", protocol, start="latest")

    def make_again() -> None:
        admin.delete_topics([topic])[topic].result(10.0)
        wait_until(lambda: topic not in admin.list_topics(timeout=10.0).topics)
        admin.create_topics([NewTopic(topic, 1)])[topic].result(10.0)
        wait_until(lambda: topic in admin.list_topics(timeout=10.0).topics)
        produce(bootstrap, topic, range(100, 110))

    async def main() -> None:
        async with reader.running():
            await reader.reads(1)
            await asyncio.to_thread(make_again)
            await reader.has(*range(100, 110))

    asyncio.run(main())
    assert set(reader.handled) == set(range(100, 110))


# -- a broker that is far away, or takes no metadata -----------------------------------------------


@pytest.mark.parametrize("handoff", ["acknowledged", "transactional"])
def test_offsets_are_committed_alone_where_the_broker_takes_no_metadata_and_health_says_what_it_costs(
    odd: Odd, caplog: pytest.LogCaptureFixture, handoff: str
) -> None:
    topic, out = f"alone-{handoff}", f"alone-{handoff}-out"
    for name in (topic, out):
        Admin(odd.bootstrap).ensure_topic(name, 2)
    produce(odd.bootstrap, topic, range(20), 0)
    produce(odd.bootstrap, topic, range(20, 40), 1)
    reader = Reader(odd.bootstrap, topic, f"g-{topic}", "classic", handoff=handoff, out=out)

    def committed() -> dict[int, int]:
        return {tp.partition: c.offset for tp, c in Admin(odd.bootstrap).committed(f"g-{topic}").items()}

    async def main() -> None:
        async with reader.running():
            await reader.has(*range(40))
            await reader.until(lambda: committed() == {0: 20, 1: 20})
            await reader.until(lambda: "metadata" in reader.app.health().details)
            health = reader.app.health()
            assert health.status == "UP"
            assert "offset.metadata.max.bytes" in health.details["metadata"]
            produce(odd.bootstrap, topic, range(40, 50), 0)
            await reader.has(*range(40, 50))

    asyncio.run(main())
    assert committed() == {0: 30, 1: 20}
    assert sorted(reader.handled) == list(range(50))
    assert caplog.text.count("the broker takes no metadata beside committed offsets") == 1
    assert "trying again" not in caplog.text
    assert "not committed" not in caplog.text


@PROTOCOLS
def test_six_hundred_partitions_far_away_are_taken_up_within_seconds_and_health_stays_up(
    odd: Odd, protocol: str
) -> None:
    topic = f"far-{protocol}"
    Admin(odd.bootstrap).ensure_topic(topic, 600)
    produce(odd.bootstrap, topic, [7], partition=599)
    reader = Reader(odd.bootstrap, topic, f"g-{topic}", protocol)
    seen: set[str] = set()

    def all_there() -> bool:
        health = reader.app.health()
        seen.update([health.status, *health.reasons])
        return len(reader.app.assignment()) == 600

    async def main() -> None:
        with odd.far_away(0.02):
            began = time.monotonic()
            async with reader.running():
                await reader.until(all_there)
                await reader.has(7)
                taken = time.monotonic() - began
                assert taken < 15.0, f"after {taken:.1f} s"
                # The same when all begin anew, as after their topic was made again.
                assert reader.app._runner is not None
                [consumer] = reader.app._runner.consumers
                before = consumer.runtime.counters.rebalances
                began = time.monotonic()
                consumer.pollers[0].restart(reader.app.assignment())
                await reader.until(lambda: consumer.runtime.counters.rebalances >= before + 2 and all_there())
                taken = time.monotonic() - began
                assert taken < 10.0, f"after {taken:.1f} s"
        assert seen == {"UP"}

    asyncio.run(main())
