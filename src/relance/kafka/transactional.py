"""One transactional producer, and the calls of one transaction at a time.

Promise: a call ends in one of four ways, and each says what is known of the transaction: it returns;
`AbortedError`: nothing of it will count, and it has to be aborted; `BrokenError`: the client is of no more
use (if that came from `commit`, nobody knows whether it took effect); `GivenUpError`: `giving_up` said so
while the client could only be asked again. What may pass is asked again, as long as the transaction has time.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client
from confluent_kafka import TopicPartition as ClientPartition

from relance.burst import LastingLog
from relance.errors import SendError, kafka_error
from relance.kafka.cluster import Committed, KafkaRefusedError, QuietLog, error_text
from relance.kafka.commits import read_committed_offsets
from relance.kafka.forked import kept_in_children
from relance.kafka.limits import ALONE, TOO_LARGE, batch_settings, content_size, too_large
from relance.kafka.producer import IN_FLIGHT, check_header
from relance.kafka.rights import with_right
from relance.record import Outgoing, TopicPartition

__all__ = [
    "ABORTED_WITHIN",
    "AbortedError",
    "BatchTooLargeError",
    "BrokenError",
    "Connect",
    "GivenUpError",
    "TooOldError",
    "TransactionalProducer",
    "committed_offsets",
    "connect",
    "is_member",
    "producer_config",
]

_log = logging.getLogger("relance.kafka")

T = TypeVar("T")

Connect = Callable[[Callable[[KafkaError], None], int], Any]
"""Makes a client, given what to call with its errors and the bytes of its batches."""

_TIMEOUT = 10.0
"""Seconds that a transaction may stay open. Whoever crashes leaves one behind that holds up the readers of
what it wrote to, and the next owner of its partitions, for that long: so short. A transaction takes
milliseconds; one that took longer than `_END_BY` is given up with its client, and made again."""

_SWEEP = 10.0  # seconds; how often a broker looks for those that have timed out, by default

ABORTED_WITHIN = _TIMEOUT + _SWEEP
"""Seconds after which the broker has aborted what a crashed process left open (with its default settings)."""

_WRITE = 5.0  # seconds for a record of a transaction to be written
_ANSWER = 5.0  # seconds for one answer: a link that fell silent must not take all the time there is
_TRY = 2.0  # seconds for a call that may be tried again

_END_BY = _TIMEOUT - _TRY - 1.0
"""Seconds after its begin until which anything of a transaction is asked for, its end above all: the last
try of that, and the client with it, are over before a broker aborts it for its age, with a higher epoch.
Another broker that doesn't know of that may accept our commit or abort; the partitions that do know refuse
its markers, and whoever waits for those waits for ever (seen with Kafka 4.3.1). Only another client of its
name is safe then: it gets a new epoch."""

_PAUSE = 0.05
_LAST_ANSWERS = 0.5  # seconds for a client to give up what it was asked to write
_IDLE = 4.0
"""Seconds after which an unused connection is closed. The client's search for the group's coordinator goes on
only when some connection comes or goes; where the network failed in the middle of it and is well again, it
waited for ever, and `send_offsets_to_transaction` with it, which has no time limit of its own (2.16)."""

_BEHIND = frozenset(
    {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER}
)
"""Answers for records that were behind a refused one: what is wrong is told of that one."""

_NAMED_WITHIN = 0.5  # seconds from the end of a transaction by a refusal to the answer that names the record


class AbortedError(Exception):
    """Nothing of the transaction will count; it must be aborted. `code` is Kafka's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class BrokenError(Exception):
    """The client is of no more use."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class TooOldError(BrokenError):
    """The transaction's time was over."""

    def __init__(self) -> None:
        super().__init__(KafkaError._TIMED_OUT, "a transaction took longer than it may")


