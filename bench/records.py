"""What the topics of the benchmark hold, and which of it is bad.

Promise: the Java programs (`java/common`, Feeder and Work) know the same rules, so that all peers read one
topic.
"""

from __future__ import annotations

import json

PARTITIONS = 6
_KNUTH = 2654435761  # spreads neighbouring numbers over 32 bits
_SPAN = 1 << 32


def spread(number: int) -> float:
    """A number's own place in [0, 1): the same at each run."""
    return (number * _KNUTH % _SPAN) / _SPAN


def is_bad(number: int, fraction: float) -> bool:
    """Whether record `number` is one of the bad ones."""
    return number * _KNUTH % _SPAN < int(fraction * _SPAN)


def count_bad(n: int, fraction: float) -> int:
    """How many of the first `n` records are bad."""
    if not fraction:
        return 0
    limit = int(fraction * _SPAN)
    return sum(1 for number in range(n) if number * _KNUTH % _SPAN < limit)


def key(number: int, keys: int) -> bytes:
    """The record's key; every `keys`-th record has the same."""
    return b"k%d" % (number % keys)


def value(number: int, *, poisoned: bool = False, sent_us: int = 0) -> bytes:
    """About 95 bytes of JSON; a poisoned one has an amount that no handler takes."""
    amount = -50 if poisoned else 1 + number % 1000
    text = b'{"orderId":"ORD-%d","number":%d,"amount":%d,"status":"PENDING","customer":"c%05d"' % (
        number,
        number,
        amount,
        number % 9973,
    )
    return text + (b',"ts":%d}' % sent_us if sent_us else b"}")


def number_in(letter: bytes) -> int:
    """The number of the record that a dead letter is about: its own, or that of `originalValue`."""
    found = json.loads(letter)
    if "originalValue" in found:
        found = json.loads(found["originalValue"])
    return int(found["number"])
