"""A consumer process for the tests, `python member.py CONFIG.json`: it tells on stdout what happens.

A JSON a line: {"event": "assigned"|"revoked"|"lost", "partitions": [...]}, {"event": "start"|"end", "id",
"partition", "offset", "attempt", "at"}, {"event": "loop", "module"},
{"event": "opened", "reason", "last_error"}, {"event": "stopped"}.
`at` is the monotonic clock of all processes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from relance import (
    App,
    CircuitBreaker,
    CircuitBreakerOpen,
    Record,
    Reject,
    RetryPolicy,
    Settings,
    TopicPartition,
    TransientError,
)

config: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
lock = threading.Lock()

ENDS: dict[str, BaseException] = {
    "exit": SystemExit(0),
    "interrupt": KeyboardInterrupt(),
    "generator": GeneratorExit(),
    "group": BaseExceptionGroup("two", [SystemExit(0), KeyboardInterrupt()]),
}


def tell(event: str, **more: object) -> None:
    line = json.dumps({"event": event, "at": time.monotonic(), **more})
    with lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
app = App(
    config["group"],
    settings=Settings(
        bootstrap_servers=config["bootstrap"],
        session_timeout=6.0,
        heartbeat_interval=0.5,
        commit_interval=config.get("commit_interval", 0.2),
        drain_timeout=config.get("drain_timeout", 8.0),
        start_timeout=config.get("start_timeout", 10.0),
        event_loop=config.get("event_loop", "auto"),
        client=config.get("client", {}),
    ),
)


@app.on_assigned
def assigned(partitions: list[TopicPartition]) -> None:
    tell("assigned", partitions=[p.partition for p in partitions], thread=threading.current_thread().name)


@app.on_revoked
def revoked(partitions: list[TopicPartition]) -> None:
    tell("revoked", partitions=[p.partition for p in partitions], thread=threading.current_thread().name)


@app.on_lost
def lost(partitions: list[TopicPartition]) -> None:
    tell("lost", partitions=[p.partition for p in partitions])


@app.on_breaker_open
def opened(what: CircuitBreakerOpen) -> None:
    tell("opened", reason=what.reason, last_error=what.last_error)


def ask(value: dict[str, Any]) -> None:
    """Call the service that the handler needs, if it needs one."""
    if "service" not in config:
        return
    request = urllib.request.Request(config["service"], data=value["id"].encode())
    try:
        with urllib.request.urlopen(request, timeout=config.get("patience", 5.0)):
            pass
    except urllib.error.URLError as error:
        raise TransientError(str(error)) from error


def begin(value: dict[str, Any], record: Record) -> float:
    tell(
        "start",
        id=value["id"],
        partition=record.partition,
        offset=record.offset,
        attempt=record.attempt,
        thread=threading.current_thread().name,
    )
    if "exit" in value:
        sys.exit(value["exit"])
    if value.get("end", "task") != "task":
        raise ENDS[value["end"]]
    if value.get("abort") or record.attempt == value.get("abort_at"):
        os.abort()
    if value.get("reject"):
        raise Reject("asked to")
    if (topic := config.get("out")) is not None:
        record.send(topic, value, key=record.key)
    if record.attempt <= value.get("fail", 0):
        raise TransientError(f"attempt {record.attempt} was asked to fail")
    return float(value.get("work", config.get("work", 0.0)))


async def leave() -> None:
    sys.exit(0)


def end(value: dict[str, Any], record: Record) -> None:
    if config.get("output"):
        record.send(config["output"], {"id": value["id"]}, key=value["id"])
    if "large" in value:
        record.send(config["small_topic"], "x" * value["large"])
    tell("end", id=value["id"], partition=record.partition, offset=record.offset, attempt=record.attempt)


options: dict[str, Any] = {
    "retry": RetryPolicy.exponential(
        max_attempts=config.get("max_attempts", 4), initial_delay=config.get("delay", 0.2), max_delay=600.0
    ),
    "retry_topic": config.get("retry_topic"),
    "dead_letter_topic": config.get("dead_letter_topic"),
    "ordering": config.get("ordering", "key"),
    "max_in_memory_wait": config.get("max_in_memory_wait", 10.0),
    "assignor": config.get("assignor"),
    "breaker": CircuitBreaker(**config["breaker"]) if "breaker" in config else None,
    "handoff": config.get("handoff", "acknowledged"),
    "max_crashes": config.get("max_crashes", 2),
}

if config.get("batch"):

    @app.consumer(config["topic"], batch=config["batch"], **options)
    def handle_all(values: list[dict], records: list[Record]) -> None:  # type: ignore[type-arg]
        for value, record in zip(values, records, strict=True):
            begin(value, record)
        for value, record in zip(values, records, strict=True):
            end(value, record)

elif config.get("sync"):

    @app.consumer(config["topic"], concurrency=config.get("concurrency", 1), **options)
    def handle(value: dict, record: Record) -> None:  # type: ignore[type-arg]
        work = begin(value, record)
        ask(value)
        if work:
            threading.Event().wait(work)  # a sync handler that really blocks
        end(value, record)

else:

    @app.consumer(config["topic"], concurrency=config.get("concurrency", 8), **options)
    async def handle_async(value: dict, record: Record) -> None:  # type: ignore[type-arg]
        if value.get("tell_loop"):
            tell("loop", module=type(asyncio.get_running_loop()).__module__)
        work = begin(value, record)
        if "end" in value:  # a task of the handler's own: what ends it comes out of the loop
            await asyncio.ensure_future(leave())
        await asyncio.to_thread(ask, value)
        deadline = time.monotonic() + work
        while work and (left := deadline - time.monotonic()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                if not config.get("swallow"):
                    raise
        end(value, record)


app.run()
tell("stopped")
