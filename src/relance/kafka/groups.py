"""Questions about consumer groups, answered one group at a time; runs in a process of its own.

Anyone who may join a group writes the bytes of its members' assignments, and the Kafka client reads them in
C: a single byte fails an assertion there and ends the process (librdkafka 2.16). So no process that has
anything to lose asks these questions itself: see `group_process`.

Promise: a group that cannot be read costs no other group its answer.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any, Generic, NamedTuple, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient

from relance.encoding import is_topic_name
from relance.errors import RelanceError
from relance.kafka.asking import Asker
from relance.kafka.cluster import Committed, Described, Member, word
from relance.record import TopicPartition

__all__ = ["GroupAnswers", "committed", "described", "serve"]

T = TypeVar("T")

MOST_HELD = 10_000
"""Partitions of a member that are told: a forged assignment of a megabyte names 250,000."""
_LOOK = 2.0  # seconds between two looks at whether the parent lives: a fork of it may hold the pipe open


class GroupAnswers(NamedTuple, Generic[T]):
    """By group: what was found, and why there is nothing to find; in neither: the group does not exist."""

    found: dict[str, T]
    problems: dict[str, str]


def described(asker: Asker, groups: Collection[str], deadline: float) -> GroupAnswers[Described]:
    """State and members of each group."""
    answers, problems = asker.ask_coordinators(
        "describe the groups",
        groups,
        lambda client, names, left: client.describe_consumer_groups(names, request_timeout=left),
        deadline,
    )
    found = {}
    for name, answer in answers.items():
        try:
            found[name] = _described(answer)
        except UnicodeDecodeError as error:
            problems[name] = f"a member's assignment is not readable: {error}"
    return GroupAnswers(found, problems)


def committed(
    asker: Asker, groups: Collection[str], deadline: float
) -> GroupAnswers[dict[TopicPartition, Committed]]:
    """The offsets that each group has committed."""
    answers, problems = asker.ask_coordinators("read the committed offsets", groups, _ask_offsets, deadline)
    found = {
        name: {
            TopicPartition(each.topic, each.partition): Committed(each.offset, each.metadata or "")
            for each in answer.topic_partitions
            if each.offset >= 0
        }
        for name, answer in answers.items()
    }
    return GroupAnswers(found, problems)


QUESTIONS: dict[str, Callable[[Asker, Collection[str], float], GroupAnswers[Any]]] = {
    "described": described,
    "committed": committed,
}


def serve(pipe: Connection, parent: int) -> None:
    """Answer what comes through `pipe` until it is closed or the process `parent` has ended."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no file for each expected death
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asker = Asker(*pipe.recv())
    pipe.send("ready")
    try:
        while True:
            while not pipe.poll(_LOOK):
                if os.getppid() != parent:
                    return
            question, groups, seconds = pipe.recv()
            pipe.send(_answer(asker, question, groups, seconds))
    except (EOFError, OSError):
        return


def _answer(
    asker: Asker, question: str, groups: Collection[str], seconds: float
) -> GroupAnswers[Any] | RelanceError:
    try:
        return QUESTIONS[question](asker, groups, asker.deadline(seconds))
    except RelanceError as error:
        return error


def _ask_offsets(client: AdminClient, groups: list[str], left: float) -> Mapping[str, Future[Any]]:
    # The client takes one group a call; the calls are on their way together.
    futures = {}
    for group in groups:
        asked = ConsumerGroupTopicPartitions(group)
        try:
            futures[group] = client.list_consumer_group_offsets([asked], request_timeout=left)[group]
        except (KafkaException, ValueError, TypeError) as error:
            # The client refuses the name "", which a broker does keep offsets for.
            futures[group] = Future()
            futures[group].set_exception(error)
    return futures


def _described(answer: Any) -> Described:
    members, problem = [], ""
    for each in answer.members:
        held = {TopicPartition(tp.topic, tp.partition) for tp in each.assignment.topic_partitions}
        real = {tp for tp in held if tp.partition >= 0 and is_topic_name(tp.topic)}
        if held != real:
            problem = f"member {each.member_id} holds what can be no partition"
        shown = sorted(real)[:MOST_HELD]
        if len(shown) < len(real):
            problem = f"member {each.member_id} holds {len(real)} partitions; {MOST_HELD} of them are shown"
        members.append(
            Member(
                member_id=each.member_id,
                client_id=each.client_id,
                host=each.host.lstrip("/"),
                instance_id=each.group_instance_id,
                assignment=tuple(shown),
            )
        )
    return Described(
        state=word(answer.state),
        protocol=word(answer.type),
        assignor=answer.partition_assignor,
        coordinator=f"{answer.coordinator.host}:{answer.coordinator.port}" if answer.coordinator else "",
        members=tuple(sorted(members, key=lambda member: (member.client_id, member.member_id))),
        problem=problem,
    )
