"""Where a local cluster lives on disk; promises that what it says of a process is true of that very process.

<dir>/kafka/cluster.json         the cluster's id, its nodes' ports and the user's settings
<dir>/kafka/lock                 one `start` or `stop` at a time
<dir>/kafka/node-<n>/            server.properties, log4j2.properties, pid.json, formatted, data/
<dir>/logs/broker.log            node 1 (broker-2.log, broker-3.log: the others)
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from relance.broker.files import write_whole
from relance.broker.processes import Identity, alive
from relance.errors import SettingsError
from relance.ports import free_ports


@dataclass(frozen=True, slots=True)
class Node:
    """One broker of the local cluster, controller too; all three ports are on the loopback."""

    id: int
    port: int
    internal_port: int
    controller_port: int
    told_port: int = 0
    """Where clients are told to find it, if that is not `port`: at a proxy."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What `cluster.json` keeps: enough to start the same cluster again."""

    cluster_id: str
    nodes: tuple[Node, ...]
    config: Mapping[str, str] = field(default_factory=dict)
    container: str = ""  # the Docker container that is the cluster; "" where Java runs it

    def node(self, node_id: int) -> Node:
        """One node by its id. Raises SettingsError where there is none of that id."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise SettingsError("node", f"there is no node {node_id}; this cluster has 1 to {len(self.nodes)}")


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one cluster."""

    dir: Path

    @property
    def root(self) -> Path:
        """The cluster's own directory."""
        return self.dir / "kafka"

    @property
    def lock(self) -> Path:
        """Held while a cluster is started or stopped."""
        return self.root / "lock"

    @property
    def logs(self) -> Path:
        """The directory of the logs."""
        return self.dir / "logs"

    def node(self, node_id: int) -> Path:
        """The directory of one node."""
        return self.root / f"node-{node_id}"

    def data(self, node_id: int) -> Path:
        """The log directory of one node."""
        return self.node(node_id) / "data"

    def log(self, node_id: int) -> Path:
        """The log file of one node."""
        return self.logs / ("broker.log" if node_id == 1 else f"broker-{node_id}.log")

    def read(self) -> Cluster | None:
        """The cluster laid out here, if any."""
        try:
            kept = json.loads((self.root / "cluster.json").read_text())
        except FileNotFoundError:
            return None
        return Cluster(**kept | {"nodes": tuple(Node(**node) for node in kept["nodes"])})

    def write(self, cluster: Cluster) -> None:
        """Keep the cluster's shape; whole or not at all."""
        self.root.mkdir(parents=True, exist_ok=True)
        write_whole(self.root / "cluster.json", json.dumps(asdict(cluster), indent=2))

    def forget(self) -> None:
        """There is no cluster here any more."""
        (self.root / "cluster.json").unlink(missing_ok=True)

    def write_pid(self, node_id: int, who: Identity) -> None:
        """Note who runs a node."""
        write_whole(self.node(node_id) / "pid.json", json.dumps(asdict(who)))

    def pid(self, node_id: int) -> Identity | None:
        """Who runs a node; None where that process is gone, even if its pid is in use again."""
        try:
            who = Identity(**json.loads((self.node(node_id) / "pid.json").read_text()))
        except FileNotFoundError:
            return None
        return who if alive(who) else None

    def forget_pid(self, node_id: int) -> None:
        """Nobody runs that node any more."""
        (self.node(node_id) / "pid.json").unlink(missing_ok=True)


def lay_out(
    count: int,
    port: int,
    config: Mapping[str, str],
    old: Cluster | None = None,
    told: Sequence[int] = (),
) -> Cluster:
    """Choose the ports of `count` nodes: clients at `port`, `port + 1`, …, or any free ones where it is 0.

    `told`: see `Node.told_port`.

    An `old` cluster that is down keeps its id, its data and, with port 0, its clients' ports.
    """
    if old is not None and port == 0:
        clients = [node.port for node in old.nodes]
    else:
        clients = [port + i for i in range(count)] if port else free_ports(count)
    others = [p for p in free_ports(3 * count) if p not in clients]
    nodes = tuple(
        Node(i + 1, clients[i], others[2 * i], others[2 * i + 1], told[i] if told else 0)
        for i in range(count)
    )
    if old is not None:
        return replace(old, nodes=nodes, config=dict(config))
    return Cluster(_cluster_id(), nodes, dict(config))


def _cluster_id() -> str:
    """A random id as Kafka writes them: a UUID in URL-safe base64; a leading dash would read as an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text
