"""Faults of the matrix that need a special member, producer or broker; each has a broker of its own."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from relance import App, Settings
from relance.broker import LocalBroker
from relance.delivery import Sent
from relance.kafka import transactional as transactional_calls
from relance.kafka.cluster import KafkaRefusedError
from relance.kafka.producer import KafkaProducer
from relance.kafka.transactional import AbortedError, BrokenError, TooOldError, TransactionalProducer, connect
from relance.record import Outgoing
from waiting import wait_until


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalBroker]:
    local = LocalBroker(tmp_path / "broker", port=0)
    local.start()
    yield local
    local.purge()


@pytest.fixture
def topic(broker: LocalBroker) -> str:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    [made] = admin.create_topics([NewTopic("t", num_partitions=1)]).values()
    made.result(20)
    return "t"


class Running:
    """An application in a thread."""

    def __init__(self, pool: ThreadPoolExecutor, bootstrap: str, topic: str, **client: Any) -> None:
        self.seen: list[int] = []
        self.app = App(
            "g", settings=Settings(bootstrap_servers=bootstrap, client=client, commit_interval=0.2)
        )
        self._stop = threading.Event()

        @self.app.consumer(topic)
        async def handle(value: int) -> None:
            self.seen.append(value)

        self.ended: Future[None] = pool.submit(asyncio.run, self._run())

    async def _run(self) -> None:
        async with self.app.running():
            await asyncio.to_thread(self._stop.wait)

    def stop(self) -> None:
        self._stop.set()
        self.ended.result(30)

    @property
    def reasons(self) -> str:
        return "; ".join(self.app.health().reasons)


@pytest.fixture
def run(broker: LocalBroker, topic: str) -> Iterator[Callable[..., Running]]:
    with ThreadPoolExecutor() as pool:
        yield lambda **client: Running(pool, broker.bootstrap, topic, **client)


def send(bootstrap: str, topic: str, *values: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for value in values:
        producer.produce(topic, str(value))
    assert producer.flush(30) == 0


def committed(bootstrap: str, topic: str) -> int:
    asker = Consumer({"bootstrap.servers": bootstrap, "group.id": "g"})
    try:
        [found] = asker.committed([TopicPartition(topic, 0)], timeout=20)
        return int(found.offset)
    finally:
        asker.close()


# -- the same group.instance.id twice: two members ------------------------------------------------------


def test_the_same_instance_id_twice_classic_the_older_one_ends_with_the_reason(
    broker: LocalBroker, topic: str, run: Callable[..., Running]
) -> None:
    static = {"group.instance.id": "one"}
    first = run(**static)
    wait_until(first.app.assignment, 30, "the first member to own the partition")
    second = run(**static)
    wait_until(lambda: first.reasons, 30, "the first member to be fenced")
    assert "Give each its own" in first.reasons
    send(broker.bootstrap, topic, 1, 2)
    wait_until(lambda: second.seen == [1, 2], 30, lambda: f"the second to go on: {second.seen}")
    second.stop()
    with pytest.raises(
        KafkaRefusedError, match=r"read t in group g: .*group\.instance\.id.* Give each its own"
    ) as ended:
        first.stop()
    assert ended.value.code == KafkaError.FENCED_INSTANCE_ID
    assert first.seen == []


def test_the_same_instance_id_twice_consumer_protocol_the_younger_one_ends_with_the_reason(
    broker: LocalBroker, topic: str, run: Callable[..., Running]
) -> None:
    static = {"group.instance.id": "one", "group.protocol": "consumer"}
    first = run(**static)
    wait_until(first.app.assignment, 30, "the first member to own the partition")
    second = run(**static)
    wait_until(lambda: second.reasons, 30, "the second member to be refused")
    send(broker.bootstrap, topic, 1, 2)
    wait_until(lambda: first.seen == [1, 2], 30, lambda: f"the first to go on: {first.seen}")
    first.stop()
    with pytest.raises(
        KafkaRefusedError, match=r"read t in group g: .*still used by.* has not left"
    ) as ended:
        second.stop()
    assert ended.value.code == KafkaError.UNRELEASED_INSTANCE_ID
    assert second.seen == []


# -- a full disk: the system refuses the broker's writes (RLIMIT_FSIZE) ---------------------------------


def test_a_broker_whose_disk_takes_no_more(
    broker: LocalBroker, topic: str, run: Callable[..., Running]
) -> None:
    member = run()
    send(broker.bootstrap, topic, *range(50))
    wait_until(lambda: len(member.seen) == 50, 30, lambda: f"50 records, not {len(member.seen)}")
    wait_until(lambda: committed(broker.bootstrap, topic) == 50, 30, "their commit")
    [node] = broker.status().nodes
    assert node.pid is not None
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (1, 1))
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.timeout.ms": 60_000})
    answers: list[KafkaError | None] = []
    producer.produce(topic, "50", on_delivery=lambda error, _: answers.append(error))
    wait_until(lambda: not broker.status().nodes[0].up, 60, "Kafka to give up, as it does without a disk")
    wait_until(lambda: member.reasons, 30, "health to say so")
    assert broker.bootstrap in member.reasons
    broker.start()  # with a disk again
    assert producer.flush(60) == 0
    assert answers == [None]
    wait_until(lambda: member.seen[50:] == [50], 60, lambda: f"the record after it: {member.seen[50:]}")
    wait_until(lambda: not member.reasons, 30, "health to be well again")
    member.stop()
    assert committed(broker.bootstrap, topic) == 51


# -- transactions ------------------------------------------------------------------------------------------


def transactional(bootstrap: str, **more: Any) -> TransactionalProducer:
    config = {"bootstrap.servers": bootstrap, "transactional.id": "one", **more}
    return TransactionalProducer(connect(config), 1_000_000, lambda: False)


def readable(bootstrap: str, topic: str) -> list[bytes]:
    """What `read_committed` shows, up to the end of the log."""
    config = {"bootstrap.servers": bootstrap, "group.id": "r", "enable.partition.eof": True}
    reader = Consumer({**config, "isolation.level": "read_committed", "auto.offset.reset": "earliest"})
    reader.assign([TopicPartition(topic, 0, 0)])
    found: list[bytes] = []
    try:
        while True:
            message = reader.poll(20)
            assert message is not None
            if message.error() is not None:
                assert message.error().code() == KafkaError._PARTITION_EOF
                return found
            found.append(bytes(message.value() or b""))
    finally:
        reader.close()


def test_a_producer_that_is_fenced_by_its_own_transactional_id(broker: LocalBroker, topic: str) -> None:
    older = transactional(broker.bootstrap)
    older.begin()
    assert older.write([("a", Outgoing(topic, None, b"older", ()))]) == {}
    younger = transactional(broker.bootstrap)
    younger.begin()
    assert younger.write([("a", Outgoing(topic, None, b"younger", ()))]) == {}
    with pytest.raises(BrokenError):
        older.commit()
    younger.commit()
    assert readable(broker.bootstrap, topic) == [b"younger"]


def test_a_transaction_that_takes_longer_than_its_time(
    broker: LocalBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactional_calls, "_END_BY", 60.0)  # so that the broker is asked, for once
    late = transactional(broker.bootstrap, **{"transaction.timeout.ms": 1000, "message.timeout.ms": 1000})
    late.begin()
    assert late.write([("a", Outgoing(topic, None, b"late", ()))]) == {}
    asker = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": "r", "isolation.level": "read_committed"}
    )
    tp = TopicPartition(topic, 0)
    wait_until(lambda: asker.get_watermark_offsets(tp, timeout=10)[1] == 2, 40, "the broker to abort it")
    asker.close()
    with pytest.raises((BrokenError, AbortedError)) as refused:
        late.commit()
    assert refused.type is not TooOldError
    again = transactional(broker.bootstrap)
    again.begin()
    assert again.write([("a", Outgoing(topic, None, b"again", ()))]) == {}
    again.commit()
    assert readable(broker.bootstrap, topic) == [b"again"]


def client_threads() -> int:
    """Of librdkafka, in this process."""
    count = 0
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            count += (task / "comm").read_text().startswith("rdk:")
    return count


def test_a_client_is_gone_at_once_when_the_end_of_its_transaction_got_no_answer_in_its_time(
    broker: LocalBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Injected by SIGSTOP. By itself the client would go on asking for that end until it gets an answer."""
    monkeypatch.setattr(transactional_calls, "_END_BY", 2.0)
    server = broker.status().nodes[0].pid
    assert server is not None
    gc.collect()  # other tests' clients
    before = client_threads()
    late = transactional(broker.bootstrap)
    late.begin()
    assert late.write([("a", Outgoing(topic, None, b"late", ()))]) == {}
    os.kill(server, signal.SIGSTOP)
    try:
        with pytest.raises(TooOldError) as kept:
            late.commit()
        assert client_threads() > before
        late.close()
        # Although what was raised, and its frames, are still there. A thread's end takes its moment.
        wait_until(lambda: client_threads() == before, 5, f"the client's threads to end after {kept}")
    finally:
        os.kill(server, signal.SIGCONT)
    again = transactional(broker.bootstrap)
    again.begin()
    assert again.write([("a", Outgoing(topic, None, b"again", ()))]) == {}
    again.commit()
    assert readable(broker.bootstrap, topic)[-1] == b"again"  # the end was on its way, so "late" may be there


def test_a_broker_that_freezes_during_a_write_gives_its_producer_a_new_epoch_and_the_log_says_what_follows(
    broker: LocalBroker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Injected by SIGSTOP: the first write times out, and the client takes a new epoch for all the others."""
    server = broker.status().nodes[0].pid
    assert server is not None
    producer = KafkaProducer({"bootstrap.servers": broker.bootstrap}, name="frozen", timeout=1.0)
    answers: list[list[object]] = []

    def write() -> None:
        mine: list[object] = []
        answers.append(mine)
        producer.send(topic, b"x", answer=lambda error, sent: mine.append(error or sent))

    def arrives() -> bool:
        write()
        wait_until(lambda: answers[-1], 20, "an answer")
        return isinstance(answers[-1][0], Sent)

    def told() -> bool:
        write()
        return "took a new epoch" in caplog.text

    try:
        wait_until(arrives, 20, "a write")
        os.kill(server, signal.SIGSTOP)
        try:
            wait_until(told, 20, "the new epoch")
        finally:
            os.kill(server, signal.SIGCONT)
        wait_until(arrives, 20, "a write")
    finally:
        producer.close(5.0)
    assert {len(each) for each in answers} == {1}
    assert "what was on its way then may be there twice" in caplog.text
