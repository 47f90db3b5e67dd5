"""Two members, three partitions and everything that can go wrong between them, in virtual time.

The machine keeps its own books (`Tenure`): what each ownership inherited, finished and let wait. Every commit
is held against them when it is made, every start of a handler when it happens. At the end all faults are
healed, and every record must have come to its end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from relance.dead_letters.envelope import decode
from relance.engine.assignment import Assignment, Commit
from relance.engine.deferral import Deferral, NotOurs, from_headers
from relance.engine.offset_map import decode_map
from relance.errors import Fatal, Reject, Retry, TransientError
from relance.record import Record, TopicPartition
from world import DLT, RETRY, TOPIC_ID, Broker, FakeClock, Member, Out, Write, a_plan

SOURCES = [TopicPartition("orders", 0), TopicPartition("orders", 1)]
RETRIES = TopicPartition(RETRY, 0)
EVERY = [*SOURCES, RETRIES]
EARLY = 1e-5  # seconds; what floats may lose between two clocks

Waits = dict[int, tuple[int, float]]
"""offset: (the next attempt, not before this time of day)"""

KEYS = st.sampled_from([None, b"a", b"b", b"c"])
# What the handler does at the first, second, ... attempt; afterwards it succeeds.
SCRIPTS = st.lists(st.sampled_from(["ok", "retry", "retry", "reject", "later", "fatal"]), max_size=5)


@dataclass(eq=False)
class Tenure:
    """One member's ownership of one partition, as the books have it."""

    member: Member
    tp: TopicPartition
    assignment: Assignment
    inherited: frozenset[int]
    waits: Waits
    finished: set[int] = field(default_factory=set)
    settling: set[int] = field(default_factory=set)
    failing: set[int] = field(default_factory=set)
    last_started: dict[bytes | None, int] = field(default_factory=dict)
    last_commit: int = -1
    draining: bool = False

    @property
    def open(self) -> bool:
        return not self.assignment.closed

    @property
    def done(self) -> frozenset[int]:
        return self.inherited | self.finished


@dataclass(frozen=True)
class Accepted:
    """What the last accepted commit of a partition says, by the books."""

    done: frozenset[int] = frozenset()
    waits: Waits = field(default_factory=dict)


@dataclass(eq=False)
class Sent:
    """A commit on its way, with the books as they stood when it was made."""

    tenure: Tenure
    commit: Commit
    accepted: Accepted


