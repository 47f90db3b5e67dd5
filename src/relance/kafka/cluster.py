"""What admin and browse clients share: the facts they bring home, their errors, and a log that is quiet.

Promise: frozen data and pure functions; nothing here asks a broker anything.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from confluent_kafka import KafkaError

from relance.encoding import is_topic_name
from relance.errors import BrokerUnavailableError, RelanceError, SettingsError, kafka_error
from relance.kafka.rights import with_right
from relance.record import TopicPartition

__all__ = [
    "INTERNAL_TOPICS",
    "Committed",
    "Described",
    "GroupInfo",
    "GroupMissingError",
    "GroupSummary",
    "KafkaRefusedError",
    "Member",
    "PartitionInfo",
    "PartitionLag",
    "QuietLog",
    "TopicInfo",
    "Watermarks",
    "checked_topic_name",
    "client_settings",
    "error_text",
    "unreachable",
    "word",
]

# Kafka's own list (org.apache.kafka.common.internals.Topic): a leading underscore alone means nothing.
INTERNAL_TOPICS = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})


class GroupMissingError(RelanceError):
    """The consumer group has no members and no committed offsets: for Kafka it does not exist."""

    def __init__(self, group: str) -> None:
        super().__init__(group)
        self.group = group

    def __str__(self) -> str:
        return f"consumer group {self.group!r} does not exist: it has no members and no committed offsets"


_ENDS_A_MEMBER = (
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.UNRELEASED_INSTANCE_ID,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_MAX_SIZE_REACHED,
    KafkaError.UNSUPPORTED_ASSIGNOR,
    KafkaError.INVALID_REGULAR_EXPRESSION,
    KafkaError.UNSUPPORTED_VERSION,
)


class KafkaRefusedError(RelanceError):
    """The cluster answered, and the answer was no; `code` is Kafka's error code."""

    def __init__(self, what: str, bootstrap_servers: str, text: str, code: int | None) -> None:
        super().__init__(what, bootstrap_servers, text, code)
        self.what = what
        self.bootstrap_servers = bootstrap_servers
        self.text = text
        self.code = code

    def __str__(self) -> str:
        return f"{self.bootstrap_servers} refused to {self.what}: {self.text}"


def refusal(error: KafkaError, topics: str, group: str) -> KafkaRefusedError:
    """An error that is the end of a client that reads `topics` in `group`, with what to do about it.

    librdkafka says only that it is fatal (-150); the broker's own reason is in its text.
    """
    what, code, text = f"read {topics} in group {group}", error.code(), error.str()
    if code == KafkaError._FATAL:
        behind = next((known for known in _ENDS_A_MEMBER if KafkaError(known).str() in text), None)
        if behind is None:
            return KafkaRefusedError(what, "Kafka", text, code)
        code, text = behind, KafkaError(behind).str()
    told = with_right(text, code, what, topic=topics, group=group)
    if told == text:
        told = f"{text.rstrip('.')}. {kafka_error(code).action}"
    return KafkaRefusedError(what, "Kafka", told, code)


class Watermarks(NamedTuple):
    """The first offset still kept, and the offset the next record will get; both 0 for an empty log."""

    begin: int
    end: int


class Committed(NamedTuple):
    """A group's committed offset (the next to be read) and the text committed with it."""

    offset: int
    metadata: str


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A line in the list of topics.

    `records` is the sum of end − begin: an upper bound where the topic is compacted or transactional.
    `offline` counts partitions without a leader; their records are not in the sum.
    """

    name: str
    partitions: int
    records: int
    internal: bool
    offline: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Which topic of that name it is now, and how many partitions it has."""

    id: str
    """"" where brokers have none."""
    partitions: int


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """A partition of a topic: who leads it (None: nobody), who copies it, and what it holds."""

    partition: int
    leader: int | None
    replicas: int
    in_sync: int
    begin: int
    end: int

    @property
    def records(self) -> int:
        """Offsets between begin and end (an upper bound on the number of records)."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """A line in the list of groups. `protocol` is "classic" or "consumer" (KIP-848)."""

    name: str
    state: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group and the partitions it holds now; `host` as the broker saw it."""

    member_id: str
    client_id: str
    host: str
    instance_id: str | None
    assignment: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """What a coordinator says of a group. `problem`: what of it could not be read, or empty."""

    state: str
    protocol: str
    assignor: str
    coordinator: str
    members: tuple[Member, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far a group is behind in one partition.

    `committed` and `lag` are None before the first commit; `end` is None where the topic is gone.
    """

    topic: str
    partition: int
    committed: int | None
    end: int | None
    lag: int | None
    member_id: str | None


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group with its members and its lag.

    `problem` says what of it could not be read, or is empty. `members` is None where nobody can tell who is
    in the group, `partitions` where nobody can tell what it has committed.
    """

    name: str
    state: str
    protocol: str
    assignor: str
    coordinator: str
    members: tuple[Member, ...] | None
    partitions: tuple[PartitionLag, ...] | None
    problem: str = ""

    @property
    def lag(self) -> int | None:
        """The lag of all partitions that have a commit; None where it is known of none of them."""
        if self.partitions is None:
            return None
        known = [row.lag for row in self.partitions if row.lag is not None]
        nothing_there = not self.partitions and self.members is not None
        return sum(known) if known or nothing_there else None


# "FAIL [name#producer-1] [thrd:x/bootstrap]: x/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection
# refused (after 0ms in state CONNECT)"
_FAIL = re.compile(r"\]: \S+: (?P<why>.*?)(?: \(after .*)?$")
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+|\[::1\]):[0-9]+$")
# A listener hangs up on a client that speaks another protocol, in the middle of its first question.
_SECURITY = re.compile(r"SSL|SASL|[Aa]uthenticat|APIVERSION_QUERY")


