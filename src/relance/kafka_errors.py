"""The Kafka error codes as a table: for each, which branch of the hierarchy it is on, and what to do.

Promise: pure data. It is keyed by the code's number, imports no Kafka client, and knows every code that
`confluent_kafka.KafkaError` names (a test compares them). A code it doesn't know is answered sanely.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final


class KafkaErrorKind(Enum):
    """The branches of the hierarchy: who may try again, and who must fail fast."""

    RETRIABLE_PRODUCER = "retriable producer"
    RETRIABLE_CONSUMER = "retriable consumer"
    RETRIABLE = "retriable"
    REBALANCE = "rebalance"
    RECORD = "fatal for the record"
    FATAL = "fatal"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class KafkaErrorRow:
    """One code: its name, its branch, and a sentence that says what to do."""

    code: int
    name: str
    kind: KafkaErrorKind
    action: str


KAFKA_ERRORS: Final = MappingProxyType[int, KafkaErrorRow]({})


def kafka_error(code: int) -> KafkaErrorRow:
    """The row of a code, or a fatal row that says that the code is unknown."""
    return KAFKA_ERRORS.get(code) or KafkaErrorRow(code, f"UNKNOWN_{code}", KafkaErrorKind.FATAL, "")