class World(RuleBasedStateMachine):
    ordering: Any = "key"

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker()
        self.clock = FakeClock()

    @initialize(deferring=st.booleans(), in_memory=st.sampled_from([0.0, 1.0, 10.0]))
    def set_up(self, deferring: bool, in_memory: float) -> None:
        self.plan = a_plan(
            ordering=self.ordering,
            retry_topic=RETRY if deferring else None,
            max_in_memory_wait=in_memory,
            max_crashes=0,  # here crashes come by chance, so they say nothing about a record
        )
        self.members = [Member(self.broker, self.clock, self.plan) for _ in range(2)]
        self.owner: dict[TopicPartition, Tenure | None] = dict.fromkeys(EVERY)
        self.tenures: list[Tenure] = []
        self.accepted: dict[TopicPartition, Accepted] = {tp: Accepted() for tp in EVERY}
        self.on_its_way: dict[tuple[Member, str], list[Sent]] = {}
        self.scripts: dict[tuple[str, int, int], list[str]] = {}
        self.ended: set[tuple[str, int, int]] = set()  # by origin: handled
        self.fatal: set[Member] = set()

    # -- the books ---------------------------------------------------------------------------------

    def tenure_of(self, assignment: Assignment) -> Tenure:
        return next(t for t in self.tenures if t.assignment is assignment)

    def due_work(self, tp: TopicPartition) -> set[int]:
        """Offsets that hold a record of ours."""
        found = set()
        for message in self.broker.log(tp).messages:
            if tp == RETRIES and isinstance(self.headers_of(message.headers() or []), NotOurs):
                continue
            found.add(message.offset)
        return found

    def headers_of(self, headers: list[tuple[str, bytes | None]]) -> Any:
        return from_headers(headers, group="g", now=0.0, max_delay=1e12)

    def claimed(self, tp: TopicPartition, offset: int, metadata: str) -> set[int]:
        """What a commit says is finished."""
        found = decode_map(metadata, TOPIC_ID, offset)
        claims = {o for o in self.due_work(tp) if o < offset}
        if found is not None:
            claims |= {o for o in self.due_work(tp) if offset <= o < found.end} - set(found.unfinished)
        return claims

    def make_commit(self, tenure: Tenure) -> Sent | None:
        commit = tenure.member.make_commit(tenure.tp)
        if commit is None:
            return None
        assert commit.assignment is tenure.assignment
        claims = self.claimed(tenure.tp, commit.offset, commit.metadata)
        assert claims <= tenure.done, f"{tenure.tp}: committed what is not finished"
        assert claims == tenure.done & self.due_work(tenure.tp), f"{tenure.tp}: forgot what is finished"
        assert commit.offset >= tenure.last_commit, f"{tenure.tp}: went back"
        if self.owner[tenure.tp] is tenure:  # one who was robbed may ask for less: the broker refuses it
            assert commit.offset >= self.broker.commits.get(tenure.tp, (0, ""))[0]
        tenure.last_commit = commit.offset
        waits = {o: w for o, w in tenure.waits.items() if o not in tenure.done}
        return Sent(tenure, commit, Accepted(tenure.done, waits))

    def answer(self, sent: Sent, accept: bool, tell: bool = True) -> None:
        """The broker takes a commit from the present owner only."""
        tp, runtime = sent.tenure.tp, sent.tenure.member.runtime
        if accept and self.owner[tp] is sent.tenure:
            self.broker.commits[tp] = (sent.commit.offset, sent.commit.metadata)
            self.accepted[tp] = sent.accepted
            if tell:
                runtime.committed(sent.commit)
        elif tell:
            runtime.commit_failed(sent.commit)

    # -- records -----------------------------------------------------------------------------------

    @rule(tp=st.sampled_from(SOURCES), key=KEYS, script=SCRIPTS, gap=st.sampled_from([0, 0, 0, 1, 3]))
    def produce(self, tp: TopicPartition, key: bytes | None, script: list[str], gap: int) -> None:
        offset = self.broker.log(tp).append(key, gap=gap)
        self.scripts[(tp.topic, tp.partition, offset)] = script

    @precondition(lambda self: self.owned())
    @rule(data=st.data(), key=KEYS, hand_back=st.booleans())
    def fail_behind_a_letter_that_is_not_written(
        self, data: st.DataObject, key: bytes | None, hand_back: bool
    ) -> None:
        """Two of a lane are unfinished and the second waits: chance alone hardly ever brings that."""
        tenure = data.draw(st.sampled_from(self.owned()))
        if tenure.tp == RETRIES:
            return
        for script in (["reject"], ["retry", "retry"]):
            self.produce(tenure.tp, key, script, 0)
        tenure.member.read(tenure.tp, 50)
        self.note_failures(tenure.member)
        while (out := self.take_run(tenure.member, 4)) is not None:
            while out in tenure.member.outs:
                self.move(tenure.member, out)
        if hand_back:
            self.hand_back(tenure, clean=False)

    @rule(count=st.integers(3, 12), key=KEYS, tp=st.sampled_from(SOURCES))
    def produce_many(self, tp: TopicPartition, key: bytes | None, count: int) -> None:
        for _ in range(count):
            self.broker.log(tp).append(key)

    @rule(tp=st.sampled_from(EVERY), count=st.integers(1, 3))
    def end_a_transaction(self, tp: TopicPartition, count: int) -> None:
        self.broker.log(tp).markers(count)

    @precondition(lambda self: self.plan.paths.retry_topic)
    @rule(foreign=st.booleans())
    def write_nonsense_into_the_retry_topic(self, foreign: bool) -> None:
        headers = [("relance-group", b"another" if foreign else b"g")]
        self.broker.log(RETRIES).append(b"x", headers=headers)

    # -- owning ------------------------------------------------------------------------------------

    @rule(tp=st.sampled_from(EVERY), which=st.integers(0, 1))
    def join(self, tp: TopicPartition, which: int) -> None:
        member = self.members[which]
        if tp == RETRIES and self.plan.paths.retry_topic is None:
            return
        if self.owner[tp] is not None or tp in member.engine.assignments:
            return
        accepted = self.accepted[tp]
        tenure = Tenure(member, tp, member.assign(tp), accepted.done, dict(accepted.waits))
        tenure.draining = member in self.fatal
        self.owner[tp] = tenure
        self.tenures.append(tenure)

    def owned(self) -> list[Tenure]:
        return [t for t in self.owner.values() if t is not None]

    def open_tenures(self) -> list[Tenure]:
        """Also of those who don't know yet that they were robbed."""
        return [t for t in self.tenures if t.open]

    @precondition(lambda self: self.owned())
    @rule(
        data=st.data(),
        clean=st.booleans(),
        before=st.booleans(),
        accept=st.sampled_from([True, True, True, False]),
    )
    def revoke(self, data: st.DataObject, clean: bool, before: bool, accept: bool) -> None:
        tenure = data.draw(st.sampled_from(self.owned()))
        self.hand_back(tenure, clean=clean, before=before, accept=accept)

    @precondition(lambda self: self.owned())
    @rule(data=st.data(), before=st.booleans())
    def revoke_with_a_commit_on_its_way(self, data: st.DataObject, before: bool) -> None:
        tenure = data.draw(st.sampled_from(self.owned()))
        self.send_all_commits(tenure)
        self.hand_back(tenure, clean=True, before=before)

    def hand_back(self, tenure: Tenure, *, clean: bool, before: bool = True, accept: bool = True) -> None:
        """Revocation as the poller does it. `before`: fate of a commit that was on its way."""
        member, tp = tenure.member, tenure.tp
        tenure.draining = True
        member.abandoned.clear()
        member.while_waiting = (lambda timeout: self.go_on(member)) if clean else self.clock.advance
        began = self.clock.now
        member.runtime.revoking(member.feed_of(tp), [tp])
        assert self.clock.now - began <= self.plan.drain_timeout + EARLY
        if clean:
            assert not tenure.assignment.running
            assert not tenure.assignment.settling
        for sent in self.on_its_way.get((member, member.feed_of(tp)), []):
            if sent.tenure is tenure:
                self.answer(sent, before, tell=False)  # its answer comes too late
        sent = self.make_commit(tenure)
        if sent is not None:
            self.answer(sent, accept)
        if accept and self.owner[tp] is tenure:
            now = self.claimed(tp, *self.broker.commits.get(tp, (0, "")))
            assert now == tenure.done & self.due_work(tp), "the next owner repeats what was finished"
        for run in member.abandoned:  # an async handler is cancelled
            for out in [out for out in member.outs if out.run is run]:
                member.give_back(out)
        member.runtime.revoked(member.feed_of(tp), [tp], lost=False)
        if self.owner[tp] is tenure:
            self.owner[tp] = None

    def go_on(self, member: Member) -> None:
        """A bit of what a drain waits for."""
        if member.outs:
            self.move(member, member.outs[0])
        elif member.writes:
            self.land(member, member.writes[0])
        else:
            raise AssertionError("a drain waits for nothing")

    @precondition(lambda self: self.owned())
    @rule(data=st.data())
    def rob(self, data: st.DataObject) -> None:
        """The group evicts a member, which does not know it yet."""
        tenure = data.draw(st.sampled_from(self.owned()))
        self.owner[tenure.tp] = None

    @precondition(lambda self: self.open_tenures())
    @rule(data=st.data(), give_back=st.booleans())
    def lose(self, data: st.DataObject, give_back: bool) -> None:
        tenure = data.draw(st.sampled_from(self.open_tenures()))
        member = tenure.member
        member.abandoned.clear()
        member.lose(tenure.tp)
        if give_back:
            for out in [out for out in member.outs if out.run in member.abandoned]:
                member.give_back(out)
        if self.owner[tenure.tp] is tenure:
            self.owner[tenure.tp] = None

    @rule(which=st.integers(0, 1), landed=st.booleans(), accepted=st.booleans())
    def crash(self, which: int, landed: bool, accepted: bool) -> None:
        member = self.members[which]
        if landed:
            for write in member.writes:
                self.broker.write(write.outgoing)
        self.forget(member, accepted)
        member.restart()

    def forget(self, member: Member, accepted: bool) -> None:
        for feed in ("source", "retry"):
            for sent in self.on_its_way.pop((member, feed), []):
                self.answer(sent, accepted, tell=False)
        for tenure in self.open_tenures():
            if tenure.member is member:
                tenure.assignment.closed = True
                if self.owner[tenure.tp] is tenure:
                    self.owner[tenure.tp] = None
        self.fatal.discard(member)

    @rule(which=st.integers(0, 1), clean=st.booleans())
    def stop(self, which: int, clean: bool) -> None:
        self.stop_member(self.members[which], clean)

    def stop_member(self, member: Member, clean: bool) -> None:
        tenures = [t for t in self.open_tenures() if t.member is member]
        for tenure in tenures:
            tenure.draining = True
        member.while_waiting = (lambda timeout: self.go_on(member)) if clean else self.clock.advance
        member.runtime.drain(self.clock.now + 8.0)
        assert member.take() is None
        for tenure in tenures:
            self.hand_back(tenure, clean=clean)
        self.forget(member, True)
        member.restart()

    # -- reading and committing --------------------------------------------------------------------

    @precondition(lambda self: self.open_tenures())
    @rule(data=st.data(), count=st.integers(1, 8), again=st.integers(0, 3))
    def read(self, data: st.DataObject, count: int, again: int) -> None:
        tenure = data.draw(st.sampled_from(self.open_tenures()))
        # A reconnection may bring again what was read.
        start = tenure.assignment.frontier.base
        position = tenure.member.position
        position[tenure.tp] = max(min(start, position[tenure.tp]), position[tenure.tp] - again)
        tenure.member.read(tenure.tp, count)
        self.note_failures(tenure.member)

    @precondition(lambda self: self.open_tenures())
    @rule(data=st.data())
    def send_commits(self, data: st.DataObject) -> None:
        self.send_all_commits(data.draw(st.sampled_from(self.open_tenures())))

    def send_all_commits(self, tenure: Tenure) -> None:
        """Those of its feed; one call is on its way at a time."""
        member, feed = tenure.member, tenure.member.feed_of(tenure.tp)
        if self.on_its_way.get((member, feed)):
            return
        mine = [t for t in self.open_tenures() if t.member is member and member.feed_of(t.tp) == feed]
        self.on_its_way[(member, feed)] = [s for t in mine if (s := self.make_commit(t)) is not None]

    @precondition(lambda self: any(self.on_its_way.values()))
    @rule(data=st.data(), accept=st.booleans())
    def answer_commits(self, data: st.DataObject, accept: bool) -> None:
        which = data.draw(st.sampled_from([k for k, v in self.on_its_way.items() if v]))
        for sent in self.on_its_way.pop(which):
            self.answer(sent, accept)

    @rule(seconds=st.sampled_from([0.001, 0.5, 1.0, 4.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # -- work --------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), max_run=st.integers(1, 4))
    def take(self, which: int, max_run: int) -> None:
        self.take_run(self.members[which], max_run)

    def take_run(self, member: Member, max_run: int) -> Out | None:
        out = member.take(max_run)
        if out is None:
            return None
        assert 1 <= len(out.run.records) <= max_run
        tenure = self.tenure_of(out.run.lane.assignment)
        assert tenure.open
        assert not tenure.draining
        assert not tenure.failing, "a stopped partition goes on"
        lane = self.lane_of(tenure, out.run.records[0])
        for found in out.run.records[1:]:
            assert self.lane_of(tenure, found) == lane, "a run of two lanes"
        for other in member.outs:
            if other is not out and other.run.lane.assignment is tenure.assignment:
                assert lane is None or self.lane_of(tenure, other.run.records[0]) != lane, "two of a lane"
        return out

    def lane_of(self, tenure: Tenure, found: Record) -> object:
        if tenure.tp == RETRIES or self.ordering == "none":
            return None if found is None else (found.log_offset,)
        return ("all",) if self.ordering == "partition" else found.key and (found.key,)

    @precondition(lambda self: any(m.outs for m in self.members))
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from([m for m in self.members if m.outs]))
        self.move(member, data.draw(st.sampled_from(member.outs)))

    def move(self, member: Member, out: Out) -> None:
        """Begin the next record of a run, or end the one that runs."""
        if out.started is None:
            if member.begin(out) is not None:
                self.check_start(out)
        else:
            self.end(member, out)

    def check_start(self, out: Out) -> None:
        tenure, found = self.tenure_of(out.run.lane.assignment), out.started
        assert found is not None
        offset = found.log_offset
        assert tenure.open, "a closed assignment starts a record"
        assert not tenure.draining, "a drained partition starts a record"
        assert not tenure.failing, "a stopped partition starts a record"
        assert offset not in tenure.done, "handled again though its end was committed"
        attempt, due = tenure.waits.get(offset) or self.told(found)
        assert found.attempt == attempt
        assert self.clock.wall >= due - EARLY, f"{offset} starts {due - self.clock.wall} s early"
        lane = self.lane_of(tenure, found)
        if lane is not None:
            key = repr(lane).encode()
            assert tenure.last_started.get(key, -1) <= offset, "out of order"
            tenure.last_started[key] = offset

    def told(self, found: Record) -> tuple[int, float]:
        """Attempt and due time that a record brings along."""
        if found.deferral is None:
            return 1, 0.0
        told = self.headers_of(found.message.headers() or [])
        assert isinstance(told, Deferral)
        return told.attempt, told.due

    def end(self, member: Member, out: Out) -> None:
        tenure, found = self.tenure_of(out.run.lane.assignment), out.started
        assert found is not None
        origin = (found.topic, found.partition, found.offset)
        script = self.scripts.get(origin, [])
        does = script[found.attempt - 1] if found.attempt <= len(script) else "ok"
        if does == "ok":
            self.ended.add(origin)
            member.end(out)
            if tenure.open:
                tenure.finished.add(found.log_offset)
            return
        if does == "fatal":
            script[found.attempt - 1] = "ok"
        error, wait = {
            "retry": (TransientError("again"), self.plan.retry.delay(found.attempt, lambda: 0.5)),
            "later": (Retry(after=60.0), 60.0),
            "reject": (Reject("no"), 0.0),
            "fatal": (Fatal("the end"), 0.0),
        }[does]
        attempt, writes = found.attempt, len(member.writes)
        goes_on = member.end(out, error)
        self.note_failures(member)
        if not tenure.open:
            assert len(member.writes) == writes, "a fenced failure writes"
        elif does == "fatal":
            assert not goes_on
            assert member in self.fatal
        elif does == "reject" or attempt == self.plan.retry.max_attempts:
            self.expect_write(tenure, found, member, DLT, goes_on)
        elif self.plan.paths.retry_topic is None or 0 < self.plan.paths.max_in_memory_wait >= wait:
            assert not goes_on
            assert len(member.writes) == writes
            tenure.waits[found.log_offset] = (attempt + 1, self.clock.wall + wait)
        else:
            self.expect_write(tenure, found, member, RETRY, goes_on)

    def expect_write(self, tenure: Tenure, found: Record, member: Member, topic: str, goes_on: bool) -> None:
        assert goes_on
        write = member.writes[-1]
        assert (write.outgoing.topic, write.offset) == (topic, found.log_offset)
        assert (write.outgoing.key) == found.key
        if topic == RETRY:
            told = self.headers_of(write.outgoing.headers)
            assert told.attempt == found.attempt + 1
            assert (told.origin_partition, told.origin_offset) == (found.partition, found.offset)
            assert write.outgoing.value == found.raw
        tenure.settling.add(found.log_offset)

    def note_failures(self, member: Member) -> None:
        if member.failures and member not in self.fatal:
            self.fatal.add(member)
            for tenure in self.open_tenures():
                if tenure.member is member:
                    tenure.draining = True

    # -- hand-offs ---------------------------------------------------------------------------------

    @precondition(lambda self: any(m.writes for m in self.members))
    @rule(data=st.data(), fails=st.booleans())
    def answer_a_write(self, data: st.DataObject, fails: bool) -> None:
        member = data.draw(st.sampled_from([m for m in self.members if m.writes]))
        write = data.draw(st.sampled_from(member.writes))
        if not fails:
            self.land(member, write)
            return
        member.refuse(write)
        tenure = self.tenure_of(write.assignment)
        if tenure.open:
            tenure.failing.add(write.offset)
        else:
            member.writes.remove(write)  # nobody tries it again

    def land(self, member: Member, write: Write) -> None:
        tenure = self.tenure_of(write.assignment)
        member.ack(write)
        if tenure.open:
            tenure.finished.add(write.offset)
            tenure.failing.discard(write.offset)

    # -- always ------------------------------------------------------------------------------------

    @invariant()
    def counters_agree_with_what_is_there(self) -> None:
        for member in getattr(self, "members", []):
            engine, runtime = member.engine, member.runtime
            mine = [t.assignment for t in self.open_tenures() if t.member is member]
            assert engine.settling == sum(len(a.settling) for a in mine)
            assert engine.in_flight == sum(len(a.running) for a in mine)
            assert runtime.look().settling == engine.settling
            for assignment in mine:
                lanes = {*engine._ready, *assignment.held, *assignment.waiting, *assignment.lanes.values()}
                lanes |= {run.lane for run in assignment.running}
                if (careful := assignment.careful) is not None:
                    lanes |= {*careful.inside, *careful.beyond}
                    lanes |= {careful.suspect} if careful.suspect is not None else set()
                lanes = {lane for lane in lanes if lane.assignment is assignment}
                if not assignment.draining:  # else some were dropped already
                    assert assignment.queued == sum(len(lane.queue) for lane in lanes)
                assert assignment.parked == sum(len(lane.queue) for lane in assignment.waiting)
                assert {o for o in assignment.frontier.unfinished() if o < assignment.frontier.position} == {
                    *assignment.settling,
                    *(r.log_offset for lane in lanes for r in lane.queue),
                    *(
                        r.log_offset
                        for run in assignment.running
                        for r in run.records[run.reported :]
                        if r.log_offset not in (run.handed or ())
                    ),
                } or assignment.draining

    # -- the end -----------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "members"):
            return
        for member in self.members:
            self.heal(member)
        for tp in EVERY:
            self.join(tp, 0)
        member = self.members[0]
        for _ in range(400):
            self.turn(member)
            if self.quiet(member):
                break
        else:
            note(f"{member.runtime.look()}")
            raise AssertionError("it never comes to rest")
        for tp in EVERY:
            tenure = self.owner[tp]
            if tenure is not None:
                assert self.due_work(tp) <= tenure.done
                sent = self.make_commit(tenure)
                if sent is not None:
                    self.answer(sent, True)
                assert self.broker.commits[tp][0] == self.broker.log(tp).end, "lag stays"
        self.check_ends()

    def heal(self, member: Member) -> None:
        for tenure in self.open_tenures():
            if tenure.member is member and self.owner[tenure.tp] is not tenure:
                member.lose(tenure.tp)
        for out in list(member.outs):
            if not self.tenure_of(out.run.lane.assignment).open:
                member.give_back(out)
        self.stop_member(member, clean=True)

    def turn(self, member: Member) -> None:
        if member in self.fatal:
            self.stop_member(member, clean=True)
            for tp in EVERY:
                self.join(tp, 0)
        pauses = {feed: member.runtime.pauses(feed) for feed in ("source", "retry")}
        for tenure in self.open_tenures():
            if tenure.tp not in pauses[member.feed_of(tenure.tp)]:
                member.read(tenure.tp, 50)
                self.note_failures(member)
        while (out := self.take_run(member, 4)) is not None:
            while out in member.outs:
                self.move(member, out)
        while member.writes:
            self.land(member, member.writes[0])
        for tenure in self.open_tenures():
            if (sent := self.make_commit(tenure)) is not None:
                self.answer(sent, True)
            if tenure.assignment.careful is not None:
                self.clock.advance(1.0)
        left = member.runtime.due_in()
        if left is not None:
            self.clock.advance(left)

    def quiet(self, member: Member) -> bool:
        return (
            member not in self.fatal
            and not member.writes
            and member.at_rest()
            and all(member.position[t.tp] == self.broker.log(t.tp).end for t in self.open_tenures())
        )

    def check_ends(self) -> None:
        ends = set(self.ended)
        for message in self.broker.log(TopicPartition(DLT, 0)).messages:
            letter = decode(message.value)
            ends.add((letter.original_topic, letter.original_partition, letter.original_offset))
        for tp in SOURCES:
            for message in self.broker.log(tp).messages:
                assert (tp.topic, tp.partition, message.offset) in ends, f"{tp}@{message.offset} is lost"


class ByPartition(World):
    ordering = "partition"


class ByKey(World):
    ordering = "key"


class WithoutOrder(World):
    ordering = "none"


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """A line for each of some ten thousand failures would bury the example that matters."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


PROFILE = settings(max_examples=150, stateful_step_count=60, deadline=None, print_blob=True)


@pytest.mark.parametrize("world", [ByPartition, ByKey, WithoutOrder], ids=lambda w: w.ordering)
def test_nothing_is_lost_repeated_early_or_out_of_order_whatever_happens(world: type[World]) -> None:
    run_state_machine_as_test(world, settings=PROFILE)
