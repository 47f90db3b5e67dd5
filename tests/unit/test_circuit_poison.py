"""A circuit breaker and records that fail for ever, in virtual time: no outage is seen where there is none.

Workers come before pollers at each instant: an open breaker whose time is over finds in memory what was read
before, as on Kafka.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

from relance.circuit import Circuit
from relance.errors import MaxRetriesExceededError, TransientError
from relance.policies.breaker import CircuitBreaker
from relance.policies.retry import RetryPolicy
from relance.record import Record, TopicPartition
from world import DLT, ORDERS, RETRY, Broker, FakeClock, Member, a_plan

RETRIES = TopicPartition(RETRY, 0)
POISON = b"poison"
ATTEMPTS = 3


class Traffic:
    """A member at work while records come; `down` is when the service is."""

    def __init__(
        self, breaker: CircuitBreaker, *, down: tuple[float, float] = (0.0, 0.0), **plan: object
    ) -> None:
        self.clock = FakeClock(now=0.0)
        self.circuit = Circuit(breaker, "handle", clock=self.clock)
        retry = RetryPolicy.fixed(delay=0.2, max_attempts=ATTEMPTS)
        self.member = Member(Broker(), self.clock, a_plan(ordering="key", retry=retry, **plan), self.circuit)
        self.member.assign(ORDERS)
        if self.member.plan.paths.retry_topic is not None:
            self.member.assign(RETRIES)
        self.down = down
        self.handled: list[int] = []
        self.calls: Counter[int] = Counter()

    def poison(self, count: int) -> None:
        for i in range(count):
            self.member.broker.log(ORDERS).append(key=b"p%d" % i, value=POISON)

    def healthy(self, count: int, *, a_second: float, keys: int = 40) -> None:
        for i in range(count):
            self.member.broker.log(ORDERS).append(key=b"k%d" % (i % keys))
            self.step(1 / a_second)

    def handle(self, record: Record) -> None:
        self.calls[record.offset] += 1
        if record.raw == POISON or self.down[0] <= self.clock.now < self.down[1]:
            raise TransientError("503")
        self.handled.append(record.offset)

    def step(self, seconds: float = 0.02) -> None:
        member = self.member
        member.work(self.handle)
        while member.writes:
            member.ack()
        for tp in member.position:
            if tp not in member.runtime.pauses(member.feed_of(tp)):
                member.read(tp)
        member.work(self.handle)
        while member.writes:
            member.ack()
        self.clock.advance(seconds)

    def rest(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.step()

    def dead(self) -> list[dict[str, object]]:
        return [json.loads(m.value or b"") for m in self.member.broker.log(TopicPartition(DLT, 0)).messages]

    def assert_only_poison_is_dead(self, count: int) -> None:
        letters = self.dead()
        assert [letter["originalValue"] for letter in letters] == [POISON.decode()] * count
        assert {letter["retryCount"] for letter in letters} == {ATTEMPTS - 1}
        assert {str(letter["errorClass"]).split(".")[-1] for letter in letters} == {
            MaxRetriesExceededError.__name__
        }


@pytest.mark.parametrize("retry_topic", [None, RETRY], ids=["in memory", "retry topic"])
@pytest.mark.parametrize(("poison", "probes"), [(2, 3), (2, 1), (12, 3), (12, 10)])
def test_poison_that_came_alone_keeps_no_breaker_open_for_the_healthy_traffic_that_follows(
    poison: int, probes: int, retry_topic: str | None
) -> None:
    wait = 10.0 if retry_topic is None else 0.0
    breaker = CircuitBreaker(open_for=1.0, probes=probes)
    traffic = Traffic(breaker, retry_topic=retry_topic, max_in_memory_wait=wait)
    traffic.poison(poison)
    traffic.rest(2.5)
    assert (traffic.circuit.look().state, traffic.dead()) == ("open", [])
    traffic.healthy(1500, a_second=50)
    traffic.rest(5.0)
    assert sorted(traffic.handled) == list(range(poison, poison + 1500))
    traffic.assert_only_poison_is_dead(poison)
    assert traffic.circuit.look().state == "closed"


@pytest.mark.parametrize("retry_topic", [None, RETRY], ids=["in memory", "retry topic"])
@pytest.mark.parametrize("probes", [1, 2, 3, 10])
def test_after_an_outage_with_poison_in_it_all_that_is_healthy_is_handled_soon(
    probes: int, retry_topic: str | None
) -> None:
    wait = 10.0 if retry_topic is None else 0.0
    breaker = CircuitBreaker(open_for=1.0, probes=probes)
    traffic = Traffic(breaker, down=(2.0, 7.0), retry_topic=retry_topic, max_in_memory_wait=wait)
    traffic.healthy(100, a_second=50)
    traffic.poison(6)
    traffic.healthy(2300, a_second=50)
    traffic.rest(5.0)
    assert len(set(traffic.handled)) == len(traffic.handled) == 2400
    traffic.assert_only_poison_is_dead(6)
    assert (
        traffic.circuit.look().times_opened <= 5 + 5
    )  # one a second in the outage, and a few for the poison


def test_poison_alone_cannot_be_told_from_an_outage_and_waits() -> None:
    traffic = Traffic(CircuitBreaker(open_for=1.0))
    traffic.poison(2)
    traffic.rest(60.0)
    assert traffic.dead() == []
    assert traffic.circuit.look().times_opened >= 15
    assert sum(traffic.calls.values()) <= 5 + 2 * 60
