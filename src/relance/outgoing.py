"""What is written about a failed record: the retry record and the dead letter, as topic, key, value, headers.

Pure; promise: key and value go on untouched, and a record that cannot be copied whole, or a dead letter that
cannot be made to fit, is said to be so rather than cut.
"""

from __future__ import annotations

from functools import partial

import msgspec

from relance.dead_letters.envelope import build, metadata_headers
from relance.dead_letters.ladder import HEADER_OVERHEAD, RECORD_OVERHEAD, TooLarge, fit
from relance.dead_letters.masking import masked
from relance.dead_letters.telling import OPEN, Teller, teller_of
from relance.engine.deferral import Failure, defer, to_headers
from relance.errors import DecodeError, MaxRetriesExceededError
from relance.message import headers_of
from relance.policies.masking import Mask
from relance.record import HeaderList, Outgoing, Record

__all__ = [
    "LARGEST",
    "MAX_RECORD",
    "dead_letter",
    "once_more",
    "read_headers",
    "retry_record",
    "size_of",
    "told_with",
]

MAX_RECORD = 1_000_000
"""Bytes of a record with all that belongs to it that a topic takes, where nobody knows better: a little below
the broker's default, 1,048,588."""

NOTHING_HIDDEN = Mask()

LARGEST = 100_000_000
"""Bytes: what we never go beyond, below the broker's `socket.request.max.bytes`."""


def size_of(outgoing: Outgoing) -> int:
    """Bytes that it takes in its topic; never too few."""
    headers = sum(
        len(name.encode("utf-8", "surrogatepass")) + len(value or b"") + HEADER_OVERHEAD
        for name, value in outgoing.headers
    )
    return len(outgoing.key or b"") + len(outgoing.value or b"") + headers + RECORD_OVERHEAD


def read_headers(record: Record) -> HeaderList | None:
    """Its headers; None where they cannot be read."""
    try:
        return record.headers
    except DecodeError:
        return None


def told_with(mask: Mask, *records: Record) -> Teller:
    """How an error is told that may quote any of `records`."""
    if mask.hides_nothing:
        return OPEN
    return teller_of(mask, [(record.raw, partial(_some_headers, record)) for record in records])


def _past(record: Record, teller: Teller) -> tuple[Failure, ...]:
    # What came with the record may have been written without a mask, or by anybody.
    if teller is OPEN:
        return record.history
    return tuple(msgspec.structs.replace(past, error=teller.text(past.error)) for past in record.history)


def _some_headers(record: Record) -> HeaderList:
    return read_headers(record) or []


def retry_record(
    record: Record,
    error: BaseException,
    *,
    topic: str,
    group: str,
    delay: float,
    now: float,
    limit: int = MAX_RECORD,
    teller: Teller = OPEN,
) -> Outgoing | None:
    """`record` for its next attempt, due in `delay` seconds from `now` (UTC seconds).

    None for one that no topic would give back as it is: with our headers it is too large, or its own headers
    cannot be read. It has to wait where it lies.
    """
    headers = read_headers(record)
    if headers is None:
        return None
    before = record.deferral
    deferral = defer(
        group=group,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp_ms,
        attempt=record.attempt + 1,
        delay=delay,
        now=now,
        error=teller.failure(error),
        first_failure=before.first_failure if before else (record.history[0].at if record.history else None),
        history=_past(record, teller),
    )
    outgoing = Outgoing(topic, record.key, record.raw, to_headers(deferral, headers))
    return outgoing if size_of(outgoing) <= limit else None


def once_more(record: Record, topic: str) -> Outgoing:
    """A record of the retry topic as it lies there: attempt, due time and all."""
    return Outgoing(topic, record.key, record.raw, headers_of(record.message) or [])


def dead_letter(
    record: Record,
    error: Exception,
    *,
    topic: str,
    group: str,
    now: float,
    attempts: int | None = None,
    limit: int = MAX_RECORD,
    allow_pointer: bool = False,
    mask: Mask = NOTHING_HIDDEN,
    teller: Teller | None = None,
) -> Outgoing | TooLarge:
    """The letter for `record`, which is given up for `error` after `attempts` tries (its own by default).

    `teller` knows what else than the record the error may quote; without it, only what `mask` hides of that.
    Headers that cannot be read are told as trimmed: who wants them must read the original record.
    """
    last = error.last_error if isinstance(error, MaxRetriesExceededError) else error
    tried = record.attempt if attempts is None else attempts
    teller = teller or told_with(mask, record)
    history = _past(record, teller)
    if tried:
        text = teller.failure(last) if isinstance(last, BaseException) else str(last)
        history = (*history, Failure(tried, text[:1000], now))
    headers = read_headers(record)
    letter = build(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.raw,
        headers=headers or (),
        timestamp=record.timestamp_ms,
        group=group,
        error=error,
        attempts=tried,
        history=history,
        now=now * 1000,
        teller=teller,
    )
    if headers is None:
        letter = msgspec.structs.replace(letter, trimmed=("originalHeaders",))
    fitted = fit(masked(letter, mask), limit, allow_pointer)
    if isinstance(fitted, TooLarge):
        return fitted
    return Outgoing(topic, record.key, fitted.raw, metadata_headers(fitted.letter))
