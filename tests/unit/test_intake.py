"""What a poller does without room: how long it waits, and when it reads others instead."""

from __future__ import annotations

import pytest
from confluent_kafka import Message

from relance.kafka import intake
from relance.kafka.intake import Intake
from world import FakeClock


class Hub:
    """Full until told; whoever waits for room waits all of the time."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.is_full = True
        self.is_starved = False
        self.waited: list[bool] = []

    def full(self, feed: str) -> bool:
        return self.is_full

    def starved(self, feed: str) -> bool:
        return self.is_starved

    def wait_for_room(self, feed: str, timeout: float, *, or_starved: bool) -> bool:
        self.waited.append(or_starved)
        self.clock.advance(timeout)
        return False


class Bench:
    """An intake in virtual time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = FakeClock()
        monkeypatch.setattr(intake, "time", self.clock)
        self.hub = Hub(self.clock)
        self.intake = Intake(self.hub, "source")  # type: ignore[arg-type]

    def hunts_for(self) -> float:
        """How long it reads on, with nothing coming; it waits, or is crowded, after it."""
        began = self.clock.now
        while not self.intake.backed_up() and self.intake.hunting:
            self.clock.advance(0.005)
        return self.clock.now - began

    def goes_on(self) -> None:
        """There is room, and then there is none again."""
        self.hub.is_full = False
        assert not self.intake.backed_up()
        assert not self.intake.crowded
        self.hub.is_full = True


def records(count: int, size: int = 90) -> list[Message]:
    return [Message(topic="orders", partition=0, offset=0, value=b"x" * size)] * count


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_it_waits_for_half_a_second_and_then_reads_those_that_do_not_hold_their_share(bench: Bench) -> None:
    began = bench.clock.now
    while bench.intake.backed_up():
        assert bench.intake.crowded
    assert 0.5 <= bench.clock.now - began < 0.5 + 2 * intake._WAIT
    assert bench.intake.crowded
    assert not bench.intake.hunting, "nobody waits for it"
    bench.goes_on()
    assert bench.intake.backed_up(), "a new patience"


def test_it_reads_the_others_at_once_while_workers_have_nothing_to_do_and_no_longer(bench: Bench) -> None:
    assert bench.intake.backed_up()
    bench.hub.is_starved = True
    assert not bench.intake.backed_up()
    assert bench.intake.crowded
    assert bench.intake.hunting
    bench.intake.took(records(1_000))
    bench.hub.is_starved = False
    assert bench.intake.backed_up()
    assert bench.hub.waited == [True, True], "and it is to hear of it at once"
    bench.hub.is_starved = True
    assert not bench.intake.backed_up()


def test_a_hunt_has_an_end_where_nothing_comes_and_is_made_again_after_seconds_only(bench: Bench) -> None:
    bench.hub.is_starved = True
    assert intake._HUNT <= bench.hunts_for() < intake._HUNT + 2 * intake._WAIT
    until = bench.clock.now + intake._FUTILE - 0.2
    while bench.clock.now < until:
        bench.goes_on()
        assert bench.intake.backed_up()
    assert not any(bench.hub.waited), "a wait that ends at once would be none"
    bench.clock.advance(0.3)
    bench.goes_on()
    assert not bench.intake.backed_up()


def test_a_hunt_goes_on_as_long_as_much_comes_and_ends_without_blame_when_no_more_does(bench: Bench) -> None:
    bench.hub.is_starved = True
    for _ in range(100):
        assert not bench.intake.backed_up()
        assert bench.intake.hunting
        bench.clock.advance(0.1)
        bench.intake.took(records(1_000))
    bench.hunts_for()
    assert not bench.intake.hunting, "until there is room"
    bench.goes_on()
    assert not bench.intake.backed_up()
    assert bench.intake.hunting, "it was worth it"


def test_a_trickle_does_not_keep_a_hunt_going(bench: Bench) -> None:
    bench.hub.is_starved = True
    began = bench.clock.now
    while not bench.intake.backed_up():
        bench.clock.advance(0.01)
        bench.intake.took(records(1))
    assert bench.clock.now - began < 2 * intake._HUNT


@pytest.mark.parametrize(
    ("count", "size", "again"), [(0, 0, False), (400, 90, False), (500, 90, True), (3, 100_000, True)]
)
def test_a_hunt_that_brought_too_little_for_what_was_dropped_is_not_made_again_at_once(
    count: int, size: int, again: bool, bench: Bench
) -> None:
    bench.hub.is_starved = True
    assert not bench.intake.backed_up()
    if count:
        bench.intake.took(records(count, size))
    bench.goes_on()
    assert (not bench.intake.backed_up()) == again


def test_a_new_assignment_ends_the_doubt(bench: Bench) -> None:
    bench.hub.is_starved = True
    bench.hunts_for()
    bench.goes_on()
    assert bench.intake.backed_up()
    bench.intake.reassigned()
    bench.goes_on()
    assert not bench.intake.backed_up()


def test_what_was_read_while_there_was_room_does_not_count_for_the_hunt(bench: Bench) -> None:
    bench.goes_on()
    bench.intake.took(records(5_000))
    bench.hub.is_starved = True
    assert not bench.intake.backed_up()
    bench.goes_on()
    assert bench.intake.backed_up()


def test_room_without_a_hunt_is_no_failed_one(bench: Bench) -> None:
    assert bench.intake.backed_up()
    bench.goes_on()
    bench.hub.is_starved = True
    assert not bench.intake.backed_up()
