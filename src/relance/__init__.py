"""relance: Kafka consumers that survive bad records, failing services and rebalances.

Everything public is here; what lies deeper may move. A name is imported when it is first used, so that
`relance --help` and a settings check don't pay for the Kafka client.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relance.app import App
    from relance.dead_letters.envelope import DeadLetter
    from relance.delivery import Delivery, Sent
    from relance.errors import (
        BatchError,
        BrokerUnavailableError,
        DecodeError,
        Fatal,
        HandlerTimeoutError,
        KafkaErrorKind,
        MaxRetriesExceededError,
        Reject,
        RelanceError,
        Retry,
        SendError,
        SettingsError,
        TopicMissingError,
        TransientError,
        WorkerDiedError,
        kafka_error,
    )
    from relance.kafka.letters import DeadLetters
    from relance.kafka.table import Table
    from relance.policies.breaker import CircuitBreaker
    from relance.policies.masking import Mask
    from relance.policies.retry import RetryPolicy
    from relance.record import Record, TopicPartition
    from relance.settings import Settings
    from relance.stats import CircuitBreakerOpen, CircuitBreakerStats, Health, InFlight, Stats

_HOMES = {
    "relance.app": ("App",),
    "relance.dead_letters.envelope": ("DeadLetter",),
    "relance.delivery": ("Delivery", "Sent"),
    "relance.errors": (
        "BatchError",
        "BrokerUnavailableError",
        "DecodeError",
        "Fatal",
        "HandlerTimeoutError",
        "KafkaErrorKind",
        "MaxRetriesExceededError",
        "Reject",
        "RelanceError",
        "Retry",
        "SendError",
        "SettingsError",
        "TopicMissingError",
        "TransientError",
        "WorkerDiedError",
        "kafka_error",
    ),
    "relance.kafka.letters": ("DeadLetters",),
    "relance.kafka.table": ("Table",),
    "relance.policies.breaker": ("CircuitBreaker",),
    "relance.policies.masking": ("Mask",),
    "relance.policies.retry": ("RetryPolicy",),
    "relance.record": ("Record", "TopicPartition"),
    "relance.settings": ("Settings",),
    "relance.stats": ("CircuitBreakerOpen", "CircuitBreakerStats", "Health", "InFlight", "Stats"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "App",
    "BatchError",
    "BrokerUnavailableError",
    "CircuitBreaker",
    "CircuitBreakerOpen",
    "CircuitBreakerStats",
    "DeadLetter",
    "DeadLetters",
    "DecodeError",
    "Delivery",
    "Fatal",
    "HandlerTimeoutError",
    "Health",
    "InFlight",
    "KafkaErrorKind",
    "Mask",
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
    "WorkerDiedError",
    "kafka_error",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'relance' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