class BatchTooLargeError(Exception):
    """`topic` takes no batch of this size; each of its records may be small enough. Abort, and cut it."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.topic = topic


class GivenUpError(Exception):
    """It was time to stop trying."""


def producer_config(common: Mapping[str, Any], group: str, largest: int) -> dict[str, Any]:
    """For a transactional producer that commits offsets of `group`; the settings of a user come first."""
    # Nobody else's, ever: by this name one producer puts another out of action. The group's name comes first,
    # so that one prefixed ACL allows all of them.
    name = f"{group}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
    return {
        "linger.ms": 0,
        "max.in.flight.requests.per.connection": IN_FLIGHT,
        **common,
        "partitioner": common.get("partitioner", "murmur2_random"),
        "topic.metadata.propagation.max.ms": 2000,
        "log.connection.close": False,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "connections.max.idle.ms": int(_IDLE * 1000),
        "message.max.bytes": largest,
        "message.timeout.ms": int(_WRITE * 1000),
        "socket.timeout.ms": int(_ANSWER * 1000),
        "enable.metrics.push": False,  # its end, which may be waited for, would be one second later
        "transaction.timeout.ms": int(_TIMEOUT * 1000),
        "transactional.id": name,
    }


class TransactionalProducer:
    """A client from `connect`; its transactions, one at a time, on one thread.

    `batch`: bytes of its batches, see `TopicLimits.batch`.
    """

    def __init__(self, connect: Connect, batch: int, giving_up: Callable[[], bool]) -> None:
        self.batch = batch
        self._giving_up = giving_up
        self._fatal: KafkaError | None = None
        self._end_by = math.inf
        self._lasting = LastingLog(_log.name)
        self._client = connect(self._on_error, batch)
        kept_in_children(self, "_client")
        self._known: set[str] = set()
        self.spoiled = False
        """A broker has refused a record. The client takes a new epoch for that when it aborts, and may hold
        back the next transaction's records until they time out (librdkafka 2.16, measured: 1 time in 2)."""
        self._cut = ""
        """The topic that refused a batch of the transaction, for its size."""
        try:
            self._call("init_transactions", _TRY)
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """Open a transaction."""
        self._end_by = time.monotonic() + _END_BY
        self._call("begin_transaction")

    def missing(self, topics: Iterable[str], *, again: bool = False) -> dict[str, SendError]:
        """Those that can't be written to, with the reason. One that was there once is asked for only `again`.

        A topic that isn't there would hold the transaction up for seconds before it failed.
        """
        found = {}
        for topic in topics:
            if topic in self._known and not again:
                continue
            try:
                told = self._client.list_topics(topic, timeout=_TRY).topics[topic]
            except KafkaException as error:
                _log.debug("transactions: asking for %s: %s", topic, error_text(error))
                continue  # nobody answers: the transaction will show it
            if told.error is not None:
                self._known.discard(topic)
                found[topic] = _send_error(topic, told.error)
            elif all(p.leader < 0 for p in told.partitions.values()):
                text = f"{topic}: none of its partitions has a leader"
                found[topic] = SendError(text, maybe_written=False, code=KafkaError.LEADER_NOT_AVAILABLE)
            else:
                self._known.add(topic)
        return found

    def write(self, records: Sequence[tuple[T, Outgoing]]) -> dict[T, tuple[str, SendError]]:
        """Write all of `records`, each for somebody: the first of those whose records were refused, and why.

        Whoever is named has to be left out of the next transaction; this one must be aborted then. Raises
        BatchTooLargeError where it is a batch that was refused.
        """
        refused: dict[T, tuple[str, SendError]] = {}
        left: dict[int, tuple[T, Outgoing]] = {}
        self._cut = ""
        for number, (whose, outgoing) in enumerate(records):
            left[number] = whose, outgoing
            try:
                problem = self._produce(outgoing, partial(self._delivered, number, left, refused))
            except AbortedError:
                self._wait_for_a_name(refused)
                if not refused:
                    raise
                problem = None
            if problem is not None:
                refused.setdefault(whose, (outgoing.topic, problem))
            if refused:
                return self._note(refused)
        deadline = time.monotonic() + _WRITE + 1.0
        while left and not refused:
            if time.monotonic() > deadline:
                # An answer is due by now. It is not known who holds it up, so all of them are named.
                late = SendError("no answer came in time", maybe_written=True, code=KafkaError._MSG_TIMED_OUT)
                for whose, outgoing in left.values():
                    refused.setdefault(whose, (outgoing.topic, late))
            self._call("flush", _PAUSE)
        return self._note(refused)

    def send_offsets(self, offsets: list[ClientPartition], metadata: object) -> None:
        """Commit `offsets` with the transaction, for the generation of the group that `metadata` names."""
        left = max(_PAUSE, min(_ANSWER, self._end_by - time.monotonic()))
        self._call("send_offsets_to_transaction", offsets, metadata, left)

    def commit(self) -> None:
        """End the transaction. `BrokenError` and `GivenUpError` here mean: unknown."""
        self._call("commit_transaction", _TRY)

    def abort(self) -> None:
        """End it without effect. Raises BrokenError if it can't; the next client of its name does it then."""
        try:
            self._call("abort_transaction", _TRY)
        except AbortedError as error:  # cannot be: what is to be aborted already is
            raise BrokenError(error.code, error.text) from error

    def close(self) -> None:
        """The client is gone when this returns. Until then it asks for an end once begun, again and again.

        What is open is ended by the next client of its name, or by the broker after its time.
        """
        client, self._client = self._client, None  # it is destroyed with the last reference
        try:
            client.purge()
            answered_by = time.monotonic() + _LAST_ANSWERS
            # An answer that it still owes would keep what it answers for.
            while len(client) and time.monotonic() < answered_by:
                try:
                    client.poll(_PAUSE)
                except KafkaException as error:  # why it was of no more use, which its caller knows
                    _log.debug("transactions: at its end: %s", error_text(error))
        finally:
            del client

    # -- inside ------------------------------------------------------------------------------------

    def _note(self, refused: dict[T, tuple[str, SendError]]) -> dict[T, tuple[str, SendError]]:
        self._known.difference_update(topic for topic, _ in refused.values())
        if self._cut:
            raise BatchTooLargeError(self._cut)
        return refused

    def _wait_for_a_name(self, refused: Mapping[T, object]) -> None:
        """The transaction fails a moment before the answer comes that says why."""
        until = time.monotonic() + _NAMED_WITHIN
        while not refused and len(self._client) and time.monotonic() < until:
            self._client.poll(_PAUSE)

    def _produce(self, outgoing: Outgoing, answer: Callable[..., None]) -> SendError | None:
        topic, key, value, headers = outgoing
        try:
            for name, _ in headers:
                check_header(name)  # the client would crash the process
            while True:
                try:
                    self._client.produce(topic, value, key, headers=list(headers) or None, on_delivery=answer)
                except BufferError:
                    self._call("poll", _PAUSE)
                else:
                    return None
        except SendError as error:
            return error
        except KafkaException as error:
            problem = error.args[0]
            if problem.fatal() or problem.txn_requires_abort():
                self._look_at(problem)
            if problem.code() == KafkaError._STATE:  # an earlier record was refused: its answer says which
                self._client.poll(0)
                raise AbortedError(problem.code(), problem.str()) from error
            return _send_error(topic, problem)

    def _delivered(
        self,
        number: int,
        left: dict[int, tuple[T, Outgoing]],
        refused: dict[T, tuple[str, SendError]],
        error: KafkaError | None,
        message: Message,
    ) -> None:
        # The first refusal only: those behind it fail because of it.
        whose, (topic, key, value, headers) = left.pop(number)
        if error is not None and error.code() not in _BEHIND and not refused and not error.fatal():
            problem = _send_error(topic, error)
            self.spoiled = True
            if error.code() in TOO_LARGE:
                size = content_size(key, value, headers)
                if self.batch == ALONE or size > self.batch:  # a batch of its own
                    problem = too_large(topic, size, error.code())
                else:
                    self._cut = topic
            refused[whose] = topic, problem

    def _call(self, name: str, *args: object) -> None:
        # By name: an error's traceback would keep a bound method, and with it the client, alive.
        since = time.monotonic()
        while True:
            if time.monotonic() > self._end_by:
                raise TooOldError
            try:
                getattr(self._client, name)(*args)
            except KafkaException as error:
                problem = error.args[0]
                self._look_at(problem)
            else:
                if self._fatal is not None:
                    raise BrokenError(self._fatal.code(), self._fatal.str())
                return
            if self._giving_up():
                raise GivenUpError
            if time.monotonic() > since + _TIMEOUT:  # the first call only: all others are too old by then
                self._lasting.warning(name, f"no transaction can begin: {name}: {problem.str()}")
            time.sleep(_PAUSE)

    def _look_at(self, error: KafkaError) -> None:
        if error.fatal():
            raise BrokenError(error.code(), error.str())
        if error.txn_requires_abort():
            raise AbortedError(error.code(), error.str())
        if not (error.retriable() or kafka_error(error.code()).retriable):
            raise BrokenError(error.code(), error.str())

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        else:
            _log.debug("transactions: %s", error.str())


