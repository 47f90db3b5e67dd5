"""The monitor between pollers, workers and hand-offs; in virtual time, with `world` around it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from relance.clock import SystemClock
from relance.dead_letters.envelope import decode
from relance.engine.deferral import Deferral, defer, from_headers, to_headers
from relance.engine.engine import Ordering
from relance.engine.flow import Limits
from relance.errors import Fatal, MaxRetriesExceededError, Reject, Retry, TransientError
from relance.policies.retry import RetryPolicy
from relance.record import Record, TopicPartition, record_of
from relance.runtime import Runtime
from waiting import wait_until
from world import DLT, ORDERS, RETRY, Broker, FakeClock, Hooks, Member, Start, a_member, a_plan, record

OTHER = TopicPartition("orders", 1)
RETRIES = TopicPartition(RETRY, 0)


class Handler:
    """Fails as told, and notes what it was called with."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls: list[tuple[int, int]] = []  # offset, attempt

    def __call__(self, found: Record) -> None:
        self.calls.append((found.offset, found.attempt))
        if self.errors:
            raise self.errors.pop(0)


class UnreadableHeaders:
    """As the client behaves for a header name that is not UTF-8."""

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        raise SystemError("<method 'headers'> returned NULL without setting an exception")

    def timestamp(self) -> tuple[int, int]:
        return 1, 5


def deferred(attempt: int = 2, delay: float = 60.0, offset: int = 7, group: str = "g") -> list:
    found = defer(
        group=group,
        topic="orders",
        partition=0,
        offset=offset,
        timestamp=5,
        attempt=attempt,
        delay=delay,
        now=FakeClock().time(),
        error="TransientError: down",
    )
    return to_headers(found, [("mine", b"1")])


# -- from record to commit -------------------------------------------------------------------------


def test_handled_records_are_committed_and_counted() -> None:
    member = a_member()
    for _ in range(3):
        member.broker.log(ORDERS).append()
    member.read()
    handler = Handler()
    member.work(handler)
    assert handler.calls == [(0, 1), (1, 1), (2, 1)]
    assert member.commit() == 3
    assert member.runtime.counters.handled == 3
    assert member.at_rest()


def test_records_of_a_partition_that_is_not_ours_are_ignored() -> None:
    member = a_member()
    member.runtime.received("source", OTHER, [record(0, tp=OTHER)])
    member.runtime.end_reached(OTHER, 9)
    assert member.take() is None


def test_a_retry_waits_in_its_lane_and_is_told_in_the_course_s_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = a_member()
    member.broker.log(ORDERS).append()
    member.read()
    handler = Handler(TransientError("stock service down"))
    member.work(handler)
    assert caplog.messages == [
        "[RETRY] Retry 1/3 (attempt 2/4) P0:O0 in 1000ms: TransientError: stock service down"
    ]
    assert member.runtime.look().waiting == 1
    assert member.runtime.due_in() == 1.0
    member.clock.advance(0.999)
    member.work(handler)
    assert handler.calls == [(0, 1)]
    member.clock.advance(0.001)
    member.work(handler)
    assert handler.calls == [(0, 1), (0, 2)]
    counters = member.runtime.counters
    assert (counters.handled, counters.failed, counters.retried) == (1, 1, 1)
    assert member.commit() == 1


def test_the_wall_clock_may_step_by_an_hour_without_making_a_retry_early_or_late() -> None:
    for step in (3600.0, -3600.0):
        member = a_member()
        member.broker.log(ORDERS).append()
        member.read()
        handler = Handler(TransientError())
        member.work(handler)
        member.clock.wall += step
        member.work(handler)
        assert len(handler.calls) == 1
        member.clock.advance(1.0)
        member.work(handler)
        assert len(handler.calls) == 2


def test_the_first_records_of_a_run_count_although_a_later_one_has_to_wait() -> None:
    member = a_member()
    for _ in range(3):
        member.broker.log(ORDERS).append()
    member.read()
    out = member.take()
    assert out is not None
    member.begin(out)
    member.end(out)
    member.begin(out)
    member.end(out, TransientError())
    assert member.commit() == 1
    assert member.runtime.counters.handled == 1
    assert member.runtime.look().queued == 2


