"""What is written about a failed record: the retry record and the dead letter, as topic, key, value, headers.

Pure; promise: key and value go on untouched, and a dead letter that cannot be made to fit is said to be so
rather than cut.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from relance.dead_letters.envelope import build, metadata_headers
from relance.dead_letters.ladder import TooLarge, fit
from relance.engine.deferral import Failure, defer, to_headers
from relance.errors import MaxRetriesExceededError
from relance.record import HeaderList, Record

__all__ = ["Outgoing", "dead_letter", "failure_text", "retry_record"]

MAX_RECORD = 1_000_000
"""Bytes; the client's and the broker's default for a record with all that belongs to it."""


class Outgoing(NamedTuple):
    """A record to be written."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: HeaderList


def failure_text(error: BaseException) -> str:
    """`ClassName: text`, and never an exception of its own."""
    try:
        text = str(error)
    except Exception as problem:  # noqa: BLE001  a user's __str__ may do anything
        text = f"<its __str__ raised {type(problem).__name__}>"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def retry_record(
    record: Record, error: BaseException, *, topic: str, group: str, delay: float, now: float
) -> Outgoing:
    """`record` for its next attempt, due in `delay` seconds from `now` (UTC seconds)."""
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
        error=failure_text(error),
        first_failure=before.first_failure if before else (record.history[0].at if record.history else None),
        history=record.history,
    )
    return Outgoing(topic, record.key, record.raw, to_headers(deferral, record.headers))


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
) -> Outgoing | TooLarge:
    """The letter for `record`, which is given up for `error` after `attempts` tries (its own by default)."""
    last = error.last_error if isinstance(error, MaxRetriesExceededError) else error
    tried = record.attempt if attempts is None else attempts
    history = record.history
    if tried:
        text = failure_text(last) if isinstance(last, BaseException) else str(last)
        history = (*history, Failure(tried, text[:1000], now))
    letter = build(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.raw,
        headers=record.headers,
        timestamp=record.timestamp_ms,
        group=group,
        error=error,
        attempts=tried,
        history=history,
        now=datetime.fromtimestamp(now, UTC),
    )
    fitted = fit(letter, limit, allow_pointer)
    if isinstance(fitted, TooLarge):
        return fitted
    return Outgoing(topic, record.key, fitted.raw, metadata_headers(fitted.letter))
