"""Writing records: one idempotent producer, one thread that only polls it.

Promise: every write ends in exactly one answer, `Sent` or `SendError`, and `SendError.maybe_written` is False
only where the client's own counters show that the record never left this process. Keys land where Java's
producers put them (murmur2), null keys are spread.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client

from relance.burst import LastingLog
from relance.delivery import Sent
from relance.errors import SendError, SettingsError, kafka_error
from relance.kafka.cluster import QuietLog, error_text
from relance.kafka.forked import kept_in_children
from relance.kafka.limits import TOO_LARGE, batch_settings, content_size
from relance.kafka.rights import with_right
from relance.kafka.throttle import Throttle
from relance.text import is_unicode

__all__ = ["IN_FLIGHT", "KafkaProducer", "check_header"]

_log = logging.getLogger("relance.kafka")

Headers = Sequence[tuple[str, bytes | None]]


Answer = Callable[[SendError | None, Sent | None], None]
"""Called once, on the producer's thread: it must only hand on."""

# Refused by the client before anything was sent, or by the broker without writing it.
_NOT_WRITTEN = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._QUEUE_FULL,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.POLICY_VIOLATION,
    }
)

IN_FLIGHT = 4
"""Requests to a broker without an answer. A thread of librdkafka 2.16 turns in circles on a whole core while
five messages to a partition have no answer and more wait (confluentinc/librdkafka#3692): it is woken for what
it may not send yet. With four requests a trickle of single messages does not come to that; a burst may."""

_STATS_MS = 250

_CLIENT_LARGEST = 1_000_000  # bytes; librdkafka's message.max.bytes

_AFTER_REFUSAL = 5.0
"""Seconds in which a new epoch is that of a batch that was too large: for it the client waits until it has
the answers to all that is on its way, so nothing is written twice."""

_NEW_EPOCH = (
    "the producer's client took a new epoch, as it does when a write times out or a new leader gets requests "
    "out of order: what was on its way then may be there twice (librdkafka #4953)"
)


