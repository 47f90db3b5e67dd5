"""Three brokers as plain processes, each behind the proxy; what the faults need to know of them."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from chaos.proxy import Proxy
from chaos.workload import GROUP, PARTITIONS, SOURCE
from relance.broker import LocalBroker
from relance.ports import free_ports

__all__ = ["Cluster"]


class Cluster:
    """A KRaft cluster of `nodes` in `folder`. `bootstrap` goes through the proxy, `direct` past it."""

    def __init__(self, folder: Path, nodes: int) -> None:
        ports = free_ports(nodes)
        self._logs = folder / "brokers"
        self.proxy = Proxy(ports)
        # Alone it has nobody to fail over to: fenced on a busy machine, it would serve nobody for long.
        alone = {"broker.session.timeout.ms": "30000"} if nodes == 1 else {}
        self._broker = LocalBroker(folder, port=0, nodes=nodes, heap_mb=384, config=alone, told_ports=ports)

    def start(self) -> None:
        """Start it and make the topics."""
        self.proxy.listen()
        status = self._broker.start(timeout=90.0)
        self.proxy.start([node.port for node in status.nodes])
        self._admin = AdminClient({"bootstrap.servers": self.direct, "log_level": 0})
        topics = [NewTopic(name, num_partitions=count) for name, count in PARTITIONS.items()]
        for made in self._admin.create_topics(topics, operation_timeout=20.0).values():
            made.result(30.0)

    @property
    def bootstrap(self) -> str:
        """For who is to be disturbed."""
        return self.proxy.bootstrap

    @property
    def direct(self) -> str:
        """The brokers themselves. They name the proxy's addresses, which nobody disturbs for this client."""
        return self._broker.bootstrap

    def nodes(self) -> list[int]:
        """Those that run."""
        return [node.id for node in self._broker.status().nodes if node.up]

    def kill(self, node: int) -> None:
        """SIGKILL."""
        self._broker.kill(node)

    def revive(self) -> None:
        """Start those that don't run."""
        self._broker.start(timeout=90.0)

    def leader(self) -> int:
        """The node that leads most partitions of the source topic."""
        found = self._admin.list_topics(SOURCE, timeout=10.0).topics[SOURCE].partitions.values()
        return Counter(p.leader for p in found if p.leader > 0).most_common(1)[0][0]

    def coordinator(self) -> int:
        """The node that coordinates the group."""
        # A new client each time: one that knew the coordinator asks it for ever, also when it is gone.
        admin = AdminClient({"bootstrap.servers": self.direct, "log_level": 0})
        answer = admin.describe_consumer_groups([GROUP], request_timeout=10.0)[GROUP].result(15.0)
        if answer.coordinator is None:
            raise KafkaException("the group has no coordinator now")
        return int(answer.coordinator.id)

    def limit(self, size: int) -> None:
        """`max.message.bytes` of the topics that members write to."""
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        topics = [
            ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
            for name in PARTITIONS
            if name != SOURCE
        ]
        for done in self._admin.incremental_alter_configs(topics, request_timeout=20.0).values():
            done.result(30.0)

    def purge(self) -> None:
        """End all and delete the data; the brokers' logs stay, in the folder `brokers`."""
        self.proxy.stop()
        for node in self._broker.status().nodes:
            if node.log.exists():
                self._logs.mkdir(parents=True, exist_ok=True)
                shutil.copy(node.log, self._logs / f"node-{node.id}.log")
        self._broker.purge()