def _send_error(topic: str, error: KafkaError) -> SendError:
    # Where no answer came, the record may lie in the log as part of an aborted transaction.
    code = error.code()
    row = kafka_error(code)
    text = with_right(error.str(), code, "send", topic=topic)
    return SendError(f"{topic}: {row.name}: {text}", maybe_written=row.maybe_written, code=code)


def is_member(metadata: bytes) -> bool:
    """Whether a client's group metadata (librdkafka's form: a magic, then the number) name a generation.

    Out of its group a client has number -1 and no member id, and for those a broker checks nothing: such a
    transaction would commit over the head of the partitions' next owner (measured, Kafka 4.3).
    """
    return not metadata.startswith(b"CGMDv2:\xff\xff\xff\xff")


def connect(config: Mapping[str, Any]) -> Connect:
    """Makes clients of `config`, each with a callback for its errors and the size of its batches."""
    return lambda on_error, batch: Client(
        {**config, **batch_settings(batch), "error_cb": on_error}, logger=QuietLog()
    )


def committed_offsets(
    common: Mapping[str, Any],
    group: str,
    tps: Sequence[TopicPartition],
    timeout: float = 5.0,
    *,
    stable: bool = True,
) -> dict[TopicPartition, Committed]:
    """What `group` has committed for `tps`; -1 where it never did.

    `stable`: no transaction being under way, which is waited for. Raises KafkaRefusedError where nobody says.
    """
    isolation = "read_committed" if stable else "read_uncommitted"
    asker = Consumer(
        {**common, "group.id": group, "enable.auto.commit": False, "isolation.level": isolation},
        logger=QuietLog(),
    )
    try:
        return read_committed_offsets(asker, tps, timeout)
    except KafkaException as error:
        what = f"say what {group} has committed"
        raise KafkaRefusedError(what, "Kafka", error_text(error), error.args[0].code()) from error
    finally:
        asker.close()
