"""The sync worker on a thread, against a real runtime: what it does with a run, a failure, a revocation."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from typing import Any

import pytest

from relance.decoding import decoder_for, handler_shape
from relance.engine.lanes import Run
from relance.engine.offset_map import mark_text
from relance.errors import Fatal, HandlerExitError, Reject, SendError, TransientError
from relance.policies.retry import RetryPolicy
from relance.record import Record, TopicPartition
from relance.workers.batch import BatchCall
from relance.workers.child import _Heir
from relance.workers.inline import InlineWorker
from relance.workers.single import SingleCall
from waiting import wait_until
from world import ORDERS, TOPIC_ID, Member, a_member, record

OTHER = TopicPartition("orders", 1)


class Bench:
    """A member whose runtime has the machine's clock and real conditions, and a worker on a thread."""

    def __init__(self, handler: Callable[..., Any], **plan: Any) -> None:
        self.member = Member.in_real_time(**plan)
        self.runtime = self.member.runtime
        shape = handler_shape(handler)
        call = SingleCall(self.runtime, handler, shape, decoder_for(shape.annotation))
        self.worker = InlineWorker(self.runtime, call)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Bench:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.runtime.drain(0.0)
        self.thread.join(5)
        assert not self.thread.is_alive()

    def give(self, *records: Record, tp: TopicPartition = ORDERS) -> None:
        self.runtime.received("source", tp, list(records))

    def base(self) -> int:
        with self.runtime._lock:
            assignment = self.runtime.engine.assignments[ORDERS]
            for run in assignment.running:
                self.runtime.engine.report(run)
            return assignment.frontier.base


def records(count: int, start: int = 0) -> list[Record]:
    return [record(start + i, value=str(start + i).encode()) for i in range(count)]


def test_records_are_handled_in_order_with_their_decoded_value() -> None:
    seen: list[int] = []

    def handler(value: int) -> None:
        seen.append(value)

    with Bench(handler) as bench:
        for start in range(0, 3000, 500):
            bench.give(*records(500, start))
        wait_until(lambda: bench.base() == 3000)
    assert seen == list(range(3000))
    assert bench.runtime.counters.handled == 3000
    assert bench.member.at_rest()


def test_a_handler_that_asks_for_the_record_gets_it() -> None:
    seen: list[tuple[dict, int]] = []

    def handler(value: dict, found: Record) -> None:
        seen.append((value, found.offset))

    with Bench(handler) as bench:
        bench.give(record(3, value=b'{"a": 1}'))
        wait_until(lambda: seen)
    assert seen == [({"a": 1}, 3)]


def test_what_does_not_decode_is_dead_lettered_without_a_retry_and_no_handler_sees_it() -> None:
    seen: list[int] = []

    def handler(value: int) -> None:
        seen.append(value)

    with Bench(handler) as bench:
        bench.give(record(0, value=b"not a number"), record(1, value=b"1"))
        wait_until(lambda: seen)
        wait_until(lambda: bench.member.writes)
        assert bench.base() == 0
        bench.member.ack()
        assert bench.base() == 2
    assert seen == [1]
    assert bench.runtime.counters.retried == 0


def test_a_retry_that_falls_due_while_all_is_idle_is_made() -> None:
    seen: list[int] = []

    def handler(value: int, found: Record) -> None:
        seen.append(found.attempt)
        if found.attempt < 3:
            raise TransientError("again")

    with Bench(handler, retry=RetryPolicy.fixed(0.01)) as bench:
        bench.give(*records(1))
        wait_until(lambda: bench.base() == 1)
    assert seen == [1, 2, 3]


