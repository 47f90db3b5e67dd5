"""A circuit breaker and records that fail for ever, in virtual time: no outage is seen where there is none.

Workers come before pollers at each instant: an open breaker whose time is over finds in memory what was read
before, as on Kafka.
"""

from __future__ import annotations

import json
import logging
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


# -- what is read while it is open, and who else has probes ------------------------------------------------


OTHER = TopicPartition("orders", 1)


def opened_by_poison(
    ordering: str, tps: tuple[TopicPartition, ...], count: int = 6
) -> tuple[Member, FakeClock]:
    clock = FakeClock(now=0.0)
    circuit = Circuit(CircuitBreaker(open_for=10.0, probes=2), "handle", clock=clock)
    member = Member(Broker(), clock, a_plan(ordering=ordering), circuit)
    member.assign(*tps)
    for i in range(count):
        member.broker.log(ORDERS).append(key=b"p%d" % i)
    member.read()
    while circuit.look().state != "open":
        member.work(fail)
        clock.advance(1.0)
    return member, clock


def fail(record: Record) -> None:
    raise TransientError("503")


def test_while_it_is_open_records_are_read_until_there_are_enough_that_have_not_failed() -> None:
    member, _ = opened_by_poison("key", (ORDERS, OTHER))
    assert member.runtime.pauses("source") == set(), "one has not failed, and two are wanted"
    assert set(member.runtime.reading("source")) == {ORDERS, OTHER}
    member.broker.log(OTHER).append(key=b"p0")
    member.read(OTHER)
    assert member.runtime.pauses("source") == {ORDERS, OTHER}
    assert member.runtime.reading("source") == {}


def test_in_partition_order_only_partitions_without_a_lane_are_read_while_it_is_open() -> None:
    member, _ = opened_by_poison("partition", (ORDERS, OTHER))
    assert member.runtime.pauses("source") == {ORDERS}
    member.broker.log(OTHER).append()
    member.read(OTHER)
    assert member.runtime.pauses("source") == {ORDERS, OTHER}


def test_the_record_that_has_not_failed_is_probed_before_those_that_are_due() -> None:
    member, clock = opened_by_poison("partition", (ORDERS, OTHER))
    healthy = member.broker.log(OTHER).append()
    member.read(OTHER)
    clock.advance(10.0)
    first = member.take()
    assert first is not None
    assert first.run.records[0].partition == OTHER.partition
    assert member.begin(first) is not None
    assert member.take() is None, "of two probes one that failed could decide it"
    assert member.runtime.due_in() == 10.0, "so long it waits for the other"
    member.end(first)
    member.give_back(first)
    second = member.take()
    assert second is not None
    assert (second.run.records[0].partition, healthy) == (ORDERS.partition, 0)


def test_a_failed_probe_waits_as_its_policy_says_once_another_one_has_succeeded_in_its_trial() -> None:
    clock = FakeClock(now=0.0)
    circuit = Circuit(CircuitBreaker(open_for=10.0, probes=4, minimum_calls=2), "handle", clock=clock)
    member = Member(Broker(), clock, a_plan(ordering="key"), circuit)
    member.assign(ORDERS)
    for i in range(6):
        member.broker.log(ORDERS).append(key=b"k%d" % i)
    member.read()
    member.work(fail)
    assert circuit.look().state == "open"
    clock.advance(10.0)
    bad = member.take()
    assert bad is not None
    begun = member.begin(bad)
    assert begun is not None
    assert not member.end(bad, TransientError("503"))
    assert (begun.attempt, begun.history) == (1, ())
    clock.advance(5.0)  # the others are slow
    tried: list[tuple[float, int]] = []

    def work() -> None:
        member.work(lambda record: tried.append((clock.now, record.attempt)) if record is begun else None)

    work()
    assert circuit.look().state == "closed"
    assert (begun.attempt, len(begun.history), tried) == (2, 1, [])
    clock.advance(0.9)
    work()
    assert tried == []
    clock.advance(0.1)
    work()
    assert tried == [(16.0, 2)]


