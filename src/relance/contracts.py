"""What a runtime is told (its plan), asks of others (writer, starts, hooks) and tells (counters, looks).

Only shapes: the pollers, workers and the test world depend on these, not on one another.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from relance.engine.assignment import Assignment
from relance.engine.engine import Ordering
from relance.engine.flow import Limits
from relance.engine.outcome import Paths
from relance.policies.masking import Mask
from relance.policies.retry import RetryPolicy
from relance.record import Outgoing, TopicPartition
from relance.stats import InFlight

__all__ = ["Counters", "HooksLike", "Look", "OnFailure", "Plan", "StartLike", "Told", "Writer"]


@dataclass(frozen=True, slots=True)
class Told:
    """Why all stops, as it may be written: nothing in it that is to be hidden."""

    reason: str
    """What happened, to what, and the way out."""
    trace: str = ""
    """The stack of the error behind it."""


class OnFailure(Protocol):
    """Who stops the application."""

    def __call__(self, error: Exception, told: Told | None = None) -> None:
        """Nothing can go on, because of `error`; `told` where a record is behind it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a consumer was asked for, as far as running it needs to know."""

    group: str
    retry: RetryPolicy
    paths: Paths
    ordering: Ordering = "partition"
    limits: Limits = field(default_factory=Limits)
    drain_timeout: float = 8.0
    timeout: float | None = None
    """Seconds that a handler may take before health says so."""
    batch: int = 1
    """How many records the handler gets at once."""
    max_crashes: int = 2
    """Deaths of the process during one record after which it is dead-lettered; 0: never."""
    handler: str = "?"
    """The handler's name, for log lines and errors."""
    mask: Mask = field(default_factory=Mask)
    """What is hidden in what is written down about records."""
    owner: str = ""
    """Which process this is, in a few hexadecimal digits, for whoever owns its partitions next; "" where
    nobody looks for the members of the group."""


@dataclass(slots=True)
class Counters:
    """What this process has done for this consumer, since it started."""

    handled: int = 0
    failed: int = 0
    retried: int = 0
    dead_lettered: int = 0
    rebalances: int = 0
    last_rebalance: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """Records in flight, lanes that wait, records queued, hand-offs on their way; stopped partitions."""

    in_flight: int
    waiting: int
    queued: int
    settling: int
    stopped: dict[str, str]
    oldest: InFlight | None
    """The record in flight that its handler has had for the longest."""
    overdue: list[str]
    """Records whose handlers are past their deadline."""
    map_full: list[str]
    careful: dict[str, str]
    """By partition, how its records start while one of them may kill its process."""
    metadata: str | None = None
    """What it costs that the broker refuses metadata beside offsets, or None."""


class Writer(Protocol):
    """Where hand-offs go; answers by `settled` and `not_settled` of the runtime."""

    def write(self, assignment: Assignment, offset: int, outgoing: Sequence[Outgoing]) -> None:
        """Write all of `outgoing`, durably, however often that takes."""

    def hurry(self, assignments: Collection[Assignment]) -> None:
        """These are about to go: tell `tried_again` of the runtime what was refused, and try it now."""


class StartLike(Protocol):
    """Where reading of a partition begins; `relance.kafka.poller.Start` is one."""

    @property
    def tp(self) -> TopicPartition:
        """Which partition."""

    @property
    def offset(self) -> int:
        """The first offset to read."""

    @property
    def metadata(self) -> str:
        """What the commit of that offset brought along; "" without one."""

    @property
    def topic_id(self) -> str:
        """The topic's present incarnation; "" where brokers have none."""

    @property
    def unbegun(self) -> bool:
        """Whether nothing may be read before its first commit is acknowledged."""

    @property
    def home(self) -> str:
        """What its commits say of the cluster, and of the group's beginning."""

    @property
    def problem(self) -> str | None:
        """Why nothing of it may be read, or None."""


class HooksLike(Protocol):
    """The users' rebalance hooks; called without the lock, never on a thread that must not wait for them."""

    def assigned(self, tps: list[TopicPartition]) -> None:
        """Partitions are ours now."""

    def revoked(self, tps: list[TopicPartition], timeout: float) -> None:
        """Partitions are about to go; may take `timeout` seconds."""

    def lost(self, tps: list[TopicPartition]) -> None:
        """Partitions are gone already."""
