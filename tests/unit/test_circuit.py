"""A circuit breaker at work: what opens it costs nothing, what waits loses nothing; in virtual time."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest

from relance.circuit import Circuit, make_circuits
from relance.decoding import decoder_for, handler_shape
from relance.engine.lanes import Run
from relance.errors import (
    BatchError,
    DecodeError,
    MaxRetriesExceededError,
    Reject,
    SettingsError,
    TransientError,
)
from relance.policies.breaker import CircuitBreaker
from relance.policies.retry import RetryPolicy
from relance.record import Record, TopicPartition
from relance.stats import CircuitBreakerOpen
from relance.workers.batch import BatchCall
from world import DLT, ORDERS, RETRY, Broker, FakeClock, Member, a_member, a_plan

RETRIES = TopicPartition(RETRY, 0)

BREAKER = CircuitBreaker(window=10, minimum_calls=5, open_for=30.0, probes=3)


class Service:
    """What the handler calls: down or up; it notes who called, as (offset, attempt)."""

    def __init__(self, *, down: bool = False) -> None:
        self.down = down
        self.poison: set[int] = set()
        self.calls: list[tuple[int, int]] = []
        self.handled: list[int] = []

    def __call__(self, record: Record) -> None:
        self.calls.append((record.offset, record.attempt))
        if self.down or record.offset in self.poison:
            raise TransientError("503")
        self.handled.append(record.offset)

    def calls_since(self) -> list[tuple[int, int]]:
        """Those since it was asked last."""
        found, self.calls = self.calls, []
        return found


def member_with(count: int, *, keys: int | None = None, **given: Any) -> Member:
    """A member with `count` records read, of `keys` keys in turn (None: one for each record)."""
    member = a_member(**{"breaker": BREAKER, "ordering": "key", **given})
    for i in range(count):
        member.broker.log(ORDERS).append(key=b"k%d" % (i if keys is None else i % keys))
    member.read()
    return member


def state_of(member: Member) -> str:
    assert member.circuit is not None
    return member.circuit.look().state


def opened(count: int = 8, **given: Any) -> tuple[Member, Service]:
    """A member whose breaker has just opened, in an outage that goes on; nobody has been called since."""
    member, service = member_with(count, **given), Service(down=True)
    member.work(service)
    assert state_of(member) == "open"
    service.calls_since()
    return member, service


def work_until_rest(member: Member, service: Callable[[Record], None], step: float = 1.0) -> None:
    """Let time pass until all is handled or written off."""
    for _ in range(1_000):
        member.work(service)
        while member.writes:
            member.ack()
        if member.at_rest():
            return
        member.clock.advance(step)
    raise AssertionError(f"not at rest: {member.runtime.look()}, {member.circuit and member.circuit.look()}")


# -- an outage -------------------------------------------------------------------------------------


def test_an_outage_opens_it_and_then_nobody_is_called() -> None:
    member, service = member_with(8), Service(down=True)
    member.work(service)
    assert [offset for offset, _ in service.calls_since()] == [0, 1, 2, 3, 4]
    assert state_of(member) == "open"
    member.clock.advance(29.9)
    member.work(service)
    assert service.calls == []


def test_an_outage_costs_no_attempt_and_dead_letters_nothing() -> None:
    member, service = opened(retry=RetryPolicy.exponential(max_attempts=2, jitter_factor=0))
    for _ in range(20):  # ten minutes
        member.clock.advance(30.0)
        member.work(service)
    assert {attempt for _, attempt in service.calls} == {1}
    service.down = False
    service.calls_since()
    work_until_rest(member, service)
    assert {attempt for _, attempt in service.calls} == {1}
    assert sorted(service.handled) == list(range(8))
    assert member.runtime.counters.dead_lettered == 0
    assert member.commit() == 8


def test_the_failure_that_opens_it_is_not_dead_lettered_even_if_it_was_the_last_attempt() -> None:
    member = member_with(2, breaker=CircuitBreaker(window=4, minimum_calls=4), ordering="partition")
    service = Service(down=True)
    for _ in range(4):
        member.work(service)
        member.clock.advance(10.0)
    assert service.calls == [(0, 1), (0, 2), (0, 3), (0, 4)]  # four attempts are all it has
    assert (state_of(member), member.writes) == ("open", [])
    service.down = False
    service.calls_since()
    seen = []

    def look(record: Record) -> None:
        seen.append(record.history)
        service(record)

    work_until_rest(member, look)
    assert service.calls == [(0, 1), (1, 1)]
    assert seen == [(), ()]


def test_without_a_dead_letter_topic_the_failure_that_opens_it_stops_nothing() -> None:
    once = CircuitBreaker(window=1, minimum_calls=1)
    member = member_with(2, breaker=once, retry=RetryPolicy(max_attempts=1), dead_letter_topic=None)
    member.work(Service(down=True))
    assert (state_of(member), member.failures) == ("open", [])


@pytest.mark.parametrize("max_attempts", [1, 3], ids=["last attempt", "an attempt"])
def test_a_failure_is_given_back_also_if_another_thread_opens_it_while_that_is_being_judged(
    max_attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = CircuitBreaker(window=2, minimum_calls=2)
    member = member_with(2, breaker=breaker, retry=RetryPolicy.fixed(max_attempts=max_attempts))
    first, second = member.take(), member.take()
    assert first is not None
    assert second is not None
    member.begin(first)
    member.begin(second)
    judge = member.runtime._judge.judge

    def slow_judge(record: Record, error: Exception, run: Run) -> Any:
        monkeypatch.undo()
        assert not member.end(second, TransientError("503"))
        assert state_of(member) == "open"
        return judge(record, error)

    monkeypatch.setattr(member.runtime._judge, "judge", slow_judge)
    assert not member.end(first, TransientError("503"))
    assert (member.writes, member.runtime.look().waiting) == ([], 0)
    service = Service()
    member.clock.advance(30.0)
    work_until_rest(member, service)
    assert sorted(service.calls) == [(0, 1), (1, 1)]


def test_the_history_of_a_record_forgets_the_tries_that_were_given_back() -> None:
    member, service = opened()
    service.down = False
    seen: dict[int, tuple[object, ...]] = {}

    def look(record: Record) -> None:
        seen[record.offset] = record.history
        service(record)

    work_until_rest(member, look)
    assert set(seen.values()) == {()}


def test_order_within_a_key_is_kept_through_an_outage() -> None:
    member, service = opened(24, keys=6)
    member.clock.advance(30.0)
    member.work(service)
    service.down = False
    work_until_rest(member, service)
    assert sorted(service.handled) == list(range(24))
    for key in range(6):
        mine = [offset for offset in service.handled if offset % 6 == key]
        assert mine == sorted(mine)


def test_a_call_that_began_before_it_opened_costs_no_attempt_when_it_fails_later() -> None:
    member, service = member_with(8, retry=RetryPolicy(max_attempts=1)), Service(down=True)
    late = member.take()
    assert late is not None
    begun = member.begin(late)
    assert begun is not None
    # With one attempt each, those before the breaker opens are written off; nobody could know better.
    member.work(service)
    assert state_of(member) == "open"
    written = len(member.writes)
    assert not member.end(late, TransientError("503"))
    assert len(member.writes) == written
    service.down = False
    service.calls_since()
    work_until_rest(member, service)
    assert (begun.offset, 1) in service.calls


def test_a_call_that_began_before_it_opened_and_returns_later_is_handled() -> None:
    member, service = member_with(8), Service(down=True)
    late = member.take()
    assert late is not None
    member.begin(late)
    member.work(service)
    assert member.end(late)
    member.begin(late)
    assert state_of(member) == "open"
    assert member.commit() == 1


# -- no outage -------------------------------------------------------------------------------------


def test_a_poison_record_among_good_ones_is_dead_lettered_and_opens_nothing() -> None:
    member, service = member_with(40), Service()
    service.poison = {7}
    work_until_rest(member, service)
    assert (state_of(member), member.runtime.counters.dead_lettered) == ("closed", 1)
    assert [attempt for offset, attempt in service.calls if offset == 7] == [1, 2, 3, 4]
    [letter] = member.broker.log(TopicPartition(DLT, 0)).messages
    assert json.loads(letter.value or b"")["errorClass"].endswith(MaxRetriesExceededError.__name__)
    assert member.commit() == 40


@pytest.mark.parametrize("error", [Reject("bad"), DecodeError("bad"), ValueError("bad")])
def test_a_topic_full_of_bad_records_opens_nothing(error: Exception) -> None:
    member = member_with(30)

    def handler(record: Record) -> None:
        raise error

    work_until_rest(member, handler)
    assert (state_of(member), member.runtime.counters.dead_lettered) == ("closed", 30)


@pytest.mark.parametrize(("minimum_calls", "opens"), [(8, True), (9, False)])
def test_in_a_single_lane_a_poison_record_opens_nothing_if_its_attempts_are_too_few(
    minimum_calls: int, opens: bool
) -> None:
    """The rule of the page: failure_rate × minimum_calls > max_attempts (four here)."""
    breaker = CircuitBreaker(failure_rate=0.5, window=20, minimum_calls=minimum_calls)
    found = set()
    for good in range(10):  # at worst it comes when the window is just large enough to be judged
        member, service = member_with(30, ordering="partition", breaker=breaker), Service()
        service.poison = {good}
        for _ in range(20):
            member.work(service)
            member.clock.advance(1.0)
        found.add(state_of(member))
    assert ("open" in found) == opens


# -- half-open -------------------------------------------------------------------------------------


def test_half_open_lets_so_many_probes_through_and_no_more() -> None:
    member, _ = opened()
    member.clock.advance(30.0)
    outs = [out for _ in range(5) if (out := member.take()) is not None]
    assert [len(out.run.records) for out in outs] == [1, 1, 1]
    assert state_of(member) == "half-open"
    assert member.runtime.due_in() is None  # the next report wakes, and no clock


def test_probes_that_succeed_close_it() -> None:
    member, service = opened()
    service.down = False
    member.clock.advance(30.0)
    member.work(service)
    assert state_of(member) == "closed"
    assert sorted(service.handled) == list(range(8))


def test_probes_that_fail_open_it_again_and_cost_nothing() -> None:
    member, service = opened()
    member.clock.advance(30.0)
    member.work(service)
    assert (len(service.calls), state_of(member)) == (2, "open")  # of three the third could not save it
    assert {attempt for _, attempt in service.calls} == {1}
    assert member.circuit is not None
    assert member.circuit.look().times_opened == 2


def test_a_probe_that_is_rejected_is_dead_lettered_and_gives_its_place_to_another() -> None:
    member, _ = opened()
    member.clock.advance(30.0)
    outs = [out for _ in range(3) if (out := member.take()) is not None]
    for out in outs:
        member.begin(out)
    assert member.take() is None
    woken: list[str] = []
    member.runtime.on_work = lambda: woken.append("worker")
    member.end(outs[0], Reject("bad"))
    assert woken
    assert [write.outgoing.topic for write in member.writes] == [DLT]
    assert member.take() is not None
    assert state_of(member) == "half-open"


def test_a_probe_whose_partition_goes_gives_its_place_to_another() -> None:
    other = TopicPartition("orders", 1)
    member, _ = opened()
    member.assign(other)
    member.broker.log(other).append(key=b"x")
    member.read(other)
    member.clock.advance(30.0)
    outs = [out for _ in range(3) if (out := member.take()) is not None]
    assert [out.run.lane.assignment.tp for out in outs] == [ORDERS] * 3
    for out in outs:
        member.begin(out)
    assert member.take() is None
    member.lose(ORDERS)
    found = member.take()
    assert found is not None
    assert found.run.lane.assignment.tp == other


def test_a_worker_that_looked_just_before_it_may_probe_is_told_to_look_again_and_only_once() -> None:
    """Between looking in vain and going to sleep the time may pass; then no clock would wake the worker."""
    member, _ = opened()
    member.clock.advance(29.9)
    assert member.take() is None
    member.clock.advance(0.2)
    assert member.runtime.due_in() == 0.0
    assert member.take() is not None
    assert member.runtime.due_in() is None
    empty, _ = opened()
    empty.revoke(ORDERS)
    assert empty.take() is None
    empty.clock.advance(31.0)
    assert empty.runtime.due_in() == 0.0
    assert empty.take() is None
    assert empty.runtime.due_in() is None


# -- what goes on meanwhile ------------------------------------------------------------------------


def test_open_pauses_source_and_retry_feed_alike_until_it_is_over() -> None:
    member, _ = opened(retry_topic=RETRY)
    member.assign(RETRIES)
    assert member.runtime.pauses("source") == {ORDERS}
    assert member.runtime.pauses("retry") == {RETRIES}
    assert member.runtime.reading("source") == {}  # so that nobody takes it for stuck
    assert member.runtime.due_in() == pytest.approx(30.0)
    member.clock.advance(30.0)
    assert member.runtime.pauses("source") == member.runtime.pauses("retry") == set()


def test_retries_that_fall_due_while_it_is_open_wait_for_it() -> None:
    member, service = opened()
    assert member.runtime.look().waiting == 4  # four failed before the one that opened it
    member.clock.advance(20.0)
    member.work(service)
    assert service.calls == []
    service.down = False
    member.clock.advance(10.0)
    member.work(service)
    assert sorted(service.calls) == [(offset, 1) for offset in range(8)]


def test_retry_records_that_fall_due_while_it_is_open_wait_for_it() -> None:
    given = {"retry_topic": RETRY, "max_in_memory_wait": 0.0}
    member = member_with(8, **given)
    member.assign(RETRIES)
    service = Service()
    service.poison = {0}
    member.work(service)
    while member.writes:
        member.ack()
    member.read(RETRIES)
    assert member.runtime.look().waiting == 1
    for i in range(10):
        member.broker.log(ORDERS).append(key=b"n%d" % i)
    member.read()
    service.down = True
    member.work(service)
    assert state_of(member) == "open"
    service.calls_since()
    member.clock.advance(29.0)
    member.work(service)
    assert service.calls == []
    service.down, service.poison = False, set()
    work_until_rest(member, service)
    assert 0 in service.handled
    assert member.runtime.counters.dead_lettered == 0


def flap(member: Member, service: Service) -> None:
    """The service goes down until the breaker opens, and is up again until all is handled that may be."""
    service.down = True
    member.work(service)
    assert state_of(member) == "open"
    while member.writes:
        member.ack()
    member.read(RETRIES)
    service.down = False
    member.clock.advance(30.0)
    member.work(service)
    assert state_of(member) == "closed"


def test_what_was_deferred_before_it_opened_gets_its_attempt_back_when_it_comes_round() -> None:
    retry = RetryPolicy.fixed(delay=60.0, max_attempts=2)
    member = member_with(8, retry_topic=RETRY, max_in_memory_wait=0.0, retry=retry)
    member.assign(RETRIES)
    service = Service()
    flap(member, service)
    assert len(service.handled) == 4  # the other four wait for their minute, in the retry topic
    for _ in range(3):  # again and again: each time some of those that come round fail before it opens
        for i in range(8):
            member.broker.log(ORDERS).append(key=b"n%d" % i)
        member.read()
        member.clock.advance(60.0)
        flap(member, service)
    for _ in range(3):
        member.clock.advance(60.0)
        member.work(service)
        member.read(RETRIES)
    assert {attempt for _, attempt in service.calls} == {1}
    assert member.runtime.counters.dead_lettered == 0
    assert sorted(service.handled) == list(range(32))


def test_a_deferred_record_that_came_round_before_it_opened_gets_its_attempt_back_too() -> None:
    member = member_with(3, retry_topic=RETRY, max_in_memory_wait=0.0)
    member.assign(RETRIES)
    service = Service(down=True)
    member.work(service)
    while member.writes:
        member.ack()
    member.read(RETRIES)  # three failures: they wait in memory, and it is closed
    for i in range(8):
        member.broker.log(ORDERS).append(key=b"n%d" % i)
    member.read()
    flap(member, service)
    member.work(service)
    assert {attempt for _, attempt in service.calls} == {1}


def test_a_revocation_while_it_is_open_waits_for_nothing_and_takes_no_attempt_along() -> None:
    member, _ = opened()
    before = member.clock.now
    member.revoke(ORDERS)
    assert member.clock.now == before
    member.assign(ORDERS)  # as the next owner would, from what was committed
    member.read()
    service = Service()
    member.clock.advance(30.0)
    work_until_rest(member, service)
    assert sorted(service.calls) == [(offset, 1) for offset in range(8)]


def test_a_stop_while_it_is_open_waits_for_nothing() -> None:
    member, _ = opened()
    before = member.clock.now
    member.runtime.drain(before + 8.0)
    assert member.clock.now == before
    assert member.runtime.next(None, 1, wait=True) is None


def test_a_run_that_outlives_its_partition_is_reported_once() -> None:
    member, service = member_with(8), Service(down=True)
    late = member.take()
    assert late is not None
    member.begin(late)
    member.lose(ORDERS)
    assert not member.end(late, TransientError("503"))
    assert member.circuit is not None
    assert member.circuit.look().calls == 0
    assert service.calls == []


# -- slow calls and batches ------------------------------------------------------------------------


@pytest.mark.parametrize("ordering", ["key", "partition"])
def test_slow_calls_open_it_though_all_of_them_succeed_and_then_not_one_more_starts(ordering: str) -> None:
    breaker = CircuitBreaker(window=10, minimum_calls=5, slow_call_rate=0.8, slow_call_duration=2.0)
    member, service = member_with(30, breaker=breaker, ordering=ordering), Service()

    def slow(record: Record) -> None:
        member.clock.advance(2.5)
        service(record)

    member.work(slow)
    assert (state_of(member), service.handled) == ("open", [0, 1, 2, 3, 4])
    work_until_rest(member, service)
    assert sorted(service.handled) == list(range(30))


def batch_call(member: Member, service: Callable[[Record], None], *, named: bool) -> BatchCall:
    """Calls the service for each record; `named`: the batch fails by BatchError, else as a whole."""

    def handler(values: list[bytes], records: list[Record]) -> None:
        errors: dict[int, Exception] = {}
        for i, record in enumerate(records):
            try:
                service(record)
            except TransientError as error:
                if not named:
                    raise
                errors[i] = error
        if errors:
            raise BatchError(errors)

    shape = handler_shape(handler, batch=True)
    return BatchCall(member.runtime, handler, shape, decoder_for(shape.annotation))


def work_in_batches(member: Member, call: BatchCall, most: int) -> None:
    while (run := member.runtime.next(None, most, wait=False)) is not None:
        if call.handle(run, math.inf):
            member.runtime.give_back(run)


@pytest.mark.parametrize("named", [True, False], ids=["by index", "as a whole"])
def test_an_outage_of_batches_costs_no_attempt_and_dead_letters_nothing(named: bool) -> None:
    given = {
        "ordering": "none",
        "batch": 6,
        "retry": RetryPolicy.exponential(max_attempts=2, jitter_factor=0),
    }
    member, service = member_with(24, **given), Service(down=True)
    call = batch_call(member, service, named=named)
    for _ in range(10):
        work_in_batches(member, call, 6)
        assert state_of(member) == "open"
        member.clock.advance(30.0)
    service.down = False
    for _ in range(100):
        work_in_batches(member, call, 6)
        member.clock.advance(1.0)
    assert {attempt for _, attempt in service.calls} == {1}
    assert sorted(set(service.handled)) == list(range(24))
    assert (member.writes, member.runtime.counters.dead_lettered) == ([], 0)
    assert member.commit() == 24


def test_a_batch_that_is_repeated_record_by_record_stops_where_it_opens() -> None:
    member, service = member_with(10, ordering="none", batch=10), Service(down=True)
    work_in_batches(member, batch_call(member, service, named=False), 10)
    assert state_of(member) == "open"
    assert [offset for offset, _ in service.calls] == [0, 0, 1, 2, 3, 4]  # the batch, and then each


def test_each_call_of_a_batch_that_is_repeated_has_its_own_time() -> None:
    breaker = CircuitBreaker(window=10, minimum_calls=10, slow_call_duration=1.0)
    member = member_with(4, ordering="none", batch=4, breaker=breaker)

    def handler(values: list[bytes]) -> None:
        member.clock.advance(0.6 * len(values))
        if len(values) > 1:
            raise TransientError("too many at once")

    shape = handler_shape(handler, batch=True)
    work_in_batches(member, BatchCall(member.runtime, handler, shape, decoder_for(shape.annotation)), 4)
    assert member.circuit is not None
    look = member.circuit.look()
    assert (look.calls, look.failed, look.slow) == (4, 0, 0)


def test_a_batch_of_a_half_open_breaker_is_one_record() -> None:
    member, service = member_with(24, ordering="none", batch=6), Service(down=True)
    work_in_batches(member, batch_call(member, service, named=True), 6)
    member.clock.advance(30.0)
    run = member.runtime.next(None, 6, wait=False)
    assert run is not None
    assert len(run.records) == 1


# -- who shares it, who is told --------------------------------------------------------------------


def test_what_one_handler_learns_holds_for_all_that_share_it() -> None:
    clock = FakeClock()
    circuit = Circuit(BREAKER, "payments", clock=clock)
    first, second = (Member(Broker(), clock, a_plan(ordering="key"), circuit) for _ in range(2))
    woken: list[str] = []
    second.runtime.on_work = lambda: woken.append("second")
    for member in (first, second):
        member.assign(ORDERS)
        for i in range(8):
            member.broker.log(ORDERS).append(key=b"k%d" % i)
        member.read()
    service = Service(down=True)
    first.work(service)
    calls = len(service.calls)
    second.work(service)
    assert len(service.calls) == calls
    assert second.runtime.pauses("source") == {ORDERS}
    service.down = False
    woken.clear()
    clock.advance(30.0)
    first.work(service)
    assert woken
    second.work(service)
    assert len(service.handled) == 16


def test_failures_of_both_handlers_open_it_and_are_given_back_to_both() -> None:
    clock = FakeClock()
    circuit = Circuit(BREAKER, "payments", clock=clock)
    members = [Member(Broker(), clock, a_plan(ordering="key"), circuit) for _ in range(2)]
    service = Service(down=True)
    for member in members:
        member.assign(ORDERS)
        for i in range(3):
            member.broker.log(ORDERS).append(key=b"k%d" % i)
        member.read()
        member.work(service)
    assert circuit.look().state == "open"
    service.down = False
    service.calls_since()
    for _ in range(3):
        clock.advance(30.0)
        for member in members:
            member.work(service)
    assert sorted(service.calls) == sorted([(offset, 1) for offset in range(3)] * 2)


def test_each_change_is_one_line_and_each_opening_one_event(caplog: pytest.LogCaptureFixture) -> None:
    told: list[CircuitBreakerOpen] = []
    clock = FakeClock()
    circuit = Circuit(BREAKER, "payments", clock=clock, on_open=told.append)
    member = Member(Broker(), clock, a_plan(ordering="key"), circuit)
    member.assign(ORDERS)
    for i in range(8):
        member.broker.log(ORDERS).append(key=b"k%d" % i)
    member.read()
    service = Service(down=True)
    with caplog.at_level(logging.INFO, "relance.breaker"):
        member.work(service)
        clock.advance(30.0)
        service.down = False
        member.work(service)
    assert [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "relance.breaker"] == [
        (
            "WARNING",
            "circuit breaker 'payments' is open for 30s, was closed: 5 of 5 calls failed (limit 0.5);"
            " last error: TransientError: 503",
        ),
        ("INFO", "circuit breaker 'payments' is half-open, was open: 30s are over, probing"),
        ("INFO", "circuit breaker 'payments' is closed, was half-open: 2 of 2 probes succeeded"),
    ]
    [event] = told
    assert (event.name, event.failed, event.calls, event.times_opened) == ("payments", 5, 5, 1)
    assert (event.until - event.since).total_seconds() == 30.0
    assert event.last_error == "TransientError: 503"


def test_what_it_looks_like_can_be_told_in_json_in_each_state() -> None:
    member, _ = opened()
    assert member.circuit is not None
    look = member.circuit.look()
    assert look.until is not None
    assert (look.until - look.since).total_seconds() == pytest.approx(30.0)
    found = json.loads(json.dumps(look.details()))
    assert (found["state"], found["reason"]) == ("open", "5 of 5 calls failed (limit 0.5)")
    member.clock.advance(30.0)
    member.work(Service())
    found = json.loads(json.dumps(member.circuit.look().details()))
    assert (found["state"], found["until"], found["reason"]) == ("closed", None, None)


def test_a_rule_that_cannot_say_whether_an_error_counts_stops_the_application() -> None:
    def rule(error: Exception) -> bool:
        raise KeyError("oops")

    member = member_with(3, breaker=CircuitBreaker(errors=(rule,)))
    member.work(Service(down=True))
    [failure] = member.failures
    assert isinstance(failure, SettingsError)
    assert "errors" in str(failure)
    assert (member.writes, member.commit()) == ([], 0)


def test_breakers_of_one_name_are_one_and_the_others_are_told_apart() -> None:
    payments = CircuitBreaker(name="payments")
    wanted = [
        (payments, "a"),
        (None, "b"),
        (payments, "c"),
        (BREAKER, "d"),
        (BREAKER, "d"),
        (BREAKER, "payments"),
    ]
    found = make_circuits(wanted, clock=FakeClock(), on_open=lambda opened: None)
    assert found[0] is found[2] is not None
    assert [c and c.name for c in found] == ["payments", None, "payments", "d", "d (2)", "payments (2)"]