def test_a_cancelled_run_ends_after_the_record_that_is_being_handled() -> None:
    entered, let_go, seen = threading.Event(), threading.Event(), []

    def handler(value: int) -> None:
        seen.append(value)
        entered.set()
        let_go.wait(5)

    with Bench(handler) as bench:
        bench.worker._max_run = 512
        bench.give(*records(5))
        assert entered.wait(5)
        revoker = threading.Thread(target=bench.runtime.revoking, args=("source", [ORDERS]))
        revoker.start()
        wait_until(lambda: bench.runtime._changed._waiters)
        let_go.set()
        revoker.join(5)
        assert bench.runtime.commits("source", [ORDERS])[0].offset == 1
    assert seen == [0]


def test_a_handler_that_hangs_holds_a_revocation_up_to_the_deadline_and_then_counts_for_nothing() -> None:
    entered, let_go, abandoned = threading.Event(), threading.Event(), []

    def handler(value: int) -> None:
        entered.set()
        let_go.wait(5)

    with Bench(handler, drain_timeout=0.05) as bench:
        bench.runtime.on_abandon = abandoned.append
        bench.give(*records(1))
        assert entered.wait(5)
        bench.runtime.revoking("source", [ORDERS])
        assert len(abandoned) == 1
        assert bench.runtime.commits("source", [ORDERS])[0].offset == 0
        bench.runtime.revoked("source", [ORDERS], lost=False)
        bench.member.assign(ORDERS)
        let_go.set()
        bench.give(*records(1))
        wait_until(lambda: bench.base() == 1)
    assert bench.runtime.counters.handled == 1


def test_a_run_of_a_partition_that_stops_ends_and_other_partitions_go_on() -> None:
    seen: list[tuple[int, int]] = []

    def handler(value: int, found: Record) -> None:
        if (found.partition, found.offset) == (0, 0):
            raise Reject("no")
        seen.append((found.partition, found.offset))

    with Bench(handler) as bench:
        bench.member.assign(OTHER)
        bench.member.refuse_at_once = True
        bench.worker._max_run = 512
        bench.give(*records(5))
        bench.give(record(0, value=b"1", tp=OTHER), tp=OTHER)
        wait_until(lambda: seen)
        assert seen == [(1, 0)]
        assert bench.runtime.pauses("source") == {ORDERS}
        bench.member.ack()
        wait_until(lambda: bench.base() == 5)
    assert seen == [(1, 0), *((0, i) for i in range(1, 5))]


def test_a_fatal_error_ends_the_work_and_the_record_stays_unfinished() -> None:
    calls: list[int] = []

    def handler(value: int) -> None:
        calls.append(value)
        raise Fatal("wrong database")

    with Bench(handler) as bench:
        bench.give(*records(5))
        wait_until(lambda: bench.member.failures)
        bench.give(*records(5, 5))
        assert bench.base() == 0
    assert calls == [0]


@pytest.mark.parametrize("count", [5, 200])  # a short run and a long one
@pytest.mark.parametrize(
    "end", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseExceptionGroup("g", [SystemExit(0)])]
)
def test_what_would_end_the_program_stops_all_and_counts_as_a_death_of_its_record(
    end: BaseException, count: int
) -> None:
    calls: list[int] = []

    def handler(value: int) -> None:
        calls.append(value)
        if value == 2:
            raise end

    with Bench(handler) as bench:
        bench.worker._max_run = 512
        bench.give(*records(count))
        [failure] = wait_until(lambda: bench.member.failures)
        assert isinstance(failure, HandlerExitError)
        assert failure.__cause__ is end
        assert "orders-0 at offset 2" in str(failure)
        assert type(end).__name__ in str(failure)
        assert failure.status == (3 if isinstance(end, SystemExit) else 1)
        assert bench.base() == 2
        assert bench.runtime.look().in_flight == 0
        assert bench.runtime.look().queued == count - 2
    assert bench.error is None
    assert calls == [0, 1, 2]
    assert bench.runtime.counters.handled == 2
    bench.member.revoke(ORDERS)
    assert mark_text(bench.member.broker.commits[ORDERS][1], TOPIC_ID) == "o2.3~2x1"


