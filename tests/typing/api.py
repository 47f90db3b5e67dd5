"""What a user writes, for the type checker: it must find nothing here, and no Any where a type is promised.

Not run. `mypy` reads it with the sources; `assert_type` fails there.
"""

from __future__ import annotations

from typing import Any, assert_type

from relance import (
    App,
    CircuitBreaker,
    CircuitBreakerOpen,
    CircuitBreakerStats,
    DeadLetter,
    Delivery,
    Health,
    Record,
    Reject,
    Retry,
    RetryPolicy,
    Sent,
    Settings,
    Stats,
    TopicPartition,
    TransientError,
)

app = App("group", bootstrap_servers="localhost:9092", client={"security.protocol": "PLAINTEXT"})
other = App("group", settings=Settings(commit_interval=0.5))
policy = RetryPolicy.exponential(max_attempts=4, retry_on=(TransientError, lambda error: 1.5))
assert_type(policy.delays(), list[float])


@app.consumer("orders", retry=policy, retry_topic="orders.retry", dead_letter_topic="orders.DLT")
async def handle(value: dict[str, Any], record: Record) -> None:
    assert_type(record.key, bytes | None)
    assert_type(record.headers, list[tuple[str, bytes | None]])
    if not value:
        raise Retry(after=2.0)
    sent = await app.send("other", {"x": 1}, key="k")
    assert_type(sent, Sent)
    assert_type(sent.offset, int)


@other.consumer("orders", breaker=CircuitBreaker(errors=(ConnectionError, lambda error: True)))
def plain(value: bytes) -> None:
    raise Reject("never")


@app.on_revoked
def leaving(partitions: list[TopicPartition]) -> None:
    assert_type(partitions[0].partition, int)


@app.on_breaker_open
def alert(opened: CircuitBreakerOpen) -> None:
    assert_type(opened.last_error, str | None)


async def use() -> None:
    await handle({}, Record.__new__(Record))  # the decorated function stays what it was
    plain(b"")
    leaving([])
    async with app.running():
        assert_type(app.stats(), Stats)
        assert_type(app.stats().circuit_breakers, tuple[CircuitBreakerStats, ...])
        assert_type(app.health(), Health)
        assert_type(app.assignment(), list[TopicPartition])
        assert_type(app.dead_letters("orders.DLT").latest(3), list[DeadLetter])
        assert_type(app.send("t", None), Delivery)
        assert_type(app.table("state").get("key"), dict[str, Any] | None)
