"""Which hand-offs must not spoil a transaction for the others, and when they are tried again.

One record that is refused aborts its whole transaction. Promise: a topic that refused one gets no other
until a single one of them was written alone; a record that was refused for what it is goes alone for ever;
each is tried again after half a second to ten, or at once where its partition is about to go. Pure: times
are passed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from confluent_kafka import KafkaError

from relance.errors import SendError

__all__ = ["Suspects"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0

# What is wrong with the record, not with its topic: others may well be written.
_OF_THE_RECORD = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError._INVALID_ARG,
    }
)


class HasTopics(Protocol):
    """A hand-off."""

    @property
    def topics(self) -> frozenset[str]:
        """Where it is written."""


P = TypeVar("P", bound=HasTopics)


@dataclass(slots=True)
class _Refusal:
    at: float
    """When it may be tried again."""
    reason: str
    times: int = 1


class Suspects(Generic[P]):
    """Topics and hand-offs that were refused."""

    def __init__(self) -> None:
        self._topics: dict[str, _Refusal] = {}
        self._records: dict[P, _Refusal] = {}

    def refused(self, pending: P, topic: str, error: SendError, now: float) -> None:
        """`pending` was refused by `topic`."""
        reason = f"{topic} takes no record: {error}"
        if error.code in _OF_THE_RECORD or error.code is None:
            self._records[pending] = _again(self._records.get(pending), now, reason)
        else:
            self._topics[topic] = _again(self._topics.get(topic), now, reason)

    def written(self, pending: P) -> None:
        """It was written: its topics take records."""
        self._records.pop(pending, None)
        for topic in pending.topics & self._topics.keys():
            del self._topics[topic]

    def reason(self, pending: P) -> str | None:
        """Why it must not go with others, or None."""
        found = self._refusals(pending)
        return found[0].reason if found else None

    def waits(self, pending: P, now: float) -> str | None:
        """Why it must not go at all before a time to come, or None."""
        found = max(self._refusals(pending), key=lambda refusal: refusal.at, default=None)
        return None if found is None or found.at <= now else found.reason

    def holds(self, pending: P) -> bool:
        """Whether it must not go with others."""
        return pending in self._records or not self._topics.keys().isdisjoint(pending.topics)

    def due(self, pending: Iterable[P], now: float) -> P | None:
        """The one to be tried alone now."""
        found = min(self._held(pending), key=lambda each: each[0], default=None)
        return found[1] if found is not None and found[0] <= now else None

    def next_due(self, pending: Iterable[P]) -> float | None:
        """When there is one to be tried alone."""
        return min((at for at, _ in self._held(pending)), default=None)

    def hurry(self, pending: Iterable[P]) -> None:
        """Let these be due at once."""
        for each in pending:
            for refusal in self._refusals(each):
                refusal.at = -math.inf

    def forget_closed(self, pending: Iterable[P]) -> None:
        """Forget records that are not pending any more. A topic is believed again when one is written."""
        if self._records:
            left = set(pending)
            self._records = {p: refusal for p, refusal in self._records.items() if p in left}

    def _held(self, pending: Iterable[P]) -> list[tuple[float, P]]:
        if not self._topics and not self._records:
            return []
        return [(max(r.at for r in found), p) for p in pending if (found := self._refusals(p))]

    def _refusals(self, pending: P) -> list[_Refusal]:
        own = self._records.get(pending)
        found = [] if own is None else [own]
        return found + [self._topics[topic] for topic in pending.topics & self._topics.keys()]


def _again(before: _Refusal | None, now: float, reason: str) -> _Refusal:
    times = 1 if before is None else before.times + 1
    return _Refusal(now + min(_FIRST_PAUSE * 2 ** min(times - 1, 10), _LONGEST_PAUSE), reason, times)
