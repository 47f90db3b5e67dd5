"""relance: Kafka consumers that survive bad records, failing services and rebalances.

Everything public is here; what lies deeper may move.
"""

from relance.app import App
from relance.dead_letters.envelope import DeadLetter
from relance.delivery import Delivery, Sent
from relance.errors import (
    BrokerUnavailableError,
    DecodeError,
    Fatal,
    KafkaErrorKind,
    MaxRetriesExceededError,
    Reject,
    RelanceError,
    Retry,
    SendError,
    SettingsError,
    TopicMissingError,
    TransientError,
    kafka_error,
)
from relance.kafka.letters import DeadLetters
from relance.kafka.table import Table
from relance.policies.retry import RetryPolicy
from relance.record import Record, TopicPartition
from relance.settings import Settings
from relance.stats import Health, Stats

__all__ = [
    "App",
    "BrokerUnavailableError",
    "DeadLetter",
    "DeadLetters",
    "DecodeError",
    "Delivery",
    "Fatal",
    "Health",
    "KafkaErrorKind",
    "MaxRetriesExceededError",
    "Record",
    "Reject",
    "RelanceError",
    "Retry",
    "RetryPolicy",
    "SendError",
    "Sent",
    "Settings",
    "SettingsError",
    "Stats",
    "Table",
    "TopicMissingError",
    "TopicPartition",
    "TransientError",
    "kafka_error",
]