def test_exhausted_retries_end_in_the_dead_letter_topic_and_only_its_acknowledgement_is_an_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = a_member()
    member.broker.log(ORDERS).append(b"k", b"poison")
    member.read()
    handler = Handler(*(TransientError("down") for _ in range(4)))
    for _ in range(4):
        member.work(handler)
        member.clock.advance(10.0)
    assert [attempt for _, attempt in handler.calls] == [1, 2, 3, 4]
    assert caplog.messages[-1] == (
        "[DLT] P0:O0 -> orders.DLT (MaxRetriesExceededError after 4 attempts): TransientError: down"
    )
    assert member.commit() == 0
    assert member.runtime.look().settling == 1
    letter = decode(member.writes[0].outgoing.value)
    assert (letter.original_offset, letter.retry_count, letter.value_bytes()) == (0, 3, b"poison")
    assert [a.attempt for a in letter.attempts] == [1, 2, 3, 4]
    member.ack()
    assert member.commit() == 1
    assert member.runtime.counters.dead_lettered == 1
    assert member.runtime.counters.handled == 0
    assert member.at_rest()


def test_a_long_wait_goes_to_the_retry_topic_and_the_lane_goes_on() -> None:
    member = a_member(retry_topic=RETRY)
    for _ in range(2):
        member.broker.log(ORDERS).append(b"key", b"value", [("mine", b"1")])
    member.read()
    handler = Handler(Retry(after=60.0))
    member.work(handler)
    assert handler.calls == [(0, 1), (1, 1)]
    assert member.commit() == 0
    outgoing = member.writes[0].outgoing
    assert (outgoing.topic, outgoing.key, outgoing.value) == (RETRY, b"key", b"value")
    assert outgoing.headers[0] == ("mine", b"1")
    member.ack()
    assert member.commit() == 2
    member.assign(RETRIES)
    member.read(RETRIES)
    member.clock.advance(59.999)
    member.work(handler)
    assert len(handler.calls) == 2
    member.clock.advance(0.001)
    member.work(handler)
    assert handler.calls[-1] == (0, 2)
    assert member.commit(RETRIES) == 1


def test_a_record_that_is_too_large_for_the_retry_topic_waits_where_it_is() -> None:
    member = a_member(retry_topic=RETRY)
    member.broker.log(ORDERS).append(b"k", b"x" * 999_900)
    member.read()
    handler = Handler(Retry(after=60.0))
    member.work(handler)
    assert member.writes == []
    member.clock.advance(60.0)
    member.work(handler)
    assert handler.calls == [(0, 1), (0, 2)]
    assert member.commit() == 1


# -- headers that nobody can trust -----------------------------------------------------------------


def take_unreadable(member: Member, tp: TopicPartition) -> None:
    found = record_of(tp.topic, tp.partition, 0, b"k", b"v", UnreadableHeaders())
    member.runtime.received(member.feed_of(tp), tp, [found])


@pytest.mark.parametrize("error", [Reject("no"), SystemError("of the handler, which looked at the headers")])
def test_a_record_whose_headers_cannot_be_read_is_dead_lettered_without_them(error: Exception) -> None:
    member = a_member()
    take_unreadable(member, ORDERS)
    member.work(Handler(error))
    letter = decode(member.writes[0].outgoing.value)
    assert letter.value_bytes() == b"v"
    assert letter.trimmed == ("originalHeaders",)
    member.ack()
    assert member.commit() == 1


def test_a_record_whose_headers_cannot_be_copied_waits_where_it_is() -> None:
    member = a_member(retry_topic=RETRY)
    take_unreadable(member, ORDERS)
    handler = Handler(Retry(after=60.0))
    member.work(handler)
    assert member.writes == []
    assert member.runtime.look().waiting == 1


def test_an_unreadable_retry_record_is_dead_lettered_and_no_handler_sees_it() -> None:
    member = a_member(retry_topic=RETRY)
    member.assign(RETRIES)
    take_unreadable(member, RETRIES)
    member.broker.log(RETRIES).append(headers=[("x", b"1")])
    member.broker.log(RETRIES).append(headers=deferred(group="another"))
    member.position[RETRIES] = 1
    member.broker.log(RETRIES).messages[0].offset = 1
    member.broker.log(RETRIES).messages[1].offset = 2
    member.broker.log(RETRIES).end = 3
    member.read(RETRIES)
    assert member.take() is None
    assert [w.offset for w in member.writes] == [0, 1]
    assert decode(member.writes[0].outgoing.value).error_message == (
        "DecodeError: retry headers: the client cannot read them"
    )
    assert decode(member.writes[1].outgoing.value).attempts == ()
    assert member.commit(RETRIES) == 0
    member.ack()
    member.ack()
    assert member.commit(RETRIES) == 3  # the other group's record needs no work


