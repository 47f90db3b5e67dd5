"""A local Apache Kafka for development and tests; promises one that is really there, or one clear error.

Apache Kafka itself in KRaft mode, fetched once by Maven, run by Java. Not for production: it listens on
the loopback only and its group settings are there to make rebalances quick to watch.
"""

from relance.broker.engine import BrokerFailedError, MissingToolError
from relance.broker.jars import KAFKA_VERSION, kafka_home
from relance.broker.local import LocalBroker
from relance.broker.properties import sasl_plain
from relance.broker.status import NodeStatus, Status

__all__ = [
    "KAFKA_VERSION",
    "BrokerFailedError",
    "LocalBroker",
    "MissingToolError",
    "NodeStatus",
    "Status",
    "kafka_home",
    "sasl_plain",
]
