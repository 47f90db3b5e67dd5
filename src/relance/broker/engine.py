"""What runs the nodes of a local cluster, as a protocol; promises that the front needs to know no more.

`java` runs Kafka's jars as processes, `docker` one container of Kafka's image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Protocol

from relance.broker.layout import Cluster
from relance.errors import RelanceError


class BrokerFailedError(RelanceError):
    """Kafka ended, or did not come up; the message holds what it said last and where its log is."""


class PortHeldError(BrokerFailedError):
    """Another program has a port that a node needs; the message names both."""


class MissingToolError(RelanceError):
    """Something this machine lacks; the message names what to install."""


class Engine(Protocol):
    """One way of running a cluster."""

    def prepare(self) -> None:
        """Get what a start needs, downloads included. Raises MissingToolError."""

    def running(self, cluster: Cluster) -> Mapping[int, int | None]:
        """The nodes that run, each with its process id where it has one of this machine."""

    def serves(self, cluster: Cluster, node_id: int) -> bool:
        """Whether a node takes clients."""

    def start(self, cluster: Cluster, undo: contextlib.ExitStack, deadline: float) -> None:
        """Start what does not run and wait until all serve; what it starts, it puts on `undo`."""

    def stop(self, cluster: Cluster, timeout: float) -> None:
        """Stop all nodes, by force after `timeout` seconds, and say so if it came to that."""

    def kill(self, cluster: Cluster, node_id: int) -> None:
        """End one node at once, as a crash would. Raises BrokerFailedError where it does not run."""

    def purge(self, cluster: Cluster) -> None:
        """Delete the data and the logs of a cluster that is down."""
