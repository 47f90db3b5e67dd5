"""A producer process, `python -m chaos.feeder CONFIG`: what it was acknowledged is what must not be lost."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from chaos.events import Log
from chaos.workload import SOURCE, Order, draw

GIVES_UP = 120.0  # seconds
# Records that are not acknowledged. With more, an idempotent producer spins while a broker is away (see
# relance.kafka.producer.IN_FLIGHT): two feeders took both cores, and no killed broker got up again.
_WAITING = 5
_CATCHES_UP = 1.0  # seconds; what could not be sent before is not made up for


class Config(msgspec.Struct):
    """How to feed."""

    name: str
    bootstrap: str
    events: str
    seed: int
    rate: float
    """Records a second."""


def main() -> None:
    """Feed until SIGTERM, then wait for what is out."""
    config = msgspec.json.decode(sys.argv[1], type=Config)
    log = Log(Path(config.events) / f"{config.name}.jsonl")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    producer = Producer(
        {
            "bootstrap.servers": config.bootstrap,
            "client.id": config.name,
            "acks": "all",
            "enable.idempotence": True,
            # One that is given up while it may be on its way can stand in the log twice, idempotence or not.
            "message.timeout.ms": int(GIVES_UP * 1000),
            "linger.ms": 2,
            "partitioner": "murmur2_random",
            "log_level": 0,
        }
    )
    chance = random.Random(f"{config.seed}-{config.name}")
    due, number = time.monotonic(), 0
    while not stop.is_set():
        producer.poll(0.005)
        now = time.monotonic()
        due = max(due, now - _CATCHES_UP)
        while due <= now and len(producer) < _WAITING:
            _send(producer, log, draw(config.name, number, chance))
            number += 1
            due += 1.0 / config.rate
    left = producer.flush(GIVES_UP)
    log.write("fed", sent=number, unanswered=left)


def _send(producer: Producer, log: Log, order: Order) -> None:
    def answered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            log.write(
                "produced", id=order.id, partition=message.partition(), offset=message.offset(), key=order.key
            )
        else:
            log.write("unproduced", id=order.id, error=error.str())

    value: Any = msgspec.json.encode(order)
    producer.produce(SOURCE, value, order.key.encode(), on_delivery=answered)


if __name__ == "__main__":
    main()
