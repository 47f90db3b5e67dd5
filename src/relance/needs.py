"""Which topics an application needs, and how they should be: pure, from what its consumers and tables say."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from relance.spec import ConsumerSpec

__all__ = ["TABLE_CONFIGS", "NeededTopic", "differences", "needed_topics"]

COMPACT = "compact"
TABLE_CONFIGS = {"cleanup.policy": COMPACT, "segment.ms": "600000"}
"""How the topic of `App.table` is made: it is read whole at each start, so what is old goes soon."""


@dataclass(frozen=True, slots=True)
class NeededTopic:
    """A topic and its part; `like` are the sources of what comes to a retry or dead-letter topic."""

    name: str
    part: Literal["source", "retry", "dead letter", "table"]
    like: tuple[str, ...] = ()

    def partitions(self, wanted: int, known: Mapping[str, int]) -> int:
        """How many it should have: as many as its largest source, `wanted` where nothing says, a table one.

        `known` are the numbers of the topics that are there, or were decided before.
        """
        if self.part == "table":
            return 1
        return max((known[source] for source in self.like if source in known), default=wanted)

    @property
    def configs(self) -> dict[str, str]:
        """The settings that it needs: those of `App.table`, none for others."""
        return TABLE_CONFIGS if self.part == "table" else {}


def needed_topics(specs: Collection[ConsumerSpec], tables: Collection[str]) -> list[NeededTopic]:
    """Sources first, each topic once; one that is read is a source, whoever else writes it."""
    found = {topic: NeededTopic(topic, "source") for spec in specs for topic in spec.topics}
    like: dict[str, list[str]] = {}
    for spec in specs:
        for topic in spec.written:
            like.setdefault(topic, []).extend(spec.topics)
    for spec in specs:
        for topic in spec.written:
            part: Literal["retry", "dead letter"] = (
                "retry" if topic == spec.paths.retry_topic else "dead letter"
            )
            found.setdefault(topic, NeededTopic(topic, part, tuple(dict.fromkeys(like[topic]))))
    for topic in tables:
        found.setdefault(topic, NeededTopic(topic, "table"))
    return list(found.values())


def differences(
    topic: NeededTopic, partitions: int, should: int, configs: Mapping[str, str | None]
) -> list[str]:
    """What of a topic that is there is otherwise than it would have been made, in words."""
    found = []
    if partitions != should:
        found.append(f"it has {partitions} partition{'s'[: partitions != 1]}, not {should}")
    policy = configs.get("cleanup.policy")
    if topic.part == "table":
        if policy != COMPACT:
            found.append(f"its cleanup.policy is {policy}, not {COMPACT}")
    elif topic.part != "source" and COMPACT in (policy or ""):
        found.append(f"its cleanup.policy is {policy}: records of one key replace each other")
    return found