def test_a_due_time_in_the_year_9999_waits_a_day_at_most_and_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = a_member(retry_topic=RETRY)
    member.assign(RETRIES)
    far = {"relance-due": b"253402300799999", "relance-delay-ms": b"9223372036854775807"}
    headers = [(name, far.get(name, value)) for name, value in deferred()]
    member.broker.log(RETRIES).append(b"k", b"v", headers)
    member.read(RETRIES)
    assert member.runtime.due_in() == 86_400.0
    assert "[RETRY] P0:O7: its headers are damaged or forged" in caplog.text
    assert member.writes == []


def test_what_an_error_quotes_forges_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    member = a_member(retry=RetryPolicy.immediate(2))
    member.broker.log(ORDERS).append()
    member.read()
    hostile = "x\n[DLT] P0:O9 -> nowhere\x1b[2J\u2028"
    handler = Handler(TransientError(hostile), Reject(hostile))
    member.work(handler)
    member.work(handler)
    assert [message.split()[0] for message in caplog.messages] == ["[RETRY]", "[DLT]"]
    for message in caplog.messages:
        assert len(message.splitlines()) == 1
        assert "x␊[DLT] P0:O9 -> nowhere␛[2J⟨U+2028⟩" in message
    assert hostile in decode(member.writes[0].outgoing.value).error_message  # the letter has it as it was


def test_without_a_dead_letter_topic_an_unreadable_retry_record_stops_and_holds_up_no_drain() -> None:
    member = a_member(retry_topic=RETRY, dead_letter_topic=None)
    member.assign(RETRIES)
    take_unreadable(member, RETRIES)
    assert len(member.failures) == 1
    began = member.clock.now
    member.runtime.drain(began + 8.0)
    assert member.clock.now == began
    assert member.commit(RETRIES) == 0


def test_a_retry_record_keeps_attempt_origin_and_history_and_never_waits_longer_than_its_delay() -> None:
    member = a_member(retry_topic=RETRY)
    member.assign(RETRIES)
    member.clock.wall -= 3600.0  # this reader's clock is an hour behind the writer's
    member.broker.log(RETRIES).append(b"k", b"v", deferred(attempt=3, delay=60.0))
    member.read(RETRIES)
    assert member.runtime.due_in() == 60.0
    member.clock.advance(60.0)
    out = member.take()
    assert out is not None
    found = out.run.records[0]
    assert (found.topic, found.partition, found.offset, found.log_offset) == ("orders", 0, 7, 0)
    assert (found.attempt, found.headers, len(found.history)) == (3, [("mine", b"1")], 1)


def test_a_retry_record_that_fails_again_is_deferred_again_with_its_first_origin() -> None:
    member = a_member(retry_topic=RETRY, max_in_memory_wait=0.0)
    member.assign(RETRIES)
    member.broker.log(RETRIES).append(b"k", b"v", deferred(attempt=2, delay=1.0))
    member.read(RETRIES)
    member.clock.advance(1.0)
    member.work(Handler(TransientError("still down")))
    again = from_headers(member.writes[0].outgoing.headers, group="g", now=0, max_delay=1e12)
    assert isinstance(again, Deferral)
    assert (again.origin_offset, again.attempt, again.id) == (7, 3, "g:orders:0:7")
    assert [f.attempt for f in again.history] == [1, 2]


def test_of_a_record_that_fails_for_ever_the_first_failure_and_the_last_nine_are_kept() -> None:
    member = a_member(retry=RetryPolicy.fixed(delay=1.0, max_attempts=10_000))
    member.broker.log(ORDERS).append(b"k", b"v")
    member.read()
    for _ in range(30):
        member.work(Handler(TransientError("down")))
        member.clock.advance(1.0)
    out = member.take()
    assert out is not None
    found = out.run.records[0]
    assert [f.attempt for f in found.history] == [1, *range(22, 31)]
    assert len({id(f.error) for f in found.history}) == 1  # one text for all


