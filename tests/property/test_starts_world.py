"""Groups that read with start="latest", over any course of events: nothing written for them is skipped, no
history is read.

The group begins with its first acknowledged commit. A partition that was there then and has no commit (its
member died before) begins at its end; one that has appeared since, or belongs to a topic made again, at its
beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from relance.engine.offset_map import OffsetMap, encode_map
from relance.kafka.cluster import Committed, Identity, Watermarks
from relance.kafka.starts import Feed, Seen, Telling, needs_others, starts_of
from relance.record import TopicPartition

FEED = Feed("source", ("orders",), "group", "latest")


@dataclass
class World:
    """One topic, one group, and how both should be."""

    incarnation: int = 0
    ends: list[int] = field(default_factory=lambda: [7])
    commits: dict[TopicPartition, Committed] = field(default_factory=dict)
    there_at_the_beginning: int | None = None
    """Partitions of this topic when its group began; 0 where the group is older; None before."""

    def seen(self, first: Identity) -> Seen:
        return Seen("here", {"orders": self.identity}, {"orders": first})

    @property
    def identity(self) -> Identity:
        return Identity(f"T{self.incarnation}", len(self.ends))

    def expected(self, tp: TopicPartition) -> int:
        if tp in self.commits:
            return self.commits[tp].offset if f"r1:{self.identity.id}:" in self.commits[tp].metadata else 0
        there = self.there_at_the_beginning
        return self.ends[tp.partition] if there is None or tp.partition < there else 0

    def assign(self, mine: list[TopicPartition], first: Identity, acknowledged: list[TopicPartition]) -> None:
        """A member gets these; of its first commits those are acknowledged before it dies or goes on."""
        seen = self.seen(first)
        known = {tp: self.commits.get(tp, Committed(-1, "")) for tp in mine}
        for tp in needs_others(mine, known, seen):
            known[tp] = self.commits.get(tp, Committed(-1, ""))
        ends = {tp: Watermarks(0, self.ends[tp.partition]) for tp in mine}
        starts = starts_of(mine, known, ends, seen, FEED, Telling())
        assert {s.tp: s.offset for s in starts} == {tp: self.expected(tp) for tp in mine}
        for start in starts:
            if start.tp in acknowledged:
                text, _ = encode_map(OffsetMap(start.offset, start.offset), start.topic_id, home=start.home)
                self.commits[start.tp] = Committed(start.offset, text)
        if acknowledged and self.there_at_the_beginning is None:
            self.there_at_the_beginning = len(self.ends)


@given(st.data())
def test_latest_skips_what_was_there_before_the_group_and_nothing_else(data: st.DataObject) -> None:
    world = World(ends=data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4)))
    first = world.identity  # as the running process has seen it; another process begins with what is there
    for _ in range(data.draw(st.integers(1, 12))):
        event = data.draw(st.sampled_from(["assign", "assign", "write", "grow", "restart", "again"]))
        if event == "write":
            world.ends[data.draw(st.integers(0, len(world.ends) - 1))] += 3
        elif event == "grow":
            world.ends.append(data.draw(st.integers(0, 5)))
            if world.there_at_the_beginning is None:  # the process that runs knows it as new
                world.there_at_the_beginning = first.partitions if first.id == world.identity.id else 0
        elif event == "restart":
            first = world.identity
            if not world.commits:  # nobody knows of the group any more
                world.there_at_the_beginning = None
        elif event == "again":
            world.incarnation += 1
            world.ends = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
            if data.draw(st.booleans()):  # Kafka deletes the commits with their topic; one may come too late
                world.commits.clear()
            world.there_at_the_beginning = 0
        else:
            tps = [TopicPartition("orders", p) for p in range(len(world.ends))]
            mine = data.draw(st.lists(st.sampled_from(tps), min_size=1, unique=True))
            world.assign(mine, first, data.draw(st.lists(st.sampled_from(mine), unique=True)))
