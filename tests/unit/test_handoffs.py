"""Hand-offs over a producer that refuses or takes each write at once; only the tests move the clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relance.delivery import Sent
from relance.engine.assignment import Assignment
from relance.engine.frontier import Frontier
from relance.errors import SendError
from relance.kafka import handoff
from relance.kafka.handoff import Handoff, Handoffs
from relance.record import Outgoing
from world import DLT, ORDERS, FakeClock, a_member

NO_LEADER = SendError("no leader", maybe_written=False)


class Producer:
    """Answers each write at once: `refusing` or written."""

    def __init__(self) -> None:
        self.on_tick: list[Callable[[], None]] = []
        self.refusing = True
        self.sends: list[float] = []
        self.hold: list[Callable[..., None]] | None = None
        """Where answers are put instead of given."""
        self.clock = FakeClock()

    def send(self, topic: str, value: bytes | None, *, answer: Callable[..., None], **_: Any) -> None:
        self.sends.append(self.clock.now)
        if self.hold is not None:
            self.hold.append(answer)
            return
        if self.refusing:
            raise NO_LEADER
        answer(None, Sent(topic, 0, len(self.sends)))

    def tick(self) -> None:
        """What the producer's thread does between two polls."""
        for call in self.on_tick:
            call()


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> Producer:
    found = Producer()
    monkeypatch.setattr(handoff, "time", found.clock)
    return found


def a_handoff(assignment: Assignment | None = None) -> Handoff:
    assignment = assignment or Assignment(ORDERS, "source", 1, Frontier(0))
    return Handoff(assignment, 0, (Outgoing(DLT, b"k", b"v", []),))


def told_nothing(_: Handoff) -> None:
    """Where no partition goes."""


