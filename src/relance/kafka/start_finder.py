"""Asks where reading of partitions begins; the decision is `starts`.

Promises: each question is one for all partitions, however many there are; what may pass is asked again for a
time, and each answer is told. All calls come from the polling thread, which alone may use the client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaError, KafkaException

from relance.errors import BrokerUnavailableError, RelanceError, TopicMissingError, kafka_error
from relance.kafka.cluster import Committed, KafkaRefusedError, Watermarks, error_text
from relance.kafka.commits import read_committed_offsets
from relance.kafka.starts import Feed, Logs, Start, Telling, needs_ends, needs_others, starts_of
from relance.record import TopicPartition

__all__ = ["ASKING", "WAITED_FOR", "StartFinder", "passes"]

T = TypeVar("T")

ASKING = 10.0
"""Seconds for which each question is asked."""

# Fatal in the table, as they are for a producer; a consumer waits for the topic, and the watch says so.
WAITED_FOR = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,
     KafkaError.UNKNOWN_TOPIC_ID, KafkaError.INCONSISTENT_TOPIC_ID}
)  # fmt: skip


class StartFinder:
    """For one client. `others` asks for commits of partitions that others own, which may be in a transaction.

    `asking`: seconds for each question, unless `giving_up` says that there is no time. `answered` is called
    with each answer.
    """

    def __init__(
        self,
        client: Client,
        feed: Feed,
        logs: Logs,
        *,
        others: Callable[[Sequence[TopicPartition]], dict[TopicPartition, Committed]],
        asking: float,
        answered: Callable[[], None],
        giving_up: Callable[[], bool],
    ) -> None:
        self._client = client
        self._feed = feed
        self._logs = logs
        self._others = others
        self._asking = asking
        self._answered = answered
        self._giving_up = giving_up

    def starts(self, tps: list[TopicPartition]) -> list[Start]:
        """Where each begins, with log lines. Raises RelanceError where no answer comes, see `passes`."""
        if not tps:
            return []
        # First which topics they are: one that is made again meanwhile has another id for the watch then.
        seen = self._patiently(lambda: self._logs.seen({tp.topic for tp in tps}))
        committed = self._patiently(lambda: self._committed(tps))
        if others := needs_others(tps, committed, seen):
            committed |= self._patiently(lambda: self._others(sorted(others)))
        needed = needs_ends(tps, committed, seen)
        ends = self._patiently(lambda: self._ends(tps, needed))
        telling = Telling()
        starts = starts_of(tps, committed, ends, seen, self._feed, telling)
        telling.log()
        return starts

    def _ends(
        self, tps: list[TopicPartition], needed: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, Watermarks]:
        ends = self._logs.ends(tps)
        if missing := sorted(set(needed) - ends.keys()):
            code = KafkaError.LEADER_NOT_AVAILABLE
            raise KafkaRefusedError(
                f"say where {missing[0]} begins", "Kafka", "it has no leader, or is gone", code
            )
        return ends

    def _committed(self, tps: list[TopicPartition]) -> dict[TopicPartition, Committed]:
        # Short, and asked again: a stop must not wait until a crashed process's transaction is aborted.
        wait = min(10.0, self._asking / 6 if self._asking > ASKING else ASKING)
        try:
            return read_committed_offsets(self._client, tps, wait)
        except KafkaException as error:
            code = error.args[0].code()
            raise KafkaRefusedError("say where to start", "Kafka", error_text(error), code) from error

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask again while the answer is one that passes, for a time."""
        deadline = time.monotonic() + self._asking
        while True:
            try:
                answer = ask()
            except RelanceError as error:
                if not passes(error) or time.monotonic() > deadline or self._giving_up():
                    raise
                time.sleep(0.05)
            else:
                self._answered()
                return answer


def passes(error: RelanceError) -> bool:
    """Whether asking again may help: for a consumer, also where a topic is missing."""
    if isinstance(error, BrokerUnavailableError | TopicMissingError):
        return True
    code = error.code if isinstance(error, KafkaRefusedError) else None
    return code is not None and (kafka_error(code).retriable or code in WAITED_FOR)
