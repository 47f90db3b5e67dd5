"""Which ACL is missing where a broker refuses a user. Promise: the text names what kafka-acls has to add."""

from __future__ import annotations

from confluent_kafka import KafkaError

__all__ = ["with_right"]

_FOR = (
    ("create topic", "Create"),
    ("delete topic", "Delete"),
    ("describe the settings", "DescribeConfigs"),
    ("read", "Read"),
    ("send", "Write"),
)
_HOW = "give it with kafka-acls --add, or use another user"


def with_right(text: str, code: int | None, what: str, *, topic: str = "", group: str = "") -> str:
    """`text` of a refusal to do `what`, with the right that is missing; as it is where none is missing."""
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        right = next((right for word, right in _FOR if what.startswith(word)), None)
        acl = f"{right} on" if right else "Describe (Read and Write include it) on"
        needed = f"{acl} topic {topic}" if topic else f"{acl} the topic"
    elif code == KafkaError.GROUP_AUTHORIZATION_FAILED:
        needed = f"Read on group {group}" if group else "Describe (Read includes it) on the group"
        if group.endswith(".retry"):
            needed += ", in which the retry topic is read"
    elif code == KafkaError.CLUSTER_AUTHORIZATION_FAILED and what.startswith("send"):
        needed = "IdempotentWrite on the cluster (from Kafka 3.0 on, Write on the topic is enough)"
    else:
        return text
    return f"{text.rstrip('.')}: this user needs the ACL {needed}; {_HOW}"
