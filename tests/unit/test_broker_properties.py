"""The broker's settings: for teaching, for this machine only, and open to be overridden."""

from __future__ import annotations

from pathlib import Path

import pytest

from relance.broker.layout import Node
from relance.broker.properties import (
    as_file,
    check_config,
    container_properties,
    sasl_plain,
    server_properties,
)
from relance.errors import SettingsError

NODES = [Node(1, 9092, 20001, 20002), Node(2, 9093, 20003, 20004), Node(3, 9094, 20005, 20006)]


def properties(nodes=1, config=None, with_ipv6=True):
    return server_properties(NODES[0], NODES[:nodes], Path("/data"), config or {}, with_ipv6=with_ipv6)


def test_rebalances_are_quick_to_watch():
    assert (
        properties()
        | {
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "group.consumer.min.heartbeat.interval.ms": "500",
            "group.consumer.heartbeat.interval.ms": "500",
            "group.consumer.min.session.timeout.ms": "6000",
            "group.consumer.session.timeout.ms": "10000",
        }
        == properties()
    )


@pytest.mark.parametrize("with_ipv6", [True, False])
def test_it_listens_on_the_loopback_only_and_is_called_localhost(with_ipv6):
    found = properties(with_ipv6=with_ipv6)
    addresses = [url.partition("://")[2].rpartition(":")[0] for url in found["listeners"].split(",")]
    assert set(addresses) == ({"127.0.0.1", "[::1]"} if with_ipv6 else {"127.0.0.1"})
    assert found["advertised.listeners"].startswith("CLIENT://localhost:9092")


def test_clients_are_told_of_the_proxy_and_other_brokers_are_not():
    node = Node(1, 9092, 20001, 20002, told_port=7001)
    found = server_properties(node, [node], Path("/data"), {}, with_ipv6=False)
    assert found["advertised.listeners"] == "CLIENT://localhost:7001,INTERNAL://127.0.0.1:20001"
    assert found["listeners"].startswith("CLIENT://127.0.0.1:9092")


@pytest.mark.parametrize(("nodes", "copies", "in_sync"), [(1, "1", "1"), (2, "2", "1"), (3, "3", "2")])
def test_internal_topics_have_as_many_copies_as_there_are_nodes(nodes, copies, in_sync):
    found = properties(nodes)
    assert found["offsets.topic.replication.factor"] == copies
    assert found["transaction.state.log.replication.factor"] == copies
    assert found["transaction.state.log.min.isr"] == in_sync
    assert len(found["controller.quorum.voters"].split(",")) == nodes


def test_what_the_user_sets_wins():
    found = properties(config={"auto.create.topics.enable": "true", "compression.type": "zstd"})
    assert (found["auto.create.topics.enable"], found["compression.type"]) == ("true", "zstd")


@pytest.mark.parametrize("key", ["listeners", "node.id", "process.roles", "controller.quorum.voters"])
def test_what_the_shape_of_the_cluster_decides_is_refused_by_name(key):
    with pytest.raises(SettingsError, match=f"^{key}: "):
        check_config({key: "x"}, 1)


def test_a_log_directory_of_ones_own_is_for_one_node():
    check_config({"log.dirs": "/small"}, 1)
    with pytest.raises(SettingsError, match=r"^log\.dirs: "):
        check_config({"log.dirs": "/small"}, 3)


def test_a_value_stays_one_value_in_the_file():
    text = as_file({"a": "C:\\x\ny=z", "b": "é𝄞", "c": "plain, with = and :"})
    assert text == "a=C:\\\\x\\ny=z\nb=\\u00e9\\ud834\\udd1e\nc=plain, with = and :\n"


def test_logging_in_is_for_clients_and_not_between_brokers():
    found = properties(config=sasl_plain({"alice": "secret"}))
    protocols = dict(pair.split(":") for pair in found["listener.security.protocol.map"].split(","))
    assert protocols == {
        "CLIENT": "SASL_PLAINTEXT",
        "CLIENT6": "SASL_PLAINTEXT",
        "INTERNAL": "PLAINTEXT",
        "CONTROLLER": "PLAINTEXT",
    }
    assert 'user_alice="secret"' in found["listener.name.client.plain.sasl.jaas.config"]
    assert "authorizer.class.name" not in found
    assert "authorizer.class.name" in sasl_plain({"admin": "x"}, acls=True)


def test_in_a_container_it_listens_where_docker_can_reach_it():
    found = container_properties(9392, {"compression.type": "zstd"})
    assert found["listeners"].startswith("CLIENT://0.0.0.0:9392,")
    assert found["advertised.listeners"].startswith("CLIENT://localhost:9392,")
    assert found["compression.type"] == "zstd"