def test_a_hand_off_that_failed_two_thousand_times_still_gets_its_pause_and_is_written_at_last(
    producer: Producer,
) -> None:
    settled: list[Handoff] = []
    handoffs = Handoffs(producer, settled=settled.append, failed=lambda *_: None, trying=told_nothing)  # type: ignore[arg-type]
    handoffs.submit(a_handoff())
    while len(producer.sends) < 2_000:
        producer.clock.advance(0.5)
        producer.tick()
    pauses = [later - before for before, later in zip(producer.sends, producer.sends[1:], strict=False)]
    assert pauses[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert set(pauses[5:]) == {10.0}
    producer.refusing = False
    producer.clock.advance(9.5)
    producer.tick()
    assert settled == []
    producer.clock.advance(0.5)
    producer.tick()
    assert len(settled) == 1
    assert len(producer.sends) == 2_001


def test_what_a_topic_refused_is_written_at_once_where_its_partition_is_about_to_go(
    producer: Producer,
) -> None:
    going, staying = a_handoff(), a_handoff()
    told: list[tuple[str, Handoff]] = []
    handoffs = Handoffs(
        producer,  # type: ignore[arg-type]
        settled=lambda handoff: told.append(("settled", handoff)),
        failed=lambda *_: None,
        trying=lambda handoff: told.append(("trying", handoff)),
    )
    for each in (going, staying):
        handoffs.submit(each)
    producer.refusing = False
    handoffs.hurry([going.assignment])
    assert told == [("trying", going), ("settled", going)]
    producer.clock.advance(60.0)
    producer.tick()
    assert told[2:] == [("settled", staying)], "nothing is written twice"


def two_refused_writes(producer: Producer) -> tuple[Handoffs, list[str], Handoff]:
    """Of one hand-off, and what is told of it, from the first failures on."""
    told: list[str] = []
    handoffs = Handoffs(
        producer,  # type: ignore[arg-type]
        settled=lambda handoff: told.append("settled"),
        failed=lambda *_: told.append("failed"),
        trying=lambda handoff: told.append("trying"),
    )
    one = a_handoff()
    one.outgoing *= 2
    handoffs.submit(one)
    return handoffs, told, one


def test_one_that_is_on_its_way_again_is_waited_for_and_not_written_twice(producer: Producer) -> None:
    answers: list[Callable[..., None]] = []
    handoffs, told, one = two_refused_writes(producer)
    producer.hold = answers
    producer.clock.advance(0.5)
    producer.tick()  # both are written again, without an answer yet
    handoffs.hurry([one.assignment])
    assert told == ["failed", "failed", "trying"]
    assert len(answers) == 2
    for answer in answers:
        answer(None, Sent(DLT, 0, 0))
    handoffs.hurry([one.assignment])
    producer.clock.advance(60.0)
    producer.tick()
    assert told[3:] == ["settled"]
    assert len(answers) == 2


def test_all_of_a_hand_off_is_announced_before_any_of_it_can_be_refused(producer: Producer) -> None:
    handoffs, told, one = two_refused_writes(producer)
    handoffs.hurry([one.assignment])
    assert told == ["failed", "failed", "trying", "failed", "failed"]


def test_nothing_is_hurried_for_one_that_is_gone(producer: Producer) -> None:
    handoffs = Handoffs(
        producer,  # type: ignore[arg-type]
        settled=lambda handoff: None,
        failed=lambda *_: None,
        trying=told_nothing,
    )
    one = a_handoff()
    handoffs.submit(one)
    one.assignment.closed = True
    handoffs.hurry([one.assignment])
    assert len(producer.sends) == 1


def test_a_failure_is_told_before_the_producer_s_thread_can_write_the_hand_off_again(
    producer: Producer,
) -> None:
    told: list[str] = []

    def failed(*_: object) -> None:
        # Whoever is told is held up for long (a lock), and the producer's thread goes on meanwhile.
        producer.refusing = False
        producer.clock.advance(60.0)
        producer.tick()
        told.append("failed")

    handoffs = Handoffs(
        producer, settled=lambda *_: told.append("settled"), failed=failed, trying=told_nothing
    )  # type: ignore[arg-type]
    handoffs.submit(a_handoff())
    producer.clock.advance(60.0)
    producer.tick()
    assert told == ["failed", "settled"]


def test_a_partition_goes_on_although_its_refused_hand_off_was_written_as_soon_as_it_could_be(
    producer: Producer,
) -> None:
    member = a_member()
    runtime = member.runtime

    def failed(refused: Handoff, topic: str, error: SendError) -> None:
        producer.refusing = False
        producer.clock.advance(60.0)
        producer.tick()
        runtime.not_settled(refused.assignment, refused.offset, str(error))

    def settled(written: Handoff) -> None:
        runtime.settled(written.assignment, written.offset)

    handoffs = Handoffs(producer, settled=settled, failed=failed, trying=told_nothing)  # type: ignore[arg-type]

    def reject_the_first(record: Any) -> None:
        if record.offset == 0:
            raise ValueError("poison")

    for _ in range(2):
        member.broker.log(ORDERS).append()
    member.read()
    out = member.take(max_run=1)
    assert out is not None
    member.finish(out, reject_the_first)
    (write,) = member.writes
    handoffs.submit(a_handoff(write.assignment))
    producer.clock.advance(60.0)
    producer.tick()
    member.work()
    assert runtime.look().stopped == {}
    assert member.commit() == 2


def test_a_hand_off_whose_assignment_is_gone_is_not_written_again(producer: Producer) -> None:
    handoffs = Handoffs(producer, settled=lambda *_: None, failed=lambda *_: None, trying=told_nothing)  # type: ignore[arg-type]
    refused = a_handoff()
    handoffs.submit(refused)
    refused.assignment.closed = True
    producer.clock.advance(60.0)
    producer.tick()
    assert len(producer.sends) == 1


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_hand_off_of_several_records_is_settled_when_the_last_of_them_is_acknowledged(
    producer: Producer, count: int
) -> None:
    """What `record.send` wrote, with a dead letter perhaps: one offset depends on all of them."""
    settled: list[Handoff] = []
    producer.hold = answers = []
    handoffs = Handoffs(producer, settled=settled.append, failed=lambda *_: None, trying=told_nothing)  # type: ignore[arg-type]
    one = a_handoff()
    one.outgoing *= count
    handoffs.submit(one)
    for left in reversed(range(count)):
        assert settled == []
        answers.pop()(None, Sent(DLT, 0, left))
    assert settled == [one]
    assert len(producer.sends) == count
