"""Kafka's clients, watched: what the members ask of the broker and what it answers, seen from outside.

The engine's own counters and callbacks are not asked, so a defect of theirs cannot hide itself. The classes
stand in for the client's in the modules that make clients; what they do is what the client does.
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import confluent_kafka
import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from chaos.events import Log
from chaos.workload import DEAD, OUT, RETRY

_log: Log
_numbers = itertools.count(1)


def watch(log: Log) -> None:
    """From now on all clients that relance makes tell `log`."""
    global _log
    _log = log
    for module, client in (
        ("poller", WatchedConsumer),
        ("producer", WatchedProducer),
        ("transactional", WatchedProducer),
    ):
        importlib.import_module(f"relance.kafka.{module}").Client = client  # type: ignore[attr-defined]


def _places(partitions: Sequence[TopicPartition]) -> list[tuple[str, int]]:
    return [(p.topic, p.partition) for p in partitions]


class WatchedConsumer(confluent_kafka.Consumer):
    """Tells assignments, where reading resumes, and commits with their answers."""

    def __init__(self, config: dict[str, Any], **more: Any) -> None:
        self._sent: list[int] = []
        self._on_commit = config["on_commit"]
        super().__init__({**config, "on_commit": self._answered}, **more)

    def subscribe(  # type: ignore[override]
        self,
        topics: list[str],
        on_assign: Callable[..., None],
        on_revoke: Callable[..., None],
        on_lost: Callable[..., None],
    ) -> None:
        """As the client's."""

        def assigned(client: Any, partitions: list[TopicPartition]) -> None:
            _log.write("assigned", partitions=_places(partitions))
            on_assign(client, partitions)

        def revoked(client: Any, partitions: list[TopicPartition]) -> None:
            _log.write("revoking", partitions=_places(partitions))
            on_revoke(client, partitions)
            _log.write("revoked", partitions=_places(partitions))

        def lost(client: Any, partitions: list[TopicPartition]) -> None:
            _log.write("losing", partitions=_places(partitions))
            on_lost(client, partitions)  # only now the engine knows
            _log.write("lost", partitions=_places(partitions))

        super().subscribe(topics, on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def committed(self, partitions: list[TopicPartition], timeout: float = -1) -> list[TopicPartition]:
        """As the client's."""
        _log.write("resuming", partitions=_places(partitions))
        found = super().committed(partitions, timeout=timeout)
        _log.write("resumed", offsets=[(p.topic, p.partition, p.offset) for p in found])
        return found

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> Any:  # type: ignore[override]
        """As the client's."""
        number = next(_numbers)
        _log.write("commit", number=number, offsets=[(p.topic, p.partition, p.offset) for p in offsets])
        if asynchronous:
            self._sent.append(number)
            return super().commit(offsets=offsets, asynchronous=True)
        try:
            answers = super().commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            _log.write("uncommitted", number=number, error=error.args[0].str())
            raise
        refused = [a.error.str() for a in answers if a.error is not None]
        _log.write("uncommitted" if refused else "committed", number=number)
        return answers

    def _answered(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        number = self._sent.pop(0) if self._sent else 0
        refused = error is not None or any(p.error is not None for p in partitions)
        _log.write("uncommitted" if refused else "committed", number=number)
        self._on_commit(error, partitions)


class WatchedProducer(confluent_kafka.Producer):
    """Tells what was acknowledged of hand-offs, transactions, and when the client took a new epoch."""

    _commit = 0
    _transaction = 0
    """Its number; 0 where there are none."""

    def __init__(self, config: dict[str, Any], **more: Any) -> None:
        epochs = Epochs()
        statistics = config.get("stats_cb", lambda text: None)

        def counted(text: str) -> None:
            for found in epochs.taken(msgspec.json.decode(text)):
                _log.write("producer-epoch", **found)
            statistics(text)

        super().__init__({**config, "stats_cb": counted}, **more)

    def produce(self, topic: str, value: Any, key: Any = None, **more: Any) -> None:  # type: ignore[override]
        """As the client's."""
        headers, answer, sent = more.get("headers"), more["on_delivery"], time.monotonic()
        found = _identity(topic, value, headers)
        transaction = self._transaction

        def answered(error: KafkaError | None, message: Any) -> None:
            if found is not None and error is None:
                place = (message.topic(), message.partition(), message.offset())
                _log.write(
                    "written",
                    id=found[0],
                    attempt=found[1],
                    place=place,
                    sent=sent,
                    transaction=transaction,
                )
            elif found is not None and error is not None:
                error_text = error.str()
                _log.write(
                    "unwritten", id=found[0], attempt=found[1], topic=topic, error=error_text, sent=sent
                )
            answer(error, message)

        super().produce(topic, value, key, **(more | {"on_delivery": answered}))

    def begin_transaction(self) -> None:
        """As the client's."""
        self._transaction = next(_numbers)
        super().begin_transaction()

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], *more: Any) -> None:
        """As the client's."""
        self._commit = next(_numbers)
        _log.write("commit", number=self._commit, offsets=[(p.topic, p.partition, p.offset) for p in offsets])
        super().send_offsets_to_transaction(offsets, *more)

    def commit_transaction(self, *more: Any) -> None:
        """As the client's."""
        super().commit_transaction(*more)
        _log.write("committed", number=self._commit, transaction=self._transaction)

    def abort_transaction(self, *more: Any) -> None:
        """As the client's."""
        super().abort_transaction(*more)
        _log.write("uncommitted", number=self._commit)


class Epochs:
    """When an idempotent client took a new epoch, from its own statistics.

    It does so when a write times out, or when a new leader gets requests out of order; what is on its way
    then is written again, under the new epoch, so that the broker cannot know it (librdkafka #4953).
    Statistics come four times a second: one taken in a client's last quarter of a second is not seen.
    """

    def __init__(self) -> None:
        self._before: tuple[int, int] | None = None
        self._looked = 0.0

    def taken(self, statistics: dict[str, Any]) -> list[dict[str, Any]]:
        """`since` and `until` when, on the monotonic clock, and how many `times`; empty for none."""
        since, self._looked = self._looked, statistics["ts"] / 1e6
        eos = statistics["eos"]
        now, before = (eos["producer_id"], eos["producer_epoch"]), self._before
        if now[0] < 0 or now == before:  # the first has yet to come
            return []
        self._before = now
        if before is None:
            return []
        times = now[1] - before[1] if now[0] == before[0] else 1
        return [{"since": since, "until": self._looked, "times": times}]


def _identity(topic: str, value: Any, headers: Any) -> tuple[str, int] | None:
    """The order's id, and the attempt that this record ends."""
    if topic == OUT:
        output = msgspec.json.decode(value)
        return output["id"], output["attempt"]
    if topic == RETRY:
        return msgspec.json.decode(value)["id"], int(dict(headers)["relance-attempt"]) - 1
    if topic == DEAD:
        letter = msgspec.json.decode(value)
        return msgspec.json.decode(letter["originalValue"])["id"], letter["retryCount"] + 1
    return None
