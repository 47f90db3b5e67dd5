"""A consumer process, `python -m chaos.member CONFIG`: it retries, dead-letters, keeps the order of keys.

It uses relance as anybody would. Only before that: its clients are watched, and, where the rig asks for it,
a failpoint is armed or a mutant made, by replacing methods of the running engine.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Literal

import msgspec

from chaos import failpoints, mutants, watched, workload
from chaos.events import Log
from chaos.workload import Order, Output
from relance import App, Record, Reject, Retry, RetryPolicy, Settings, TransientError


class Config(msgspec.Struct):
    """How to consume."""

    name: str
    bootstrap: str
    events: str
    handoff: Literal["acknowledged", "transactional"]
    protocol: Literal["classic", "consumer"]
    failpoint: str = ""
    hits: int = 1
    """At which passage of the failpoint the process dies."""
    mutant: str = ""


def main() -> None:
    """Consume until SIGTERM."""
    config = msgspec.json.decode(sys.argv[1], type=Config)
    log = Log(Path(config.events) / f"{config.name}.jsonl")
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    watched.watch(log)
    if config.mutant:
        mutants.make(config.mutant)
    if config.failpoint:
        failpoints.arm(config.failpoint, config.hits, log)
    log.write("began", mutant=config.mutant, failpoint=config.failpoint)
    app_of(config, log).run()
    log.write("stopped")


def app_of(config: Config, log: Log) -> App:
    """The application."""
    client = {"client.id": config.name, "socket.timeout.ms": 6000}
    if config.protocol == "consumer":
        client["group.protocol"] = "consumer"
    app = App(
        workload.GROUP,
        settings=Settings(
            bootstrap_servers=config.bootstrap,
            session_timeout=6.0,
            heartbeat_interval=0.5,
            commit_interval=0.5,
            drain_timeout=workload.DRAIN,
            start_timeout=60.0,
            client=client,
        ),
    )

    @app.consumer(
        workload.SOURCE,
        ordering="key",
        concurrency=workload.CONCURRENCY,
        retry=RetryPolicy.exponential(
            max_attempts=workload.MAX_ATTEMPTS,
            initial_delay=workload.FIRST_DELAY,
            multiplier=workload.MULTIPLIER,
            jitter_factor=0.0,
        ),
        retry_topic=workload.RETRY,
        dead_letter_topic=workload.DEAD,
        max_in_memory_wait=workload.IN_MEMORY,
        handoff=config.handoff,
    )
    async def handle(order: Order, record: Record) -> None:
        place = (record.message.topic(), record.message.partition(), record.log_offset)
        log.write("start", id=order.id, key=order.key, attempt=record.attempt, place=place)
        await asyncio.sleep(order.work)
        record.send(workload.OUT, Output(order.id, record.attempt), key=order.id)
        if order.end == "reject":
            log.write("end", id=order.id, attempt=record.attempt, place=place, how="reject")
            raise Reject("it says so itself")
        if order.end == "exhaust" or record.attempt <= order.fail:
            log.write(
                "end",
                id=order.id,
                attempt=record.attempt,
                place=place,
                how="fail",
                delay=workload.delay_after(order, record.attempt),
            )
            raise Retry(order.after) if order.after is not None else TransientError("it says so itself")
        log.write("end", id=order.id, attempt=record.attempt, place=place, how="ok")

    return app


if __name__ == "__main__":
    main()
