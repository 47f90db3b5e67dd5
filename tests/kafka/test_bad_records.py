"""Records that nobody would write on purpose: handled or dead-lettered, byte for byte, and nothing stops."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from confluent_kafka import Producer

from relance import App, DeadLetter, Record, Settings
from relance.kafka.admin import Admin
from waiting import wait_until

MAX_LETTER = 8 * 1024 * 1024
LARGEST = 1_048_000  # bytes; a broker takes 1,048,588 with all that belongs to it
GOOD = b'{"orderId":"good","amount":1}'


class Order(msgspec.Struct):
    orderId: str
    amount: float


class Bad(NamedTuple):
    """`why`: what the letter says; empty where the record is fine after all."""

    value: bytes | None
    why: str = ""
    key: bytes | None = b"k"
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp: int = 0


CORPUS = {
    "null value": Bad(None, "null value"),
    "empty value": Bad(b"", "empty value"),
    "null key": Bad(GOOD, key=None),
    "empty key": Bad(GOOD, key=b""),
    "key that is no UTF-8": Bad(b"x", "malformed", key=b"\xff\xfe"),
    "value that is no UTF-8": Bad(b'{"orderId":"\xff","amount":1}', "UTF-8"),
    "half an object": Bad(b'{"orderId":"a"', "truncated"),
    "nested too deeply": Bad(b'{"x":' + b"[" * 100_000, "nested too deeply"),
    "5,000 digits": Bad(b'{"orderId":"a","amount":' + b"9" * 5000 + b"}", "amount"),
    "NaN": Bad(b'{"orderId":"a","amount":NaN}', "invalid"),
    "1e400": Bad(b'{"orderId":"a","amount":1e400}', "out of range"),
    "another type": Bad(b'{"orderId":1,"amount":"x"}', "Expected"),
    "a list": Bad(b"[]", "Expected"),
    "JSON null": Bad(b"null", "Expected"),
    "a byte order mark": Bad(b"\xef\xbb\xbf" + GOOD, "malformed"),
    "repeated header names": Bad(b"x", "malformed", headers=(("a", b"1"), ("a", b"2"), ("a", None))),
    "null header value": Bad(b"x", "malformed", headers=(("a", None),)),
    "header that is no UTF-8": Bad(b"x", "malformed", headers=(("a", b"\xff\x00"),)),
    "empty header name": Bad(b"x", "malformed", headers=(("", b"1"),)),
    "20,000 headers": Bad(b"x", "malformed", headers=tuple((f"h{i}", b"1") for i in range(20_000))),
    "our own headers, forged": Bad(b"x", "malformed", headers=(("relance-attempt", b"-1"),)),
    "as large as can be": Bad(b"x" * LARGEST, "malformed"),
    "a script": Bad(b"<script>alert(1)</script>", "malformed"),
    "ANSI escapes": Bad(b"\x1b[2J\x1b]0;owned\x07", "malformed"),
    "a compression bomb": Bad(gzip.compress(bytes(50_000_000)), "malformed"),
    "a time before Kafka": Bad(b"x", "malformed", timestamp=1),
}


@pytest.mark.parametrize("ordering", ["partition", "key"])
def test_each_ends_where_it_belongs_and_the_partition_goes_on(
    bootstrap: str, make_topic: Callable[..., str], ordering: Any
) -> None:
    topic, dlt = make_topic("bad", 1), make_topic("bad-dlt", 1, max_message_bytes=MAX_LETTER)
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 2_000_000})
    for bad in CORPUS.values():
        headers = list(bad.headers) or None
        producer.produce(topic, bad.value, bad.key, headers=headers, timestamp=bad.timestamp)
    producer.produce(topic, GOOD, b"last")
    assert producer.flush(20) == 0
    app = App(f"g-{topic}", settings=Settings(bootstrap_servers=bootstrap, commit_interval=0.2))
    handled: list[int] = []

    @app.consumer(topic, dead_letter_topic=dlt, ordering=ordering, concurrency=4)
    async def handle(order: Order, record: Record) -> None:
        assert (order.orderId, order.amount) == ("good", 1)
        handled.append(record.offset)

    offsets = dict(enumerate(CORPUS))
    dead = [offset for offset, name in offsets.items() if CORPUS[name].why]
    letters: list[DeadLetter] = []

    async def main() -> None:
        async with app.running():
            looking = app.dead_letters(dlt)
            await asyncio.to_thread(wait_until, lambda: looking.count() == len(dead), 30.0)
            await asyncio.to_thread(wait_until, lambda: len(CORPUS) in handled, 10.0)
            letters.extend(await asyncio.to_thread(looking.latest, 100))
            assert app.health().status == "UP", app.health()

    asyncio.run(main())
    assert sorted(handled) == sorted({*offsets, len(CORPUS)} - set(dead))
    found = {letter.original_offset: letter for letter in letters}
    assert sorted(found) == dead
    for offset in dead:
        bad, letter = CORPUS[offsets[offset]], found[offset]
        assert bad.why in letter.error_message, (offsets[offset], letter.error_message)
        assert (letter.value_bytes(), letter.key_bytes()) == (bad.value, bad.key)
        assert letter.header_items() == list(bad.headers)
        assert letter.retry_count == 0
        json.dumps(letter.error_message)
    committed = Admin(bootstrap).committed(f"g-{topic}")
    assert [c.offset for tp, c in committed.items() if tp.topic == topic] == [len(CORPUS) + 1]