def test_a_full_window_of_waits_writes_those_due_last_again_and_goes_on_reading() -> None:
    member = a_member(retry_topic=RETRY, limits=Limits(parked=20))
    member.assign(RETRIES)
    for i in range(40):
        member.broker.log(RETRIES).append(b"k", b"%d" % i, deferred(attempt=2, delay=100.0 + i, offset=i))
    member.read(RETRIES, 20)
    assert [w.outgoing.value for w in member.writes] == [b"19", b"18", b"17"]
    assert RETRIES not in member.runtime.pauses("retry")
    before = member.writes[0].outgoing
    while member.writes:
        member.ack()
    [again] = [m for m in member.broker.log(RETRIES).messages[40:] if m.value == b"19"]
    assert (again.key, again.own_headers) == (before.key, before.headers)
    found = from_headers(again.own_headers, group="g", now=member.clock.wall, max_delay=1e12)
    assert isinstance(found, Deferral)
    assert (found.attempt, found.id) == (2, "g:orders:0:19")


def test_what_is_due_soon_is_not_written_again() -> None:
    member = a_member(retry_topic=RETRY, limits=Limits(parked=2))
    member.assign(RETRIES)
    for i in range(3):
        member.broker.log(RETRIES).append(b"k", b"v", deferred(attempt=2, delay=9.0, offset=i))
    member.read(RETRIES)
    assert member.writes == []
    assert RETRIES in member.runtime.pauses("retry")


def test_a_window_smaller_than_what_waits_loses_nothing_and_starts_nothing_early() -> None:
    member = a_member(retry_topic=RETRY, limits=Limits(parked=8))
    member.assign(RETRIES)
    due = {}
    for i in range(40):
        delay = 15.0 + (i * 7) % 40
        due[i] = member.clock.now + delay
        member.broker.log(RETRIES).append(b"k", b"%d" % i, deferred(attempt=2, delay=delay, offset=i))
    handled = []

    def handle(found: Record) -> None:
        handled.append(found.offset)
        assert member.clock.now >= due[found.offset]

    for _ in range(500):
        if RETRIES not in member.runtime.pauses("retry"):
            member.read(RETRIES, 1)
        while member.writes:
            member.ack()
        member.clock.advance(0.25)
        member.work(handle)
    assert sorted(handled) == sorted(due)


# -- hand-offs that fail ---------------------------------------------------------------------------


def stopped_member(caplog: pytest.LogCaptureFixture) -> Member:
    member = a_member(ordering="none")
    for _ in range(4):
        member.broker.log(ORDERS).append()
    member.read(count=4)
    for _ in range(2):
        out = member.take()
        assert out is not None
        member.finish(out, Handler(Reject("no")))
    caplog.clear()
    member.refuse(reason="orders.DLT takes no record: no leader")
    return member


def test_a_hand_off_that_fails_stops_its_partition_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = stopped_member(caplog)
    member.refuse()
    assert caplog.messages == [
        "orders-0 stops at offset 0: orders.DLT takes no record: no leader; trying again until it is written"
    ]
    assert member.take() is None
    assert member.runtime.look().stopped == {"orders-0": "orders-0 is stopped at offset 0: no leader"}
    assert member.runtime.pauses("source") == {ORDERS}
    assert member.commit() == 0


def test_it_goes_on_when_what_failed_is_written_and_not_when_something_else_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = stopped_member(caplog)
    member.ack(member.writes[1])
    assert member.take() is None
    member.ack(member.writes[0])
    assert caplog.messages[-1] == "orders-0 goes on: what it waited for is written"
    member.work()
    assert member.commit() == 4


@pytest.mark.parametrize(("answer", "committed"), [(Member.ack, 2), (Member.refuse, 0)])
def test_a_drain_waits_for_one_more_try_of_what_failed_and_no_longer(
    answer: Callable[[Member], None], committed: int, caplog: pytest.LogCaptureFixture
) -> None:
    member = stopped_member(caplog)
    member.ack(member.writes[1])
    waited: list[float] = []

    def wait(timeout: float) -> None:
        waited.append(timeout)
        answer(member)

    member.while_waiting = wait
    member.revoke(ORDERS)
    assert (len(waited), len(member.hurried)) == (1, 1)
    assert member.broker.commits[ORDERS][0] == committed


