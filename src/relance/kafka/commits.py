"""How offsets reach the broker: what a poller asks of its committer, and the group's own commit.

`GroupCommitter` is for when nothing else has to be written with the offsets (`transactions` has the other).
Promises: at most one commit is on its way; what failed is offered again; the last commit before a revocation
is waited for. All calls come from the polling thread, which alone may use the client.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from relance.engine.assignment import Commit
from relance.kafka.cluster import Committed
from relance.kafka.hub import Hub
from relance.record import TopicPartition

__all__ = ["STALE", "Committer", "GroupCommitter", "read_committed_offsets", "wire"]

_rebalance_log = logging.getLogger("relance.rebalance")

_TOO_LARGE = KafkaError.OFFSET_METADATA_TOO_LARGE

_AFTER_REFUSAL = 0.1  # seconds before an urgent commit is offered again

STALE = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._STATE,
        KafkaError._NO_OFFSET,
    }
)
"""The group has moved on: what is still owned is committed with its new generation, the rest is another's."""


class Committer(Protocol):
    """How the offsets of one feed reach the broker. All calls but `stop` come from the polling thread."""

    def commit_if_due(self, client: Client) -> None:
        """Called with every turn of the poller."""

    def answered(self, error: KafkaError | None, partitions: Sequence[ClientPartition]) -> None:
        """The client's `on_commit`."""

    @property
    def waiting(self) -> bool:
        """Whether a commit is on its way."""

    def commit_now(self, client: Client) -> None:
        """Send what has changed, if none is on its way."""

    def revoking(self, client: Client) -> None:
        """Partitions are about to go, and what runs is about to be drained."""

    def commit_last(self, client: Client, tps: Sequence[TopicPartition]) -> None:
        """Commit `tps`, which are about to go, and wait for the answer."""

    def stop(self, deadline: float) -> None:
        """Everything should be done by then (monotonic). Any thread may call it."""

    def close(self) -> None:
        """The poller has left its group."""


class GroupCommitter:
    """Commits of one feed; `tell(what, text)` gets a line for a refusal that is no part of a rebalance."""

    def __init__(self, hub: Hub, feed: str, interval: float, tell: Callable[[object, str], None]) -> None:
        self._hub = hub
        self._feed = feed
        self._interval = interval
        self._tell = tell
        self._next = 0.0
        self._hurry_from = 0.0
        self._in_flight: list[Commit] | None = None

    def commit_if_due(self, client: Client) -> None:
        """Send what has changed, every `interval` seconds or when it is urgent; see `answered`."""
        now = time.monotonic()
        if self._in_flight is not None:
            return
        if now < self._next and (now < self._hurry_from or not self._hub.urgent(self._feed)):
            return
        self._next = now + self._interval
        commits = self._hub.commits(self._feed, None)
        if not commits:
            return
        self._in_flight = commits
        try:
            client.commit(offsets=[wire(c) for c in commits], asynchronous=True)
        except KafkaException as error:
            self._settle(error.args[0], {})

    def answered(self, error: KafkaError | None, partitions: Sequence[ClientPartition]) -> None:
        """The client's `on_commit`."""
        self._settle(error, {TopicPartition(p.topic, p.partition): p.error for p in partitions})

    @property
    def waiting(self) -> bool:
        """Whether a commit is on its way."""
        return self._in_flight is not None

    def commit_now(self, client: Client) -> None:
        """Send what has changed, if none is on its way."""
        self._next = 0.0
        self.commit_if_due(client)

    def revoking(self, client: Client) -> None:
        """Nothing is to be prepared."""

    def stop(self, deadline: float) -> None:
        """Nothing of ours takes long."""

    def close(self) -> None:
        """Nothing of ours is left."""

    def commit_last(self, client: Client, tps: Sequence[TopicPartition]) -> None:
        """Commit `tps`, which are about to go, and wait for the answer."""
        refused = self._offer(client, self._hub.commits(self._feed, tps))
        bare = []
        for commit in [commit for commit, error in refused if error.code() == _TOO_LARGE]:
            self._hub.commit_failed(commit, too_large=True)
            bare.append(replace(commit, metadata=""))  # there is no time to find out how much is taken
        refused = [(c, error) for c, error in refused if error.code() != _TOO_LARGE]
        refused += self._offer(client, bare)
        if refused:
            # Not swallowed: what was not committed is handled again by the next owner, and we say so.
            reasons = ", ".join(sorted({error.str() for _, error in refused}))
            _rebalance_log.warning(
                "[REBALANCE] Offsets not committed, the next owner repeats them: %s", reasons
            )
        elif tps:  # also if all was committed before: this is the line that the course greps for
            _rebalance_log.info("[REBALANCE] Offsets committed before revocation")

    def _offer(self, client: Client, commits: Sequence[Commit]) -> list[tuple[Commit, KafkaError]]:
        """Commit them and wait for the answer; those that were refused."""
        if not commits:
            return []
        try:
            answers = client.commit(offsets=[wire(c) for c in commits], asynchronous=False) or []
        except KafkaException as error:  # all of them, for one reason
            return [(commit, error.args[0]) for commit in commits]
        errors = {TopicPartition(a.topic, a.partition): a.error for a in answers if a.error is not None}
        for commit in commits:
            if commit.assignment.tp not in errors:
                self._hub.committed(commit)
        return [(c, errors[c.assignment.tp]) for c in commits if c.assignment.tp in errors]

    def _settle(self, error: KafkaError | None, each: Mapping[TopicPartition, KafkaError | None]) -> None:
        commits, self._in_flight = self._in_flight or [], None
        for commit in commits:
            problem = each.get(commit.assignment.tp) or error
            if problem is None:
                self._hub.committed(commit)
                continue
            self._hurry_from = time.monotonic() + _AFTER_REFUSAL
            self._hub.commit_failed(commit, too_large=problem.code() == _TOO_LARGE)
            if problem.code() not in STALE and problem.code() != _TOO_LARGE:  # which the hub tells
                tp = commit.assignment.tp
                self._tell(("commit", problem.code()), f"commit of {tp}: {problem.str()}")


def wire(commit: Commit) -> ClientPartition:
    """As the client takes it. An empty text goes out as one byte, which a broker may refuse (measured)."""
    tp = commit.assignment.tp
    text = (commit.metadata,) if commit.metadata else ()
    return ClientPartition(tp.topic, tp.partition, commit.offset, *text)


def read_committed_offsets(
    client: Client, tps: Sequence[TopicPartition], timeout: float
) -> dict[TopicPartition, Committed]:
    """What the client's group has committed for `tps`, asked at once; offset -1 where it never did.

    Raises KafkaException where nobody says, within `timeout` seconds.
    """
    answers = client.committed([ClientPartition(*tp) for tp in tps], timeout=timeout)
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
    return {
        TopicPartition(a.topic, a.partition): Committed(max(-1, a.offset), a.metadata or "") for a in answers
    }
