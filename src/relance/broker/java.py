"""Runs a cluster as Java processes of this machine; promises that an aborted start leaves none behind."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping

from relance.broker import node as nodes
from relance.broker.engine import BrokerFailedError, MissingToolError
from relance.broker.jars import Say, ensure_jars, find_jars, find_java, kafka_home
from relance.broker.layout import Cluster, Layout, Node
from relance.broker.processes import Identity, send, terminate, uninterrupted, wait_gone
from relance.broker.properties import server_properties
from relance.ports import port_is_free

_TICK = 0.05  # seconds between two looks at a node that starts

Watched = Mapping[int, tuple[Identity, int]]  # a node's process, and where its log began this time


class JavaEngine:
    """Kafka's jars, run by a Java of 17 or later, one process a node."""

    def __init__(self, layout: Layout, heap_mb: int, say: Say) -> None:
        self._layout = layout
        self._heap_mb = heap_mb
        self._say = say
        self._jvm: nodes.Jvm | None = None

    def prepare(self) -> None:
        """Find Java, and fetch the jars if they are not there. Names all that is missing, not the first."""
        missing: list[str] = []
        java = libs = None
        try:
            java = find_java()
        except MissingToolError as error:
            missing.append(str(error))
        try:
            # Without a Java there is nothing to download for.
            libs = find_jars(kafka_home()) if missing else ensure_jars(kafka_home(), self._say)
        except MissingToolError as error:
            missing.append(str(error))
        if java is None or libs is None:
            raise MissingToolError(" and ".join(missing))
        self._jvm = nodes.Jvm(java, libs, self._heap_mb)

    def running(self, cluster: Cluster) -> Mapping[int, int | None]:
        """The process of each node that runs."""
        return {node_id: who.pid for node_id, who in self._processes(cluster).items()}

    def serves(self, cluster: Cluster, node_id: int) -> bool:
        """Whether a node of ours runs and takes clients."""
        node = cluster.node(node_id)
        return self._layout.pid(node_id) is not None and nodes.serves(node, 1)

    def start(self, cluster: Cluster, undo: contextlib.ExitStack, deadline: float) -> None:
        """Format what is new, launch what does not run, wait for all."""
        assert self._jvm is not None, "prepare() comes first"
        running = self._processes(cluster)
        missing = [node for node in cluster.nodes if node.id not in running]
        self._format(cluster, missing, self._jvm)
        watched = {node_id: (who, 0) for node_id, who in running.items()}
        for node in missing:
            since = nodes.prepare_log(self._layout, node)
            undo.callback(self._undo_launch, node.id)
            watched[node.id] = (nodes.launch(self._layout, node, self._jvm), since)
        for node in cluster.nodes:
            self._wait_until_serving(node, cluster, watched, deadline)

    def stop(self, cluster: Cluster, timeout: float) -> None:
        """SIGTERM for all, then SIGKILL for who is left after `timeout` seconds."""
        running = self._processes(cluster)
        # All at once: a node that is alone waits for a quorum that will not come back.
        for who in running.values():
            send(who, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        for node_id, who in running.items():
            if not terminate(who, max(0.0, deadline - time.monotonic())):
                self._say(f"node {node_id} (pid {who.pid}) did not stop in {timeout:g} s, so it was killed")
            self._layout.forget_pid(node_id)

    def kill(self, cluster: Cluster, node_id: int) -> None:
        """SIGKILL."""
        who = self._layout.pid(cluster.node(node_id).id)
        if who is None:
            raise BrokerFailedError(f"node {node_id} does not run, so it cannot be killed")
        send(who, signal.SIGKILL)
        wait_gone(who, 10.0)
        self._layout.forget_pid(node_id)

    def purge(self, cluster: Cluster) -> None:
        """Delete the nodes' directories and logs."""
        for node in cluster.nodes:
            shutil.rmtree(self._layout.node(node.id), ignore_errors=True)
            self._layout.log(node.id).unlink(missing_ok=True)

    # -- inside ------------------------------------------------------------------------------------

    def _processes(self, cluster: Cluster) -> dict[int, Identity]:
        found = {node.id: self._layout.pid(node.id) for node in cluster.nodes}
        return {node_id: who for node_id, who in found.items() if who is not None}

    def _format(self, cluster: Cluster, missing: list[Node], jvm: nodes.Jvm) -> None:
        ipv6 = port_is_free(0, "::1")
        formatting: list[tuple[Node, subprocess.Popen[str]]] = []
        try:
            for node in missing:
                properties = server_properties(
                    node, cluster.nodes, self._layout.data(node.id), cluster.config, with_ipv6=ipv6
                )
                nodes.write_properties(self._layout, node, properties)
                with uninterrupted():
                    process = nodes.start_format(self._layout, node, jvm, cluster.cluster_id)
                    if process is not None:
                        formatting.append((node, process))
            for node, process in formatting:
                nodes.finish_format(self._layout, node, process)
        finally:
            for _, process in formatting:
                _end(process)

    def _undo_launch(self, node_id: int) -> None:
        # A second Ctrl-C must not leave behind what the first one was to end.
        with uninterrupted():
            who = self._layout.pid(node_id)
            if who is not None:
                terminate(who, 2.0)
            self._layout.forget_pid(node_id)

    def _wait_until_serving(self, node: Node, cluster: Cluster, watched: Watched, deadline: float) -> None:
        while not nodes.serves(node, len(cluster.nodes)):
            for other in cluster.nodes:
                who, since = watched[other.id]
                nodes.check_alive(self._layout, other, who, since)
            if time.monotonic() >= deadline:
                raise BrokerFailedError(
                    f"Kafka (node {node.id}, pid {watched[node.id][0].pid}) did not serve clients in time; "
                    f"see its log: {self._layout.log(node.id)}"
                )
            time.sleep(_TICK)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