def test_what_nobody_answers_takes_but_a_part_of_the_drain_and_a_stop_has_one_last_try(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = stopped_member(caplog)
    member.ack(member.writes[1])
    began = member.clock.now
    member.runtime.drain(began + 60.0)
    assert member.clock.now - began == pytest.approx(member.plan.drain_timeout / 4)
    member.revoke(ORDERS)
    assert member.clock.now - began == pytest.approx(member.plan.drain_timeout / 4)
    assert len(member.hurried) == 1
    assert member.broker.commits[ORDERS][0] == 0


def test_a_letter_that_no_topic_takes_stops_its_partition_for_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = a_member(ordering="none")
    member.broker.log(ORDERS).append(b"k", b"\xff" * 999_000)
    for _ in range(2):
        member.broker.log(ORDERS).append()
    member.read()
    large, small = member.take(), member.take()
    assert large is not None
    assert small is not None
    member.finish(small, Handler(Reject("no")))
    member.finish(large, Handler(Reject("no")))
    assert [w.offset for w in member.writes] == [1]
    member.ack()
    assert member.take() is None
    assert "its dead letter takes" in member.runtime.look().stopped["orders-0"]
    assert "trying again" not in caplog.text
    assert member.commit() == 0
    began = member.clock.now
    member.revoke(ORDERS)  # which waits for nothing
    assert member.clock.now == began


def test_a_failure_for_a_closed_assignment_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    member = a_member()
    member.broker.log(ORDERS).append()
    member.read()
    member.work(Handler(Reject("no")))
    member.lose(ORDERS)
    member.assign(ORDERS)
    caplog.clear()
    member.refuse()
    member.ack()
    assert caplog.messages == []
    assert member.runtime.look().stopped == {}
    assert member.commit() == 0


# -- fatal errors ----------------------------------------------------------------------------------


def test_a_fatal_error_is_told_and_nothing_at_all_starts_any_more() -> None:
    member = a_member(ordering="key")
    member.assign(OTHER)
    for tp in (ORDERS, OTHER):
        for key in (b"a", b"b"):
            member.broker.log(tp).append(key)
    member.read(ORDERS)
    error = Fatal("wrong database")
    handler = Handler(error)
    member.work(handler)
    assert handler.calls == [(0, 1)]
    assert member.failures == [error]
    member.read(OTHER)
    assert member.take() is None
    assert member.commit() == 0
    assert member.writes == []


def test_partitions_that_come_after_a_fatal_error_or_a_drain_start_nothing() -> None:
    member = a_member()
    member.broker.log(ORDERS).append()
    member.broker.log(OTHER).append()
    member.read()
    member.work(Handler(Fatal("the end")))
    member.assign(OTHER)
    member.read(OTHER)
    assert member.take() is None
    member.runtime.drain(member.clock.now)
    assert member.runtime.stopping
    assert member.commit(OTHER) == 0


def test_without_a_dead_letter_topic_exhausted_retries_stop_the_consumer() -> None:
    member = a_member(dead_letter_topic=None, retry=RetryPolicy.immediate(max_attempts=2))
    member.broker.log(ORDERS).append()
    member.read()
    member.work(Handler(TransientError(), TransientError()))
    assert isinstance(member.failures[0], MaxRetriesExceededError)
    assert member.commit() == 0


# -- rebalances ------------------------------------------------------------------------------------


def test_assigning_starts_where_the_last_commit_says_and_skips_what_its_map_knows() -> None:
    member = a_member(ordering="key")
    for key in (b"a", b"b", b"a"):
        member.broker.log(ORDERS).append(key)
    member.read()
    member.work(Handler(TransientError()))
    assert member.commit() == 0
    member.restart()
    member.assign(ORDERS)
    member.read()
    handler = Handler()
    member.commit()
    member.work(handler)
    assert handler.calls == []
    member.clock.advance(1.001)
    member.work(handler)
    assert handler.calls == [(0, 2), (2, 1)]
    assert member.commit() == 3


def test_a_map_of_another_incarnation_of_the_topic_is_not_believed() -> None:
    member = a_member(ordering="key")
    for key in (b"a", b"b"):
        member.broker.log(ORDERS).append(key)
    member.read()
    member.work(Handler(TransientError()))
    member.commit()
    offset, metadata = member.broker.commits[ORDERS]
    member.restart()
    member.runtime.assigned("source", [Start(ORDERS, offset, metadata, "another id")])
    member.position[ORDERS] = offset
    member.read()
    handler = Handler()
    member.work(handler)
    assert handler.calls == [(0, 1), (1, 1)]


def test_revoking_waits_for_what_runs_then_commits_it() -> None:
    member = a_member()
    for _ in range(3):
        member.broker.log(ORDERS).append()
    member.read()
    out = member.take()
    assert out is not None
    member.begin(out)
    waited: list[float] = []

    def go_on(timeout: float) -> None:
        waited.append(timeout)
        member.end(out)
        member.finish(out, Handler())

    member.while_waiting = go_on
    member.revoke(ORDERS)
    assert waited == [8.0]
    assert member.broker.commits[ORDERS][0] == 1  # the record that ran, and not its successors
    assert member.hooks.calls[-1] == ("revoked", [ORDERS])
    assert member.abandoned == []
    assert member.runtime.owned() == []


def test_revoking_gives_up_at_the_deadline_and_says_who_still_runs() -> None:
    member = a_member()
    member.broker.log(ORDERS).append()
    member.read()
    out = member.take()
    assert out is not None
    member.begin(out)
    began = member.clock.now
    member.revoke(ORDERS)
    assert member.clock.now - began == 8.0
    assert member.abandoned == [out.run]
    assert member.broker.commits[ORDERS][0] == 0
    member.end(out)  # too late
    member.finish(out, Handler())
    assert member.runtime.counters.handled == 0


def test_a_stop_s_deadline_bounds_the_revocation_that_follows_it() -> None:
    member = a_member()
    member.broker.log(ORDERS).append()
    member.read()
    assert member.take() is not None
    began = member.clock.now
    member.runtime.drain(began + 3.0)
    member.revoke(ORDERS)
    assert member.clock.now == began + 3.0


def test_a_drain_waits_for_hand_offs_too() -> None:
    member = a_member()
    member.broker.log(ORDERS).append()
    member.read()
    member.work(Handler(Reject("no")))
    member.while_waiting = lambda timeout: member.ack()
    member.revoke(ORDERS)
    assert member.broker.commits[ORDERS][0] == 1


def test_lost_partitions_are_fenced_at_once_and_what_ran_is_abandoned() -> None:
    member = a_member()
    member.broker.log(ORDERS).append()
    member.read()
    out = member.take()
    assert out is not None
    member.lose(ORDERS)
    assert member.abandoned == [out.run]
    assert out.run.cancelled
    assert member.hooks.calls[-1] == ("lost", [ORDERS])
    assert member.make_commit() is None


def test_rebalances_are_counted_and_told_for_source_partitions_only() -> None:
    member = a_member(retry_topic=RETRY)
    member.assign(RETRIES)
    member.runtime.assigned("source", [])
    assert member.hooks.calls == [("assigned", [ORDERS])]
    assert member.runtime.counters.rebalances == 1
    assert member.runtime.counters.last_rebalance == member.clock.wall
    member.revoke(RETRIES, ORDERS)
    assert member.hooks.calls == [("assigned", [ORDERS]), ("revoked", [ORDERS])]
    assert member.runtime.counters.rebalances == 2


def test_a_partition_without_a_place_to_start_says_why_and_commits_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = Member(Broker(), FakeClock())
    member.runtime.assigned("source", [Start(ORDERS, 5, problem="orders-0: offset 3 is gone")])
    assert caplog.messages == ["orders-0: offset 3 is gone"]
    assert member.runtime.look().stopped == {"orders-0": "orders-0: offset 3 is gone"}
    assert member.make_commit() is None


def test_partitions_of_a_topic_that_was_made_again_are_found_by_its_id() -> None:
    member = Member(Broker(), FakeClock())
    member.runtime.assigned("source", [Start(ORDERS, topic_id="old"), Start(OTHER, topic_id="")])
    assert member.runtime.stale("orders", "old") == []
    assert member.runtime.stale("orders", "new") == [ORDERS]
    assert member.runtime.stale("payments", "new") == []


# -- looking ---------------------------------------------------------------------------------------


def test_a_run_is_one_record_in_flight_and_the_others_are_queued() -> None:
    member = a_member()
    for _ in range(5):
        member.broker.log(ORDERS).append()
    member.read()
    assert member.runtime.look().queued == 5
    out = member.take(4)
    assert out is not None
    look = member.runtime.look()
    assert (look.in_flight, look.queued) == (1, 4)
    member.begin(out)
    member.end(out)
    look = member.runtime.look()
    assert (look.in_flight, look.queued) == (1, 3)
    member.finish(out, Handler())
    member.work()
    assert member.at_rest()


def test_what_is_owned_comes_sorted() -> None:
    member = a_member(retry_topic=RETRY)
    member.assign(RETRIES, OTHER)
    assert member.runtime.owned() == [ORDERS, OTHER, RETRIES]


# -- waiting, in real threads ----------------------------------------------------------------------


def a_real_runtime(limits: Limits | None = None, ordering: Ordering = "none") -> Runtime:
    runtime = Runtime(
        a_plan(ordering=ordering, limits=limits or Limits()),
        clock=SystemClock(),
        random=lambda: 0.5,
        hooks=Hooks(),
        on_failure=lambda error, told=None: None,
    )
    runtime.assigned("source", [Start(ORDERS)])
    return runtime


def in_thread(call: object) -> tuple[threading.Thread, list]:
    found: list = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)  # type: ignore[operator]
    thread.start()
    return thread, found


