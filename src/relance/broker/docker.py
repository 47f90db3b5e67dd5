"""Runs one node as a container of Kafka's own image, for a machine without Java; promises the same settings.

The data live in the container: `stop` keeps it, `purge` removes it. Clients reach it at 127.0.0.1 only.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import time
from collections.abc import Mapping

from relance.broker.engine import BrokerFailedError, MissingToolError
from relance.broker.jars import KAFKA_VERSION, Say
from relance.broker.layout import Cluster, Layout
from relance.broker.node import LOOPBACK, trouble
from relance.broker.probe import Answer, ask
from relance.broker.processes import uninterrupted
from relance.broker.properties import container_properties, escaped
from relance.errors import SettingsError

IMAGE = f"apache/kafka:{KAFKA_VERSION}"
_TICK = 0.1  # seconds between two looks at a container that starts
_PATIENCE = 30.0  # seconds for a docker command that should take one


class DockerEngine:
    """One container, named after the cluster's directory."""

    def __init__(self, layout: Layout, heap_mb: int, say: Say) -> None:
        self._layout = layout
        self._heap_mb = heap_mb
        self._say = say
        self.container = f"relance-kafka-{hashlib.sha256(str(layout.dir).encode()).hexdigest()[:8]}"

    @staticmethod
    def answers() -> bool:
        """Whether there is a docker command whose engine answers."""
        docker = shutil.which("docker")
        if docker is None:
            return False
        asked = [docker, "version", "--format", "{{.Server.Version}}"]
        try:
            return subprocess.run(asked, capture_output=True, timeout=_PATIENCE, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def prepare(self) -> None:
        """Pull the image if it is not there."""
        if not self.answers():
            raise MissingToolError(
                f"the cluster in {self._layout.dir} is a Docker container, and no Docker engine answers: "
                "start Docker, or forget that cluster with `relance broker stop --purge`"
            )
        if _docker("image", "inspect", IMAGE).returncode != 0:
            self._say(f"downloading the image {IMAGE} (once)")
            pulled = _docker("pull", "--quiet", IMAGE, patience=None)
            if pulled.returncode != 0:
                raise BrokerFailedError(f"Docker could not pull {IMAGE}: {trouble(pulled.stderr)}")

    def running(self, cluster: Cluster) -> Mapping[int, int | None]:
        """Node 1, without a pid, where the container runs."""
        state = _docker("container", "inspect", "--format", "{{.State.Running}}", cluster.container)
        return {1: None} if state.stdout.strip() == "true" else {}

    def serves(self, cluster: Cluster, node_id: int) -> bool:
        """Whether a Kafka answers at the published port."""
        return ask(LOOPBACK, cluster.node(node_id).port) is Answer.KAFKA

    def start(self, cluster: Cluster, undo: contextlib.ExitStack, deadline: float) -> None:
        """Start the container, a new one where there is none, and wait until it serves."""
        if len(cluster.nodes) != 1:
            raise SettingsError("nodes", "Docker runs one node; install Java and Maven for more")
        if not self.running(cluster):
            with uninterrupted():
                self._launch(cluster, undo)
        while not self.serves(cluster, 1):
            if not self.running(cluster):
                raise BrokerFailedError(f"Kafka ended while starting: {self._last_words(cluster)}")
            if time.monotonic() >= deadline:
                raise BrokerFailedError(
                    f"Kafka did not serve clients in time; see `docker logs {cluster.container}`"
                )
            time.sleep(_TICK)
        self._layout.logs.mkdir(parents=True, exist_ok=True)
        self._layout.log(1).write_text(f"Kafka runs in Docker; its log: docker logs {cluster.container}\n")

    def stop(self, cluster: Cluster, timeout: float) -> None:
        """Docker's stop, which kills after `timeout` seconds; the container and its data stay."""
        if self.running(cluster):
            seconds = str(max(0, round(timeout)))
            stopped = _docker("stop", "--time", seconds, cluster.container, patience=timeout + _PATIENCE)
            if stopped.returncode != 0:
                raise BrokerFailedError(
                    f"Docker could not stop {cluster.container}: {trouble(stopped.stderr)}"
                )

    def kill(self, cluster: Cluster, node_id: int) -> None:
        """Docker's kill."""
        if _docker("kill", cluster.container).returncode != 0:
            raise BrokerFailedError(f"node {node_id} does not run, so it cannot be killed")

    def purge(self, cluster: Cluster) -> None:
        """Remove the container with its data."""
        removed = _docker("rm", "--force", "--volumes", cluster.container)
        if removed.returncode != 0:
            self._say(f"could not remove the container {cluster.container}: {trouble(removed.stderr)}")
        self._layout.log(1).unlink(missing_ok=True)

    def _launch(self, cluster: Cluster, undo: contextlib.ExitStack) -> None:
        name = cluster.container
        if _docker("container", "inspect", name).returncode == 0:
            launched = _docker("start", name)
            undo.callback(_docker, "stop", "--time", "2", name)
        else:
            port = cluster.nodes[0].port
            settings = container_properties(port, cluster.config)
            environment = {_variable(key): escaped(value) for key, value in settings.items()}
            environment |= {"CLUSTER_ID": cluster.cluster_id, "KAFKA_HEAP_OPTS": f"-Xmx{self._heap_mb}m"}
            options = [f"--env={key}={value}" for key, value in environment.items()]
            published = f"--publish={LOOPBACK}:{port}:{port}"
            launched = _docker("run", "--detach", f"--name={name}", published, *options, IMAGE)
            undo.callback(_docker, "rm", "--force", "--volumes", name)
        if launched.returncode != 0:
            raise BrokerFailedError(f"Docker could not start {IMAGE}: {trouble(launched.stderr)}")

    def _last_words(self, cluster: Cluster) -> str:
        logs = _docker("logs", "--tail", "100", cluster.container)
        return trouble(logs.stdout + logs.stderr)


def _variable(key: str) -> str:
    """A setting as the image wants it in the environment."""
    return "KAFKA_" + key.replace("_", "__").replace("-", "___").replace(".", "_").upper()


def _docker(*arguments: str, patience: float | None = _PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run docker; where it is missing, or silent for too long, that is an answer too: a failed one."""
    try:
        return subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience,
            check=False,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 127, "", "there is no docker command")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(arguments, 124, "", f"docker said nothing for {patience:g} s")
