"""A loop by hand over kafka-python: batches of a thousand, a commit each second."""

from __future__ import annotations

import time

from common import InvalidOrderError, Tally, envelope, report, the_job, versions

from kafka import KafkaConsumer, KafkaProducer

BATCH = 1000


def main() -> None:
    job = the_job()
    settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False}
    consumer = KafkaConsumer(job.topic, bootstrap_servers=job.bootstrap, group_id=job.group, **settings)
    producer = KafkaProducer(bootstrap_servers=job.bootstrap, linger_ms=5)
    tally = Tally(job)
    handle = tally.handler()
    tally.watch()
    committed = time.monotonic()
    while not tally.complete:
        batches = consumer.poll(1000, max_records=BATCH)
        letters = []
        for tp, messages in batches.items():
            for message in messages:
                try:
                    handle(message.value)
                except InvalidOrderError as error:
                    letter = envelope(
                        tp.topic, tp.partition, message.offset, message.key, message.value, error
                    )
                    letters.append(producer.send(job.dead_letter_topic, letter, message.key))
        if letters:
            producer.flush()
            for sent in letters:
                sent.get(10)
            tally.dead += len(letters)
        if batches and time.monotonic() - committed > 1:
            consumer.commit()
            committed = time.monotonic()
    tally.finished.wait()
    consumer.commit()
    consumer.close()
    producer.close()
    settings = {"client": settings, "batch": BATCH, "commit": "each second", "producer": {"linger_ms": 5}}
    report(tally, settings, versions("kafka-python", "msgspec"))


main()