def test_a_worker_that_waits_is_woken_by_a_record() -> None:
    runtime = a_real_runtime()
    thread, found = in_thread(lambda: runtime.next(None, 1, wait=True))
    wait_until(lambda: runtime._work._waiters)
    runtime.received("source", ORDERS, [record(0)])
    thread.join(5)
    assert found[0].records[0].offset == 0


def test_a_worker_that_waits_is_woken_by_the_stop() -> None:
    runtime = a_real_runtime()
    thread, found = in_thread(lambda: runtime.next(None, 1, wait=True))
    wait_until(lambda: runtime._work._waiters)
    runtime.drain(0.0)
    thread.join(5)
    assert found == [None]


def test_a_poller_that_waits_for_room_goes_on_when_there_is_some() -> None:
    runtime = a_real_runtime(Limits(ready=2))
    runtime.received("source", ORDERS, [record(0), record(1)])
    assert runtime.full("source")
    assert not runtime.wait_for_room("source", 0.0)
    thread, found = in_thread(lambda: runtime.wait_for_room("source", 5.0))
    wait_until(lambda: runtime._changed._waiters)
    run = runtime.next(None, 1, wait=False)
    assert run is not None
    run.done = 1
    runtime.give_back(run)
    thread.join(5)
    assert found == [True]


