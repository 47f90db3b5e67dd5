"""Records that nobody would write on purpose: handled or dead-lettered, byte for byte, and nothing stops."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
import wire
from confluent_kafka import Producer

from relance import App, DeadLetter, DecodeError, Record, RetryPolicy, Settings
from relance.engine.deferral import defer, to_headers
from relance.kafka.admin import Admin
from relance.kafka.browse import Browser
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
# What the client refuses to write, and so is written byte by byte.
BY_HAND = {
    "no time, which is -1": wire.Raw(b"x", b"k"),
    "a header's name that is no UTF-8": wire.Raw(b"x", b"k", ((b"\xff\xfe", b"1"), (b"good", b"2"))),
    "a header's name of 40,000 bytes": wire.Raw(b"x", b"k", ((b"n" * 40_000, None),)),
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
    assert producer.flush(20) == 0
    for raw in BY_HAND.values():
        wire.write(bootstrap, topic, raw)
    producer.produce(topic, GOOD, b"last")
    assert producer.flush(20) == 0
    app = App(f"g-{topic}", settings=Settings(bootstrap_servers=bootstrap, commit_interval=0.2))
    handled: list[int] = []

    @app.consumer(topic, dead_letter_topic=dlt, ordering=ordering, concurrency=4)
    async def handle(order: Order, record: Record) -> None:
        assert (order.orderId, order.amount) == ("good", 1)
        handled.append(record.offset)

    offsets = dict(enumerate([*CORPUS, *BY_HAND]))
    dead = [offset for offset, name in offsets.items() if name in BY_HAND or CORPUS[name].why]
    letters: list[DeadLetter] = []

    async def main() -> None:
        async with app.running():
            looking = app.dead_letters(dlt)
            await asyncio.to_thread(wait_until, lambda: looking.count() == len(dead), 30.0)
            await asyncio.to_thread(wait_until, lambda: len(offsets) in handled, 10.0)
            letters.extend(await asyncio.to_thread(looking.latest, 100))
            assert app.health().status == "UP", app.health()

    asyncio.run(main())
    assert sorted(handled) == sorted({*offsets, len(offsets)} - set(dead))
    found = {letter.original_offset: letter for letter in letters}
    assert sorted(found) == dead
    for offset in dead:
        name, letter = offsets[offset], found[offset]
        assert letter.retry_count == 0
        json.dumps(letter.error_message)
        if name in BY_HAND:
            continue
        bad = CORPUS[name]
        assert bad.why in letter.error_message, (name, letter.error_message)
        assert (letter.value_bytes(), letter.key_bytes()) == (bad.value, bad.key)
        assert letter.header_items() == list(bad.headers)
    by_hand = {offsets[offset]: found[offset] for offset in dead if offsets[offset] in BY_HAND}
    timeless, unnamed, long = (by_hand[name] for name in BY_HAND)
    assert {letter.value_bytes() for letter in by_hand.values()} == {b"x"}
    assert (timeless.original_timestamp, timeless.header_items()) == (None, [])
    assert unnamed.trimmed == ("originalHeaders",)
    with pytest.raises(DecodeError, match=f"read the original record at {topic}-0@"):
        unnamed.header_items()
    assert long.header_items() == [("n" * 40_000, None)]
    committed = Admin(bootstrap).committed(f"g-{topic}")
    assert [c.offset for tp, c in committed.items() if tp.topic == topic] == [len(offsets) + 1]
    # Who looks into the topic is told, too.
    problems = {offsets.get(record.offset): record.problem for record in Browser(bootstrap).latest(topic, 4)}
    assert "a header's name is not UTF-8" in problems["a header's name that is no UTF-8"]
    assert [name for name, problem in problems.items() if problem] == ["a header's name that is no UTF-8"]


# -- the retry topic: anybody may have written there -----------------------------------------------------

FORGED: dict[str, tuple[dict[str, bytes | None], str]] = {
    "attempt -1": ({"attempt": b"-1"}, "relance-attempt is -1"),
    "attempt 0": ({"attempt": b"0"}, "relance-attempt is 0"),
    "attempt 1,000,000,000": ({"attempt": b"1000000000"}, "relance-attempt is 1000000000"),
    "attempt of another dialect": ({"attempt": b"\0\0\0\2"}, "relance-attempt is not a whole number"),
    "an unknown version": ({"version": b"2"}, "relance-version 2 is unknown"),
    "another origin": ({"origin-topic": b"payments"}, "relance-id does not name its own origin"),
    "an origin that is no topic": ({"origin-topic": b"../x"}, "relance-origin-topic is not a topic's name"),
    "due before the epoch": ({"due": b"-1"}, "relance-due is -1"),
    "due of 5,000 digits": ({"due": b"9" * 5000}, "relance-due is not a whole number"),
    "a history cut short": ({"history": b'[{"attempt":1,"err'}, "relance-history: "),
    "a null where a text belongs": ({"last-error": None}, "relance-last-error is null"),
    "an empty group": ({"group": b""}, "relance-group is empty"),
}


def test_a_forged_retry_record_is_dead_lettered_whole_once_and_never_loops(
    bootstrap: str, make_topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    topic, retry, dlt = make_topic("forged", 1), make_topic("forged-retry", 1), make_topic("forged-dlt", 1)
    group = f"g-{topic}"
    settings = Settings(bootstrap_servers=bootstrap, commit_interval=0.2)
    app = App(group, settings=settings)
    handled: list[tuple[bytes | None, int]] = []

    @app.consumer(
        topic, retry=RetryPolicy.fixed(1.0), retry_topic=retry, dead_letter_topic=dlt, max_in_memory_wait=0.0
    )
    async def handle(value: bytes, record: Record) -> None:
        handled.append((record.key, record.attempt))

    def headers(offset: int, changes: dict[str, bytes | None]) -> list[tuple[str, bytes | None]]:
        made = defer(
            group=group,
            topic=topic,
            partition=0,
            offset=offset,
            timestamp=None,
            attempt=2,
            delay=0.1,
            now=time.time(),
            error="TransientError: down",
        )
        named = {f"relance-{name}": value for name, value in changes.items()}
        return [(name, named.get(name, value)) for name, value in to_headers(made, [("mine", b"1")])]

    year_9999: dict[str, bytes | None] = {"due": b"253402300799999", "delay-ms": b"9223372036854775807"}
    written = {name: headers(7, changes) for name, (changes, _) in FORGED.items()}
    written |= {"no headers of ours": [("mine", b"1")], "good": headers(8, {}), "year": headers(9, year_9999)}
    dead = {name: why for name, (_, why) in FORGED.items()} | {
        "no headers of ours": "relance-group is missing"
    }
    producer = Producer({"bootstrap.servers": bootstrap})
    for name, given in written.items():
        producer.produce(retry, name.encode(), name.encode(), headers=given)
    assert producer.flush(20) == 0
    letters: list[DeadLetter] = []

    async def main() -> None:
        async with app.running():
            looking = app.dead_letters(dlt)
            await asyncio.to_thread(wait_until, lambda: handled and app.stats().waiting == 1, 20.0)
            await asyncio.to_thread(wait_until, lambda: looking.count() == len(dead), 20.0)
            letters.extend(await asyncio.to_thread(looking.latest, 100))
            assert app.health().status == "UP", app.health()

    asyncio.run(main())
    assert handled == [(b"good", 2)]
    assert "its headers are damaged or forged" in caplog.text  # those of the year 9999: it waits for a day
    found = {letter.original_key: letter for letter in letters}
    assert found.keys() == dead.keys()
    for name, letter in found.items():
        assert letter.error_message.startswith(f"DecodeError: retry headers: {dead[name]}")
        assert (letter.value_bytes(), letter.header_items()) == (name.encode(), written[name])
        assert letter.retry_count == 0
    admin = Admin(bootstrap)
    assert admin.watermarks(retry)[0].end == len(written)  # nothing was written there again
    stored = [c.offset for tp, c in admin.committed(f"{group}.retry").items() if tp.topic == retry]
    assert stored == [list(written).index("year")]  # the only one that still waits
