"""What a poller serves: the runtime, seen from the polling thread."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from relance.engine.assignment import Assignment, Commit
from relance.engine.transaction import Settling, Taken
from relance.kafka.starts import Start
from relance.record import Record, TopicPartition

__all__ = ["Hub", "TransactionHub"]


class Hub(Protocol):
    """What a poller serves. All calls come from the poller's thread and must not run user code on it."""

    def assigned(self, feed: str, starts: list[Start]) -> None: ...  # noqa: D102
    def received(self, feed: str, tp: TopicPartition, records: list[Record]) -> None: ...  # noqa: D102
    def end_reached(self, tp: TopicPartition, offset: int) -> None: ...  # noqa: D102
    def positions(self, feed: str) -> dict[TopicPartition, int]: ...  # noqa: D102
    def full(self, feed: str) -> bool: ...  # noqa: D102
    def starved(self, feed: str) -> bool: ...  # noqa: D102
    def wait_for_room(self, feed: str, timeout: float, *, or_starved: bool) -> bool: ...  # noqa: D102
    def pauses(self, feed: str, *, crowded: bool) -> set[TopicPartition]: ...  # noqa: D102
    def commits(self, feed: str, only: Sequence[TopicPartition] | None) -> list[Commit]: ...  # noqa: D102
    def urgent(self, feed: str) -> bool: ...  # noqa: D102
    def careful(self, feed: str) -> bool: ...  # noqa: D102
    def committed(self, commit: Commit) -> None: ...  # noqa: D102
    def commit_failed(self, commit: Commit, *, too_large: bool = False) -> None: ...  # noqa: D102
    def revoking(self, feed: str, tps: list[TopicPartition]) -> None: ...  # noqa: D102
    def revoked(self, feed: str, tps: list[TopicPartition], *, lost: bool) -> None: ...  # noqa: D102
    def fail(self, error: Exception) -> None: ...  # noqa: D102


class TransactionHub(Protocol):
    """What a transactor serves. The calls come from its thread, and from those that hand off."""

    def uncommitted(self, feed: str, tps: Collection[TopicPartition] | None = None) -> bool: ...  # noqa: D102
    def urgent(self, feed: str) -> bool: ...  # noqa: D102
    def settle(self, feed: str, handoffs: Sequence[Settling], without: Collection[str]) -> Taken: ...  # noqa: D102
    def undo(self, taken: Taken) -> None: ...  # noqa: D102
    def confirm(self, taken: Taken) -> None: ...  # noqa: D102
    def commit_failed(self, commit: Commit, *, too_large: bool = False) -> None: ...  # noqa: D102
    def not_settled(self, assignment: Assignment, offset: int, reason: str) -> None: ...  # noqa: D102
    def tried_again(self, assignment: Assignment, offset: int) -> None: ...  # noqa: D102
    def fail(self, error: Exception) -> None: ...  # noqa: D102
