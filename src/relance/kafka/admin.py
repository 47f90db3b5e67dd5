"""Questions to a cluster and the few changes to it: topics, watermarks, groups, committed offsets.

Promises: every call ends within its deadline, may come from any thread, and fails only with a RelanceError
that names the address, what was asked and what to do next. Offsets are asked for in bulk (two requests per
broker, however many partitions there are), so that a page of topics costs the cluster next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from confluent_kafka import KafkaError
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from relance.errors import BrokerUnavailableError, TopicMissingError
from relance.kafka.asking import Asker
from relance.kafka.cluster import (
    INTERNAL_TOPICS,
    Committed,
    Described,
    GroupInfo,
    GroupMissingError,
    GroupSummary,
    Identity,
    KafkaRefusedError,
    Member,
    PartitionInfo,
    PartitionLag,
    TopicInfo,
    Watermarks,
    checked_topic_name,
    word,
)
from relance.kafka.group_process import GroupProcess
from relance.record import TopicPartition

__all__ = [
    "Admin",
    "Committed",
    "GroupInfo",
    "GroupMissingError",
    "GroupSummary",
    "Identity",
    "KafkaRefusedError",
    "Member",
    "PartitionInfo",
    "PartitionLag",
    "TopicInfo",
    "Watermarks",
]


class Admin:
    """A blocking view of one cluster. `timeout` (seconds) bounds each call, whatever it needs to ask.

    Every method raises BrokerUnavailableError when nobody answers in time and RelanceError otherwise;
    those that name a topic raise TopicMissingError where there is none.
    """

    def __init__(
        self, bootstrap_servers: str, client: Mapping[str, Any] | None = None, *, timeout: float = 5.0
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.timeout = timeout
        self._asker = Asker(bootstrap_servers, client, timeout)
        self._groups = GroupProcess(bootstrap_servers, client, timeout)

    # -- topics ------------------------------------------------------------------------------------------
    def topics(self) -> list[TopicInfo]:
        """All topics by name, Kafka's internal ones included."""
        deadline = self._asker.deadline()
        metadata = self._asker.metadata(deadline)
        marks = self._asker.offsets(_led(metadata), deadline)
        found = []
        for name, topic in sorted(metadata.topics.items()):
            known = [mark for p in topic.partitions if (mark := marks.get(TopicPartition(name, p)))]
            found.append(
                TopicInfo(
                    name=name,
                    partitions=len(topic.partitions),
                    records=sum(mark.end - mark.begin for mark in known),
                    internal=name in INTERNAL_TOPICS,
                    offline=len(topic.partitions) - len(known),
                )
            )
        return found

    def partitions(self, topic: str) -> list[PartitionInfo]:
        """The partitions of a topic in order, with their watermarks (0, 0 where there is no leader)."""
        deadline = self._asker.deadline()
        described = self._asker.describe(topic, deadline)
        led = [TopicPartition(topic, p.id) for p in described.partitions if p.leader is not None]
        marks = self._asker.offsets(led, deadline, must_exist=topic)
        nothing = Watermarks(0, 0)
        found = []
        for p in sorted(described.partitions, key=lambda each: each.id):
            mark = marks.get(TopicPartition(topic, p.id), nothing)
            leader = None if p.leader is None else p.leader.id
            found.append(PartitionInfo(p.id, leader, len(p.replicas), len(p.isr), mark.begin, mark.end))
        return found

    def watermarks(self, topic: str) -> dict[int, Watermarks]:
        """{partition: (begin, end)} of every partition that has a leader; unstable transactions included."""
        deadline = self._asker.deadline()
        described = self._asker.describe(topic, deadline)
        led = [TopicPartition(topic, p.id) for p in described.partitions if p.leader is not None]
        marks = self._asker.offsets(led, deadline, must_exist=topic)
        return {tp.partition: mark for tp, mark in sorted(marks.items())}

    def topic_id(self, topic: str) -> str:
        """The id Kafka gave the topic when it was made (KIP-516), spelt as Kafka's tools do.

        A topic that is deleted and made again has another.
        """
        return self.identity(topic).id

    def identity(self, topic: str) -> Identity:
        """The same, and how many partitions the topic has."""
        return _identity(self._asker.describe(topic, self._asker.deadline()))

    def identities(self, topics: Collection[str]) -> tuple[str, dict[str, Identity]]:
        """The cluster's id ("" where it has none), and what `identity` says of each of these topics."""
        cluster, described = self._asker.describe_all(topics, self._asker.deadline())
        return cluster, {topic: _identity(one) for topic, one in described.items()}

    def configs(self, topic: str, *, defaults: bool = False) -> dict[str, str | None]:
        """The topic's settings: those given to it, or with `defaults` all of them."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = self._asker.ask(
            f"describe the settings of {topic}",
            lambda left: self._asker.client.describe_configs([resource], request_timeout=left)[resource],
            topic=topic,
        )
        # Source 1 is "set on this topic"; the others are inherited.
        return {name: e.value for name, e in sorted(entries.items()) if defaults or e.source == 1}

    def ensure_topic(
        self,
        topic: str,
        partitions: int,
        configs: Mapping[str, str] | None = None,
        *,
        replication_factor: int = -1,
    ) -> bool:
        """Make the topic unless it exists; True if this call made it. −1 is the broker's replication.

        Several processes may call it at once: exactly one gets True. It returns when every partition has a
        leader, so a record can be sent at once. A topic that exists is left as it is, whatever it has.
        """
        deadline = self._asker.deadline()
        client = self._asker.client
        new = NewTopic(checked_topic_name(topic), partitions, replication_factor, config=dict(configs or {}))
        try:
            self._asker.ask(
                f"create topic {topic}",
                lambda left: client.create_topics([new], operation_timeout=left, request_timeout=left)[topic],
                deadline=deadline,
            )
            created = True
        except KafkaRefusedError as error:
            if error.code != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            created = False
        self._until_led(topic, partitions if created else 1, deadline)
        return created

    def delete_topic(self, topic: str) -> None:
        """Delete the topic and all its records; TopicMissingError if there is none."""
        deadline, client = self._asker.deadline(), self._asker.client
        checked_topic_name(topic)
        self._asker.ask(
            f"delete topic {topic}",
            lambda left: client.delete_topics([topic], operation_timeout=left, request_timeout=left)[topic],
            topic=topic,
            deadline=deadline,
        )

    # -- groups ------------------------------------------------------------------------------------------
    def groups(self) -> list[GroupSummary]:
        """All consumer groups by name, of both protocols."""
        listed = self._asker.ask(
            "list the groups", lambda left: self._asker.client.list_consumer_groups(request_timeout=left)
        )
        return sorted(
            (GroupSummary(g.group_id, word(g.state), word(g.type)) for g in listed.valid),
            key=lambda each: each.name,
        )

    def committed(self, group: str) -> dict[TopicPartition, Committed]:
        """What the group has committed, empty where it never did (or does not exist)."""
        deadline = self._asker.deadline()
        # In this order: a coordinator that has described a group is at work. A broker that is asked for
        # offsets and answers NOT_COORDINATOR, as each does while a cluster begins, ends the process that
        # asked (librdkafka #5040).
        self._groups.ask("described", [group], deadline)
        found, problems = self._groups.ask("committed", [group], deadline)
        if group in problems:
            raise KafkaRefusedError(
                f"read the offsets of group {group!r}", self.bootstrap_servers, problems[group], None
            )
        offsets: dict[TopicPartition, Committed] = found.get(group, {})
        return offsets

    def members(self, groups: Collection[str]) -> tuple[dict[str, set[str]], dict[str, str]]:
        """(members, problems): the client ids of each group's members, none for a group that does not exist.

        A group whose members cannot be read is in `problems` instead, with the reason.
        """
        found, problems = self._groups.ask("described", groups, self._asker.deadline())
        known = [name for name in groups if name not in problems]
        return {
            name: {m.client_id for m in found[name].members} if name in found else set() for name in known
        }, problems

    def stable_ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The last stable offset of each partition that has a leader."""
        return self._asker.stable_ends(partitions, self._asker.deadline())

    def stable_marks(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Watermarks]:
        """Where each log begins, and its last stable offset; without those that have no leader now."""
        return self._asker.offsets(partitions, self._asker.deadline(), stable=True)

    def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The high watermark of each partition that has a leader; open transactions included."""
        return self._asker.ends(partitions, self._asker.deadline())

    def group(self, name: str) -> GroupInfo:
        """Members, what each holds, and the lag of each partition; GroupMissingError if there is none."""
        found = self.describe_groups([name])
        if name not in found:
            raise GroupMissingError(name)
        return found[name]

    def describe_groups(self, names: Collection[str]) -> dict[str, GroupInfo]:
        """Many groups at the price of one; a group that does not exist is left out.

        One that cannot be read is among them, with its `problem`.
        """
        if not names:
            return {}
        deadline = self._asker.deadline()
        about, unreadable = self._groups.ask("described", names, deadline)
        offsets, unknown = self._groups.ask("committed", names, deadline)
        holders = {
            name: {tp: member.member_id for member in found.members for tp in member.assignment}
            for name, found in about.items()
        }
        wanted = {tp for each in (*offsets.values(), *holders.values()) for tp in each}
        marks = self._asker.offsets(wanted & _led(self._asker.metadata(deadline)), deadline) if wanted else {}
        found = {}
        for name in names:
            here = about.get(name)
            has_members = name in unreadable or (here is not None and here.members)
            if not has_members and not offsets.get(name) and (here is None or here.state == "dead"):
                continue
            here = here or Described("unknown" if name in unreadable else "empty", "unknown", "", "", ())
            found[name] = GroupInfo(
                name=name,
                state=here.state,
                protocol=here.protocol,
                assignor=here.assignor,
                coordinator=here.coordinator,
                members=None if name in unreadable else here.members,
                partitions=None
                if name in unknown
                else _lags(offsets.get(name, {}), holders.get(name, {}), marks),
                problem=unreadable.get(name) or here.problem or unknown.get(name, ""),
            )
        return found

    # -- the cluster -------------------------------------------------------------------------------------
    def ping(self, timeout: float | None = None) -> int:
        """How many brokers the cluster has; raises BrokerUnavailableError if none answers in `timeout`."""
        return len(self._asker.metadata(self._asker.deadline(timeout)).brokers)

    def _until_led(self, topic: str, partitions: int, deadline: float) -> None:
        """Wait until the brokers know the topic: the controller's word reaches them a moment later."""
        while True:
            try:
                described = self._asker.describe(topic, deadline)
                if sum(p.leader is not None for p in described.partitions) >= partitions:
                    return
            except TopicMissingError:
                if time.monotonic() >= deadline:
                    raise
            if time.monotonic() >= deadline:
                raise BrokerUnavailableError(
                    f"topic {topic} was made on {self.bootstrap_servers}, but not all of its {partitions}"
                    f" partitions had a leader within {self.timeout:g} s; see the broker's log"
                )
            self._asker.pause()


def _led(metadata: Any) -> set[TopicPartition]:
    """The partitions that have a leader: of others nobody can say where they end."""
    return {
        TopicPartition(name, p.id)
        for name, topic in metadata.topics.items()
        for p in topic.partitions.values()
        if p.leader >= 0
    }


def _identity(described: Any) -> Identity:
    # The client prints plain base64, Kafka the URL-safe alphabet.
    spelt = str(described.topic_id).replace("+", "-").replace("/", "_")
    return Identity(spelt, len(described.partitions))


def _lags(
    committed: Mapping[TopicPartition, Committed],
    holders: Mapping[TopicPartition, str],
    marks: Mapping[TopicPartition, Watermarks],
) -> tuple[PartitionLag, ...]:
    rows = []
    for tp in sorted({*committed, *holders}):
        at = committed[tp].offset if tp in committed else None
        end = marks[tp].end if tp in marks else None
        # A commit past the end is possible (a topic made anew): no lag is negative.
        lag = None if at is None or end is None else max(0, end - at)
        rows.append(PartitionLag(tp.topic, tp.partition, at, end, lag, holders.get(tp)))
    return tuple(rows)