def hungry_and_full() -> Runtime:
    """Orders fill the room, in one lane that is out; others have nothing, and a worker has asked."""
    runtime = a_real_runtime(Limits(ready=2), "partition")
    runtime.assigned("source", [Start(OTHER, 0)])
    runtime.received("source", ORDERS, [record(0), record(1), record(2)])
    assert runtime.next(None, 1, wait=False) is not None
    assert runtime.full("source")
    assert not runtime.starved("source"), "nobody has asked in vain"
    assert runtime.next(None, 1, wait=False) is None
    return runtime


def test_workers_starve_when_one_partition_fills_the_room_and_they_can_start_nothing_of_it() -> None:
    runtime = hungry_and_full()
    assert runtime.starved("source")
    assert not runtime.wait_for_room("source", 0.0)
    assert runtime.wait_for_room("source", 0.0, or_starved=True), (
        "there is no room, but it is not to be waited for"
    )
    runtime.received("source", OTHER, [record(0, tp=OTHER)])
    assert not runtime.starved("source"), "they have something now"


def test_workers_that_have_found_something_and_left_something_do_not_starve() -> None:
    runtime = hungry_and_full()
    [run] = runtime.engine.assignments[ORDERS].running
    run.done = 1
    runtime.give_back(run)
    assert runtime.starved("source"), "nobody has looked again"
    assert runtime.next(None, 1, wait=False) is not None
    assert runtime.starved("source"), "it took all that there was for anybody"
    runtime = hungry_and_full()
    runtime.received("source", OTHER, [record(0, tp=OTHER)])
    assert runtime.next(None, 1, wait=False) is not None
    assert runtime.next(None, 1, wait=False) is None
    [run] = runtime.engine.assignments[ORDERS].running
    [other] = runtime.engine.assignments[OTHER].running
    run.done = other.done = 1
    runtime.give_back(run)
    runtime.received("source", OTHER, [record(1, tp=OTHER), record(2, tp=OTHER)])
    runtime.give_back(other)
    assert runtime.next(None, 1, wait=False) is not None
    assert not runtime.starved("source")


