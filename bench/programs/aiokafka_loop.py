"""A loop by hand over aiokafka: batches of a thousand, a commit each second."""

from __future__ import annotations

import time

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from common import InvalidOrderError, Tally, decode, envelope, report, the_job, versions

BATCH = 1000


async def main() -> None:
    job = the_job()
    settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False}
    where = {"bootstrap_servers": job.bootstrap}
    consumer = AIOKafkaConsumer(job.topic, group_id=job.group, **where, **settings)
    producer = AIOKafkaProducer(**where)
    tally = Tally(job)
    done, handle = tally.done, tally.handler()
    await consumer.start()
    await producer.start()

    async def handle_async(value: bytes) -> None:
        order = decode(value)
        if order.amount <= 0:
            raise InvalidOrderError("Invalid amount")
        done(order.number)

    tally.watch()
    committed = time.monotonic()
    while not tally.complete:
        batches = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
        letters = 0
        for tp, messages in batches.items():
            for message in messages:
                try:
                    if job.work == "async":
                        await handle_async(message.value)
                    else:
                        handle(message.value)
                except InvalidOrderError as error:
                    letters += 1
                    letter = envelope(
                        tp.topic, tp.partition, message.offset, message.key, message.value, error
                    )
                    await producer.send(job.dead_letter_topic, letter, message.key)
        if letters:
            await producer.flush()
            tally.dead += letters
        if batches and time.monotonic() - committed > 1:
            await consumer.commit()
            committed = time.monotonic()
    tally.finished.wait()
    await consumer.commit()
    await consumer.stop()
    await producer.stop()
    report(
        tally,
        {"client": settings, "batch": BATCH, "commit": "each second"},
        versions("aiokafka", "msgspec", "uvloop"),
    )


uvloop.run(main())
