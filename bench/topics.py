"""The topics of the benchmark: made, filled, fed at a rate, looked into, and deleted.

Promise: a filled topic holds exactly the records it should, each once, each key in order; else it raises.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.records import PARTITIONS, is_bad, key, number_in, value
from relance.kafka.producer import IN_FLIGHT

Progress = Callable[[float], None]

_QUIET = {"log_level": 2}  # a broker that is just starting or stopping is no news


class Topics:
    """What one broker holds for us."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, **_QUIET})
        self._filled: dict[tuple[int, int, float, int], str] = {}

    def make(self, name: str, partitions: int = PARTITIONS) -> str:
        """An empty topic of that name."""
        self._admin.create_topics([NewTopic(name, partitions, 1)], operation_timeout=10.0)[name].result(30.0)
        return name

    def delete(self, *names: str) -> None:
        """Forget topics, whether or not they are there."""
        if names:
            for future in self._admin.delete_topics(list(names), operation_timeout=10.0).values():
                with contextlib.suppress(KafkaException):
                    future.result(30.0)

    def delete_filled(self) -> None:
        """Give back the disk that the filled ones take."""
        self.delete(*self._filled.values())
        self._filled.clear()

    def filled(
        self,
        n: int,
        keys: int,
        poison: float,
        progress: Progress = lambda _share: None,
        partitions: int = PARTITIONS,
    ) -> str:
        """A topic of `n` records; the same one for everybody who asks for the same."""
        wanted = (n, keys, poison, partitions)
        if wanted not in self._filled:
            name = f"bench-{n}-{keys}-{round(poison * 1000)}-{uuid.uuid4().hex[:6]}"
            self._fill(self.make(name, partitions), n, keys, poison, progress)
            self._filled[wanted] = name
        return self._filled[wanted]

    def _fill(self, topic: str, n: int, keys: int, poison: float, progress: Progress) -> None:
        producer = _producer(self.bootstrap, linger_ms=20)
        names = [key(number, keys) for number in range(min(n, keys))]
        for number in range(n):
            poisoned = poison > 0 and is_bad(number, poison)
            while True:
                try:
                    producer.produce(topic, value(number, poisoned=poisoned), names[number % keys])
                    break
                except BufferError:
                    producer.poll(0.05)
            if number % 20_000 == 0:
                producer.poll(0)
                progress(number / n)
        producer.flush()
        if (there := self.size(topic)) != n:
            raise RuntimeError(f"topic {topic} holds {there} records and should hold {n}")
        progress(1.0)

    def size(self, topic: str) -> int:
        """How many records a topic holds."""
        with self._consumer() as consumer:
            return sum(high - low for _, low, high in _ends(consumer, topic))

    def committed(self, group: str, topic: str) -> int:
        """The sum of a group's committed offsets; a topic of ours starts at 0, so: how many are done."""
        with self._consumer(group) as consumer:
            asked = [TopicPartition(topic, partition) for partition, _, _ in _ends(consumer, topic)]
            return sum(max(0, found.offset) for found in consumer.committed(asked, timeout=30.0))

    def letters(self, topic: str) -> list[int]:
        """The numbers of the records that the letters of a dead-letter topic are about."""
        numbers: list[int] = []
        with self._consumer() as consumer:
            ends = list(_ends(consumer, topic))
            expected = sum(high - low for _, low, high in ends)
            consumer.assign([TopicPartition(topic, partition, low) for partition, low, _ in ends])
            quiet_at = time.monotonic() + 30
            while len(numbers) < expected and time.monotonic() < quiet_at:
                for message in consumer.consume(1000, 0.5):
                    if not message.error():
                        numbers.append(number_in(message.value() or b"{}"))
                        quiet_at = time.monotonic() + 30
        return numbers

    @contextlib.contextmanager
    def _consumer(self, group: str = "bench-looks") -> Iterator[Consumer]:
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": group, "enable.auto.commit": False, **_QUIET}
        )
        try:
            yield consumer
        finally:
            consumer.close()


class Feeder(threading.Thread):
    """Writes `n` records to a topic, `rate` a second, each with the time of its sending."""

    def __init__(self, bootstrap: str, topic: str, n: int, keys: int, rate: int) -> None:
        super().__init__(name="feeder", daemon=True)
        self._producer = _producer(bootstrap, linger_ms=0)
        self._topic, self._n, self._keys, self._rate = topic, n, keys, rate
        self._enough = threading.Event()
        self.failure: BaseException | None = None
        self.fed = 0

    def stop(self) -> None:
        """End early."""
        self._enough.set()
        self.join()

    def run(self) -> None:
        """Feed until all is fed, or nobody wants more."""
        try:
            began = time.monotonic()
            while self.fed < self._n and not self._enough.is_set():
                while self.fed < min(self._n, (time.monotonic() - began) * self._rate):
                    sent = value(self.fed, sent_us=time.time_ns() // 1000)
                    self._producer.produce(self._topic, sent, key(self.fed, self._keys))
                    self.fed += 1
                self._producer.poll(0)
                left = began + (self.fed + 1) / self._rate - time.monotonic()
                time.sleep(max(0.0, left))
            self._producer.flush(30)
        except BaseException as error:  # told by whoever looks after the run
            self.failure = error


def _producer(bootstrap: str, linger_ms: int) -> Producer:
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": linger_ms,
            "enable.idempotence": True,
            "max.in.flight.requests.per.connection": IN_FLIGHT,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 1_000_000,
            **_QUIET,
        }
    )


def _ends(consumer: Consumer, topic: str) -> Iterator[tuple[int, int, int]]:
    metadata = consumer.list_topics(topic, timeout=30.0).topics[topic]
    for partition in sorted(metadata.partitions):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30.0)
        yield partition, low, high
