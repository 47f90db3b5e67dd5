"""What all Python programs share: the job, the typed record, the tally of what was handled, the last line.

Promise: the same few instructions for each record in each of them: decode, look at the amount, note the
number. What was handled how often, and in which order, is found out after the clock has stopped.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import resource
import sys
import threading
import time
from array import array
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

logging.basicConfig(level=logging.WARNING, stream=sys.stderr)

_KNUTH, _SPAN = 2654435761, 1 << 32


class Order(msgspec.Struct):
    """The value, as each handler gets it."""

    orderId: str
    number: int
    amount: float
    status: str
    customer: str = ""
    ts: int = 0


class InvalidOrderError(Exception):
    """The amount of an order can't be meant: a poison record."""


class NotYetError(ConnectionError):
    """The service behind the handler doesn't answer now: worth a retry."""


decode = msgspec.json.Decoder(Order).decode


class Job(msgspec.Struct, kw_only=True):
    """One run, as the benchmark asks for it."""

    work: str
    peer: str
    bootstrap: str
    topic: str
    group: str
    n: int
    keys: int = 1000
    bad_fraction: float = 0.0
    bad: int = 0
    dead_letter_topic: str = ""
    retry_topic: str = ""
    options: dict[str, Any] = {}

    @property
    def good(self) -> int:
        """How many records a handler takes at last."""
        return self.n - self.bad if self.work == "poison" else self.n

    def is_bad(self, number: int) -> bool:
        return number * _KNUTH % _SPAN < int(self.bad_fraction * _SPAN)


def spread(number: int) -> float:
    return (number * _KNUTH % _SPAN) / _SPAN


def the_job() -> Job:
    return msgspec.json.decode(sys.argv[1], type=Job)


class Tally:
    """Which records were handled, in the order of their handling, and when it began and ended.

    `done(number)` is the whole cost of it: an append to an array. A thread looks a hundred times a second how
    long the array is.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.numbers = array("L" if array("I").itemsize < 4 else "I")
        self.done = self.numbers.append
        self.dead = 0  # dead letters that are acknowledged
        self.started = self.ended = 0.0
        self.started_cpu = self.ended_cpu = 0.0
        self.finished = threading.Event()

    def handler(self) -> Callable[[bytes], None]:
        """What the loops by hand call for each record: a user's function, as relance calls one."""
        done = self.done

        def handle(value: bytes) -> None:
            order = decode(value)
            if order.amount <= 0:
                raise InvalidOrderError("Invalid amount")
            done(order.number)

        return handle

    @property
    def complete(self) -> bool:
        """Whether as many as there are were handled, or given up with their letter acknowledged."""
        return len(self.numbers) + self.dead >= self.job.n

    def watch(
        self, then: Callable[[], object] = lambda: None, dead: Callable[[], int] | None = None
    ) -> threading.Thread:
        """Take the times from now on; at the end call `then`. `dead` counts acknowledged letters, unless the
        program itself does."""

        def look() -> None:
            while not self.numbers and not self.dead:
                time.sleep(0.001)
            self.started, self.started_cpu = time.perf_counter(), time.process_time()
            while not self.complete:
                if dead is not None and len(self.numbers) >= self.job.good:
                    self.dead = dead()
                    time.sleep(0.002)
                else:
                    time.sleep(0.01)
            self.ended, self.ended_cpu = time.perf_counter(), time.process_time()
            self.finished.set()
            then()

        thread = threading.Thread(target=look, name="tally", daemon=True)
        thread.start()
        return thread

    def summary(self) -> dict[str, Any]:
        """Seconds and speed, and whether each record was handled exactly once."""
        n, keys = self.job.n, self.job.keys
        seen = bytearray(n)
        last = [-1] * keys
        strange = disorder = duplicates = checksum = 0
        for number in self.numbers:
            if number >= n:
                strange += 1
                continue
            if seen[number]:
                duplicates += 1
                continue
            seen[number] = 1
            checksum += number
            place = number % keys
            if number < last[place]:
                disorder += 1
            else:
                last[place] = number
        seconds = self.ended - self.started
        total = len(self.numbers) + self.dead
        return {
            "n": n,
            "seconds": round(seconds, 4),
            "records_per_s": round(total / seconds, 1) if seconds > 0 else None,
            "handled": len(self.numbers) - duplicates - strange,
            "dead_lettered": self.dead,
            "checksum": checksum,
            "duplicates": duplicates,
            "unknown": strange,
            "key_disorder": disorder,
            "cpu_seconds": round(self.ended_cpu - self.started_cpu, 3),
            "max_rss_mb": max_rss_mb(),
        }


def max_rss_mb() -> float:
    """The most memory that this process has had resident, in MB."""
    try:
        status = Path("/proc/self/status").read_text()  # getrusage would count what started us, too
        return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(most / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)


def rss_mb() -> float:
    """What it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def percentile(values: list[float], share: float) -> float | None:
    """The value that `share` of all do not pass (nearest rank); None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1e6) * len(ordered) // 1_000_000) - 1))]


def letters_in(job: Job) -> Callable[[], int]:
    """For peers that don't say when a dead letter is acknowledged: asks the broker how many there are."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": job.bootstrap, "group.id": "bench-looks"})

    def count() -> int:
        partitions = consumer.list_topics(job.dead_letter_topic, timeout=10).topics[job.dead_letter_topic]
        ends = (
            consumer.get_watermark_offsets(TopicPartition(job.dead_letter_topic, partition), timeout=10)
            for partition in partitions.partitions
        )
        return sum(high for _, high in ends)

    return count


def versions(*names: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in names:
        found[name] = version(name)
        if name == "confluent-kafka":
            import confluent_kafka

            found["librdkafka"] = confluent_kafka.libversion()[0]
    return found


def envelope(
    topic: str, partition: int | None, offset: int | None, key: bytes | None, value: bytes, error: Exception
) -> bytes:
    """A dead letter as people write it by hand."""
    return json.dumps(
        {
            "originalTopic": topic,
            "originalPartition": partition,
            "originalOffset": offset,
            "originalKey": None if key is None else key.decode(),
            "originalValue": value.decode(),
            "errorMessage": f"{type(error).__name__}: {error}",
            "errorTimestamp": time.time(),
            "retryCount": 0,
        }
    ).encode()


def say(line: Mapping[str, Any]) -> None:
    """One line for the benchmark to read, also where a peer has taken the standard output away."""
    print(json.dumps(line), file=sys.__stdout__, flush=True)


def report(tally: Tally, settings: Mapping[str, Any], names: dict[str, str], **more: Any) -> None:
    """The last line of a program."""
    say({**tally.summary(), **more, "settings": dict(settings), "versions": names})


def leave() -> None:
    """End at once: for peers that take long to stop after all is told."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
