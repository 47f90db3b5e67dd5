"""A local Apache Kafka as an object; promises an idempotent, quick start that leaves nothing half-started.

    with LocalBroker("/tmp/somewhere", port=0) as broker:
        ...  # broker.bootstrap

Kafka runs on its own and outlives this process; what is known of it is on disk (see `layout`), so any
process may ask for its status or stop it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from relance.broker.docker import DockerEngine
from relance.broker.engine import BrokerFailedError, Engine, MissingToolError, PortHeldError
from relance.broker.files import locked
from relance.broker.jars import Say
from relance.broker.java import JavaEngine
from relance.broker.layout import Cluster, Layout, lay_out
from relance.broker.node import port_held
from relance.broker.probe import Answer, ask
from relance.broker.properties import check_config
from relance.broker.status import NodeStatus, Status
from relance.errors import SettingsError
from relance.ports import port_is_free

_INSTALL = (
    "a local Kafka needs {missing}, or a Docker engine that answers; install what is missing "
    "(Debian, Ubuntu: apt install openjdk-17-jre-headless maven; macOS: brew install openjdk maven) "
    "or start Docker"
)


class LocalBroker:
    """One local Kafka cluster, by its directory.

    `dir` holds data and logs. `port` is the first client port, 0 for any free one; further nodes take the
    next ports. `nodes`: None is as many as there are, 1 for a new cluster. `config` are Kafka settings that
    win over relance's own; None leaves those of the last start. `heap_mb` bounds each node's heap. `say`
    receives progress, a line at a time. `told_ports`: where clients are told to find the nodes, one for each,
    if a proxy stands before them.
    """

    def __init__(
        self,
        dir: str | os.PathLike[str] = ".run",
        *,
        port: int = 9092,
        nodes: int | None = None,
        config: Mapping[str, str] | None = None,
        heap_mb: int = 512,
        say: Say | None = None,
        told_ports: Sequence[int] = (),
    ) -> None:
        count = 1 if nodes is None else nodes
        if not 1 <= count <= 9:
            raise SettingsError("nodes", f"must be from 1 to 9, not {count}")
        if not 0 <= port <= 65536 - count:
            raise SettingsError("port", f"must be a TCP port, or 0 for any free one, not {port}")
        if heap_mb < 128:
            raise SettingsError("heap_mb", f"must be at least 128 for Kafka to start, not {heap_mb}")
        if told_ports and len(told_ports) != count:
            raise SettingsError("told_ports", f"must be one for each of {count} nodes, not {len(told_ports)}")
        self._told_ports = tuple(told_ports)
        self._layout = Layout(Path(dir).absolute())
        self._port = port
        self._count = nodes
        self._config = None if config is None else dict(config)
        check_config(self._config or {}, count)
        self._say: Say = say or (lambda _line: None)
        self._java = JavaEngine(self._layout, heap_mb, self._say)
        self._docker = DockerEngine(self._layout, heap_mb, self._say)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """The address for clients: `localhost:PORT`, one for each node, separated by commas."""
        cluster = self._layout.read()
        if cluster is None or (not self._running(cluster) and self._port not in (0, cluster.nodes[0].port)):
            return f"localhost:{self._port}"
        return ",".join(f"localhost:{node.port}" for node in cluster.nodes)

    def start(self, timeout: float = 60.0) -> Status:
        """Start what does not run yet, and return when every node serves clients.

        Where a Kafka that is not ours answers at the port, it is used as it is (`Status.foreign`). `timeout`
        is for Kafka, in seconds; a download before it takes what it takes. Raises MissingToolError,
        BrokerFailedError (also for a port that another program holds, by name) and SettingsError (the
        cluster has another shape). When it raises, or is interrupted, what it started is stopped.
        """
        if (now := self._settled()) is not None:
            return now
        engine = self._choose_engine()
        self._layout.root.mkdir(parents=True, exist_ok=True)
        with locked(self._layout.lock, self._say_waiting):
            if (now := self._settled()) is not None:
                return now
            self._start_anywhere(engine, time.monotonic() + timeout)
        return self.status()

    def stop(self, timeout: float = 20.0) -> Status:
        """Stop every node of ours: SIGTERM, and SIGKILL, with a word, after `timeout` seconds."""
        if self._layout.read() is not None:
            with locked(self._layout.lock, self._say_waiting):
                if (cluster := self._layout.read()) is not None:
                    self._engine(cluster).stop(cluster, timeout)
        return self.status()

    def kill(self, node: int = 1) -> None:
        """SIGKILL one node, as a crash would, and return when it is gone. `start` brings it back."""
        cluster = self._layout.read()
        if cluster is None:
            raise BrokerFailedError(f"there is no broker in {self._layout.dir} to kill")
        self._engine(cluster).kill(cluster, node)

    def purge(self) -> None:
        """End what runs, at once, and delete data and logs; the downloaded jars stay."""
        if self._layout.read() is None:
            return
        with locked(self._layout.lock, self._say_waiting):
            if (cluster := self._layout.read()) is not None:
                engine = self._engine(cluster)
                for node_id in engine.running(cluster):
                    engine.kill(cluster, node_id)
                engine.purge(cluster)
                self._layout.forget()

    def status(self) -> Status:
        """How it stands now, asked of the processes and of the ports."""
        cluster = self._layout.read()
        running = self._running(cluster)
        nodes: tuple[NodeStatus, ...] = ()
        if cluster is not None:
            engine = self._engine(cluster)
            nodes = tuple(
                NodeStatus(
                    id=node.id,
                    port=node.port,
                    up=node.id in running,
                    pid=running.get(node.id),
                    answers=node.id in running and engine.serves(cluster, node.id),
                    log=self._layout.log(node.id),
                )
                for node in cluster.nodes
            )
        foreign = not running and self._port != 0 and self._foreign()
        container = cluster.container if cluster else ""
        return Status(bootstrap=self.bootstrap, nodes=nodes, foreign=foreign, container=container)

    # -- inside ------------------------------------------------------------------------------------

    def _engine(self, cluster: Cluster) -> Engine:
        return self._docker if cluster.container else self._java

    def _choose_engine(self) -> Engine:
        """Java where it is, or where the data are; else Docker, if its engine answers."""
        cluster = self._layout.read()
        if cluster is not None:
            engine = self._engine(cluster)
            engine.prepare()
            return engine
        try:
            self._java.prepare()
        except MissingToolError as missing:
            if not self._docker.answers():
                raise MissingToolError(_INSTALL.format(missing=missing)) from missing
            self._say(f"there is no {missing}: Docker runs Kafka instead")
            self._docker.prepare()
            return self._docker
        return self._java

    def _running(self, cluster: Cluster | None) -> Mapping[int, int | None]:
        return self._engine(cluster).running(cluster) if cluster else {}

    def _foreign(self) -> bool:
        return ask("localhost", self._port) is Answer.KAFKA

    def _settled(self) -> Status | None:
        """The status, where there is nothing to start; None where there is."""
        now = self.status()
        if now.foreign:
            return now
        cluster = self._layout.read()
        if cluster is not None:
            self._check_shape(cluster)
        return now if now.running else None

    def _check_shape(self, cluster: Cluster) -> None:
        where = self._layout.dir
        if self._count not in (None, len(cluster.nodes)):
            raise SettingsError(
                "nodes",
                f"the cluster in {where} was made with {len(cluster.nodes)}, not {self._count}; "
                "`relance broker stop --purge` deletes it with its data",
            )
        other_port = self._port not in (0, cluster.nodes[0].port)
        other_config = self._config is not None and self._config != cluster.config
        if self._running(cluster):
            if other_port:
                raise SettingsError(
                    "bootstrap", f"the broker of {where} runs at {self.bootstrap}; stop it first"
                )
            if other_config:
                raise SettingsError(
                    "config", f"the broker of {where} runs with other settings; stop it first"
                )
        elif cluster.container and (other_port or other_config):
            raise SettingsError(
                "config", "a container keeps its port and settings; `relance broker stop --purge` deletes it"
            )

    def _start_anywhere(self, engine: Engine, deadline: float) -> None:
        """Start; where any port would do and somebody else was faster at one, start with others."""
        for tries_left in reversed(range(3)):
            try:
                self._start(engine, deadline)
            except PortHeldError as held:
                if self._port != 0 or self._layout.read() is not None or not tries_left:
                    raise
                self._say(f"choosing other ports: {held}")
            else:
                return

    def _start(self, engine: Engine, deadline: float) -> None:
        old = self._layout.read()
        running = self._running(old)
        config = self._config if self._config is not None else (old.config if old else {})
        count = len(old.nodes) if old else self._count or 1
        cluster = old if old and running else lay_out(count, self._port, config, old, self._told_ports)
        if engine is self._docker:
            cluster = replace(cluster, container=self._docker.container)
        for node in cluster.nodes:
            if node.id not in running:
                _check_port(node.port)
        self._layout.write(cluster)
        self._say(f"starting Kafka at {self.bootstrap}")
        with contextlib.ExitStack() as undo:
            if old is None:
                # A first start that fails leaves no half-made cluster to trip over.
                undo.callback(self._forget, engine, cluster)
            engine.start(cluster, undo, deadline)
            undo.pop_all()

    def _forget(self, engine: Engine, cluster: Cluster) -> None:
        if not engine.running(cluster):
            self._layout.forget()

    def _say_waiting(self) -> None:
        self._say("waiting for another start or stop of this broker")


def _check_port(port: int) -> None:
    """Raise BrokerFailedError, naming who holds it, where a port is taken at either loopback address."""
    if not port_is_free(port) or (port_is_free(0, "::1") and not port_is_free(port, "::1")):
        raise port_held(port)