def test_a_batch_that_would_end_the_program_names_the_record_that_does_it_alone() -> None:
    calls: list[list[int]] = []

    def handler(values: list[int]) -> None:
        calls.append(values)
        if 2 in values:
            raise SystemExit

    bench = Bench(lambda value: None, batch=4)
    shape = handler_shape(handler, batch=True)
    call = BatchCall(bench.runtime, handler, shape, decoder_for(shape.annotation))
    bench.worker = InlineWorker(bench.runtime, call, fixed=4)
    with bench:
        bench.give(*records(4))
        [failure] = wait_until(lambda: bench.member.failures)
        assert "orders-0 at offset 2" in str(failure)
    assert calls[-3:] == [[0], [1], [2]]
    bench.member.revoke(ORDERS)
    assert bench.member.broker.commits[ORDERS][0] == 2
    assert mark_text(bench.member.broker.commits[ORDERS][1], TOPIC_ID) == "o2.3~2x1"


def test_a_handler_that_returns_a_coroutine_ends_the_work_and_its_record_stays_unfinished() -> None:
    async def real(value: int) -> None:
        raise AssertionError("nobody awaits it")

    with Bench(lambda value: real(value)) as bench:
        bench.give(*records(3))
        wait_until(lambda: bench.member.failures)
        assert bench.base() == 0
    [error] = bench.member.failures
    assert isinstance(error, Fatal)
    assert "functools.wraps" in str(error)


def test_so_does_one_that_takes_batches() -> None:
    async def real(values: list[int]) -> None:
        raise AssertionError("nobody awaits it")

    bench = Bench(lambda value: real(value), batch=10)
    shape = handler_shape(real, batch=True)
    bench.worker._call = BatchCall(bench.runtime, lambda values: real(values), shape, decoder_for(int))
    with bench:
        bench.give(*records(3))
        wait_until(lambda: bench.member.failures)
        assert bench.base() == 0
    assert isinstance(bench.member.failures[0], Fatal)


@pytest.mark.parametrize("at", [0, 1, 15, 16, 17, 199])
def test_a_run_that_is_cancelled_starts_no_other_record_and_counts_what_is_done(at: int) -> None:
    def handler(value: int) -> None:
        calls.append(value)
        if value == at:
            [run] = bench.runtime.engine.assignments[ORDERS].running
            run.cancel()

    calls: list[int] = []
    bench = Bench(handler)
    call = bench.worker._call
    bench.give(*records(200))
    run = bench.runtime.next(None, 512, wait=False)
    assert run is not None
    assert call.handle(run, float("inf"))
    assert (calls, run.done) == (list(range(at + 1)), at + 1)


def test_a_run_that_was_cancelled_before_it_began_starts_nothing() -> None:
    bench = Bench(lambda value: pytest.fail(f"{value} was handled"))
    bench.give(*records(200))
    run = bench.runtime.next(None, 512, wait=False)
    assert run is not None
    run.cancel()
    assert bench.worker._call.handle(run, float("inf"))
    assert run.done == 0


