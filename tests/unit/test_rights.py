"""What a refusal says about the ACL that is missing."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from relance.kafka.cluster import refusal
from relance.kafka.rights import with_right

TOPIC, GROUP, CLUSTER = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)


@pytest.mark.parametrize(
    ("code", "what", "resource", "acl"),
    [
        (TOPIC, "send", {"topic": "t"}, "the ACL Write on topic t"),
        (TOPIC, "read t in group g", {"topic": "t"}, "the ACL Read on topic t"),
        (TOPIC, "describe topic t", {"topic": "t"}, "Describe (Read and Write include it) on topic t"),
        (TOPIC, "describe the settings of t", {"topic": "t"}, "DescribeConfigs on topic t"),
        (TOPIC, "create topic t", {"topic": "t"}, "Create on topic t"),
        (TOPIC, "delete topic t", {}, "Delete on the topic"),
        (GROUP, "read t in group g", {"group": "g"}, "Read on group g;"),
        (
            GROUP,
            "read r in group g.retry",
            {"group": "g.retry"},
            "g.retry, in which the retry topic is read;",
        ),
        (GROUP, "describe the groups", {}, "Describe (Read includes it) on the group"),
        (CLUSTER, "send", {"topic": "t"}, "IdempotentWrite on the cluster"),
    ],
)
def test_the_acl_is_named_with_its_resource(code: int, what: str, resource: dict[str, str], acl: str) -> None:
    told = with_right("Broker: not authorised.", code, what, **resource)
    assert told.startswith("Broker: not authorised: this user needs")
    assert acl in told
    assert told.endswith("kafka-acls --add, or use another user")


@pytest.mark.parametrize("code", [None, KafkaError.MSG_SIZE_TOO_LARGE])
def test_other_refusals_stay_as_they_are(code: int | None) -> None:
    assert with_right("too large", code, "send", topic="t") == "too large"


def test_the_end_of_a_client_names_its_group_and_its_topics_once_each_with_one_full_stop() -> None:
    error = KafkaError(GROUP, "FindCoordinator response error: Group authorization failed.", fatal=True)
    assert str(refusal(error, "orders.retry", "g.retry")) == (
        "Kafka refused to read orders.retry in group g.retry: FindCoordinator response error: Group"
        " authorization failed: this user needs the ACL Read on group g.retry, in which the retry topic is"
        " read; give it with kafka-acls --add, or use another user"
    )
    fenced = refusal(KafkaError(KafkaError.FENCED_INSTANCE_ID, "fenced."), "t", "g")
    assert "read t in group g: fenced. " in str(fenced)