def test_a_failed_probe_s_record_that_costs_an_attempt_after_all_never_looks_like_a_hang() -> None:
    clock = FakeClock(now=1000.0)
    circuit = Circuit(CircuitBreaker(open_for=10.0, probes=4, minimum_calls=2), "handle", clock=clock)
    member = Member(Broker(), clock, a_plan(ordering="key", timeout=5.0), circuit)
    member.assign(ORDERS)
    for i in range(6):
        member.broker.log(ORDERS).append(key=b"k%d" % i)
    member.read()
    member.work(fail)
    clock.advance(10.0)
    bad = member.take()
    assert bad is not None
    member.begin(bad)
    assert not member.end(bad, TransientError("503"))
    seen: list[tuple[list[str], float]] = []

    class Looker(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            look = member.runtime.look()
            seen.append((look.overdue, 0.0 if look.oldest is None else look.oldest.seconds))

    log, looker = logging.getLogger("relance.retry"), Looker()
    log.addHandler(looker)
    try:
        member.work(lambda record: None)
    finally:
        log.removeHandler(looker)
    assert circuit.look().state == "closed"
    assert seen == [([], 0.0)]


def test_the_last_attempt_is_not_taken_by_a_trial_but_by_the_next_failure() -> None:
    clock = FakeClock(now=0.0)
    circuit = Circuit(CircuitBreaker(open_for=10.0, probes=4, minimum_calls=2), "handle", clock=clock)
    member = Member(Broker(), clock, a_plan(ordering="key", retry=RetryPolicy(max_attempts=1)), circuit)
    member.assign(ORDERS)
    log = member.broker.log(ORDERS)
    for i in range(6):
        log.append(key=b"k%d" % i)
    member.read()
    late = [out for _ in range(3) if (out := member.take()) is not None]
    for out in late:
        member.begin(out)
    for out in late:
        member.end(out, TransientError("503"))
    assert circuit.look().state == "open"
    assert len(member.writes) == 1  # the first of the two that opened it: nobody could know better
    clock.advance(10.0)
    bad = member.take()
    assert bad is not None
    poison = member.begin(bad)
    assert not member.end(bad, TransientError("503"))

    def work() -> None:
        member.work(lambda record: fail(record) if record is poison else None)

    work()
    assert circuit.look().state == "closed"
    assert len(member.writes) == 1
    clock.advance(10.0)
    work()
    assert len(member.writes) == 2, "others have succeeded since it failed"


def test_a_retry_topic_takes_a_failed_probe_s_record_when_it_costs_an_attempt_after_all() -> None:
    clock = FakeClock(now=0.0)
    circuit = Circuit(CircuitBreaker(open_for=10.0, probes=4, minimum_calls=2), "handle", clock=clock)
    plan = a_plan(ordering="key", retry_topic=RETRY, max_in_memory_wait=0.0)
    member = Member(Broker(), clock, plan, circuit)
    member.assign(ORDERS)
    for i in range(6):
        member.broker.log(ORDERS).append(key=b"k%d" % i)
    member.read()
    member.work(fail)
    assert circuit.look().state == "open"
    while member.writes:
        member.ack()
    clock.advance(10.0)
    bad = member.take()
    assert bad is not None
    assert member.begin(bad) is not None
    assert not member.end(bad, TransientError("503"))
    assert member.writes == []
    assert member.runtime.look().waiting == 1
    good = member.take()
    assert good is not None
    member.begin(good)
    member.end(good)
    member.give_back(good)
    [write] = member.writes
    assert write.outgoing.topic == RETRY
    assert dict(write.outgoing.headers)["relance-attempt"] == b"2"
    assert member.runtime.look().waiting == 0
    member.ack()
    assert member.runtime.look().settling == 0


def test_without_order_a_failed_probe_holds_up_none_of_those_that_came_with_it_in_a_batch() -> None:
    clock = FakeClock(now=0.0)
    breaker = CircuitBreaker(open_for=10.0, probes=4, minimum_calls=1, failure_rate=1.0)
    circuit = Circuit(breaker, "handle", clock=clock)
    member = Member(Broker(), clock, a_plan(ordering="none", batch=3), circuit)
    member.assign(ORDERS)
    log = member.broker.log(ORDERS)
    log.append()
    member.read()
    member.work(fail)
    assert circuit.look().state == "open"
    for _ in range(9):
        log.append()
    member.read()
    clock.advance(10.0)
    bad = member.take()
    assert bad is not None
    begun = member.begin(bad)
    assert begun is not None
    assert not member.end(bad, TransientError("503"))
    handled: list[int] = []
    member.work(lambda record: handled.append(record.offset))
    assert sorted([*handled, begun.offset]) == list(range(10))
    assert member.runtime.look().waiting == 1


def test_where_its_partition_goes_a_failed_probe_costs_nothing_and_holds_up_nobody() -> None:
    member, clock = opened_by_poison("key", (ORDERS,))
    clock.advance(10.0)
    member.work(fail)  # one probe of two decides it
    before = clock.now
    member.revoke(ORDERS)
    assert clock.now == before
    member.assign(ORDERS)
    member.read()
    attempts = []
    for _ in range(4):
        clock.advance(10.0)
        member.work(lambda record: attempts.append(record.attempt))
    assert attempts == [1] * 6


def test_a_consumer_with_poison_leaves_the_probes_to_one_that_shares_its_breaker_and_has_others() -> None:
    clock = FakeClock(now=0.0)
    circuit = Circuit(CircuitBreaker(open_for=10.0, probes=3, name="shared"), "shared", clock=clock)
    first, second = (Member(Broker(), clock, a_plan(ordering="key"), circuit) for _ in range(2))
    for member in (first, second):
        member.assign(ORDERS)
        for i in range(5):
            member.broker.log(ORDERS).append(key=b"k%d" % i)
    first.read()
    first.work(fail)
    assert circuit.look().state == "open"
    second.read()
    assert second.take() is None  # a worker that was woken
    clock.advance(10.0)
    tried = [first.take(), first.take()]
    assert [out is None for out in tried] == [False, True], "at most half of the probes"
    handled: list[int] = []
    second.work(lambda record: handled.append(record.offset))
    assert circuit.look().state == "closed"
    assert len(handled) == 5