@pytest.mark.parametrize("count", [5, 200])  # a short run and a long one
@pytest.mark.parametrize("bad", [{0}, {1, 2}, {3, 4}])
def test_letters_and_sends_in_the_middle_of_a_run_hold_back_their_own_offsets_only(
    count: int, bad: set[int]
) -> None:
    def handler(value: int, found: Record) -> None:
        if value % 5 in bad:
            if value % 2:
                raise Reject("no")
            found.send("elsewhere", b"x")

    with Bench(handler) as bench:
        bench.give(*records(count))
        wait_until(lambda: len(bench.member.writes) == count // 5 * len(bad))
        wait_until(lambda: bench.runtime.look().in_flight == 0)
        frontier = bench.runtime.engine.assignments[ORDERS].frontier
        assert frontier.unfinished() == [i for i in range(count) if i % 5 in bad]


@pytest.mark.parametrize(("length", "handled"), [(50, 1), (100, 16)])
def test_a_handler_that_has_become_slow_does_not_hold_up_other_lanes_for_a_whole_run(
    monkeypatch: pytest.MonkeyPatch, length: int, handled: int
) -> None:
    seen: list[bytes | None] = []
    now = 0.0

    def handler(value: int, found: Record) -> None:
        nonlocal now
        now += 1.0  # seconds
        seen.append(found.key)

    monkeypatch.setattr("relance.workers.inline.time.perf_counter", lambda: now)
    bench = Bench(handler, ordering="key")
    bench.worker._max_run = 512  # it was fast until now
    bench.give(*(record(i, b"a", b"1") for i in range(length)), record(length, b"b", b"1"))
    with bench:
        wait_until(lambda: bench.base() == length + 1)
    assert seen[: handled + 2] == [b"a"] * handled + [b"b", b"a"]


def test_runs_grow_while_records_are_quick_and_shrink_when_they_are_not() -> None:
    def handler(value: int) -> None:
        pass

    bench = Bench(handler)
    sizes: list[int] = []
    real_next = bench.runtime.next

    def spy(done: Run | None, max_run: int, *, wait: bool) -> Run | None:
        run = real_next(done, max_run, wait=wait)
        if run is not None:
            sizes.append(len(run.records))
        return run

    bench.runtime.next = spy  # type: ignore[method-assign]
    bench.give(*records(2000))
    with bench:
        wait_until(lambda: bench.base() == 2000)
    assert sizes[0] == 1
    assert max(sizes) > 16


def test_many_threads_that_feed_and_acknowledge_lose_no_wakeup() -> None:
    """Four pollers' worth of partitions, some records rejected, hand-offs acknowledged from elsewhere."""
    tps = [TopicPartition("orders", i) for i in range(4)]
    count = 400
    handled: list[tuple[int, int]] = []

    def handler(value: int, found: Record) -> None:
        if value % 10 == 3:
            raise Reject("no")
        if value % 10 == 7 and found.attempt == 1:
            raise TransientError("again")
        handled.append((found.partition, found.offset))

    def feed(bench: Bench, tp: TopicPartition) -> None:
        for i in range(count):
            bench.give(record(i, str(i % 7).encode(), str(i).encode(), tp), tp=tp)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with Bench(handler, ordering="key", retry=RetryPolicy.fixed(0.001)) as bench:
            bench.member.assign(*tps)
            bench.member.ack_from_elsewhere()
            feeders = [threading.Thread(target=feed, args=(bench, tp)) for tp in tps]
            for feeder in feeders:
                feeder.start()
            for feeder in feeders:
                feeder.join()
            wait_until(
                lambda: (
                    all(bench.runtime.engine.assignments[tp].frontier.base == count for tp in tps)
                    or [bench.runtime.commits("source", None)] == 0
                ),
                message=lambda: f"{bench.runtime.look()}",
            )
            assert bench.member.at_rest()
    finally:
        sys.setswitchinterval(interval)
    assert len(handled) == len(set(handled)) == 4 * count * 9 // 10
    for tp in tps:
        for key in range(7):
            mine = [o for p, o in handled if p == tp.partition and o % 7 == key]
            assert mine == sorted(mine)


def test_what_a_handler_sends_is_handed_over_when_it_returns() -> None:
    def handle(value: dict, found: Record) -> None:  # type: ignore[type-arg]
        found.send("out", value)

    with Bench(handle) as bench:
        bench.give(record(0, value=b'{"n":1}'))
        wait_until(lambda: bench.member.writes)
        assert bench.member.writes[0].outgoing.value == b'{"n":1}'
        assert bench.base() == 0
        bench.member.ack()
        assert bench.base() == 1


@pytest.mark.parametrize("count", [2, 200])  # a short run and a long one
def test_what_is_sent_after_the_handler_has_ended_is_refused_where_it_is_sent(count: int) -> None:
    kept: list[Record] = []

    def handle(value: int, found: Record) -> None:
        kept.append(found)
        if value == 1 and found.attempt == 1:
            raise TransientError("again")

    with Bench(handle, retry=RetryPolicy.fixed(30.0), ordering="key") as bench:
        bench.worker._max_run = 512
        bench.give(*records(count))
        wait_until(lambda: bench.runtime.look().waiting == 1)
        for found in kept:
            with pytest.raises(SendError, match="after the record's handler has ended") as refused:
                found.send("out", b"late")
            assert not refused.value.maybe_written
            assert f"offset {found.offset}" in str(refused.value)
    assert bench.member.writes == []


@pytest.mark.parametrize("in_worker_process", [False, True])
def test_a_send_in_a_process_that_the_handler_has_forked_says_who_must_send(in_worker_process: bool) -> None:
    member = a_member()
    member.broker.log(ORDERS).append()
    member.read()
    run = member.take(1)
    assert run is not None
    [found] = run.run.records
    found.send("out", b"the parent's")
    if in_worker_process:
        heir = _Heir(Pipe()[0])
        heir.record = found
        kept = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
        heir.forget()
        for number, handler in kept:
            signal.signal(number, handler)
    else:
        member.runtime.forget()
    with pytest.raises(SendError) as refused:
        found.send("out", b"the child's")
    assert str(refused.value).startswith(
        "orders-0 at offset 0: record.send to out in a process that was forked from the one that handles the"
        " record, which must send"
    )
    assert not refused.value.maybe_written


def test_a_record_that_is_tried_again_may_send_again() -> None:
    def handle(value: int, found: Record) -> None:
        found.send("out", b"%d" % found.attempt)
        if found.attempt == 1:
            raise TransientError("again")

    with Bench(handle, retry=RetryPolicy.fixed(0.01)) as bench:
        bench.give(*records(1))
        [write] = wait_until(lambda: bench.member.writes)
        assert write.outgoing.value == b"2"


def test_each_send_of_a_thread_that_races_with_the_return_is_written_or_refused() -> None:
    accepted: dict[int, int] = {}
    threads: list[threading.Thread] = []

    def handle(value: int, found: Record) -> None:
        def send() -> None:
            accepted[value] = 0
            try:
                while True:
                    found.send("out", b"x")
                    accepted[value] += 1
            except SendError:
                return

        threads.append(threading.Thread(target=send))
        threads[-1].start()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Bench(handle) as bench:
            bench.give(*records(200))
            wait_until(lambda: bench.runtime.counters.handled == 200)
            for thread in threads:
                thread.join(5)
            written = {write.offset: len(write.all_outgoing) for write in bench.member.writes}
    finally:
        sys.setswitchinterval(interval)
    assert written == {value: count for value, count in accepted.items() if count}


def test_what_is_sent_after_a_batch_is_refused() -> None:
    kept: list[Record] = []

    def handle(values: list[int], found: list[Record]) -> None:
        kept.extend(found)

    bench = Bench(lambda value: None, batch=4)
    shape = handler_shape(handle, batch=True)
    call = BatchCall(bench.runtime, handle, shape, decoder_for(shape.annotation))
    bench.worker = InlineWorker(bench.runtime, call, fixed=4)
    with bench:
        bench.give(*records(3))
        wait_until(lambda: bench.runtime.counters.handled == 3)
        for found in kept:
            with pytest.raises(SendError):
                found.send("out", b"late")


def test_a_handler_that_returns_a_generator_has_done_nothing_and_is_told() -> None:
    def steps() -> Any:
        yield 1

    with Bench(lambda value: steps()) as bench:
        bench.give(*records(1))
        [failure] = wait_until(lambda: bench.member.failures)
    assert isinstance(failure, Fatal)
    assert "generator" in str(failure)
