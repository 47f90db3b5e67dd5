"""How an admin client is asked: with a deadline, again while the cluster settles, quietly.

Promise: an answer, or a RelanceError, before the deadline; never a KafkaException, never a line on stderr.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as ClientTopicPartition
from confluent_kafka.admin import AdminClient, ListConsumerGroupsResult, OffsetSpec  # type: ignore[attr-defined]

from relance.errors import RelanceError, SettingsError, TopicMissingError
from relance.kafka.cluster import (
    KafkaRefusedError,
    QuietLog,
    Watermarks,
    checked_topic_name,
    client_settings,
    error_text,
    unreachable,
)
from relance.kafka.forked import kept_in_children
from relance.kafka.rights import with_right
from relance.record import TopicPartition

__all__ = ["Asker"]

T = TypeVar("T")

_UNREACHABLE = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._RESOLVE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
    }
)
_MISSING = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_ID}
)
# What a leader change or a topic made a moment ago answers: true for milliseconds, so ask again.
_SETTLING = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
    }
)


# What the client says when the bytes of an answer end too early is "Broker handle destroyed for termination".
_GARBLED = "what a member of the group wrote cannot be read"

_IDLE = 5.0  # seconds without a question after which connections are not trusted

_NEVER = 3600.0  # seconds; the longest that the client takes

_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class Asker:
    """One admin client and the manners to ask it; any thread may."""

    def __init__(self, bootstrap_servers: str, client: Mapping[str, Any] | None, timeout: float) -> None:
        if not bootstrap_servers.strip():
            raise SettingsError("bootstrap_servers", "must name a broker, as in localhost:9092")
        self.bootstrap_servers = bootstrap_servers
        self.timeout = timeout
        self._log = QuietLog()
        self._settings = client_settings(bootstrap_servers, client)
        self._settings.pop("allow.auto.create.topics")  # a consumer's; an admin client warns about it
        try:
            self.client = self._connect()
        except KafkaException as error:
            raise _refused_setting(error_text(error), bootstrap_servers, client or {}) from error
        kept_in_children(self, "client")
        self._lock = threading.Lock()
        self._down_since: datetime | None = None
        self._idle = max(_IDLE, 2 * timeout)  # longer than any question takes
        self._used = time.monotonic()

    def deadline(self, timeout: float | None = None) -> float:
        """On the monotonic clock, `timeout` (or the client's own) from now."""
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    def metadata(self, deadline: float) -> Any:
        """The cluster's brokers and topics, fresh from a broker."""
        self._refresh()
        self._drain_log()
        try:
            metadata = self.client.list_topics(timeout=max(0.1, deadline - time.monotonic()))
        except KafkaException as error:
            raise self.refused("list the topics", error) from error
        self._answered()
        return metadata

    def describe(self, topic: str, deadline: float) -> Any:
        """The client's TopicDescription: id, partitions, leaders."""
        asked = TopicCollection([checked_topic_name(topic)])
        return self.ask(
            f"describe topic {topic}",
            lambda left: self.client.describe_topics(asked, request_timeout=left)[topic],
            topic=topic,
            deadline=deadline,
        )

    def describe_all(self, topics: Collection[str], deadline: float) -> tuple[str, dict[str, Any]]:
        """The cluster's id ("" where it has none) and a TopicDescription of each topic, asked at once."""
        names = TopicCollection([checked_topic_name(topic) for topic in sorted(set(topics))])

        def start(left: float) -> tuple[Future[Any], dict[str, Future[Any]]]:
            client = self.client
            asked = client.describe_cluster(request_timeout=left)
            return asked, client.describe_topics(names, request_timeout=left)

        while True:
            cluster, futures = self._start("describe the topics", start, deadline)
            what, topic = "describe the cluster", None
            try:
                cluster_id = self._cluster_id(cluster, deadline)
                found = {}
                for topic, future in futures.items():
                    what = f"describe topic {topic}"
                    found[topic] = self._wait(future, deadline)
            except (KafkaException, FutureTimeoutError) as error:
                if _code(error) not in _SETTLING or time.monotonic() >= deadline:
                    raise self.refused(what, error, topic) from error
            else:
                return cluster_id, found
            self.pause()

    def _cluster_id(self, described: Future[Any], deadline: float) -> str:
        try:
            return self._wait(described, deadline).cluster_id or ""
        except KafkaException as error:
            if _code(error) in _SETTLING | _UNREACHABLE:
                raise
            return ""  # a refusal is no reason to read nothing: then the topics' ids decide alone

    def offsets(
        self,
        partitions: Collection[TopicPartition],
        deadline: float,
        *,
        must_exist: str | None = None,
        stable: bool = False,
    ) -> dict[TopicPartition, Watermarks]:
        """Both ends of many partitions; one that has vanished is left out, unless it is of `must_exist`.

        `stable`: only up to the first open transaction, as `read_committed` readers read.
        """
        isolation = IsolationLevel.READ_COMMITTED if stable else IsolationLevel.READ_UNCOMMITTED
        begins = self._offsets_at(partitions, _EARLIEST, deadline, must_exist)
        ends = self._offsets_at(begins, _LATEST, deadline, must_exist, isolation)
        # A log cut short between the two questions must not count backwards.
        return {tp: Watermarks(min(begins[tp], end), end) for tp, end in ends.items()}

    def stable_ends(
        self, partitions: Collection[TopicPartition], deadline: float
    ) -> dict[TopicPartition, int]:
        """How far a `read_committed` reader can read: up to the first open transaction."""
        return self._offsets_at(partitions, _LATEST, deadline, None, IsolationLevel.READ_COMMITTED)

    def ends(self, partitions: Collection[TopicPartition], deadline: float) -> dict[TopicPartition, int]:
        """The high watermarks: how far a `read_uncommitted` reader can read."""
        return self._offsets_at(partitions, _LATEST, deadline, None)

    def _offsets_at(
        self,
        partitions: Collection[TopicPartition],
        spec: Any,
        deadline: float,
        must_exist: str | None,
        isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
    ) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        gone = frozenset() if must_exist else _MISSING | {KafkaError._UNKNOWN_PARTITION, KafkaError._NOENT}
        # One partition without a leader must not hold up the view of all the others.
        patience = deadline if must_exist else min(deadline, time.monotonic() + 0.5)
        left = {tp: ClientTopicPartition(tp.topic, tp.partition) for tp in partitions}
        while left:
            wanted = dict.fromkeys(left.values(), spec)
            ask = partial(_list_offsets, self.client, wanted, isolation)
            futures = self._start("list offsets", ask, deadline)
            again = {}
            for tp, asked in left.items():
                try:
                    found[tp] = self._wait(futures[asked], deadline).offset
                except (KafkaException, FutureTimeoutError) as error:
                    code = _code(error)
                    if code in gone:
                        continue
                    if code not in _SETTLING | {KafkaError._NOENT}:  # "No leaders found" for any of them
                        raise self.refused(f"list the offsets of {tp}", error, must_exist) from error
                    if time.monotonic() < patience:
                        again[tp] = asked
                    elif must_exist:
                        raise self.refused(f"list the offsets of {tp}", error, must_exist) from error
            left = again
            if left:
                self.pause()
        return found

    def _start(self, what: str, start: Callable[[float], T], deadline: float) -> T:
        self._refresh()
        self._drain_log()
        try:
            return start(max(0.1, deadline - time.monotonic()))
        except (KafkaException, ValueError, TypeError) as error:
            # The client checks arguments before it asks anyone, with whatever error comes to hand.
            raise self.refused(what, error) from error

    def ask(
        self,
        what: str,
        start: Callable[[float], Future[Any]],
        *,
        topic: str | None = None,
        deadline: float | None = None,
    ) -> Any:
        """Ask, wait, and ask again while the cluster is settling."""
        deadline = self.deadline() if deadline is None else deadline
        while True:
            future = self._start(what, start, deadline)
            try:
                return self._wait(future, deadline)
            except (KafkaException, FutureTimeoutError) as error:
                code = _code(error)
                if code not in _SETTLING or time.monotonic() >= deadline:
                    raise self.refused(what, error, topic) from error
            self.pause()

    def ask_coordinators(
        self,
        what: str,
        groups: Collection[str],
        start: Callable[[AdminClient, list[str], float], Mapping[str, Future[Any]]],
        deadline: float,
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """The answers by group, and what those say that were refused; without the groups that do not exist.

        `start` is given the client, the groups, and after how many seconds the client may give up by itself:
        never, as far as that goes. When a coordinator comes back for which a question has timed
        out, librdkafka 2.16 uses what it has freed, and the process is gone. (`rd_kafka_admin_coord_request`
        drops the last reference and has it used once more.) What it does survive is to end with open
        questions; so it is replaced when ours is the end of patience.
        """
        answers: dict[str, Any] = {}
        refusals: dict[str, str] = {}
        asked = list(groups)
        while asked:
            self._refresh()  # first, or the question goes out on the old client's connections
            client = self.client
            futures = self._start(what, partial(_without_end, start, client, asked), deadline)
            settling = []
            for name, future in futures.items():
                try:
                    answers[name] = future.result(max(0.1, deadline - time.monotonic()))
                    self._answered()
                except FutureTimeoutError as error:
                    problem = self.refused(what, error)
                    self._replace(client)
                    raise problem from error
                except (KafkaException, ValueError, TypeError) as error:
                    code = _code(error)
                    if code == KafkaError.GROUP_ID_NOT_FOUND:
                        continue
                    if code in _UNREACHABLE:
                        raise self.refused(what, error) from error
                    if code not in _SETTLING or time.monotonic() >= deadline:
                        refusals[name] = _GARBLED if code == KafkaError._DESTROY else error_text(error)
                        continue
                    settling.append(name)
                    if code == KafkaError.NOT_COORDINATOR:  # it remembers whom to ask, also if that is over
                        self._replace(client)
            asked = settling
            if asked:
                self.pause()
        return answers, refusals

    def _connect(self) -> AdminClient:
        return AdminClient(self._settings, logger=self._log)

    def _refresh(self) -> None:
        """Connect anew after a while without questions.

        A broker that went without closing its connections, as a container may, would swallow the next
        question: a minute after it is back, the answer would be that it is away. (The client could close idle
        connections by itself, but then a question that is asked in that moment fails.)
        """
        now = time.monotonic()
        with self._lock:
            idle, self._used = now - self._used, now
            if idle > self._idle:
                self.client = self._connect()

    def _replace(self, client: AdminClient) -> None:
        with self._lock:
            if self.client is client:
                self.client = self._connect()

    def _wait(self, future: Future[Any], deadline: float) -> Any:
        # The client keeps the deadline itself; the second more is for its own hand-over.
        answer = future.result(max(0.1, deadline - time.monotonic()) + 1.0)
        if isinstance(answer, ListConsumerGroupsResult) and answer.errors and not answer.valid:
            # Brokers that are away are an answer, too; the client's documentation has them as exceptions.
            first = answer.errors[0]
            raise first if isinstance(first, KafkaException) else KafkaException(first)
        self._answered()
        return answer

    def pause(self) -> None:
        """Between two questions: long for a leader election on one machine, short for a person."""
        self.client.poll(0.05)

    def _drain_log(self) -> None:
        # The client's lines queue up until somebody polls; nobody else does on an admin client.
        self.client.poll(0)

    def _answered(self) -> None:
        with self._lock:
            self._down_since = None
            self._used = time.monotonic()
        self._log.last = ""  # why nobody answered before says nothing about the next time

    def refused(self, what: str, error: BaseException, topic: str | None = None) -> RelanceError:
        """The RelanceError to raise for the client's error."""
        self._drain_log()
        code = _code(error)
        if code in _UNREACHABLE or isinstance(error, FutureTimeoutError):
            with self._lock:
                now = datetime.now(UTC)
                since = self._down_since = self._down_since or now
            return unreachable(self.bootstrap_servers, what, self.timeout, since, now, self._log.last)
        if code is not None and code > 0:  # the client's own codes are negative
            self._answered()
        if code in _MISSING and topic is not None:
            return TopicMissingError(topic, bootstrap_servers=self.bootstrap_servers)
        text = with_right(error_text(error), code, what, topic=topic or "")
        return KafkaRefusedError(what, self.bootstrap_servers, text, code)


def _refused_setting(text: str, bootstrap_servers: str, client: Mapping[str, Any]) -> SettingsError:
    """Which of the user's settings the client speaks of: it may call it by another name."""
    for key, value in client.items():
        try:
            AdminClient({key: value}, logger=QuietLog())
        except KafkaException as error:
            if error_text(error) == text:
                return SettingsError(f"client.{key}", f"is refused by the Kafka client: {text}")
    return SettingsError("bootstrap_servers", f"{text} ({bootstrap_servers!r})")


def _without_end(
    start: Callable[[AdminClient, list[str], float], T], client: AdminClient, groups: list[str], _left: float
) -> T:
    return start(client, groups, _NEVER)


def _list_offsets(
    client: AdminClient, wanted: Mapping[Any, OffsetSpec], isolation: IsolationLevel, seconds: float
) -> dict[Any, Future[Any]]:
    return client.list_offsets(dict(wanted), isolation_level=isolation, request_timeout=seconds)


def _code(error: BaseException) -> int | None:
    # Some calls hand out the bare KafkaError, which is no exception for Python's type checkers.
    first = error if isinstance(error, KafkaError) else next(iter(error.args), None)
    return first.code() if isinstance(first, KafkaError) else None
