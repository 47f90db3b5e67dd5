"""Processes that die at some records, or by chance, in any order of reads, commits and starts.

A group of one member, which is started again each time. What may start, what is committed and who is given up
is held against the books that the test keeps itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relance.dead_letters.envelope import decode
from relance.engine.assignment import Commit
from relance.engine.crashes import read_mark
from relance.engine.offset_map import decode_map, mark_text
from relance.record import TopicPartition
from world import DLT, TOPIC_ID, Broker, FakeClock, Member, Out, a_plan

TPS = [TopicPartition("orders", p) for p in range(2)]
Place = tuple[int, int]


class Died(Exception):
    """The process is gone."""


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Life:
    """All the processes, one after the other.

    `kills`: how many of them are killed at some moment. `exits`: how often, of one, a poisoned record's
    handler raises SystemExit rather than to kill the process.
    """

    def __init__(
        self, random: Random, poison: set[int], counts: list[int], kills: int, plan: Any, exits: float = 0.0
    ) -> None:
        self.random, self.kills, self.exits = random, kills, exits
        self.broker, self.clock = Broker(), FakeClock()
        for tp, count in zip(TPS, counts, strict=True):
            for _ in range(count):
                gap = random.choice([0, 0, 0, 2])
                self.broker.log(tp).append(random.choice([None, b"a", b"b", b"c"]), gap=gap)
        self.places = [(tp.partition, m.offset) for tp in TPS for m in self.broker.log(tp).messages]
        self.poison = {self.places[i] for i in poison if i < len(self.places)}
        self.member = Member(self.broker, self.clock, plan)
        self.ended: set[Place] = set()
        self.deaths = self.unheard = 0
        self.sent: Commit | None = None

    def run(self) -> None:
        while True:
            try:
                self.one_process()
            except Died:
                self.deaths += 1
                self.deliver(tell=False, accept=self.random.random() < 0.5)
                self.member.restart()
                if self.exits == 1.0 and self.deaths:
                    most = self.member.plan.max_crashes * len(self.poison) + self.unheard
                    assert self.deaths <= most, "more starts than deaths that are allowed"
                assert self.deaths < 8 * (len(self.poison) + 1) + self.kills, "it never ends"
            else:
                return

    def one_process(self) -> None:
        for tp in self.random.sample(TPS, len(TPS)):
            self.member.assign(tp)
            self.offer(tp)
            self.deliver(tell=True, accept=True)  # the poller sends it before anything is read
        die_at = self.random.randrange(150) if self.kills else -1
        self.kills -= self.kills > 0
        for step in range(20_000):
            if step == die_at:
                raise Died
            if step % 50 == 0 and self.over():
                return
            self.random.choice([self.read, self.commit, self.take, self.move, self.move, self.land])()
            self.clock.advance(0.05)
        raise AssertionError(f"it never comes to rest: {self.member.runtime.look()}")

    def over(self) -> bool:
        if not self.member.at_rest() or self.member.writes or self.sent is not None:
            return False
        for tp in TPS:
            self.member.read(tp)
        if not self.member.at_rest() or self.member.writes:
            return False
        for tp in TPS:
            self.member.revoke(tp)
        return True

    def read(self) -> None:
        self.member.read(self.random.choice(TPS), self.random.choice([1, 3, 10]))

    def commit(self) -> None:
        if self.sent is None:
            self.offer(self.random.choice(TPS))
        else:
            self.deliver(tell=True, accept=self.random.random() < 0.9)

    def offer(self, tp: TopicPartition) -> None:
        assert self.sent is None
        self.sent = self.member.make_commit(tp)

    def deliver(self, *, tell: bool, accept: bool) -> None:
        sent, self.sent = self.sent, None
        if sent is None:
            return
        tp = sent.assignment.tp
        known = decode_map(sent.metadata, TOPIC_ID, sent.offset)
        for partition, offset in self.places:
            claimed = offset < sent.offset or (
                known is not None and offset < known.end and offset not in known.unfinished
            )
            if partition == tp.partition and claimed:
                assert (partition, offset) in self.ended | self.letters(), "committed past what is unfinished"
        if accept:
            self.broker.commits[tp] = (sent.offset, sent.metadata)
            if tell:
                self.member.runtime.committed(sent)
        elif tell:
            self.member.runtime.commit_failed(sent)

    def take(self) -> None:
        if len(self.member.outs) < 3:
            self.member.take(self.random.choice([1, 2, 8]))

    def move(self) -> None:
        if not self.member.outs:
            return
        out: Out = self.random.choice(self.member.outs)
        if out.started is None:
            found = self.member.begin(out)
            if found is not None:
                self.check_start(out)
                if (found.partition, found.log_offset) in self.poison:
                    if self.random.random() < self.exits:
                        self.exit(out)
                    raise Died
            return
        self.ended.add((out.started.partition, out.started.log_offset))
        if self.random.random() < 0.3:
            out.started.send("results", b"x")
        self.member.end(out)

    def exit(self, out: Out) -> None:
        """The handler raises SystemExit: others end or not, all is drained and committed."""
        tp = out.run.lane.assignment.tp
        self.member.outs.remove(out)
        self.member.runtime.ended_by(out.run, SystemExit(0))
        assert self.member.runtime.next(None, 1, wait=False) is None
        for other in list(self.member.outs):
            if other.started is not None and self.random.random() < 0.5:
                self.ended.add((other.started.partition, other.started.log_offset))
                self.member.end(other)
        self.deliver(tell=True, accept=self.random.random() < 0.9)
        for mine in TPS:
            self.member.runtime.revoking("source", [mine])
            self.offer(mine)
            heard = self.random.random() < 0.9
            self.unheard += mine == tp and not heard
            self.deliver(tell=True, accept=heard)
            self.member.runtime.revoked("source", [mine], lost=False)

    def check_start(self, out: Out) -> None:
        """What the broker holds tells of this start, if the owner before died."""
        assert out.started is not None
        assignment, offset = out.run.lane.assignment, out.started.log_offset
        if assignment.careful is None:
            return
        committed, metadata = self.broker.commits[assignment.tp]
        mark = read_mark(mark_text(metadata, TOPIC_ID))
        assert mark is not None
        assert mark.open
        assert committed <= offset
        if mark.level == 1:
            assert offset < mark.end
        else:
            assert mark.level == 2
            assert mark.suspect == offset
            assert len(assignment.running) == 1
            if mark.crashes.get(offset, 0) >= self.member.plan.max_crashes - 1:
                assert [o for o in self.member.outs if o.started is not None] == [out], "not alone"

    def land(self) -> None:
        if self.member.writes:
            if self.random.random() < 0.3:
                self.member.refuse()  # its partition stops
            else:
                self.member.ack()

    def letters(self) -> set[Place]:
        found = set()
        for message in self.broker.log(TopicPartition(DLT, 0)).messages:
            letter = decode(message.value)
            assert letter.error_class.endswith("CrashLoopError")
            assert letter.original_partition is not None
            assert letter.original_offset is not None
            assert letter.retry_count == self.member.plan.max_crashes - 1
            found.add((letter.original_partition, letter.original_offset))
        return found


SEEDS = st.integers(0, 2**32)
ORDERINGS = st.sampled_from(["partition", "key", "none"])
COUNTS = st.lists(st.integers(0, 25), min_size=2, max_size=2)


@settings(max_examples=400, deadline=None)
@example(seed=1, ordering="partition", counts=[2, 1], poison={1}, max_crashes=1)  # named while another ran
@given(
    seed=SEEDS,
    ordering=ORDERINGS,
    counts=COUNTS,
    poison=st.sets(st.integers(0, 49), max_size=3),
    max_crashes=st.integers(1, 3),
)
def test_who_kills_its_process_is_given_up_and_nobody_else(
    seed: int, ordering: str, counts: list[int], poison: set[int], max_crashes: int
) -> None:
    plan = a_plan(ordering=ordering, max_crashes=max_crashes)
    life = Life(Random(seed), poison, counts, 0, plan)
    life.run()
    assert life.letters() == life.poison
    assert life.ended == set(life.places) - life.poison
    for tp in TPS:
        assert life.broker.commits[tp][0] == life.broker.log(tp).end


@settings(max_examples=300, deadline=None)
@given(
    seed=SEEDS,
    ordering=ORDERINGS,
    counts=COUNTS,
    poison=st.sets(st.integers(0, 49), max_size=3),
    max_crashes=st.integers(1, 3),
    exits=st.sampled_from([0.5, 1.0]),
)
def test_whose_handler_exits_is_given_up_as_if_it_had_killed_its_process(
    seed: int, ordering: str, counts: list[int], poison: set[int], max_crashes: int, exits: float
) -> None:
    plan = a_plan(ordering=ordering, max_crashes=max_crashes)
    life = Life(Random(seed), poison, counts, 0, plan, exits)
    life.run()
    assert life.letters() == life.poison
    assert life.ended == set(life.places) - life.poison


@settings(max_examples=400, deadline=None)
@given(seed=SEEDS, ordering=ORDERINGS, counts=COUNTS, kills=st.integers(1, 3))
def test_who_is_killed_by_others_gives_nothing_up(
    seed: int, ordering: str, counts: list[int], kills: int
) -> None:
    life = Life(Random(seed), set(), counts, kills, a_plan(ordering=ordering))
    life.run()
    assert life.letters() == set()
    assert life.ended == set(life.places)
