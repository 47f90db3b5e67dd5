"""FastStream on confluent-kafka: one subscriber, acknowledged by default; a hundred workers for waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from common import InvalidOrderError, Tally, decode, envelope, leave, report, the_job, versions
from faststream import AckPolicy
from faststream.confluent import KafkaBroker, KafkaMessage

WORKERS = 100


async def main() -> None:
    job = the_job()
    broker = KafkaBroker(job.bootstrap, logger=None)
    tally = Tally(job)
    done = tally.done
    wait = job.options.get("wait_ms", 0) / 1000
    # Several workers go with acknowledging first only: its own rule.
    how: dict[str, Any] = {"max_workers": WORKERS} if wait else {"ack_policy": AckPolicy.ACK}
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def raw(message: KafkaMessage) -> bytes:
        return message.body

    @broker.subscriber(job.topic, decoder=raw, group_id=job.group, auto_offset_reset="earliest", **how)
    async def handle(body: bytes) -> None:
        try:
            order = decode(body)
            if order.amount <= 0:
                raise InvalidOrderError("Invalid amount")
            if wait:
                await asyncio.sleep(wait)
            done(order.number)
        except InvalidOrderError as error:
            letter = envelope(job.topic, None, None, None, body, error)
            await broker.publish(letter, job.dead_letter_topic)  # returns when it is acknowledged
            tally.dead += 1

    tally.watch(then=lambda: loop.call_soon_threadsafe(ended.set))
    await broker.start()
    await ended.wait()
    await broker.stop()
    settings = {name: str(value) for name, value in how.items()}
    report(tally, {"subscriber": settings}, versions("faststream", "confluent-kafka", "msgspec", "uvloop"))
    leave()


uvloop.run(main())