class QuietLog:
    """Where the client's own log lines go: Python logging at DEBUG, one line in `every` seconds.

    The client repeats a refused connection many times a second while the broker is away, on stderr if
    nobody takes it (relance says it once, in one line of its own). `last` keeps the latest for that line.
    """

    def __init__(self, every: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.last = ""
        self._every = every
        self._clock = clock
        self._next = 0.0
        self._held_back = 0
        self._log = logging.getLogger("relance.kafka.client")
        self._lock = threading.Lock()

    def log(self, level: int, message: str, *args: object) -> None:
        """Take one line; `logging.Logger.log` as the client calls it."""
        text = message % args if args else message
        with self._lock:
            self.last = text
            now = self._clock()
            if now < self._next:
                self._held_back += 1
                return
            self._next = now + self._every
            held, self._held_back = self._held_back, 0
        self._log.debug("%s%s", text, f" ({held} more held back)" if held else "")


def client_settings(bootstrap_servers: str, client: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings admin and browse clients share; what the caller gives in `client` wins."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "client.id": "relance-admin",
        # A page that polls every two seconds should see a broker that is back within about one.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "allow.auto.create.topics": False,
        **(client or {}),
    }


def unreachable(
    servers: str, what: str, waited: float, since: datetime, now: datetime, reason: str
) -> BrokerUnavailableError:
    """The one line for "nobody answers": where, for how long, since when, and what to try.

    `relance broker start` is advised at a prompt only, and for an address of this machine.
    """
    for_long = int((now - since).total_seconds())
    tail = f", unreachable since {since:%H:%M:%S} UTC ({for_long} s)" if for_long else f" within {waited:g} s"
    told = _FAIL.search(reason)
    why = f": {told['why']}" if told else ""
    command = ""
    if _SECURITY.search(reason):
        hint = "Check security.protocol, the certificates and the credentials"
    elif not all(_LOOPBACK.match(server.strip()) for server in servers.split(",")):
        hint = (
            "Check the address, the way there (DNS, firewall), and that the brokers' listeners and"
            " advertised.listeners are addresses that this machine reaches"
        )
    elif not (sys.stdin and sys.stderr and sys.stdin.isatty() and sys.stderr.isatty()):
        hint = (
            "Does a broker listen there? In a container this address is the container's own. Another one is"
            " set by bootstrap_servers (RELANCE_BOOTSTRAP_SERVERS)"
        )
    else:
        port = servers.partition(",")[0].strip().rpartition(":")[2]
        command = "relance broker start" + (f" --port {port}" if port != "9092" else "")
        hint = f"Is it running? Start one with: {command}"
    error = BrokerUnavailableError(
        f"no Kafka broker answered at {servers}{tail}{why} (asked to {what}). {hint}"
    )
    error.command = command
    return error


def checked_topic_name(topic: str, key: str = "topic") -> str:
    """The name, if Kafka could have a topic of that name; else SettingsError that names `key`.

    Kafka's rule: see `is_topic_name`.
    """
    if not is_topic_name(topic):
        raise SettingsError(
            key, f"{topic[:60]!r} is no topic name: 1 to 249 of a-z A-Z 0-9 . _ - and not '.' or '..'"
        )
    return topic


def error_text(error: BaseException) -> str:
    """The client's words about an error, without its wrapping."""
    first = error if isinstance(error, KafkaError) else next(iter(error.args), None)
    return first.str().strip() if isinstance(first, KafkaError) else str(error)


def word(enum: Any) -> str:
    """An enum of the client as a lower-case word: PREPARING_REBALANCING → "preparing rebalance"."""
    # "Rebalance" is Kafka's word for the state that the client calls rebalancing.
    words = "unknown" if enum is None else str(enum.name).lower().replace("_", " ")
    return words.replace("rebalancing", "rebalance")
