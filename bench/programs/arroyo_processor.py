"""Arroyo: one task on the consuming thread, its own policy for poison, a hundred threads for waiting."""

from __future__ import annotations

import time
from typing import Any

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.backends.kafka.configuration import build_kafka_consumer_configuration
from arroyo.dlq import DlqLimit, DlqPolicy, InvalidMessage, KafkaDlqProducer
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, RunTask, RunTaskInThreads
from arroyo.types import Message, Topic
from common import InvalidOrderError, Tally, letters_in, report, the_job, versions

THREADS, PENDING, DLQ_BUFFER = 100, 1000, 100_000


def main() -> None:
    job = the_job()
    tally = Tally(job)
    handle = tally.handler()
    wait = job.options.get("wait_ms", 0) / 1000

    def task(message: Message[KafkaPayload]) -> KafkaPayload:
        try:
            if wait:
                time.sleep(wait)
            handle(message.payload.value)
        except InvalidOrderError as error:
            raise InvalidMessage(message.value.partition, message.value.offset, reason=str(error)) from error
        return message.payload

    class Factory:
        def create_with_partitions(self, commit: Any, partitions: Any) -> Any:
            if wait:
                return RunTaskInThreads(
                    task, concurrency=THREADS, max_pending_futures=PENDING, next_step=CommitOffsets(commit)
                )
            return RunTask(task, CommitOffsets(commit))

        def shutdown(self) -> None:
            pass

    config = build_kafka_consumer_configuration(
        {"bootstrap.servers": job.bootstrap}, group_id=job.group, auto_offset_reset="earliest"
    )
    policy = None
    if job.work == "poison":
        letters = KafkaDlqProducer(
            KafkaProducer({"bootstrap.servers": job.bootstrap}), Topic(job.dead_letter_topic)
        )
        policy = DlqPolicy(letters, DlqLimit(), DLQ_BUFFER)
    processor = StreamProcessor(KafkaConsumer(config), Topic(job.topic), Factory(), dlq_policy=policy)
    tally.watch(then=processor.signal_shutdown, dead=letters_in(job) if policy else None)
    processor.run()
    settings = {
        "client": {name: value for name, value in config.items() if isinstance(value, str | int | float)},
        "strategy": f"RunTaskInThreads({THREADS}, {PENDING})" if wait else "RunTask",
        "dlq_max_buffered": DLQ_BUFFER if policy else None,
    }
    report(tally, settings, versions("sentry-arroyo", "confluent-kafka", "msgspec"))


main()