def test_a_poller_that_waits_for_room_hears_that_workers_starve() -> None:
    runtime = a_real_runtime(Limits(ready=2), "partition")
    runtime.assigned("source", [Start(OTHER, 0)])
    runtime.received("source", ORDERS, [record(0), record(1), record(2)])
    thread, found = in_thread(lambda: runtime.wait_for_room("source", 60.0, or_starved=True))
    wait_until(lambda: runtime._changed._waiters)
    assert runtime.next(None, 1, wait=False) is not None
    assert runtime.next(None, 1, wait=False) is None
    thread.join(5)
    assert found == [True]
    assert runtime.full("source")


def test_who_crowded_is_read_again_when_workers_starve_and_there_is_room() -> None:
    runtime = hungry_and_full()
    assert runtime.pauses("source", crowded=True) == {ORDERS}
    [run] = runtime.engine.assignments[ORDERS].running
    run.done = 1
    more = runtime.next(run, 1, wait=False)
    assert more is not None
    assert not runtime.full("source")
    assert runtime.pauses("source") == set(), "one of two is its share, and a worker would take more"


def test_hunger_ends_when_there_is_something_that_may_not_start_yet() -> None:
    runtime = hungry_and_full()
    [run] = runtime.engine.assignments[ORDERS].running
    runtime.engine.settling = runtime.plan.limits.settling
    assert runtime.next(run, 1, wait=False) is None
    assert not runtime.starved("source"), "hand-offs are waited for, not records"


def test_a_worker_that_only_had_to_wait_for_hand_offs_does_not_starve() -> None:
    runtime = a_real_runtime(Limits(ready=2, settling=0))
    runtime.assigned("source", [Start(OTHER, 0)])
    runtime.received("source", ORDERS, [record(0), record(1)])
    assert runtime.next(None, 1, wait=False) is None
    assert not runtime.starved("source")


def test_a_flood_of_failures_is_not_a_flood_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    member = a_member()
    for _ in range(500):
        member.broker.log(ORDERS).append()
    member.read()
    member.work(Handler(*(Reject("no") for _ in range(500))))
    assert len([m for m in caplog.messages if m.startswith("[DLT]")]) == 50
    assert len(member.writes) == 500
    assert {w.outgoing.topic for w in member.writes} == {DLT}


# -- what a handler sends --------------------------------------------------------------------------


def test_a_record_is_finished_when_all_that_its_handler_sent_is_acknowledged() -> None:
    member = a_member()
    for _ in range(2):
        member.broker.log(ORDERS).append()
    member.read()

    def handle(found: Record) -> None:
        found.send("out", {"n": found.offset}, key="k", headers=[("h", None)])
        found.send("log", "seen")

    member.work(handle)
    assert member.runtime.counters.handled == 2
    assert [c.offset for c in member.runtime.commits("source", None)] == [0]
    member.ack()
    assert [c.offset for c in member.runtime.commits("source", None)] == [1]
    member.ack()
    assert [c.offset for c in member.runtime.commits("source", None)] == [2]
    [first, _] = member.broker.log(TopicPartition("out", 0)).messages
    assert (first.key, first.value, first.own_headers) == (b"k", b'{"n":0}', [("h", None)])
    assert len(member.broker.log(TopicPartition("log", 0)).messages) == 2


def test_what_a_handler_sent_before_it_raised_is_never_written() -> None:
    member = a_member(retry=RetryPolicy.immediate(max_attempts=2, retry_on=(TransientError,)))
    member.broker.log(ORDERS).append()
    member.read()

    def handle(found: Record) -> None:
        found.send("out", f"attempt {found.attempt}")
        if found.attempt == 1:
            raise TransientError("down")

    member.work(handle)
    [write] = member.writes
    assert write.outgoing.value == b"attempt 2"
