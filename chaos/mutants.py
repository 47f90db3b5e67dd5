"""Defects on purpose: each breaks one promise of the running engine, and the checker has to see it.

A mutant replaces a method in a member's process. There is no branch for it in src/. Those of BLIND were
written by somebody who had not seen the checker.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from relance.consumer import Consumer
from relance.engine.assignment import Assignment, Commit
from relance.engine.due import DueHeap
from relance.engine.engine import Engine
from relance.engine.frontier import Frontier
from relance.engine.lanes import Run
from relance.failures import Failures
from relance.kafka.commits import GroupCommitter
from relance.kafka.handoff import Handoff, Handoffs
from relance.record import Outgoing, Record
from relance.runtime import Runtime

Make = Callable[[], None]


def make(name: str) -> None:
    """Turn this process's engine into the mutant of that name."""
    MUTANTS[name]()


def commit_off_by_one() -> None:
    """The committed offset is one past what is finished."""
    original = Assignment.commit

    def commit(self: Assignment, **more: Any) -> Commit:
        found = original(self, **more)
        return dataclasses.replace(found, offset=min(found.offset + 1, self.frontier.position))

    Assignment.commit = commit  # type: ignore[method-assign]


def drain_skipped() -> None:
    """A revocation, or a stop, waits for nothing."""

    def wait_until(self: Runtime, condition: Callable[[], bool], deadline: float) -> None:
        """As if the deadline had passed."""

    Runtime._wait_until = wait_until  # type: ignore[method-assign]


def handoff_not_awaited() -> None:
    """A retry or a dead letter counts as written when it is sent."""
    original = Handoffs.submit

    def submit(self: Handoffs, handoff: Handoff) -> None:
        original(self, handoff)
        self._settled(handoff)

    Handoffs.submit = submit  # type: ignore[method-assign]


def key_lock_removed() -> None:
    """Records of one key are handled side by side."""
    original = Engine.__init__

    def init(self: Engine, ordering: Any, *args: Any, **more: Any) -> None:
        original(self, "none", *args, **more)

    Engine.__init__ = init  # type: ignore[method-assign]


def due_time_ignored() -> None:
    """Whoever waits is due at once."""
    original = DueHeap.push

    def push(self: DueHeap[Any], due: float, item: Any) -> int:
        return original(self, 0.0, item)

    DueHeap.push = push  # type: ignore[method-assign]


def errors_swallowed() -> None:
    """A failure counts as a success."""

    def failed(self: Failures, *_: Any) -> bool:
        return True

    Failures.failed = failed  # type: ignore[method-assign,assignment]


def acknowledged_early() -> None:
    """What was read counts as finished."""

    original = Assignment.commit

    def commit(self: Assignment, **more: Any) -> Commit:
        found = original(self, **more)
        return dataclasses.replace(found, offset=self.frontier.position, metadata="")

    Assignment.commit = commit  # type: ignore[method-assign]


def unlimited_retries() -> None:
    """No record is ever given up."""
    import relance.judge

    judge: Any = relance.judge
    original = judge.decide

    def decide(error: Exception, *, policy: Any, **more: Any) -> Any:
        return original(error, policy=dataclasses.replace(policy, max_attempts=1_000_000), **more)

    judge.decide = decide


def unread_forgotten() -> None:
    """Until it has read it, an owner leaves out of its map what the one before it left unfinished."""

    def unfinished(self: Frontier) -> list[int]:
        return self._compact()

    Frontier.unfinished = unfinished  # type: ignore[method-assign]


def failed_sends_kept() -> None:
    """What a failed try sent goes out with what the next one sends."""
    original = Failures._report

    def report(self: Failures, run: Run, record: Record, error: Exception) -> Any:
        outbox = record.outbox
        found = original(self, run, record, error)
        record.outbox = outbox
        return found

    Failures._report = report  # type: ignore[method-assign]


def retry_feed_outside() -> None:
    """With transactions, those of the source are made, and the retry topic's feed goes on without."""
    start, write = Consumer.start, Consumer.write

    def started(self: Consumer) -> None:
        transactor = self._transactors.pop("retry", None)
        for poller in self.pollers:
            if transactor is not None and poller.feed.name == "retry":
                plain = GroupCommitter(self.runtime, "retry", transactor._interval, poller._lasting.warning)
                poller._committer = plain
        start(self)

    def written(self: Consumer, assignment: Assignment, offset: int, outgoing: Sequence[Outgoing]) -> None:
        if assignment.feed in self._transactors:
            write(self, assignment, offset, outgoing)
        else:
            self._handoffs.submit(Handoff(assignment, offset, tuple(outgoing)))

    Consumer.start = started  # type: ignore[method-assign]
    Consumer.write = written  # type: ignore[method-assign]


BLIND: tuple[Make, ...] = (unread_forgotten, failed_sends_kept, retry_feed_outside)

MUTANTS: dict[str, Make] = {
    function.__name__.replace("_", "-"): function
    for function in (
        commit_off_by_one,
        drain_skipped,
        handoff_not_awaited,
        key_lock_removed,
        due_time_ignored,
        errors_swallowed,
        acknowledged_early,
        unlimited_retries,
        *BLIND,
    )
}
