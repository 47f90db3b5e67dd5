"""What is known of a cluster on disk."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from relance.broker.layout import Cluster, Layout, Node, lay_out
from relance.broker.processes import identify
from relance.errors import SettingsError


def test_a_cluster_is_read_as_it_was_written(tmp_path):
    layout = Layout(tmp_path)
    assert layout.read() is None
    cluster = Cluster("id", (Node(1, 2, 3, 4),), {"a": "b"}, "container")
    layout.write(cluster)
    assert layout.read() == cluster
    layout.forget()
    assert layout.read() is None


def test_nothing_half_written_is_left_beside_it(tmp_path):
    layout = Layout(tmp_path)
    layout.write(Cluster("id", ()))
    assert [path.name for path in layout.root.iterdir()] == ["cluster.json"]


def test_a_pid_file_is_believed_only_of_the_process_that_wrote_it(tmp_path):
    layout = Layout(tmp_path)
    assert layout.pid(1) is None
    who = identify(os.getpid())
    layout.write_pid(1, who)
    assert layout.pid(1) == who
    # After a reboot, or a long time, another process has the pid.
    layout.write_pid(1, replace(who, started="another boot:1"))
    assert layout.pid(1) is None
    layout.forget_pid(1)
    assert not (layout.node(1) / "pid.json").exists()


def test_the_logs_are_beside_those_of_the_services(tmp_path):
    layout = Layout(tmp_path)
    assert layout.log(1) == tmp_path / "logs/broker.log"
    assert layout.log(3) == tmp_path / "logs/broker-3.log"


def test_clients_find_the_nodes_at_ports_that_follow(tmp_path):
    cluster = lay_out(3, 9092, {})
    assert [node.port for node in cluster.nodes] == [9092, 9093, 9094]
    inner = {port for node in cluster.nodes for port in (node.internal_port, node.controller_port)}
    assert len(inner) == 6
    assert not inner & {9092, 9093, 9094}


def test_clients_may_be_told_to_find_the_nodes_behind_a_proxy(tmp_path):
    cluster = lay_out(2, 9092, {}, told=(7001, 7002))
    layout = Layout(tmp_path)
    layout.write(cluster)
    assert [node.told_port for node in layout.read().nodes] == [7001, 7002]


def test_any_free_port_stays_the_same_at_the_next_start():
    first = lay_out(2, 0, {})
    again = lay_out(2, 0, {"a": "b"}, first)
    assert [node.port for node in again.nodes] == [node.port for node in first.nodes]
    assert (again.cluster_id, again.config) == (first.cluster_id, {"a": "b"})


def test_the_id_can_be_given_to_the_format_tool():
    ids = {lay_out(1, 9092, {}).cluster_id for _ in range(200)}
    assert len(ids) == 200
    assert all(len(each) == 22 and not each.startswith("-") for each in ids)


def test_a_node_that_is_not_there_is_refused_by_name():
    with pytest.raises(SettingsError, match="there is no node 4; this cluster has 1 to 3"):
        lay_out(3, 9092, {}).node(4)


def test_the_file_can_be_read_by_a_shell_script(tmp_path):
    layout = Layout(tmp_path)
    layout.write(Cluster("id", (), container="relance-kafka-1"))
    text = (layout.root / "cluster.json").read_text()
    assert '\n  "container": "relance-kafka-1"\n' in text  # scripts/kafka.sh looks for this line
    assert json.loads(text)["cluster_id"] == "id"
