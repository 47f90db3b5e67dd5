"""A local Apache Kafka as an object; promises an idempotent, quick start that leaves nothing half-started.

    with LocalBroker("/tmp/somewhere", port=0) as broker:
        ...  # broker.bootstrap

Kafka runs on its own, as a process that outlives this one; what is known of it is on disk (see `layout`),
so any process may ask for its status or stop it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from relance.broker.jars import Say, ensure_jars, find_java, kafka_home, locked
from relance.broker.layout import Cluster, Layout, Node, lay_out
from relance.broker.node import (
    LOOPBACK,
    BrokerFailedError,
    Jvm,
    check_alive,
    finish_format,
    held_message,
    launch,
    serves,
    start_format,
    write_properties,
)
from relance.broker.probe import Answer, ask
from relance.broker.processes import Identity, port_is_free, send, terminate, wait_gone
from relance.broker.properties import check_config, server_properties
from relance.broker.status import NodeStatus, Status
from relance.errors import SettingsError

_TICK = 0.05  # seconds between two looks at a node that starts


class LocalBroker:
    """One local Kafka cluster, by its directory.

    `dir` holds data and logs. `port` is the first client port, 0 for any free one; `nodes` follow at the
    next ports. `config` are Kafka settings that win over relance's own. `heap_mb` bounds each node's heap.
    `say` receives progress, a line at a time.
    """

    def __init__(
        self,
        dir: str | os.PathLike[str] = ".run",
        *,
        port: int = 9092,
        nodes: int = 1,
        config: Mapping[str, str] | None = None,
        heap_mb: int = 512,
        say: Say | None = None,
    ) -> None:
        if not 1 <= nodes <= 9:
            raise SettingsError("nodes", f"must be from 1 to 9, not {nodes}")
        if not 0 <= port <= 65535 - nodes:
            raise SettingsError("port", f"must be a TCP port, or 0 for any free one, not {port}")
        self._layout = Layout(Path(dir).absolute())
        self._port = port
        self._count = nodes
        self._config = None if config is None else dict(config)
        check_config(self._config or {}, nodes)
        self._heap_mb = heap_mb
        self._say: Say = say or (lambda _line: None)

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
        ports = [node.port for node in cluster.nodes] if cluster else [self._port]
        return ",".join(f"localhost:{port}" for port in ports)

    def start(self, timeout: float = 60.0) -> Status:
        """Start what does not run yet, and return when every node serves clients.

        Where a Kafka that is not ours answers at the port, it is used as it is (`Status.foreign`).
        Raises MissingToolError, BrokerFailedError (also for a port that another program holds, by name)
        and SettingsError (the cluster runs in another shape). When it raises, what it started is stopped.
        """
        if (now := self._settled()) is not None:
            return now
        jvm = Jvm(find_java(), ensure_jars(kafka_home(), self._say), self._heap_mb)
        self._layout.root.mkdir(parents=True, exist_ok=True)
        with locked(self._layout.lock, lambda: self._say("waiting for another start or stop")):
            if (now := self._settled()) is not None:
                return now
            self._start(jvm, time.monotonic() + timeout)
        return self.status()

    def stop(self, timeout: float = 20.0) -> Status:
        """Stop every node of ours: SIGTERM, and SIGKILL, with a word, after `timeout` seconds."""
        if self._layout.read() is not None:
            with locked(self._layout.lock, lambda: self._say("waiting for another start or stop")):
                running = self._running()
                for who in running.values():
                    send(who, signal.SIGTERM)
                deadline = time.monotonic() + timeout
                for node_id, who in running.items():
                    if not terminate(who, max(0.0, deadline - time.monotonic())):
                        self._say(f"node {node_id} (pid {who.pid}) did not stop in {timeout:g} s: killed")
                    self._layout.forget_pid(node_id)
        return self.status()

    def kill(self, node: int = 1) -> None:
        """SIGKILL one node, as a crash would, and return when it is gone."""
        who = self._layout.pid(node)
        if who is None:
            raise BrokerFailedError(f"node {node} does not run, so it cannot be killed")
        send(who, signal.SIGKILL)
        wait_gone(who, 10.0)
        self._layout.forget_pid(node)

    def purge(self) -> None:
        """Stop, and delete data, logs and ports; the downloaded jars stay."""
        self.stop()
        for node in self._nodes():
            shutil.rmtree(self._layout.node(node.id), ignore_errors=True)
            self._layout.log(node.id).unlink(missing_ok=True)
        (self._layout.root / "cluster.json").unlink(missing_ok=True)

    def status(self) -> Status:
        """How it stands now, asked of the processes and of the ports."""
        running = self._running()
        nodes = tuple(
            NodeStatus(
                id=node.id,
                port=node.port,
                pid=running[node.id].pid if node.id in running else None,
                answers=node.id in running and ask(LOOPBACK, node.port) is Answer.KAFKA,
                log=self._layout.log(node.id),
            )
            for node in self._nodes()
        )
        foreign = not running and self._port != 0 and ask("localhost", self._port) is Answer.KAFKA
        bootstrap = f"localhost:{self._port}" if foreign else self.bootstrap
        return Status(bootstrap=bootstrap, nodes=nodes, foreign=foreign)

    # -- inside ------------------------------------------------------------------------------------

    def _nodes(self) -> tuple[Node, ...]:
        cluster = self._layout.read()
        return cluster.nodes if cluster else ()

    def _running(self) -> dict[int, Identity]:
        pids = {node.id: self._layout.pid(node.id) for node in self._nodes()}
        return {node_id: who for node_id, who in pids.items() if who is not None}

    def _settled(self) -> Status | None:
        """The status, where there is nothing to start; None where there is."""
        now = self.status()
        cluster = self._layout.read()
        if cluster is None or not self._running():
            return now if now.foreign else None
        self._check_shape(cluster)
        return now if now.running else None

    def _check_shape(self, cluster: Cluster) -> None:
        if len(cluster.nodes) != self._count:
            raise SettingsError(
                "nodes",
                f"the cluster in {self._layout.dir} has {len(cluster.nodes)}; "
                "`relance broker stop --purge` deletes it with its data, then start again",
            )
        if not self._running():
            return
        if self._port not in (0, cluster.nodes[0].port):
            raise SettingsError(
                "bootstrap",
                f"the broker of {self._layout.dir} runs at {self.bootstrap}; stop it first, or use that one",
            )
        if self._config is not None and self._config != cluster.config:
            raise SettingsError(
                "config", f"the broker of {self._layout.dir} runs with other settings; stop it first"
            )

    def _start(self, jvm: Jvm, deadline: float) -> None:
        old, running = self._layout.read(), self._running()
        if old is not None:
            self._check_shape(old)
        config = self._config if self._config is not None else (old.config if old else {})
        cluster = old if old and running else lay_out(self._count, self._port, config, old)
        self._check_ports([node for node in cluster.nodes if node.id not in running])
        self._layout.write(cluster)
        self._say(f"starting Kafka at {self.bootstrap}")
        with contextlib.ExitStack() as undo:
            self._format(cluster, jvm, undo)
            started = {}
            for node in cluster.nodes:
                if node.id not in running:
                    log = self._layout.log(node.id)
                    since = log.stat().st_size if log.exists() else 0
                    undo.callback(self._undo_launch, node.id)
                    started[node.id] = (launch(self._layout, node, jvm), since)
            for node in cluster.nodes:
                self._wait_until_serving(node, cluster, started, deadline)
            undo.pop_all()

    def _format(self, cluster: Cluster, jvm: Jvm, undo: contextlib.ExitStack) -> None:
        formatting: list[tuple[Node, subprocess.Popen[str]]] = []
        ipv6 = port_is_free(0, "::1")
        undo.callback(_end_all, formatting)
        for node in cluster.nodes:
            data = self._layout.data(node.id)
            write_properties(
                self._layout,
                node,
                server_properties(node, cluster.nodes, data, cluster.config, with_ipv6=ipv6),
            )
            if (process := start_format(self._layout, node, jvm, cluster.cluster_id)) is not None:
                formatting.append((node, process))
        for node, process in formatting:
            finish_format(self._layout, node, process)

    def _undo_launch(self, node_id: int) -> None:
        who = self._layout.pid(node_id)
        if who is not None:
            terminate(who, 2.0)
        self._layout.forget_pid(node_id)

    def _wait_until_serving(
        self, node: Node, cluster: Cluster, started: Mapping[int, tuple[Identity, int]], deadline: float
    ) -> None:
        while not serves(node, len(cluster.nodes)):
            for other in cluster.nodes:
                if other.id in started:
                    who, since = started[other.id]
                    check_alive(self._layout, other, who, since)
            if time.monotonic() >= deadline:
                raise BrokerFailedError(
                    f"Kafka (node {node.id}) did not serve in time and was stopped "
                    f"(log: {self._layout.log(node.id)})"
                )
            time.sleep(_TICK)

    def _check_ports(self, nodes: list[Node]) -> None:
        for node in nodes:
            for port in (node.port, node.internal_port, node.controller_port):
                if not port_is_free(port) or (port_is_free(0, "::1") and not port_is_free(port, "::1")):
                    raise BrokerFailedError(held_message(port))


def _end_all(formatting: list[tuple[Node, subprocess.Popen[str]]]) -> None:
    for _, process in formatting:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
