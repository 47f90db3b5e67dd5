"""How a local cluster stands, as frozen data; says nothing that was not just asked of process and port."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node: `up` where it runs, `answers` where it takes clients; in a container it has no `pid`."""

    id: int
    port: int
    up: bool
    pid: int | None
    answers: bool
    log: Path


@dataclass(frozen=True, slots=True)
class Status:
    """The cluster at one moment. `foreign`: a Kafka answers at the port that was not started from here."""

    bootstrap: str
    nodes: tuple[NodeStatus, ...]
    foreign: bool
    container: str = ""

    @property
    def running(self) -> bool:
        """Whether every node serves clients."""
        return self.foreign or (bool(self.nodes) and all(node.answers for node in self.nodes))