class KafkaProducer:
    """A client that writes. `timeout` is how long, in seconds, a write may take before it is given up.

    `largest` is the most bytes that a record may take here (the client's default is 1,000,000); the topic may
    take less. `batch` is the most bytes that its batches take, see `TopicLimits.batch`. `on_failure` is
    called if the polling thread ends by a defect: nothing would be answered then.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        name: str,
        timeout: float,
        largest: int | None = None,
        batch: int | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        self._on_failure = on_failure
        self._pid = os.getpid()
        self._timeout = timeout
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._transmitted = 0  # records that ever left this process, as of the last statistics
        self._transmitted_before = 0  # those of them by clients that were given up
        self._tickets = itertools.count()
        self._out: dict[int, Answer] = {}  # not answered yet, so that each is answered once, come what may
        self._doubtful: list[tuple[int, float, SendError, int]] = []
        self._lasting = LastingLog(_log.name)
        self.on_tick: list[Callable[[], None]] = []
        """Called between polls, on the producer's thread."""
        self.throttle = Throttle(name)
        """Whether brokers hold the client back."""
        self._config = {
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "max.in.flight.requests.per.connection": IN_FLIGHT,
            "linger.ms": 2,
            "message.timeout.ms": int(timeout * 1000),
            "topic.metadata.propagation.max.ms": int(min(timeout, 5) * 1000),
            "log.connection.close": False,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            **settings,
            **({} if largest is None else {"message.max.bytes": largest}),
            **({} if batch is None else batch_settings(batch)),
            "statistics.interval.ms": _STATS_MS,
            "error_cb": self._on_error,
            "throttle_cb": self.throttle.note,
        }
        self._client = self._connect()
        kept_in_children(self, "_client")
        self._thread = threading.Thread(target=self._poll, name=f"relance-{name}", daemon=True)
        self._thread.start()

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        answer: Answer,
        timestamp_ms: int | None = None,
    ) -> None:
        """Write one record; `answer` is called when its fate is known, at the latest after the timeout.

        Raises SendError (never written) if it is refused at once: the local queue is full, the record is
        too large, a header's name is not valid Unicode.
        """
        self._check(headers)
        ticket = next(self._tickets)
        with self._lock:
            if self._closed.is_set():
                raise SendError(f"{topic}: the producer is closed", maybe_written=False)
            before, client = self._transmitted, self._client
            self._out[ticket] = answer
            self._wrote = True
        try:
            client.produce(
                topic,
                value,
                key,
                headers=list(headers) or None,
                on_delivery=lambda error, message: self._delivered(before, ticket, error, message),
                timestamp=0 if timestamp_ms is None else timestamp_ms,  # 0: now
            )
        except BaseException as error:
            self._out.pop(ticket, None)
            if isinstance(error, BufferError):
                raise SendError(
                    "the local send queue is full", maybe_written=False, code=KafkaError._QUEUE_FULL
                ) from error
            if isinstance(error, KafkaException):
                code = error.args[0].code()
                if code in TOO_LARGE:
                    raise self._too_large(topic, content_size(key, value, headers)) from error
                text = with_right(error_text(error), code, "send", topic=topic)
                raise SendError(f"{topic}: {text}", maybe_written=False, code=code) from error
            raise

    def check(self, topic: str, value: bytes | None, key: bytes | None, headers: Headers) -> None:
        """Raises SendError where `send` would for the record itself (headers, size), without sending."""
        self._check(headers)
        size = content_size(key, value, headers)
        if size > self._largest:
            raise self._too_large(topic, size)

    def close(self, timeout: float) -> int:
        """Wait for what is out, at most `timeout` seconds; how many records were given up.

        Those, too, get their answer: whoever waits for one must not wait for ever.
        """
        left = self.flush(timeout)
        with self._lock:
            self._closed.set()
        self._thread.join(1.0)
        if left:
            self._give_up(self._client)
        self._resolve_doubts(final=True)
        self._answer_all(list(self._out), "the producer was closed before an answer came")
        return left

    def flush(self, timeout: float) -> int:
        """Wait until all that was sent is answered, at most `timeout` seconds; how many are left."""
        return int(self._client.flush(max(0.0, timeout)))

    def _check(self, headers: Headers) -> None:
        if os.getpid() != self._pid:
            raise SendError("a forked child cannot use its parent's producer", maybe_written=False)
        for name, _ in headers:
            check_header(name)  # the client would crash the process

    @property
    def _largest(self) -> int:
        return int(self._config.get("message.max.bytes", _CLIENT_LARGEST))

    def _too_large(self, topic: str, size: int) -> SendError:
        """Refused by the client itself, which has not asked the topic."""
        return SendError(
            f"{topic}: the record takes {size} bytes, and this client sends records of {self._largest} bytes"
            " at most: set the client setting message.max.bytes to more (RELANCE_CLIENT_MESSAGE_MAX_BYTES);"
            " the topic's max.message.bytes must allow it, too",
            maybe_written=False,
            code=KafkaError.MSG_SIZE_TOO_LARGE,
        )

    # -- on the producer's thread ------------------------------------------------------------------

    def _connect(self) -> Client:
        before = self._transmitted_before
        epochs: set[tuple[int, int]] = set()
        own = {"stats_cb": lambda text: self._on_statistics(before, epochs, text)}
        try:
            return Client({**self._config, **own}, logger=QuietLog())
        except KafkaException as error:
            raise SettingsError("client", error_text(error)) from error

    def _poll(self) -> None:
        try:
            while not self._closed.is_set():
                try:
                    self._client.poll(0.05)
                except KafkaException as error:
                    if not error.args[0].fatal():
                        raise
                    self._replace(error)
                self._resolve_doubts(final=False)
                for call in self.on_tick:
                    call()
        except Exception as error:
            if self._on_failure is None:
                raise
            self._on_failure(error)

    def _replace(self, error: KafkaException) -> None:
        """After a fatal error the client never writes again: another one goes on in its place."""
        _log.error("the producer is replaced, after a fatal error of its client: %s", error_text(error))
        old = self._client
        with self._lock:
            self._transmitted_before = self._transmitted
            self._client = self._connect()
            with_it = list(self._out)
        self._give_up(old)
        self._resolve_doubts(final=True)
        self._answer_all(with_it, f"given up with its client: {error_text(error)}")

    def _give_up(self, client: Client) -> None:
        client.purge(in_queue=True, in_flight=True, blocking=True)
        with contextlib.suppress(KafkaException):  # told already: this is the client that gave it
            client.poll(0)

    def _answer_all(self, tickets: list[int], reason: str) -> None:
        for ticket in tickets:
            self._answer(ticket, SendError(reason, maybe_written=True), None)

    def _delivered(self, before: int, ticket: int, error: KafkaError | None, message: Message) -> None:
        # An exception out of a callback would surface in poll() and end the thread: hand on, nothing more.
        if error is None:
            offset = message.offset()
            where = str(message.topic()), int(message.partition() or 0)
            self._answer(ticket, None, Sent(*where, -1 if offset is None else offset))
            return
        code = error.code()
        if code in TOO_LARGE:
            self._refused_at = time.monotonic()
        problem = SendError(
            f"{message.topic()}: {kafka_error(code).name}: "
            + with_right(error.str(), code, "send", topic=str(message.topic())),
            maybe_written=code not in _NOT_WRITTEN,
            code=code,
        )
        if not problem.maybe_written:
            self._answer(ticket, problem, None)
        else:
            # Whether it left this process shows in statistics made after this moment, within _STATS_MS.
            self._doubtful.append((before, time.monotonic(), problem, ticket))

    def _answer(self, ticket: int, problem: SendError | None, sent: Sent | None) -> None:
        answer = self._out.pop(ticket, None)
        if answer is not None:
            answer(problem, sent)

    def _on_statistics(self, before: int, epochs: set[tuple[int, int]], text: str) -> None:
        made = time.monotonic()
        told = msgspec.json.decode(text)
        total = before + sum(
            partition.get("txmsgs", 0)
            for topic in told.get("topics", {}).values()
            for partition in topic.get("partitions", {}).values()
        )
        with self._lock:
            self._transmitted = max(self._transmitted, total)
            self._statistics_at = made
        eos = told.get("eos", {})
        epoch = eos.get("producer_id", -1), eos.get("producer_epoch", -1)
        if epoch[0] >= 0 and epoch not in epochs:
            if epochs and self._wrote and made - self._refused_at > _AFTER_REFUSAL:
                self._lasting.warning("epoch", _NEW_EPOCH)
            epochs.add(epoch)
        self._wrote = bool(self._out)

    _statistics_at = 0.0
    _refused_at = -math.inf
    """When a batch was last too large for its topic."""
    _wrote = False
    """Whether anything was on its way since the statistics before."""

    def _resolve_doubts(self, *, final: bool) -> None:
        if not self._doubtful:
            return
        now = time.monotonic()
        with self._lock:
            transmitted, fresh = self._transmitted, self._statistics_at
        waiting = []
        for doubt in self._doubtful:
            before, failed_at, problem, ticket = doubt
            # Statistics are gathered before they are handed to us: only one made well after counts.
            if fresh > failed_at + _STATS_MS / 1000:
                problem.maybe_written = transmitted > before
            elif not final and now < failed_at + 8 * _STATS_MS / 1000:
                waiting.append(doubt)
                continue
            self._answer(ticket, problem, None)
        self._doubtful = waiting

    def _on_error(self, error: KafkaError) -> None:
        _log.debug("producer: %s", error.str())


def check_header(name: str) -> None:
    """Raises SendError for a header's name that the client would crash on."""
    if not is_unicode(name):
        raise SendError(f"header name {name!r} is not valid Unicode", maybe_written=False)
